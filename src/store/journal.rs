//! The durable, ordered record of committed changes.
//!
//! Transactions are stored as blocks of frames. A frame is a pgoutput message as it came, behind
//! its length, with each relation's OID replaced by the [`crate::model::RelationId`] of its time,
//! so that a block can be read without what came before it.

mod block;
mod reader;
mod records;
mod writer;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::StoreError;
use crate::model::backfill::Backfill;
use crate::model::{Lsn, RelationId};

pub use reader::Reader;
pub(super) use records::Records;
pub(super) use writer::start;

/// Proof that everything up to [`Durable::lsn`] is on disk. Only a finished sync makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable(Lsn);

impl Durable {
    /// What may be confirmed to PostgreSQL.
    #[must_use]
    pub fn lsn(self) -> Lsn {
        self.0
    }

    /// For the one who synced.
    pub(super) fn synced(lsn: Lsn) -> Self {
        Self(lsn)
    }
}

/// Whole transactions, or one part of a transaction that is larger than a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Commit LSN of its first transaction.
    pub first: Lsn,
    /// 0, or which part of that one transaction this is.
    pub part: u32,
    /// Ordinal of the first change in it: 0 unless `part` is more.
    pub ordinal: u32,
    /// Commit LSN of its last transaction.
    pub last: Lsn,
    /// Whether it ends with a commit; false for a part that others follow.
    pub complete: bool,
    /// Where PostgreSQL goes on behind it: end LSN of the last commit.
    pub end: Lsn,
    /// The latest commit time of its transactions, microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// `[u32 big-endian length][message]` …; every block begins with a Begin message, also the
    /// later parts of a transaction.
    pub frames: Bytes,
    /// The tables whose last change here uses another definition than the one before it; written
    /// with the block, and empty in one that was read. A part has none until its last.
    pub tables: Vec<TableUse>,
}

/// Which definition a table's changes use from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableUse {
    /// OID of the table.
    pub oid: u32,
    /// The definition; `None` where another table took its name.
    pub relation: Option<RelationId>,
}

/// What the source sends to the journal, in the order in which it received it.
#[derive(Debug)]
pub enum Append {
    /// Committed changes. Transactions that the journal has already are dropped; the first part of
    /// one that it has only in part replaces what it has.
    Block(Block),
    /// The last block of a backfill's chunk, and the backfill as it is behind it: both are kept, or
    /// neither.
    Chunk(Block, Box<Backfill>),
    /// Nothing is in flight and the server's log has reached this position: once everything sent
    /// before is on disk, it may be confirmed.
    Idle(Lsn),
}

impl Append {
    /// Bytes of its block.
    fn size(&self) -> usize {
        match self {
            Self::Block(block) | Self::Chunk(block, _) => block.frames.len(),
            Self::Idle(_) => 0,
        }
    }
}

/// The running journal.
pub struct Journal {
    /// Where the source sends. It holds 16 messages, so with blocks of up to 1 MiB it is bounded to
    /// 16 MiB; it waits while the disk is slow or full.
    pub appender: mpsc::Sender<Append>,
    /// The latest position that is on disk. At start: the last one of the run before.
    pub durable: watch::Receiver<Durable>,
    /// Why nothing is taken from the appender at the moment, for a person; `None` while it is.
    pub blocked: watch::Receiver<Option<String>>,
    /// Ends when the appender is dropped and everything sent is on disk; an error is fatal.
    pub done: tokio::task::JoinHandle<Result<(), StoreError>>,
}

/// What [`Reader::next`] found.
#[derive(Debug)]
pub enum Read {
    /// The next block. Its first changes may lie at or before the place asked for: skip those.
    Block(Block),
    /// Nothing yet: wait for [`Reader::visible`] to change.
    End,
    /// Retention removed what comes next. The reader goes on with the oldest block still there.
    Gap {
        /// Commit LSN of the oldest block's first transaction.
        oldest: Lsn,
    },
}

#[cfg(test)]
mod tests;
