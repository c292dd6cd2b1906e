//! Frames of transactions as they become blocks: a few whole transactions together, or the parts of
//! one that is larger than a block. Knows nothing of messages.

use std::collections::VecDeque;

use bytes::{BufMut as _, BytesMut};

use super::schema::Definitions;
use crate::model::{Lsn, RelationId};
use crate::pgoutput::frame;
use crate::store::StoreError;
use crate::store::journal::{Block, TableUse};

/// Whole transactions of this size are enough for a block.
pub(super) const BLOCK: usize = 64 << 10;
/// A transaction of this size is stored in parts.
pub(super) const PART: usize = 1 << 20;

/// Blocks in the making.
pub(super) struct Blocks {
    /// The last commit that is complete, here or in the journal: it and all before it are not
    /// taken a second time.
    last_commit: Lsn,
    /// Whole transactions, and behind them what has come of the open one.
    frames: BytesMut,
    whole: Option<Whole>,
    open: Option<Open>,
    /// Blocks that are finished, before everything in `frames`.
    ready: VecDeque<Block>,
    definitions: Definitions,
}

/// The whole transactions in the buffer.
struct Whole {
    len: usize,
    first: Lsn,
    last: Lsn,
    end: Lsn,
    time: i64,
    tables: Vec<TableUse>,
}

/// The transaction that is coming in.
struct Open {
    commit: Lsn,
    time: i64,
    xid: u32,
    /// The journal has it already.
    skip: bool,
    part: u32,
    /// Ordinal of the first change in this part.
    ordinal: u32,
    /// Ordinal of the next change.
    next: u32,
}

/// What a commit left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Committed {
    /// A transaction, committed at this time (microseconds since 1970-01-01 UTC).
    Transaction(i64),
    /// Nothing: it had no changes, or the journal has it.
    Nothing,
}

impl Blocks {
    /// Starts behind `last_commit`, which left the tables like this.
    pub(super) fn new(last_commit: Lsn, definitions: Definitions) -> Self {
        let (frames, whole, open, ready) = (BytesMut::new(), None, None, VecDeque::new());
        Self { last_commit, frames, whole, open, ready, definitions }
    }

    /// The last commit that is complete, here or in the journal.
    pub(super) fn last_commit(&self) -> Lsn {
        self.last_commit
    }

    /// Forgets what has come of the open transaction.
    pub(super) fn forget_open(&mut self) {
        self.frames.truncate(self.whole_len());
        self.open = None;
        self.definitions.roll_back();
    }

    /// Whether a transaction is coming in.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a transaction is coming in that the journal has already.
    pub(super) fn is_skipping(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.skip)
    }

    /// A transaction begins. There must be none that is open.
    pub(super) fn begin(&mut self, commit: Lsn, time: i64, xid: u32) {
        let skip = commit <= self.last_commit;
        self.open = Some(Open { commit, time, xid, skip, part: 0, ordinal: 0, next: 0 });
        if !skip {
            self.append(&frame::begin(commit, time, xid));
        }
    }

    /// The definitions that changes have used so far.
    pub(super) fn definitions(&mut self) -> &mut Definitions {
        &mut self.definitions
    }

    /// The next change of the open transaction uses this definition. Where the table's last change
    /// used another, a frame says so first; it takes an ordinal.
    pub(super) fn uses(&mut self, id: RelationId) -> Result<(), StoreError> {
        if self.open.as_ref().is_none_or(|open| open.skip) {
            return Ok(());
        }
        if let Some(before) = self.definitions.uses(id)? {
            self.change(&frame::redefined(before.0, id.0), 1);
        }
        Ok(())
    }

    /// Adds a message of the open transaction that takes so many ordinals, and gives its place to
    /// be changed in; `None` where there is no such transaction, or where it is skipped.
    pub(super) fn change(&mut self, message: &[u8], ordinals: u32) -> Option<&mut [u8]> {
        let open = self.open.as_mut().filter(|open| !open.skip)?;
        open.next = open.next.saturating_add(ordinals);
        let at = self.append(message);
        Some(&mut self.frames[at..])
    }

    /// The open transaction ends; PostgreSQL goes on at `end`. `None` where there is none.
    pub(super) fn commit(&mut self, end: Lsn) -> Option<Committed> {
        let open = self.open.take()?;
        if open.skip || open.next == 0 {
            self.frames.truncate(self.whole_len());
            return Some(Committed::Nothing);
        }
        self.append(&frame::commit(open.commit, end, open.time));
        self.last_commit = open.commit;
        let len = self.frames.len();
        let tables = self.definitions.commit();
        match &mut self.whole {
            _ if open.part > 0 => self.finish_part(&open, Some(end), tables),
            Some(whole) => {
                (whole.len, whole.last, whole.end) = (len, open.commit, end);
                // Commits may be out of order by their times.
                whole.time = whole.time.max(open.time);
                whole.tables.extend(tables);
            }
            none => {
                let (first, last) = (open.commit, open.commit);
                *none = Some(Whole { len, first, last, end, time: open.time, tables });
            }
        }
        Some(Committed::Transaction(open.time))
    }

    /// Appends a frame; where its message begins.
    fn append(&mut self, message: &[u8]) -> usize {
        self.frames.reserve((4 + message.len()).max(BLOCK / 8));
        // A message is at most 1 GiB.
        self.frames.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        self.frames.put_slice(message);
        self.frames.len() - message.len()
    }

    fn whole_len(&self) -> usize {
        self.whole.as_ref().map_or(0, |whole| whole.len)
    }

    /// Makes a block of what has come of the open transaction, once that is enough.
    pub(super) fn split_if_large(&mut self) {
        if self.frames.len() - self.whole_len() < PART {
            return;
        }
        self.finish_whole();
        let Some(mut open) = self.open.take() else { return };
        self.finish_part(&open, None, Vec::new());
        // As much as the part before: growing there bit by bit would take up to twice that.
        self.frames.reserve(PART + BLOCK);
        (open.part, open.ordinal) = (open.part.saturating_add(1), open.next);
        self.append(&frame::begin(open.commit, open.time, open.xid));
        self.open = Some(open);
    }

    /// Makes a block of the whole transactions.
    fn finish_whole(&mut self) {
        let Some(Whole { len, first, last, end, time, tables }) = self.whole.take() else { return };
        let frames = self.frames.split_to(len).freeze();
        let (part, ordinal, complete) = (0, 0, true);
        let block = Block { first, part, ordinal, last, complete, end, time, frames, tables };
        self.ready.push_back(block);
    }

    /// Makes a block of what has come of the open transaction; `end` with its commit.
    fn finish_part(&mut self, open: &Open, end: Option<Lsn>, tables: Vec<TableUse>) {
        self.ready.push_back(Block {
            first: open.commit,
            part: open.part,
            ordinal: open.ordinal,
            last: open.commit,
            complete: end.is_some(),
            end: end.unwrap_or(open.commit),
            time: open.time,
            frames: self.frames.split().freeze(),
            tables,
        });
    }

    /// Whether there is a block to hand on.
    pub(super) fn has_block(&self) -> bool {
        !self.ready.is_empty() || self.whole.is_some()
    }

    /// Whether a block should be handed on before more is taken in.
    pub(super) fn is_full(&self) -> bool {
        !self.ready.is_empty() || self.whole_len() >= BLOCK
    }

    /// The next block, in the order of commits.
    pub(super) fn take(&mut self) -> Option<Block> {
        if self.ready.is_empty() {
            self.finish_whole();
        }
        self.ready.pop_front()
    }

    /// Bytes in memory.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.frames.len() + self.ready.iter().map(|block| block.frames.len()).sum::<usize>()
    }
}
