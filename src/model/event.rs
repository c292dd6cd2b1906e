//! Encoded events: a run of them is one value in the store and one buffer that every reader shares.

use bytes::{BufMut as _, Bytes};
use memchr::memmem;

use super::{EventId, Lsn, Offset, clock};

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// A new row.
    Insert,
    /// A changed row.
    Update,
    /// A row that is gone.
    Delete,
    /// All rows of a table are gone.
    Truncate,
    /// `pg_logical_emit_message`, no row at all.
    Message,
    /// A row that was there before the slot.
    Snapshot,
    /// A table's definition changed, no row at all.
    Schema,
    /// Changes are lost here, no row at all.
    Gap,
}

impl Op {
    /// Whether it is about everything before it, not about one row: nothing may go past it.
    #[must_use]
    pub fn is_barrier(self) -> bool {
        matches!(self, Self::Truncate | Self::Schema | Self::Gap)
    }

    /// The word for it in events: `insert`, `update`, …
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::Message => "message",
            Self::Snapshot => "snapshot",
            Self::Schema => "schema.changed",
            Self::Gap => "gap",
        }
    }
}

/// One event, a view into a shared run of encoded events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// Its place, and so its id, unless it [came again](Offset::is_again).
    pub offset: Offset,
    /// `schema.table/key`, and behind a [`KEY_END`] the row's old key, where an update changed it.
    /// A [`KEY_END`] that nothing follows says that the event is about no single row: see
    /// [`EventRecord::order`].
    pub key: Bytes,
    /// The CloudEvent, as JSON without line breaks, UTF-8.
    pub json: Bytes,
}

/// Which events of its stream an event keeps its order with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order<'a> {
    /// Those of its key.
    Key(&'a [u8]),
    /// Those of both: an update changed the key.
    Keys {
        /// The row's key as it is now.
        new: &'a [u8],
        /// Its key before.
        old: &'a [u8],
    },
    /// All of them, a barrier: what it says is about every row before it (they are gone, or of
    /// another definition, or some are missing), and none behind it.
    All,
}

/// Behind an event's key where more is to be said than the key; in no key, since PostgreSQL has no
/// NUL in names, and keys have it percent-encoded.
pub const KEY_END: u8 = 0;

/// What stands before an event's id.
const ID: &[u8] = b",\"id\":\"";
/// What stands before an event's time.
const TIME: &[u8] = b",\"time\":\"";
/// What an event has that comes again.
pub const REPLAYED: &[u8] = b",\"replayed\":true";
/// What stands before an event's data. No text before it can hold this: a quote is escaped there.
const DATA: &[u8] = b",\"data\":";

/// Fixed part of an encoded record: offset, key length, JSON length.
const HEADER: usize = Offset::LEN + 4 + 4;

impl EventRecord {
    /// Its id: its place or, where it came again, the one that is written in it.
    #[must_use]
    pub fn id(&self) -> EventId {
        let written = || {
            let (_, rest) = self.json.split_at(memmem::find(&self.json, ID)? + ID.len());
            let id = rest.get(..memchr::memchr(b'"', rest)?)?;
            std::str::from_utf8(id).ok()?.parse().ok()
        };
        let other = if self.offset.is_again() { written() } else { None };
        other.unwrap_or(EventId(self.offset))
    }

    /// The same event, saying that it comes again: `"replayed":true`.
    #[must_use]
    pub fn replayed(&self) -> Self {
        if self.is_replayed() {
            return self.clone();
        }
        let (head, data) = self.json.split_at(self.head());
        Self { json: [head, REPLAYED, data].concat().into(), ..self.clone() }
    }

    /// Whether it says that it comes again.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        memmem::find(&self.json[..self.head()], REPLAYED).is_some()
    }

    /// When its transaction committed, microseconds since 1970-01-01 UTC, if it says so.
    #[must_use]
    pub fn time(&self) -> Option<i64> {
        let head = &self.json[..self.head()];
        let text = &head[memmem::find(head, TIME)? + TIME.len()..];
        clock::parse(std::str::from_utf8(text.get(..memchr::memchr(b'"', text)?)?).ok()?)
    }

    /// Where its attributes end.
    fn head(&self) -> usize {
        memmem::find(&self.json, DATA).unwrap_or(self.json.len().saturating_sub(1))
    }

    /// Which events of its stream it keeps its order with.
    #[must_use]
    pub fn order(&self) -> Order<'_> {
        match memchr::memchr(KEY_END, &self.key) {
            None => Order::Key(&self.key),
            Some(at) if at + 1 == self.key.len() => Order::All,
            Some(at) => Order::Keys { new: &self.key[..at], old: &self.key[at + 1..] },
        }
    }

    /// Takes the next record off the front of `events`; `None` at the end, and where the bytes are
    /// no whole record (a store that was tampered with: readers stop there and say so).
    pub fn take(events: &mut Bytes) -> Option<Self> {
        if events.len() < HEADER {
            return None;
        }
        let word = |at: usize| {
            u32::from_be_bytes([events[at], events[at + 1], events[at + 2], events[at + 3]])
                as usize
        };
        let offset = Offset::from_bytes(&events[..Offset::LEN])?;
        let (key_len, json_len) = (word(Offset::LEN), word(Offset::LEN + 4));
        let total = HEADER.checked_add(key_len)?.checked_add(json_len)?;
        if events.len() < total {
            return None;
        }
        let record = events.split_to(total);
        let key = record.slice(HEADER..HEADER + key_len);
        let json = record.slice(HEADER + key_len..);
        Some(Self { offset, key, json })
    }
}

/// Puts events together into one run, in the order of their offsets.
#[derive(Debug, Default)]
pub struct EventsBuilder {
    bytes: Vec<u8>,
    first: Offset,
    last: Offset,
    count: u32,
    latest: Option<i64>,
}

impl EventsBuilder {
    /// One that has room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Appends an event whose key and JSON are written in place by the two functions, so that
    /// nothing is copied.
    pub fn push(
        &mut self,
        offset: Offset,
        key: impl FnOnce(&mut Vec<u8>),
        json: impl FnOnce(&mut Vec<u8>),
    ) {
        let header = self.bytes.len();
        self.bytes.put_slice(&offset.to_bytes());
        self.bytes.put_u64(0);
        key(&mut self.bytes);
        let key_end = self.bytes.len();
        json(&mut self.bytes);
        let end = self.bytes.len();
        let lengths = [key_end - header - HEADER, end - key_end];
        for (slot, length) in lengths.into_iter().enumerate() {
            // A run is bounded far below 4 GiB: a single PostgreSQL value is at most 1 GiB.
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            let at = header + Offset::LEN + slot * 4;
            self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
        }
        if self.count == 0 {
            self.first = offset;
        }
        self.last = offset;
        self.count += 1;
    }

    /// Notes that an event's transaction committed at this time: [`Events::latest`].
    pub fn committed(&mut self, time: i64) {
        self.latest = self.latest.max(Some(time));
    }

    /// How many events it holds.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The run, with the offsets of its first and last event.
    #[must_use]
    pub fn finish(self) -> Events {
        let Self { bytes, first, last, count, latest } = self;
        Events { first, last, latest: latest.unwrap_or(i64::MIN), count, bytes: bytes.into() }
    }
}

/// A run whose records do not follow each other, or a stream that took 2^31 events again without a
/// new one between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPlace;

/// A run of encoded events of one stream. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Events {
    /// Offset of the first event.
    pub first: Offset,
    /// Offset of the last event.
    pub last: Offset,
    /// When the latest of their transactions committed, and of those before them where that is
    /// later; microseconds since 1970-01-01 UTC.
    pub latest: i64,
    /// How many events.
    pub count: u32,
    /// The records, one behind the other.
    pub bytes: Bytes,
}

impl Events {
    /// The events whose offset lies behind `after`.
    pub fn after(&self, after: Offset) -> impl Iterator<Item = EventRecord> + use<> {
        let mut bytes = self.bytes.clone();
        std::iter::from_fn(move || EventRecord::take(&mut bytes))
            .skip_while(move |record| record.offset <= after)
    }

    /// The same events at the places behind `head` that are for those that come again.
    ///
    /// # Errors
    /// See [`NoPlace`].
    pub fn again_behind(&self, head: Offset) -> Result<Self, NoPlace> {
        let mut bytes = self.bytes.to_vec();
        let (mut rest, mut place, mut first) = (self.bytes.clone(), head, None);
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            EventRecord::take(&mut rest).ok_or(NoPlace)?;
            place = place.again().ok_or(NoPlace)?;
            bytes[at..at + Offset::LEN].copy_from_slice(&place.to_bytes());
            first.get_or_insert(place);
        }
        let first = first.unwrap_or(self.first);
        Ok(Self { first, last: place, bytes: bytes.into(), ..*self })
    }

    /// The commit of the last event.
    #[must_use]
    pub fn last_commit(&self) -> Lsn {
        self.last.commit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_order_and_from_an_offset() {
        let mut builder = EventsBuilder::default();
        for ordinal in 0..3 {
            let offset = Offset::new(Lsn(7), ordinal);
            builder.push(offset, |key| key.extend(b"t/1"), |json| json.extend(b"{}"));
        }
        let events = builder.finish();
        assert_eq!((events.first, events.last), (Offset::new(Lsn(7), 0), Offset::new(Lsn(7), 2)));
        let ordinals = |after| -> Vec<u32> {
            events.after(after).map(|record| record.offset.ordinal).collect()
        };
        assert_eq!(ordinals(Offset::START), [0, 1, 2]);
        assert_eq!(ordinals(Offset::new(Lsn(7), 1)), [2]);
        assert!(ordinals(Offset::end_of(Lsn(7))).is_empty());
    }

    #[test]
    fn what_comes_again_stands_behind_the_newest_and_keeps_its_id() {
        let mut builder = EventsBuilder::default();
        for ordinal in 0..2 {
            let offset = Offset::new(Lsn(7), ordinal);
            let json = format!("{{\"source\":\"/s\",\"id\":\"{}\",\"data\":1}}", EventId(offset));
            builder.push(offset, |key| key.extend(b"t/1"), |out| out.extend(json.as_bytes()));
        }
        let events = builder.finish();
        let head = Offset { emit: 3, ..Offset::new(Lsn(90), 2) };
        let once = events.again_behind(head).unwrap();
        let twice = events.again_behind(once.last).unwrap();
        let all: Vec<EventRecord> =
            [&once, &twice].into_iter().flat_map(|run| run.after(head)).collect();
        assert!(all.is_sorted_by(|a, b| a.offset < b.offset) && all[0].offset > head);
        assert!(all[3].offset < head.end() && all[3].offset < Offset::new(Lsn(90), 3));
        let ids: Vec<_> = all.iter().map(|event| event.id().to_string()).collect();
        assert_eq!(ids, ["0/7/0", "0/7/1", "0/7/0", "0/7/1"]);
        let full = Offset { emit: u32::MAX - 2, ..head };
        assert_eq!(events.again_behind(full).unwrap_err(), NoPlace);
    }

    #[test]
    fn an_event_says_once_that_it_is_replayed_and_data_that_says_so_is_no_matter() {
        let json = Bytes::from_static(b"{\"id\":\"0/7/0\",\"data\":{\"replayed\":true}}");
        let event = EventRecord { offset: Offset::START, key: Bytes::new(), json };
        let replayed = event.replayed();
        let expected: &[u8] = b"{\"id\":\"0/7/0\",\"replayed\":true,\"data\":{\"replayed\":true}}";
        assert_eq!(replayed.json, expected);
        assert_eq!(replayed.replayed(), replayed);
    }

    #[test]
    fn a_key_says_what_order_is_kept_with() {
        let record = |key: &'static [u8]| EventRecord {
            offset: Offset::START,
            key: Bytes::from_static(key),
            json: Bytes::new(),
        };
        assert_eq!(record(b"s.t/1").order(), Order::Key(b"s.t/1"));
        let both = Order::Keys { new: b"s.t/2", old: b"s.t/1" };
        assert_eq!(record(b"s.t/2\0s.t/1").order(), both);
        assert_eq!(record(b"s.t\0").order(), Order::All);
        // A row of a table without columns, and what was stored before there were barriers.
        assert_eq!(record(b"s.t").order(), Order::Key(b"s.t"));
    }

    #[test]
    fn cut_bytes_end_the_run() {
        let mut builder = EventsBuilder::default();
        builder.push(Offset::START, |key| key.extend(b"k"), |json| json.extend(b"{}"));
        let whole = builder.finish().bytes;
        for len in 0..whole.len() {
            assert_eq!(EventRecord::take(&mut whole.slice(..len)), None);
        }
    }
}
