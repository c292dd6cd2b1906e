//! PostgreSQL's logical replication messages, from bytes to [`Message`], pure and without a copy
//! (PostgreSQL docs, "Logical Replication Message Formats").
//!
//! These are protocol versions 1 to 4. In version 1 a transaction arrives whole, when it has
//! committed. Version 2 adds blocks of transactions that are still open, between Stream Start and
//! Stream Stop, in which every message says whose it is ([`decode_streamed`]); version 3 adds
//! prepared transactions, and version 4 a little more in Stream Abort.

mod change;
mod cursor;
pub mod frame;
mod relation;
pub mod row;
mod transaction;
mod tuple;

use crate::model::Lsn;
pub use change::{Oids, OldKind, OldTuple};
use cursor::Cursor;
pub use relation::{Column, Columns, Relation};
pub use transaction::Prepared;
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
    /// A block of an open transaction begins; every message up to its end is inside that one.
    StreamStart {
        /// The transaction's number, that of its outermost level.
        xid: u32,
        /// Whether this is the transaction's first block.
        first: bool,
    },
    /// The block ends.
    StreamStop,
    /// A transaction that came in blocks has committed.
    StreamCommit {
        /// Its number.
        xid: u32,
        /// LSN of the commit record.
        commit_lsn: Lsn,
        /// Where the log goes on behind it.
        end_lsn: Lsn,
        /// Commit time, microseconds since 1970-01-01 UTC.
        time: i64,
    },
    /// A transaction that came in blocks, or one level of it, was rolled back.
    StreamAbort {
        /// The transaction's number.
        xid: u32,
        /// The level's number; the transaction's own where all of it was rolled back.
        subxid: u32,
        /// Where and when: only for a reader that applies blocks as they come.
        at: Option<(Lsn, i64)>,
    },
    /// A prepared transaction begins; all of it follows.
    BeginPrepare(Prepared<'a>),
    /// The transaction was prepared, and waits for its end.
    Prepare(Prepared<'a>),
    /// A prepared transaction has committed.
    CommitPrepared {
        /// LSN of the commit record.
        commit_lsn: Lsn,
        /// Where the log goes on behind it.
        end_lsn: Lsn,
        /// Commit time, microseconds since 1970-01-01 UTC.
        time: i64,
        /// The transaction's number.
        xid: u32,
        /// What it was prepared as.
        gid: &'a str,
    },
    /// A prepared transaction was rolled back.
    RollbackPrepared {
        /// Where the log went on behind its prepare record.
        prepare_end_lsn: Lsn,
        /// Where the log goes on behind the rollback.
        end_lsn: Lsn,
        /// When it was prepared, microseconds since 1970-01-01 UTC.
        prepare_time: i64,
        /// When it was rolled back, microseconds since 1970-01-01 UTC.
        time: i64,
        /// The transaction's number.
        xid: u32,
        /// What it was prepared as.
        gid: &'a str,
    },
    /// A transaction that came in blocks was prepared.
    StreamPrepare(Prepared<'a>),
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
    /// A tag that no protocol version has.
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

/// Decodes one message outside a streamed block.
///
/// # Errors
/// See [`DecodeError`]; every one names the field.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut cursor = Cursor(bytes);
    let tag = cursor.u8("tag")?;
    body(tag, cursor)
}

/// Decodes one message inside a streamed block, and whose it is: the number of the level of the
/// transaction that made the change, where the message is about one.
///
/// PostgreSQL gives a logical message the number of the whole transaction, whatever level it was
/// sent from.
///
/// # Errors
/// See [`DecodeError`]; every one names the field.
pub fn decode_streamed(bytes: &[u8]) -> Result<(Option<u32>, Message<'_>), DecodeError> {
    let mut cursor = Cursor(bytes);
    let tag = cursor.u8("tag")?;
    let owner = match tag {
        b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M' => Some(cursor.u32("xid")?),
        _ => None,
    };
    Ok((owner, body(tag, cursor)?))
}

/// Everything behind the tag.
fn body(tag: u8, mut cursor: Cursor<'_>) -> Result<Message<'_>, DecodeError> {
    let message = match tag {
        b'B' => transaction::begin(&mut cursor),
        b'C' => transaction::commit(&mut cursor),
        b'O' => transaction::origin(&mut cursor),
        b'R' => relation::relation(&mut cursor).map(Message::Relation),
        b'Y' => relation::type_name(&mut cursor),
        b'I' => change::insert(&mut cursor),
        b'U' => change::update(&mut cursor),
        b'D' => change::delete(&mut cursor),
        b'T' => change::truncate(&mut cursor),
        b'M' => change::logical_message(&mut cursor),
        b'S' => transaction::stream_start(&mut cursor),
        b'E' => Ok(Message::StreamStop),
        b'c' => transaction::stream_commit(&mut cursor),
        b'A' => transaction::stream_abort(&mut cursor),
        b'b' => transaction::begin_prepare(&mut cursor),
        b'P' => transaction::prepare(&mut cursor).map(Message::Prepare),
        b'K' => transaction::commit_prepared(&mut cursor),
        b'r' => transaction::rollback_prepared(&mut cursor),
        b'p' => transaction::prepare(&mut cursor).map(Message::StreamPrepare),
        row::TAG => row::take(&mut cursor),
        tag => return Err(DecodeError::UnknownMessage(tag)),
    }?;
    match cursor.0.len() {
        0 => Ok(message),
        bytes => Err(DecodeError::TooLong { bytes }),
    }
}

type Decoded<'a> = Result<Message<'a>, DecodeError>;

#[cfg(test)]
mod tests;
