//! PostgreSQL's logical replication messages, from bytes to [`Message`], pure and without a copy
//! (PostgreSQL docs, "Logical Replication Message Formats").
//!
//! This is protocol version 1: a transaction arrives whole, when it has committed. What versions 2
//! to 4 add (parts of open transactions, prepared transactions) are further tags, and an xid in
//! front of every message inside a part.

mod cursor;
pub mod frame;
pub mod row;
mod tuple;

use std::fmt;

use crate::model::{Lsn, ReplicaIdentity};
use cursor::Cursor;
pub use tuple::{Tuple, Value, Values};

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins; all of it follows.
    Begin {
        /// LSN of its commit record.
        final_lsn: Lsn,
        /// Commit time, microseconds since 1970-01-01 UTC.
        time: i64,
        /// The transaction's number.
        xid: u32,
    },
    /// The transaction has ended.
    Commit {
        /// LSN of the commit record.
        commit_lsn: Lsn,
        /// Where the log goes on behind it.
        end_lsn: Lsn,
        /// Commit time, microseconds since 1970-01-01 UTC.
        time: i64,
    },
    /// The transaction was replicated to this server from another.
    Origin {
        /// LSN of the commit on that other server.
        commit_lsn: Lsn,
        /// The origin's name.
        name: &'a str,
    },
    /// A table's definition, before its first change and after it changed.
    Relation(Relation<'a>),
    /// The name of a type that is not built in, before the relation that uses it.
    Type {
        /// Its OID.
        oid: u32,
        /// Its schema; empty for `pg_catalog`.
        schema: &'a str,
        /// Its name; for a domain, the name of its base type.
        name: &'a str,
    },
    /// A new row.
    Insert {
        /// OID of its table.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row that was there: walmill's own message, see [`row`]. The server never sends it.
    Row {
        /// Number of its table's definition.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A changed row.
    Update {
        /// OID of its table.
        relation: u32,
        /// What identified it before; absent where nothing of that changed.
        old: Option<OldTuple<'a>>,
        /// The row now.
        new: Tuple<'a>,
    },
    /// A deleted row.
    Delete {
        /// OID of its table.
        relation: u32,
        /// What identified it.
        old: OldTuple<'a>,
    },
    /// Emptied tables.
    Truncate {
        /// With CASCADE.
        cascade: bool,
        /// With RESTART IDENTITY.
        restart_identity: bool,
        /// OIDs of the tables.
        relations: Oids<'a>,
    },
    /// `pg_logical_emit_message`.
    Message {
        /// Whether it belongs to the transaction it stands in.
        transactional: bool,
        /// Where it is in the log.
        lsn: Lsn,
        /// Names whose message it is.
        prefix: &'a str,
        /// Any bytes.
        content: &'a [u8],
    },
}

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

/// Bytes that are no message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends inside the field.
    #[error("message ends in {field}")]
    Truncated {
        /// The field.
        field: &'static str,
    },
    /// A tag that this protocol version does not have. PostgreSQL 18 sends one unasked (`A`, the
    /// abort of a streamed transaction); it says nothing about what was committed.
    #[error("unknown message `{}`", .0.escape_ascii())]
    UnknownMessage(u8),
    /// A code that the field does not have.
    #[error("unknown {field} `{}`", found.escape_ascii())]
    Unknown {
        /// The field.
        field: &'static str,
        /// The code.
        found: u8,
    },
    /// Text that is no UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// It goes on behind its end.
    #[error("{bytes} bytes too many behind the message")]
    TooLong {
        /// How many are left over.
        bytes: usize,
    },
}

/// Decodes one message.
///
/// # Errors
/// See [`DecodeError`]; every one names the field.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut cursor = Cursor(bytes);
    let message = match cursor.u8("tag")? {
        b'B' => begin(&mut cursor),
        b'C' => commit(&mut cursor),
        b'O' => origin(&mut cursor),
        b'R' => relation(&mut cursor).map(Message::Relation),
        b'Y' => type_name(&mut cursor),
        b'I' => insert(&mut cursor),
        b'U' => update(&mut cursor),
        b'D' => delete(&mut cursor),
        b'T' => truncate(&mut cursor),
        b'M' => logical_message(&mut cursor),
        row::TAG => row::take(&mut cursor),
        tag => return Err(DecodeError::UnknownMessage(tag)),
    }?;
    match cursor.0.len() {
        0 => Ok(message),
        bytes => Err(DecodeError::TooLong { bytes }),
    }
}

type Decoded<'a> = Result<Message<'a>, DecodeError>;

fn begin<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    Ok(Message::Begin {
        final_lsn: cursor.lsn("final_lsn")?,
        time: cursor.time("commit_time")?,
        xid: cursor.u32("xid")?,
    })
}

fn commit<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    cursor.u8("flags")?;
    Ok(Message::Commit {
        commit_lsn: cursor.lsn("commit_lsn")?,
        end_lsn: cursor.lsn("end_lsn")?,
        time: cursor.time("commit_time")?,
    })
}

fn origin<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    Ok(Message::Origin { commit_lsn: cursor.lsn("commit_lsn")?, name: cursor.string("name")? })
}

fn relation<'a>(cursor: &mut Cursor<'a>) -> Result<Relation<'a>, DecodeError> {
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

fn type_name<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    Ok(Message::Type {
        oid: cursor.u32("oid")?,
        schema: cursor.string("schema")?,
        name: cursor.string("name")?,
    })
}

fn insert<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    let relation = cursor.u32("relation")?;
    match cursor.u8("tuple_kind")? {
        b'N' => Ok(Message::Insert { relation, new: Tuple::take(cursor)? }),
        found => Err(DecodeError::Unknown { field: "tuple_kind", found }),
    }
}

fn update<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
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

fn delete<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
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

fn truncate<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
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

fn logical_message<'a>(cursor: &mut Cursor<'a>) -> Decoded<'a> {
    let transactional = cursor.u8("flags")? & 1 != 0;
    let lsn = cursor.lsn("lsn")?;
    let prefix = cursor.string("prefix")?;
    let len = cursor.u32("content_length")?;
    let content = cursor.bytes("content", usize::try_from(len).unwrap_or(usize::MAX))?;
    Ok(Message::Message { transactional, lsn, prefix, content })
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

#[cfg(test)]
mod tests;
