//! Runs of events in the forms that go over the wire, encoded once for everyone who reads them at
//! about the same time.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::fanout::Item;
use crate::model::event::Events;
use crate::model::{Cursor, Epoch, EventRecord, Offset};
use crate::store::StoreError;

/// Runs kept, of all streams together.
const MOST_RUNS: usize = 64;
/// Bytes of the events in them.
const MOST_BYTES: usize = 8 << 20;

/// How events look on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A frame of `walmill.v1.json`, with stream and cursor.
    Walmill,
    /// The CloudEvent as it is, a frame each.
    CloudEvents,
    /// The CloudEvent as it is, for those who make something else of it.
    Bare,
    /// An event of SSE, its cursor as the id.
    Sse,
}

/// A run of events in one form, as it goes into sockets: texts of a WebSocket have their frame's
/// header.
#[derive(Debug)]
pub(super) struct Run {
    bytes: Bytes,
    marks: Vec<Mark>,
}

/// One event in a run.
#[derive(Debug, Clone, Copy)]
struct Mark {
    offset: Offset,
    end: usize,
}

/// Events of a run that one reader is sent.
#[derive(Debug)]
pub(super) struct Part<'a> {
    run: &'a Run,
    /// All of them, one behind the other.
    pub(super) bytes: &'a [u8],
    marks: &'a [Mark],
    /// Where `bytes` begins in the run.
    start: usize,
}

/// Runs that follow each other, and what of them one reader is sent together.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) runs: &'a [Arc<Run>],
    pub(super) after: Offset,
    pub(super) room: usize,
}

impl Run {
    /// Of events that were encoded one by one.
    pub(super) fn of(items: Vec<Item>) -> Self {
        let mut end = 0;
        let marks = items.iter().map(|item| {
            end += item.bytes.len();
            Mark { offset: item.offset, end }
        });
        let marks = marks.collect();
        let bytes = match <[Item; 1]>::try_from(items) {
            Ok([item]) => item.bytes,
            Err(items) => {
                let mut bytes = Vec::with_capacity(end);
                items.iter().for_each(|item| bytes.extend_from_slice(&item.bytes));
                bytes.into()
            }
        };
        Self { bytes, marks }
    }

    /// The events behind `after`, and no more than `room` of them.
    pub(super) fn after(&self, after: Offset, room: usize) -> Part<'_> {
        let first = self.marks.partition_point(|mark| mark.offset <= after);
        let marks = &self.marks[first..self.marks.len().min(first.saturating_add(room))];
        let start = first.checked_sub(1).map_or(0, |before| self.marks[before].end);
        let end = marks.last().map_or(start, |mark| mark.end);
        Part { run: self, bytes: &self.bytes[start..end], marks, start }
    }

    /// Offset of the last event.
    pub(super) fn last(&self) -> Option<Offset> {
        self.marks.last().map(|mark| mark.offset)
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    /// Bytes of all of them.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> Part<'a> {
    /// The bytes, sharing the run's memory.
    pub(super) fn to_bytes(&self) -> Bytes {
        self.run.bytes.slice_ref(self.bytes)
    }

    /// Each event's place, and its bytes, sharing the run's memory.
    pub(super) fn texts(&self) -> (Vec<Offset>, Vec<Bytes>) {
        let mut start = self.start;
        let text = |mark: &Mark| {
            let text = self.run.bytes.slice(start..mark.end);
            start = mark.end;
            (mark.offset, text)
        };
        self.marks.iter().map(text).unzip()
    }

    /// The events that have begun within the first `written` bytes, and what is missing of the
    /// last of them.
    fn begun(&self, written: usize) -> (&'a [Mark], &'a [u8]) {
        let begun = match written {
            0 => 0,
            // One ends where the next begins, so those that end before this, and one more.
            _ => self.marks.partition_point(|mark| mark.end - self.start < written) + 1,
        };
        let end = begun.checked_sub(1).map_or(0, |last| self.marks[last].end - self.start);
        (&self.marks[..begun], &self.bytes[written..end])
    }

    /// Offset of the last event.
    pub(super) fn last(&self) -> Option<Offset> {
        self.marks.last().map(|mark| mark.offset)
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }
}

impl<'a> Parts<'a> {
    fn iter(&self) -> impl Iterator<Item = Part<'a>> {
        self.runs.iter().scan(self.room, |room, run| {
            let part = run.after(self.after, *room);
            *room -= part.len();
            Some(part)
        })
    }

    /// Puts what lies behind the first `written` bytes into slices: how many there are.
    pub(super) fn slices(&self, mut written: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let rest = self.iter().filter_map(|part| {
            let skipped = written.min(part.bytes.len());
            written -= skipped;
            let rest = &part.bytes[skipped..];
            (!rest.is_empty()).then_some(rest)
        });
        let filled = slices.iter_mut().zip(rest).map(|(slice, rest)| *slice = IoSlice::new(rest));
        filled.count()
    }

    /// Tells each event that has begun within the first `written` bytes: what is missing of the
    /// last of them.
    pub(super) fn begun(&self, mut written: usize, mut each: impl FnMut(Offset)) -> Bytes {
        for part in self.iter() {
            let of_this = written.min(part.bytes.len());
            written -= of_this;
            let (begun, missing) = part.begun(of_this);
            begun.iter().for_each(|mark| each(mark.offset));
            if !missing.is_empty() {
                return part.run.bytes.slice_ref(missing);
            }
        }
        Bytes::new()
    }
}

/// The runs that were encoded last.
#[derive(Default)]
pub(super) struct Runs {
    recent: Mutex<VecDeque<Arc<Slot>>>,
}

/// One run that someone asked for. Whoever comes first encodes it, the others wait for that.
struct Slot {
    form: Form,
    stream: Box<str>,
    first: Offset,
    last: Offset,
    size: usize,
    run: OnceLock<Option<Arc<Run>>>,
}

impl Runs {
    /// This run in this form.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if its bytes are not what was written.
    pub(super) fn encoded(
        &self,
        form: Form,
        stream: &str,
        epoch: Epoch,
        events: &Events,
    ) -> Result<Arc<Run>, StoreError> {
        let slot = self.slot(form, stream, events);
        // Outside the lock, so that only those who need this very run wait for it.
        let run = slot.run.get_or_init(|| encode(form, stream, epoch, events).map(Arc::new));
        run.clone().ok_or_else(|| StoreError::Damaged { what: format!("a run of stream {stream}") })
    }

    fn slot(&self, form: Form, stream: &str, events: &Events) -> Arc<Slot> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |slot: &&Arc<Slot>| {
            (slot.first, slot.last, slot.form) == (events.first, events.last, form)
                && *slot.stream == *stream
        };
        // The newest are asked for most, and stand in front.
        if let Some(slot) = recent.iter().find(wanted) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot {
            form,
            stream: stream.into(),
            first: events.first,
            last: events.last,
            size: events.bytes.len(),
            run: OnceLock::new(),
        });
        recent.push_front(Arc::clone(&slot));
        trim(&mut recent);
        slot
    }
}

/// Lets go of the oldest until the rest is within bounds; the newest stays, whatever its size.
fn trim(recent: &mut VecDeque<Arc<Slot>>) {
    let mut bytes = 0;
    let fits = recent.iter().take(MOST_RUNS).take_while(|slot| {
        bytes += slot.size;
        bytes <= MOST_BYTES
    });
    let keep = fits.count().max(1);
    recent.truncate(keep);
}

/// `None` where the bytes are no whole run of UTF-8 texts.
fn encode(form: Form, stream: &str, epoch: Epoch, events: &Events) -> Option<Run> {
    let writer = Writer::new(form, stream, epoch);
    let count = events.count as usize;
    let mut bytes = Vec::with_capacity(events.bytes.len() + count * writer.around());
    let mut marks = Vec::with_capacity(count);
    for EventRecord { offset, json, .. } in events.after(Offset::START) {
        writer.write(&mut bytes, offset, std::str::from_utf8(&json).ok()?);
        marks.push(Mark { offset, end: bytes.len() });
    }
    (marks.len() == count).then(|| Run { bytes: bytes.into(), marks })
}

/// One event by itself; `None` where it is no UTF-8 text.
pub(super) fn encode_one(
    form: Form,
    stream: &str,
    epoch: Epoch,
    offset: Offset,
    json: &[u8],
) -> Option<Bytes> {
    let writer = Writer::new(form, stream, epoch);
    let mut bytes = Vec::with_capacity(json.len() + writer.around());
    writer.write(&mut bytes, offset, std::str::from_utf8(json).ok()?);
    Some(bytes.into())
}

/// The longest header of a frame from a server.
const MAX_HEADER: usize = 10;
/// The first byte of a frame that is a whole text.
const TEXT: u8 = 0x81;

/// Writes events in one form: `before cursor between json behind`.
struct Writer {
    epoch: Epoch,
    /// Each is a WebSocket's frame.
    frames: bool,
    /// Nothing where the cursor is not told.
    before: Option<String>,
    between: &'static str,
    behind: &'static str,
}

impl Writer {
    fn new(form: Form, stream: &str, epoch: Epoch) -> Self {
        let frames = matches!(form, Form::Walmill | Form::CloudEvents);
        let (before, between, behind) = match form {
            Form::Walmill => {
                let name = serde_json::Value::from(stream);
                let before = format!(r#"{{"type":"event","stream":{name},"cursor":""#);
                (Some(before), r#"","event":"#, "}")
            }
            Form::Sse => (Some("id: ".to_owned()), "\ndata: ", "\n\n"),
            Form::CloudEvents | Form::Bare => (None, "", ""),
        };
        Self { epoch, frames, before, between, behind }
    }

    /// Bytes that an event has at most, besides its JSON.
    fn around(&self) -> usize {
        MAX_HEADER + self.text_len(0)
    }

    fn text_len(&self, json: usize) -> usize {
        let before = self.before.as_ref().map_or(0, |before| before.len() + Cursor::LEN);
        before + self.between.len() + json + self.behind.len()
    }

    fn write(&self, out: &mut Vec<u8>, offset: Offset, json: &str) {
        if self.frames {
            write_header(out, self.text_len(json.len()));
        }
        if let Some(before) = &self.before {
            out.extend_from_slice(before.as_bytes());
            out.extend_from_slice(&Cursor { epoch: self.epoch, offset }.to_text());
        }
        out.extend_from_slice(self.between.as_bytes());
        out.extend_from_slice(json.as_bytes());
        out.extend_from_slice(self.behind.as_bytes());
    }
}

fn write_header(out: &mut Vec<u8>, len: usize) {
    out.push(TEXT);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ ..126), _) => out.push(len),
        (_, Ok(len)) => {
            out.push(126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventsBuilder, Lsn};

    const EPOCH: Epoch = Epoch(7);

    fn events(commit: u64, texts: &[&[u8]]) -> Events {
        let mut builder = EventsBuilder::default();
        for (ordinal, text) in (0..).zip(texts) {
            let offset = Offset::new(Lsn(commit), ordinal);
            builder.push(offset, |key| key.extend(b"k"), |json| json.extend_from_slice(text));
        }
        builder.finish()
    }

    fn cursor(commit: u64, ordinal: u32) -> String {
        Cursor { epoch: EPOCH, offset: Offset::new(Lsn(commit), ordinal) }.to_string()
    }

    fn text(run: &Run, after: Offset, room: usize) -> String {
        std::str::from_utf8(run.after(after, room).bytes).unwrap().to_owned()
    }

    #[test]
    fn each_form_shows_stream_and_cursor_in_its_own_way() {
        let runs = Runs::default();
        let events = events(5, &[br#"{"n":1}"#, br#"{"n":2}"#]);
        let second = |form| {
            let run = runs.encoded(form, "a\"b", EPOCH, &events).unwrap();
            let one = Offset::new(Lsn(5), 0);
            let bytes = run.after(one, 9).to_bytes();
            let same = encode_one(form, "a\"b", EPOCH, Offset::new(Lsn(5), 1), br#"{"n":2}"#);
            assert_eq!(same.unwrap(), bytes);
            bytes
        };
        let two = cursor(5, 1);
        let text =
            format!(r#"{{"type":"event","stream":"a\"b","cursor":"{two}","event":{{"n":2}}}}"#);
        let header = [TEXT, u8::try_from(text.len()).unwrap()];
        assert_eq!(second(Form::Walmill), [&header, text.as_bytes()].concat());
        assert_eq!(second(Form::CloudEvents), b"\x81\x07{\"n\":2}".as_slice());
        assert_eq!(second(Form::Sse), format!("id: {two}\ndata: {{\"n\":2}}\n\n"));
    }

    #[test]
    fn a_frame_s_length_is_written_in_the_shortest_way() {
        let header = |len| {
            let mut out = Vec::new();
            write_header(&mut out, len);
            out
        };
        assert_eq!(header(125), [TEXT, 125]);
        assert_eq!(header(126), [TEXT, 126, 0, 126]);
        assert_eq!(header(65_535), [TEXT, 126, 255, 255]);
        assert_eq!(header(65_536), [TEXT, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_reader_in_the_middle_gets_the_rest_of_the_run_as_far_as_it_has_room() {
        let runs = Runs::default();
        let run = runs.encoded(Form::Sse, "s", EPOCH, &events(5, &[b"1", b"2", b"3"])).unwrap();
        let last = format!("id: {}\ndata: 3\n\n", cursor(5, 2));
        assert_eq!(text(&run, Offset::new(Lsn(5), 1), 9), last);
        let second = format!("id: {}\ndata: 2\n\n", cursor(5, 1));
        assert_eq!(text(&run, Offset::new(Lsn(5), 0), 1), second);
        assert_eq!(text(&run, Offset::START, 9).len(), 3 * last.len());
        assert_eq!(run.after(Offset::end_of(Lsn(5)), 9).len(), 0);
        assert_eq!(text(&run, Offset::end_of(Lsn(5)), 9), "");
    }

    #[test]
    fn what_is_cut_off_in_the_middle_of_an_event_is_known() {
        let run = |events: &[(u32, &'static str)]| {
            let item = |&(ordinal, text): &(u32, &'static str)| Item {
                offset: Offset::new(Lsn(5), ordinal),
                bytes: Bytes::from_static(text.as_bytes()),
            };
            Arc::new(Run::of(events.iter().map(item).collect()))
        };
        let runs = [run(&[(0, "aaaa"), (1, "bb")]), run(&[(2, "ccc")]), run(&[(3, "d"), (4, "e")])];
        let check = |room, written| {
            let parts = Parts { runs: &runs, after: Offset::new(Lsn(5), 0), room };
            let mut begun = 0;
            let missing = parts.begun(written, |_| begun += 1);
            let mut slices = [IoSlice::new(b""); 3];
            let count = parts.slices(written, &mut slices);
            let rest: Vec<u8> =
                slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            (begun, text_of(&missing), text_of(&rest))
        };
        let some = |begun, missing: &str, rest: &str| (begun, missing.into(), rest.into());
        assert_eq!(check(9, 0), some(0, "", "bbcccde"));
        assert_eq!(check(9, 1), some(1, "b", "bcccde"));
        assert_eq!(check(9, 2), some(1, "", "cccde"));
        assert_eq!(check(9, 3), some(2, "cc", "ccde"));
        assert_eq!(check(9, 5), some(2, "", "de"));
        assert_eq!(check(9, 7), some(4, "", ""));
        assert_eq!(check(3, 1), some(1, "b", "bcccd"));
        assert_eq!(check(1, 2), some(1, "", ""));
    }

    fn text_of(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_run_is_encoded_once_for_all_who_read_it() {
        let runs = Runs::default();
        let events = events(5, &[b"1"]);
        let get = |form, stream| runs.encoded(form, stream, EPOCH, &events).unwrap();
        assert!(Arc::ptr_eq(&get(Form::Sse, "s"), &get(Form::Sse, "s")));
        assert!(!Arc::ptr_eq(&get(Form::Sse, "s"), &get(Form::Sse, "t")));
        assert!(!Arc::ptr_eq(&get(Form::Sse, "s"), &get(Form::Walmill, "s")));
    }

    #[test]
    fn old_runs_make_room_for_new_ones() {
        let runs = Runs::default();
        let large = vec![b'1'; MOST_BYTES / 2 + 1];
        for commit in 1..=3 {
            runs.encoded(Form::Sse, "s", EPOCH, &events(commit, &[large.as_slice()])).unwrap();
        }
        assert_eq!(runs.recent.lock().unwrap().len(), 1);
        for commit in 10..200 {
            runs.encoded(Form::Sse, "s", EPOCH, &events(commit, &[b"1"])).unwrap();
        }
        assert_eq!(runs.recent.lock().unwrap().len(), MOST_RUNS);
    }

    #[test]
    fn a_run_that_is_cut_or_no_text_is_an_error() {
        let runs = Runs::default();
        let mut cut = events(5, &[b"1", b"2"]);
        cut.bytes.truncate(cut.bytes.len() - 1);
        assert!(runs.encoded(Form::Sse, "s", EPOCH, &cut).is_err());
        assert!(runs.encoded(Form::CloudEvents, "s", EPOCH, &events(6, &[b"\xFF"])).is_err());
    }
}
