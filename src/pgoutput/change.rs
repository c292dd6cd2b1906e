//! What happens to rows and tables, and messages among them.

use std::fmt;

use super::cursor::Cursor;
use super::tuple::Tuple;
use super::{DecodeError, Decoded, Message};

/// A row's old version, or as much of it as PostgreSQL logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldTuple<'a> {
    /// How much that is.
    pub kind: OldKind,
    /// Its values.
    pub tuple: Tuple<'a>,
}

/// How much of a row's old version there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldKind {
    /// The replica identity's columns; every other one is null, whatever it was.
    Key,
    /// The whole row (REPLICA IDENTITY FULL).
    Full,
}

pub(super) fn insert<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    let relation = cursor.u32("relation")?;
    match cursor.u8("tuple_kind")? {
        b'N' => Ok(Message::Insert { relation, new: Tuple::take(cursor)? }),
        found => Err(DecodeError::Unknown { field: "tuple_kind", found }),
    }
}

pub(super) fn update<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    let relation = cursor.u32("relation")?;
    let mut kind = cursor.u8("tuple_kind")?;
    let old = match old_kind(kind) {
        Some(old) => Some(OldTuple { kind: old, tuple: Tuple::take(cursor)? }),
        None => None,
    };
    if old.is_some() {
        kind = cursor.u8("tuple_kind")?;
    }
    match kind {
        b'N' => Ok(Message::Update { relation, old, new: Tuple::take(cursor)? }),
        found => Err(DecodeError::Unknown { field: "tuple_kind", found }),
    }
}

pub(super) fn delete<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    let relation = cursor.u32("relation")?;
    let found = cursor.u8("tuple_kind")?;
    let kind = old_kind(found).ok_or(DecodeError::Unknown { field: "tuple_kind", found })?;
    Ok(Message::Delete { relation, old: OldTuple { kind, tuple: Tuple::take(cursor)? } })
}

fn old_kind(code: u8) -> Option<OldKind> {
    match code {
        b'K' => Some(OldKind::Key),
        b'O' => Some(OldKind::Full),
        _ => None,
    }
}

pub(super) fn truncate<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    let count = cursor.u32("relation_count")?;
    let options = cursor.u8("options")?;
    let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(4));
    let bytes = cursor.bytes("relations", len.unwrap_or(usize::MAX))?;
    Ok(Message::Truncate {
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
        relations: Oids(bytes),
    })
}

pub(super) fn logical_message<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    let transactional = cursor.u8("flags")? & 1 != 0;
    let lsn = cursor.lsn("lsn")?;
    let prefix = cursor.string("prefix")?;
    let len = cursor.u32("content_length")?;
    let content = cursor.bytes("content", usize::try_from(len).unwrap_or(usize::MAX))?;
    Ok(Message::Message { transactional, lsn, prefix, content })
}

/// The tables of a Truncate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Oids<'a>(&'a [u8]);

impl<'a> Oids<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() / 4
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The OIDs, in the message's order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.0.as_chunks().0.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}

impl fmt::Debug for Oids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
