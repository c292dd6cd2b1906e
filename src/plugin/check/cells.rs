//! Cells that a guest computed: tag, value, and the piece of the heap that it points to.

use serde::de::IgnoredAny;

use super::{Bounds, Fault};

const MICROSECONDS_PER_DAY: u64 = 86_400_000_000;

/// The heap of an outcome while its cells are checked.
pub(super) struct Heap<'a> {
    bytes: &'a [u8],
    bounds: Bounds<'a>,
    /// Bytes that cells refer to, and that rows repeat of the plan, in all and of the last event.
    /// Cells may share a piece of the heap, and rows a shape, so it is not the size of the answer
    /// that bounds them.
    referred: u64,
    of_event: u64,
}

impl<'a> Heap<'a> {
    pub(super) fn new(bytes: &'a [u8], bounds: Bounds<'a>) -> Self {
        Self { bytes, bounds, referred: 0, of_event: 0 }
    }

    /// What is counted from here on is of another event.
    pub(super) fn next_event(&mut self) {
        self.of_event = 0;
    }

    /// Counts bytes that are part of what comes out.
    pub(super) fn count(&mut self, bytes: u64) -> Result<(), Fault> {
        // Each is below 2^33, so the sums hold.
        self.referred += bytes;
        self.of_event += bytes;
        self.bounds.check_event(self.of_event)?;
        self.bounds.check_call(self.referred)
    }

    /// Whether a cell is of its column's type.
    pub(super) fn check(&mut self, declared: u8, tag: u8, data: u64) -> Result<(), Fault> {
        let wrong = |what: String| Err(Fault::Wrong(what));
        match tag {
            // null, unchanged, absent: allowed whatever the column's type
            0 | 32 | 33 => Ok(()),
            _ if tag != declared => wrong(format!("tag {tag}, but the plan says {declared}")),
            1 if data > 1 => wrong(format!("boolean {data}")),
            5 => check_date(data.cast_signed()).map_err(Fault::Wrong),
            6 if data > MICROSECONDS_PER_DAY => wrong(format!("time of day {data}")),
            1..=6 => Ok(()),
            _ => self.check_piece(tag, data >> 32, data & 0xffff_ffff),
        }
    }

    fn check_piece(&mut self, tag: u8, offset: u64, length: u64) -> Result<(), Fault> {
        let range = offset as usize..(offset + length) as usize;
        let bytes = self.bytes.get(range).ok_or_else(|| {
            Fault::Wrong(format!("{length} bytes at {offset} of a heap of {}", self.bytes.len()))
        })?;
        self.count(length)?;
        let text = || bytes.is_ascii() || std::str::from_utf8(bytes).is_ok();
        let json = || serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
        let array = || bytes.trim_ascii_start().first() == Some(&b'[');
        let (fits, wanted) = match tag {
            17 => (is_numeric(bytes), "decimal number"),
            18 => (text() && json(), "JSON"),
            19 => (true, "bytes"),
            20 => (bytes.len() == 16, "uuid of 16 bytes"),
            21 => (array() && text() && json(), "JSON array"),
            _ => (text(), "UTF-8"),
        };
        if fits { Ok(()) } else { Err(Fault::Wrong(format!("no {wanted}"))) }
    }
}

/// Days that PostgreSQL has, with room to spare; beyond them calendars overflow.
fn check_date(days: i64) -> Result<(), String> {
    let infinite = days == i64::MIN || days == i64::MAX;
    if infinite || i32::try_from(days).is_ok() { Ok(()) } else { Err(format!("date {days}")) }
}

/// A number as PostgreSQL prints a numeric.
fn is_numeric(bytes: &[u8]) -> bool {
    if matches!(bytes, b"NaN" | b"Infinity" | b"-Infinity") {
        return true;
    }
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let whole = parts.next().unwrap_or_default();
    // As in JSON, which it becomes part of: no leading zeros.
    !(whole.len() > 1 && whole[0] == b'0')
        && std::iter::once(whole)
            .chain(parts)
            .all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
}
