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
    bytes: Cursor<'a>,
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
    #[must_use]
    pub fn iter(&self) -> Values<'a> {
        Values { left: self.columns, bytes: Cursor(self.bytes) }
    }

    pub(super) fn take(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let columns = cursor.u16("column_count")?;
        let start = cursor.0;
        for _ in 0..columns {
            take_value(cursor)?;
        }
        let bytes = &start[..start.len() - cursor.0.len()];
        Ok(Self { columns, bytes })
    }
}

fn take_value<'a>(cursor: &mut Cursor<'a>) -> Result<Value<'a>, DecodeError> {
    let kind = cursor.u8("value_kind")?;
    match kind {
        b'n' => Ok(Value::Null),
        b'u' => Ok(Value::Unchanged),
        b't' => take_sized(cursor).map(Value::Text),
        b'b' => take_sized(cursor).map(Value::Binary),
        found => Err(DecodeError::Unknown { field: "value_kind", found }),
    }
}

fn take_sized<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], DecodeError> {
    let len = cursor.u32("value_length")?;
    // Where a length has no usize, no message is that long either.
    cursor.bytes("value", usize::try_from(len).unwrap_or(usize::MAX))
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        take_value(&mut self.bytes).ok()
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
