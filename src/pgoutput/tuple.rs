//! A row's column values, checked once when the message is decoded and read lazily afterwards.

use std::fmt;

use super::DecodeError;
use super::cursor::Cursor;

/// The column values of one row. Iterating reads them in the table's order and cannot fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: u16,
    bytes: &'a [u8],
}

/// One column's value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL; in a [`super::OldKind::Key`] tuple also any column outside the key.
    Null,
    /// A TOASTed value that did not change and was not sent.
    Unchanged,
    /// The type's text form.
    Text(&'a [u8]),
    /// The type's binary form (only where it was asked for).
    Binary(&'a [u8]),
}

/// Reads a [`Tuple`]'s values.
#[derive(Clone)]
pub struct Values<'a> {
    left: u16,
    bytes: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// How many columns it has.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.columns)
    }

    /// Whether it has no columns, as a row of a table without columns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The values, in the table's order.
    #[inline]
    #[must_use]
    pub fn iter(&self) -> Values<'a> {
        Values { left: self.columns, bytes: self.bytes }
    }

    pub(super) fn take(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let columns = cursor.u16("column_count")?;
        let mut rest = cursor.0;
        for _ in 0..columns {
            (_, rest) = split_value(rest).ok_or_else(|| what_is_wrong(rest))?;
        }
        let bytes = &cursor.0[..cursor.0.len() - rest.len()];
        cursor.0 = rest;
        Ok(Self { columns, bytes })
    }
}

/// The first value, and what stands behind it; `None` where it is no value, or not all of it.
#[inline]
fn split_value(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    match kind {
        b'n' => return Some((Value::Null, rest)),
        b'u' => return Some((Value::Unchanged, rest)),
        b't' | b'b' => {}
        _ => return None,
    }
    let (len, rest) = rest.split_first_chunk()?;
    // Where a length has no usize, no message is that long either.
    let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
    let (bytes, rest) = rest.split_at_checked(len)?;
    Some((if kind == b't' { Value::Text(bytes) } else { Value::Binary(bytes) }, rest))
}

/// Why there is no value.
#[cold]
fn what_is_wrong(bytes: &[u8]) -> DecodeError {
    let field = match bytes {
        [] => "value_kind",
        &[found, ..] if !b"nutb".contains(&found) => {
            return DecodeError::Unknown { field: "value_kind", found };
        }
        bytes if bytes.len() < 5 => "value_length",
        _ => "value",
    };
    DecodeError::Truncated { field }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (value, rest) = split_value(self.bytes)?;
        self.bytes = rest;
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Values<'_> {}

impl<'a> IntoIterator for Tuple<'a> {
    type Item = Value<'a>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

impl fmt::Debug for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Unchanged => f.write_str("unchanged"),
            Self::Text(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Binary(bytes) => write!(f, "binary \"{}\"", bytes.escape_ascii()),
        }
    }
}
