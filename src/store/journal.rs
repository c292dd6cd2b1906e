//! The durable, ordered record of committed changes.
//!
//! Transactions are stored as blocks of frames. A frame is a pgoutput message as it came, behind
//! its length, with each relation's OID replaced by the [`crate::model::RelationId`] of its time,
//! so that a block can be read without what came before it.

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::StoreError;
use crate::model::{Lsn, Offset};

/// Proof that everything up to [`Durable::lsn`] is on disk. Only the journal makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable(Lsn);

impl Durable {
    /// What may be confirmed to PostgreSQL.
    #[must_use]
    pub fn lsn(self) -> Lsn {
        self.0
    }
}

/// Whole transactions, or one part of a transaction that is larger than a block.
#[derive(Debug, Clone)]
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
    /// Commit time of its last transaction, microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// `[u32 big-endian length][message]` …; every block begins with a Begin message, also the
    /// later parts of a transaction.
    pub frames: Bytes,
}

/// What the source sends to the journal, in the order in which it received it.
#[derive(Debug)]
pub enum Append {
    /// Committed changes.
    Block(Block),
    /// Nothing is in flight and the server's log has reached this position: once everything sent
    /// before is on disk, it may be confirmed.
    Idle(Lsn),
}

/// The running journal.
pub struct Journal {
    /// Where the source sends. Bounded: it waits while the disk is slow or full.
    pub appender: mpsc::Sender<Append>,
    /// The latest position that is on disk. At start: the last one of the run before.
    pub durable: watch::Receiver<Durable>,
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
    /// Retention removed what comes next; the oldest commit still there.
    Gap {
        /// Commit LSN of the oldest block.
        oldest: Lsn,
    },
}

/// One reader's place in the journal.
pub struct Reader {
    visible: watch::Receiver<Lsn>,
}

impl Reader {
    /// The next block of committed changes. Never shows an incomplete transaction.
    pub fn next(&mut self) -> Result<Read, StoreError> {
        todo!()
    }

    /// Commit LSN of the last visible transaction; changes when there is more to read.
    pub fn visible(&mut self) -> &mut watch::Receiver<Lsn> {
        &mut self.visible
    }

    /// Goes back, or forward, to read what is behind `after`.
    pub fn seek(&mut self, after: Offset) {
        todo!()
    }
}
