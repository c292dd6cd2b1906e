//! Runs of events in the forms that go over the wire, encoded once for everyone who reads them at
//! about the same time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::extract::ws::Utf8Bytes;
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
    /// The CloudEvent as it is.
    CloudEvents,
    /// An event of SSE, its cursor as the id.
    Sse,
}

/// A run of events in one form.
#[derive(Debug)]
pub(super) struct Run {
    /// All of them, one behind the other.
    bytes: Bytes,
    frames: Vec<Frame>,
}

/// One event, a view into its run.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) offset: Offset,
    start: usize,
    pub(super) text: Utf8Bytes,
}

impl Run {
    /// Of events that were encoded one by one.
    pub(super) fn of(items: Vec<Item>) -> Self {
        let mut bytes = Vec::with_capacity(items.iter().map(|item| item.text.len()).sum());
        let mut frames = Vec::with_capacity(items.len());
        for Item { offset, text } in items {
            let start = bytes.len();
            bytes.extend_from_slice(text.as_bytes());
            frames.push(Frame { offset, start, text });
        }
        Self { bytes: bytes.into(), frames }
    }

    /// The events behind `after`.
    pub(super) fn after(&self, after: Offset) -> &[Frame] {
        &self.frames[self.first_after(after)..]
    }

    /// The events behind `after` as one piece, and how many they are.
    pub(super) fn bytes_after(&self, after: Offset) -> (Bytes, usize) {
        let first = self.first_after(after);
        let start = self.frames.get(first).map_or(self.bytes.len(), |frame| frame.start);
        (self.bytes.slice(start..), self.frames.len() - first)
    }

    /// Offset of the last event.
    pub(super) fn last(&self) -> Option<Offset> {
        self.frames.last().map(|frame| frame.offset)
    }

    fn first_after(&self, after: Offset) -> usize {
        self.frames.partition_point(|frame| frame.offset <= after)
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
    match form {
        Form::Walmill => {
            let name = serde_json::to_string(stream).ok()?;
            let head = format!(r#"{{"type":"event","stream":{name},"cursor":""#);
            framed(epoch, events, [head.as_bytes(), br#"","event":"#, b"}"])
        }
        Form::Sse => framed(epoch, events, [b"id: ", b"\ndata: ", b"\n\n"]),
        Form::CloudEvents => as_they_are(events),
    }
}

/// One event by itself; `None` where it is no UTF-8 text.
pub(super) fn encode_one(
    form: Form,
    stream: &str,
    epoch: Epoch,
    offset: Offset,
    json: Bytes,
) -> Option<Utf8Bytes> {
    let cursor = Cursor { epoch, offset };
    let text = match form {
        Form::CloudEvents => return Utf8Bytes::try_from(json).ok(),
        Form::Walmill => {
            let name = serde_json::to_string(stream).ok()?;
            let event = std::str::from_utf8(&json).ok()?;
            format!(r#"{{"type":"event","stream":{name},"cursor":"{cursor}","event":{event}}}"#)
        }
        Form::Sse => format!("id: {cursor}\ndata: {}\n\n", std::str::from_utf8(&json).ok()?),
    };
    Some(text.into())
}

/// Each event as `before cursor between json behind`.
fn framed(epoch: Epoch, events: &Events, parts: [&[u8]; 3]) -> Option<Run> {
    use std::io::Write as _;
    let [before, between, behind] = parts;
    let around = before.len() + between.len() + behind.len();
    let mut bytes = Vec::with_capacity(events.bytes.len() + events.count as usize * (around + 28));
    let mut marks = Vec::with_capacity(events.count as usize);
    for EventRecord { offset, json, .. } in events.after(Offset::START) {
        marks.push((offset, bytes.len()));
        bytes.extend_from_slice(before);
        write!(bytes, "{}", Cursor { epoch, offset }).ok()?;
        bytes.extend_from_slice(between);
        bytes.extend_from_slice(&json);
        bytes.extend_from_slice(behind);
    }
    let bytes = Bytes::from(bytes);
    let ends = marks.iter().skip(1).map(|(_, start)| *start).chain([bytes.len()]);
    let frames = marks.iter().zip(ends).map(|(&(offset, start), end)| {
        let text = Utf8Bytes::try_from(bytes.slice(start..end)).ok()?;
        Some(Frame { offset, start, text })
    });
    let frames = frames.collect::<Option<Vec<Frame>>>()?;
    whole(Run { bytes, frames }, events)
}

/// The texts as they lie in the store's own buffer.
fn as_they_are(events: &Events) -> Option<Run> {
    let frames = events.after(Offset::START).map(|EventRecord { offset, json, .. }| {
        Some(Frame { offset, start: 0, text: Utf8Bytes::try_from(json).ok()? })
    });
    let frames = frames.collect::<Option<Vec<Frame>>>()?;
    whole(Run { bytes: Bytes::new(), frames }, events)
}

/// The run, if none of its events is missing.
fn whole(run: Run, events: &Events) -> Option<Run> {
    (run.frames.len() == events.count as usize).then_some(run)
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

    #[test]
    fn each_form_shows_stream_and_cursor_in_its_own_way() {
        let runs = Runs::default();
        let events = events(5, &[br#"{"n":1}"#, br#"{"n":2}"#]);
        let texts = |form| -> Vec<String> {
            let run = runs.encoded(form, "a\"b", EPOCH, &events).unwrap();
            run.after(Offset::START).iter().map(|frame| frame.text.to_string()).collect()
        };
        let (one, two) = (cursor(5, 0), cursor(5, 1));
        assert_eq!(
            texts(Form::Walmill)[1],
            format!(r#"{{"type":"event","stream":"a\"b","cursor":"{two}","event":{{"n":2}}}}"#)
        );
        assert_eq!(texts(Form::CloudEvents), [r#"{"n":1}"#, r#"{"n":2}"#]);
        assert_eq!(texts(Form::Sse)[0], format!("id: {one}\ndata: {{\"n\":1}}\n\n"));
    }

    #[test]
    fn a_reader_in_the_middle_gets_the_rest_of_the_run() {
        let runs = Runs::default();
        let run = runs.encoded(Form::Sse, "s", EPOCH, &events(5, &[b"1", b"2", b"3"])).unwrap();
        let (bytes, count) = run.bytes_after(Offset::new(Lsn(5), 1));
        assert_eq!(count, 1);
        assert_eq!(bytes, format!("id: {}\ndata: 3\n\n", cursor(5, 2)));
        assert_eq!(run.bytes_after(Offset::end_of(Lsn(5))), (Bytes::new(), 0));
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
