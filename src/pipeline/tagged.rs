//! PostgreSQL's text forms read into the plugin interface's cells: a tag and 64 bits, with longer
//! values in a heap (`wit/walmill.wit`, "cell tags").

use super::json;
use crate::model::Kind;

/// NULL.
pub const NULL: u8 = 0;
/// `data` is 0 or 1.
pub const BOOLEAN: u8 = 1;
/// `data` is a signed 64-bit integer.
pub const INTEGER: u8 = 2;
/// `data` is the bits of an IEEE-754 double.
pub const FLOAT: u8 = 3;
/// `data` is microseconds since 1970-01-01 UTC; the extremes are the infinities.
pub const TIMESTAMP: u8 = 4;
/// `data` is days since 1970-01-01; the extremes are the infinities.
pub const DATE: u8 = 5;
/// `data` is microseconds since midnight.
pub const TIME: u8 = 6;
/// The heap holds UTF-8 text.
pub const TEXT: u8 = 16;
/// The heap holds decimal text.
pub const NUMERIC: u8 = 17;
/// The heap holds JSON.
pub const JSON: u8 = 18;
/// The heap holds raw bytes.
pub const BYTEA: u8 = 19;
/// The heap holds 16 raw bytes.
pub const UUID: u8 = 20;
/// The heap holds a JSON array.
pub const ARRAY: u8 = 21;
/// A TOASTed value that PostgreSQL did not send.
pub const UNCHANGED: u8 = 32;
/// A column of an old row outside the replica identity.
pub const ABSENT: u8 = 33;

/// Whether a cell of this tag keeps its value in the heap.
#[inline]
#[must_use]
pub fn in_heap(tag: u8) -> bool {
    (16..32).contains(&tag)
}

/// The tag that cells of a kind have.
#[must_use]
pub fn of(kind: Kind) -> u8 {
    match kind {
        Kind::Bool => BOOLEAN,
        Kind::Int => INTEGER,
        Kind::Float => FLOAT,
        Kind::Timestamp | Kind::TimestampTz => TIMESTAMP,
        Kind::Date => DATE,
        Kind::Time => TIME,
        Kind::Text => TEXT,
        Kind::Numeric => NUMERIC,
        Kind::Json => JSON,
        Kind::Bytea => BYTEA,
        Kind::Uuid => UUID,
        Kind::Array(_) => ARRAY,
    }
}

/// The kind and the name of the type that cells of a tag are shown as.
#[must_use]
pub fn kind(tag: u8) -> (Kind, &'static str) {
    match tag {
        BOOLEAN => (Kind::Bool, "bool"),
        INTEGER => (Kind::Int, "int8"),
        FLOAT => (Kind::Float, "float8"),
        TIMESTAMP => (Kind::TimestampTz, "timestamptz"),
        DATE => (Kind::Date, "date"),
        TIME => (Kind::Time, "time"),
        NUMERIC => (Kind::Numeric, "numeric"),
        JSON | ARRAY => (Kind::Json, "jsonb"),
        BYTEA => (Kind::Bytea, "bytea"),
        UUID => (Kind::Uuid, "uuid"),
        _ => (Kind::Text, "text"),
    }
}

/// Reads a value: its tag, and its data. What goes to the heap is appended there. A value that
/// does not read as its kind goes as text, whole.
pub fn read(kind: Kind, text: &[u8], heap: &mut Vec<u8>) -> (u8, u64) {
    let scalar = match kind {
        Kind::Bool => Some((BOOLEAN, u64::from(text == b"t"))),
        Kind::Int => number::<i64>(text).map(|n| (INTEGER, n.cast_unsigned())),
        Kind::Float => number::<f64>(text).map(|n| (FLOAT, n.to_bits())),
        Kind::Timestamp | Kind::TimestampTz => {
            timestamp(text).map(|n| (TIMESTAMP, n.cast_unsigned()))
        }
        Kind::Date => date(text).map(|n| (DATE, n.cast_unsigned())),
        Kind::Time => time(text).map(|n| (TIME, n.cast_unsigned())),
        Kind::Text | Kind::Numeric | Kind::Json | Kind::Bytea | Kind::Uuid | Kind::Array(_) => None,
    };
    if let Some(scalar) = scalar {
        return scalar;
    }
    let start = heap.len();
    let tag = match kind {
        Kind::Bytea if unhex(text.strip_prefix(b"\\x"), heap) => BYTEA,
        Kind::Uuid if uuid(text, heap) => UUID,
        Kind::Array(element) => {
            json::array(heap, element, text);
            // Text that was no array is now a JSON string.
            if heap.get(start) == Some(&b'[') { ARRAY } else { JSON }
        }
        other => {
            heap.truncate(start);
            if other == Kind::Json {
                json::raw(heap, text);
            } else if text.is_ascii() || std::str::from_utf8(text).is_ok() {
                heap.extend_from_slice(text);
            } else {
                // The interface's text is UTF-8, whatever the server's is.
                heap.extend_from_slice(&json::readable(text));
            }
            match other {
                Kind::Numeric => NUMERIC,
                Kind::Json => JSON,
                _ => TEXT,
            }
        }
    };
    (tag, place(start, heap.len() - start))
}

/// The data of a cell whose value lies in the heap.
#[inline]
#[must_use]
pub fn place(offset: usize, len: usize) -> u64 {
    // A batch's heap is bounded far below 4 GiB.
    (offset as u64) << 32 | len as u64
}

/// Where in the heap a cell's value lies.
#[inline]
#[must_use]
pub fn placed(data: u64) -> std::ops::Range<usize> {
    let (offset, len) = ((data >> 32) as usize, (data & 0xFFFF_FFFF) as usize);
    offset..offset + len
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn unhex(digits: Option<&[u8]>, heap: &mut Vec<u8>) -> bool {
    let start = heap.len();
    let Some(digits) = digits.filter(|digits| digits.len().is_multiple_of(2)) else {
        return false;
    };
    for pair in digits.chunks_exact(2) {
        match (nibble(pair[0]), nibble(pair[1])) {
            (Some(high), Some(low)) => heap.push(high << 4 | low),
            _ => {
                heap.truncate(start);
                return false;
            }
        }
    }
    true
}

fn nibble(digit: u8) -> Option<u8> {
    // A hexadecimal digit is below 16.
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn uuid(text: &[u8], heap: &mut Vec<u8>) -> bool {
    let mut digits = [0; 32];
    let mut len = 0;
    for &byte in text.iter().filter(|&&byte| byte != b'-') {
        if len == digits.len() {
            return false;
        }
        digits[len] = byte;
        len += 1;
    }
    len == digits.len() && unhex(Some(&digits), heap)
}

const DAY: i64 = 86_400_000_000;

/// `YYYY-MM-DD HH:MM:SS[.ffffff][+00][ BC]`, `infinity`, `-infinity`.
fn timestamp(text: &[u8]) -> Option<i64> {
    if let Some(infinity) = infinity(text) {
        return Some(infinity);
    }
    let (text, bc) = before_christ(text);
    let space = text.iter().position(|&b| b == b' ')?;
    let clock = &text[space + 1..];
    let days = civil(&text[..space], bc)?;
    let micros = time(clock.strip_suffix(b"+00").unwrap_or(clock))?;
    days.checked_mul(DAY)?.checked_add(micros)
}

/// `YYYY-MM-DD[ BC]`, `infinity`, `-infinity`.
fn date(text: &[u8]) -> Option<i64> {
    infinity(text).or_else(|| {
        let (text, bc) = before_christ(text);
        civil(text, bc)
    })
}

fn infinity(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => Some(i64::MAX),
        b"-infinity" => Some(i64::MIN),
        _ => None,
    }
}

fn before_christ(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

/// `HH:MM:SS[.ffffff]` in microseconds.
fn time(text: &[u8]) -> Option<i64> {
    let (clock, fraction) = match text.iter().position(|&b| b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    let [h1, h2, b':', m1, m2, b':', s1, s2] = *clock else { return None };
    let seconds = two(h1, h2)? * 3600 + two(m1, m2)? * 60 + two(s1, s2)?;
    let mut micros = 0;
    for place in 0..6 {
        let digit = fraction.get(place).map_or(Some(0), |&b| decimal(b))?;
        micros = micros * 10 + digit;
    }
    (fraction.len() <= 6).then_some(seconds * 1_000_000 + micros)
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    Some(decimal(tens)? * 10 + decimal(ones)?)
}

fn decimal(digit: u8) -> Option<i64> {
    digit.is_ascii_digit().then(|| i64::from(digit - b'0'))
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar.
fn civil(text: &[u8], bc: bool) -> Option<i64> {
    let (date, [b'-', m1, m2, b'-', d1, d2]) = text.split_at_checked(text.len().checked_sub(6)?)?
    else {
        return None;
    };
    let (month, day) = (two(*m1, *m2)?, two(*d1, *d2)?);
    let year = number::<u32>(date).map(i64::from)?;
    let year = if bc { 1 - year } else { year };
    // Civil date to days, after Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms".
    let y = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data(kind: Kind, text: &str) -> (u8, i64) {
        let mut heap = Vec::new();
        let (tag, data) = read(kind, text.as_bytes(), &mut heap);
        (tag, data.cast_signed())
    }

    fn heap(kind: Kind, text: &str) -> (u8, Vec<u8>) {
        let mut heap = b"before".to_vec();
        let (tag, data) = read(kind, text.as_bytes(), &mut heap);
        (tag, heap[placed(data)].to_vec())
    }

    #[test]
    fn scalars_fit_in_their_64_bits() {
        assert_eq!(data(Kind::Bool, "t"), (BOOLEAN, 1));
        assert_eq!(data(Kind::Int, "-9223372036854775808"), (INTEGER, i64::MIN));
        assert_eq!(data(Kind::Float, "NaN").0, FLOAT);
        assert_eq!(data(Kind::TimestampTz, "1970-01-01 00:00:01.5+00"), (TIMESTAMP, 1_500_000));
        assert_eq!(data(Kind::Timestamp, "1969-12-31 23:59:59.999999"), (TIMESTAMP, -1));
        assert_eq!(data(Kind::Timestamp, "infinity"), (TIMESTAMP, i64::MAX));
        assert_eq!(data(Kind::Date, "0001-12-31 BC"), (DATE, -719_163));
        assert_eq!(data(Kind::Date, "2000-02-29"), (DATE, 11_016));
        assert_eq!(data(Kind::Time, "24:00:00"), (TIME, DAY));
    }

    #[test]
    fn longer_values_lie_in_the_heap() {
        assert_eq!(heap(Kind::Numeric, "1.50"), (NUMERIC, b"1.50".to_vec()));
        assert_eq!(heap(Kind::Bytea, "\\x00ff"), (BYTEA, vec![0, 255]));
        let uuid = heap(Kind::Uuid, "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!((uuid.0, uuid.1.len(), uuid.1[15]), (UUID, 16, 0xff));
        let numbers = Kind::Array(crate::model::relation::Element::Int);
        assert_eq!(heap(numbers, "{1,NULL}"), (ARRAY, b"[1,null]".to_vec()));
    }

    #[test]
    fn what_does_not_read_goes_as_text() {
        for kind in [Kind::Int, Kind::Float, Kind::Timestamp, Kind::Date, Kind::Time, Kind::Bytea] {
            assert_eq!(heap(kind, "\\xno"), (TEXT, b"\\xno".to_vec()), "{kind:?}");
        }
    }

    proptest! {
        #[test]
        fn a_time_reads_back_as_it_is_written(micros in -100_000_000_000_000_000_i64..100_000_000_000_000_000) {
            let mut text = Vec::new();
            json::time(&mut text, micros);
            let text = String::from_utf8(text).expect("ASCII").replace('T', " ").replace('Z', "");
            prop_assert_eq!(data(Kind::Timestamp, &text), (TIMESTAMP, micros));
        }

        #[test]
        fn no_text_is_a_panic(text in any::<Vec<u8>>(), kind in 0..7) {
            let kinds = [Kind::Int, Kind::Float, Kind::Timestamp, Kind::Date, Kind::Time, Kind::Bytea, Kind::Uuid];
            read(kinds[kind as usize], &text, &mut Vec::new());
        }
    }
}
