//! Rows that no change brought: a message of our own, laid out like an Insert, for what a snapshot
//! or a backfill reads from the tables themselves. It stands in the journal only.

use bytes::{BufMut as _, BytesMut};

use super::cursor::Cursor;
use super::{DecodeError, Message, Tuple};

/// Its tag, which no message of the protocol has.
pub const TAG: u8 = b's';

/// Begins a row of so many columns; each column's value follows.
pub fn begin(out: &mut BytesMut, relation: u32, columns: u16) {
    out.put_u8(TAG);
    out.put_u32(relation);
    out.put_u8(b'N');
    out.put_u16(columns);
}

/// The next column is NULL.
pub fn null(out: &mut BytesMut) {
    out.put_u8(b'n');
}

/// The next column is text; gives the place where [`end_text`] fills its length in.
pub fn begin_text(out: &mut BytesMut) -> usize {
    out.put_slice(b"t\0\0\0\0");
    out.len()
}

/// The text that began there ends here.
pub fn end_text(out: &mut BytesMut, start: usize) {
    // A value is at most 1 GiB.
    let len = u32::try_from(out.len().saturating_sub(start)).unwrap_or(u32::MAX);
    if let Some(place) = start.checked_sub(4).and_then(|at| out.get_mut(at..start)) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

/// The relation that a row names; `None` if this is something else.
#[must_use]
pub fn relation(message: &[u8]) -> Option<u32> {
    let (&TAG, rest) = message.split_first()? else { return None };
    rest.first_chunk().map(|relation| u32::from_be_bytes(*relation))
}

/// Reads what stands behind the tag.
pub(super) fn take<'a>(cursor: &mut Cursor<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = cursor.u32("relation")?;
    match cursor.u8("tuple_kind")? {
        b'N' => Ok(Message::Row { relation, new: Tuple::take(cursor)? }),
        found => Err(DecodeError::Unknown { field: "tuple_kind", found }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Value, decode};
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let mut out = BytesMut::new();
        begin(&mut out, 7, 3);
        for text in ["one", ""] {
            let start = begin_text(&mut out);
            out.put_slice(text.as_bytes());
            end_text(&mut out, start);
        }
        null(&mut out);
        let Ok(Message::Row { relation: 7, new }) = decode(&out) else { panic!("{out:?}") };
        let values: Vec<_> = new.iter().collect();
        assert_eq!(values, [Value::Text(b"one"), Value::Text(b""), Value::Null]);
    }

    #[test]
    fn every_cut_of_a_row_names_the_field_it_ends_in() {
        let mut out = BytesMut::new();
        begin(&mut out, 7, 1);
        let start = begin_text(&mut out);
        out.put_slice(b"text");
        end_text(&mut out, start);
        for end in 1..out.len() {
            assert!(matches!(decode(&out[..end]), Err(DecodeError::Truncated { .. })), "{end}");
        }
    }
}
