//! What a table looks like: its columns, and the types that are not built in.

use std::fmt;

use super::cursor::Cursor;
use super::{DecodeError, Decoded, Message};
use crate::model::ReplicaIdentity;

/// A table's definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Its OID.
    pub oid: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: &'a str,
    /// Its name.
    pub table: &'a str,
    /// What its old rows hold.
    pub identity: ReplicaIdentity,
    /// Its published columns.
    pub columns: Columns<'a>,
}

/// One column of a [`Relation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    /// Part of the replica identity.
    pub key: bool,
    /// Its name.
    pub name: &'a str,
    /// OID of its type.
    pub type_oid: u32,
    /// The type's modifier, -1 for none.
    pub type_mod: i32,
}

pub(super) fn relation<'a>(cursor: &mut Cursor<'a>) -> Result<Relation<'a>, DecodeError> {
    Ok(Relation {
        oid: cursor.u32("oid")?,
        schema: cursor.string("schema")?,
        table: cursor.string("table")?,
        identity: identity(cursor)?,
        columns: Columns::take(cursor)?,
    })
}

fn identity(cursor: &mut Cursor<'_>) -> Result<ReplicaIdentity, DecodeError> {
    match cursor.u8("replica_identity")? {
        b'd' => Ok(ReplicaIdentity::Default),
        b'n' => Ok(ReplicaIdentity::Nothing),
        b'f' => Ok(ReplicaIdentity::Full),
        b'i' => Ok(ReplicaIdentity::Index),
        found => Err(DecodeError::Unknown { field: "replica_identity", found }),
    }
}

pub(super) fn type_name<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    Ok(Message::Type {
        oid: cursor.u32("oid")?,
        schema: cursor.string("schema")?,
        name: cursor.string("name")?,
    })
}

/// The columns of a [`Relation`], checked when it was decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Columns<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Columns<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The columns, in the table's order.
    pub fn iter(&self) -> impl Iterator<Item = Column<'a>> + use<'a> {
        let mut cursor = Cursor(self.bytes);
        (0..self.count).map_while(move |_| take_column(&mut cursor).ok())
    }

    fn take(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let count = cursor.u16("column_count")?;
        let start = cursor.0;
        for _ in 0..count {
            take_column(cursor)?;
        }
        Ok(Self { count, bytes: &start[..start.len() - cursor.0.len()] })
    }
}

fn take_column<'a>(cursor: &mut Cursor<'a>) -> Result<Column<'a>, DecodeError> {
    Ok(Column {
        key: cursor.u8("column_flags")? & 1 != 0,
        name: cursor.string("column_name")?,
        type_oid: cursor.u32("type_oid")?,
        type_mod: cursor.i32("type_mod")?,
    })
}

impl fmt::Debug for Columns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
