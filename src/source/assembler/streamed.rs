//! Transactions that come while they are still open, in blocks between those of others.
//!
//! What they change goes to a file of theirs, with the number of the level (transaction or
//! savepoint) that made the change. A level that is rolled back is remembered by its number. Once
//! the transaction has committed, the file is replayed into the journal's blocks, as far as there
//! is room for them: what is kept gets the ordinals, and so the ids, that it would have had if the
//! transaction had come whole.

use std::collections::{HashMap, HashSet};

use super::blocks::Blocks;
use super::prepared::Prepared;
use super::{AssembleError, Assembler, Step};
use crate::model::{Lsn, RelationId};
use crate::pgoutput::{self, Message, frame};
use crate::store::spill::{Pieces, SpillError, Spills};

/// So much is gathered before it is written.
pub(super) const PIECE: usize = 256 << 10;
/// Before each message: its length, whose it is, and how many ordinals it takes.
const HEAD: usize = 4 + 4 + 4;

/// The transactions that are not decided yet.
pub(super) struct Streamed {
    pub(super) spills: Spills,
    pub(super) open: HashMap<u32, Transaction>,
    pub(super) prepared: Prepared,
    /// What is coming in: a block of an open transaction, or one that is about to be prepared.
    pub(super) block: Option<InBlock>,
    /// What of the block is not written yet.
    piece: Vec<u8>,
    /// Bytes that were written since this was last asked.
    spilled: u64,
    /// The message in hand, as it is outside a block.
    plain: Vec<u8>,
    pub(super) replay: Option<Replay>,
    /// Open transactions do not come, or not so that they can be told from what is rolled back.
    whole: bool,
}

/// An open transaction.
#[derive(Default)]
pub(super) struct Transaction {
    /// Its file is there.
    pub(super) spilled: bool,
    /// Logical messages are in it.
    messages: bool,
    /// Levels that were rolled back.
    pub(super) aborted: HashSet<u32>,
}

#[derive(Clone, Copy)]
pub(super) struct InBlock {
    pub(super) xid: u32,
    pub(super) kind: BlockKind,
    /// Whose message is in hand.
    pub(super) owner: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// Of an open transaction: every message says whose it is.
    Open,
    /// All of a transaction, which is prepared at its end.
    Prepared,
}

/// A committed transaction on its way from its file to the journal.
pub(super) struct Replay {
    xid: u32,
    kind: BlockKind,
    aborted: HashSet<u32>,
    end: Lsn,
    pieces: Pieces,
    piece: Vec<u8>,
    /// So much of the piece is done.
    taken: usize,
}

/// A commit of a transaction that lies in a file.
pub(super) struct Commit {
    pub(super) xid: u32,
    pub(super) commit: Lsn,
    pub(super) end: Lsn,
    pub(super) time: i64,
}

impl Streamed {
    /// Behind `last_commit`, with what was prepared before.
    pub(super) fn open(spills: Spills, last_commit: Lsn) -> Result<Self, SpillError> {
        Ok(Self {
            prepared: Prepared::open(&spills, last_commit)?,
            spills,
            open: HashMap::new(),
            block: None,
            piece: Vec::new(),
            spilled: 0,
            plain: Vec::new(),
            replay: None,
            whole: false,
        })
    }

    /// The connection is gone: everything open will come again from its start.
    pub(super) fn clear(&mut self) {
        (self.block, self.replay) = (None, None);
        self.open.clear();
        self.prepared.forget_unsealed();
        self.piece.clear();
        if let Err(error) = self.spills.clear() {
            tracing::warn!("what was kept of open transactions stays for now: {error}");
        }
    }

    /// Whether changes that come belong to a file.
    pub(super) fn is_inside(&self) -> bool {
        self.block.is_some()
    }

    /// Whether messages that come say whose they are.
    pub(super) fn is_in_block(&self) -> bool {
        self.block.is_some_and(|block| block.kind == BlockKind::Open)
    }

    /// Whether a committed transaction is on its way to the journal.
    pub(super) fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// Whether transactions have to come whole from now on.
    pub(super) fn wants_whole(&self) -> bool {
        self.whole
    }

    /// Open transactions are not to be had.
    pub(super) fn ask_for_whole(&mut self) {
        self.whole = true;
    }

    fn begin_block(&mut self, xid: u32, first: bool) -> Result<(), AssembleError> {
        match first {
            true => drop(self.open.insert(xid, Transaction::default())),
            false if self.open.contains_key(&xid) => {}
            false => return Err(AssembleError::Outside("a further part of an open transaction")),
        }
        self.block = Some(InBlock { xid, kind: BlockKind::Open, owner: xid });
        Ok(())
    }

    pub(super) fn end_block(&mut self) -> Result<(), AssembleError> {
        self.write_out()?;
        self.block = None;
        Ok(())
    }

    /// Adds a message of the block's transaction, and gives its place to be changed in.
    pub(super) fn append(
        &mut self,
        message: &[u8],
        ordinals: u32,
    ) -> Result<&mut [u8], AssembleError> {
        if self.piece.len() >= PIECE {
            self.write_out()?;
        }
        let owner = self.block.ok_or(AssembleError::Outside("a change"))?.owner;
        // A message is at most 1 GiB.
        let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
        for word in [len, owner, ordinals] {
            self.piece.extend(word.to_be_bytes());
        }
        let at = self.piece.len();
        self.piece.extend_from_slice(message);
        Ok(&mut self.piece[at..])
    }

    fn write_out(&mut self) -> Result<(), SpillError> {
        let Some(InBlock { xid, .. }) = self.block.filter(|_| !self.piece.is_empty()) else {
            return Ok(());
        };
        match self.open.get_mut(&xid) {
            Some(transaction) if transaction.spilled => self.spills.append(xid, &self.piece)?,
            Some(transaction) => {
                transaction.spilled = true;
                self.spills.start(xid, &self.piece)?;
            }
            None => {}
        }
        self.spilled += self.piece.len() as u64;
        self.piece.clear();
        // What one large message needed is not kept for the small ones behind it.
        self.piece.shrink_to(2 * PIECE);
        Ok(())
    }

    fn roll_back_level(&mut self, xid: u32, level: u32) -> Result<(), AssembleError> {
        // PostgreSQL 18 also tells of transactions of which nothing was sent.
        let Some(transaction) = self.open.get_mut(&xid) else { return Ok(()) };
        if transaction.messages {
            self.whole = true;
            return Err(AssembleError::Unclear(xid));
        }
        transaction.aborted.insert(level);
        Ok(())
    }

    /// Nothing of what came of the transaction is needed; if it was prepared before, that stays.
    pub(super) fn forget(&mut self, xid: u32) -> Result<(), SpillError> {
        match self.open.remove(&xid) {
            Some(Transaction { spilled: true, .. }) => self.spills.remove(xid),
            _ => Ok(()),
        }
    }

    /// Bytes that went to files since this was last called.
    pub(super) fn take_spilled(&mut self) -> u64 {
        std::mem::take(&mut self.spilled)
    }

    /// Bytes in memory.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.piece.len() + self.replay.as_ref().map_or(0, |replay| replay.piece.len())
    }
}

impl Replay {
    pub(super) fn new(
        committed: &Commit,
        kind: BlockKind,
        aborted: HashSet<u32>,
        pieces: Pieces,
    ) -> Self {
        let Commit { xid, end, .. } = *committed;
        Self { xid, kind, aborted, end, pieces, piece: Vec::new(), taken: 0 }
    }

    /// Appends what is kept, until a block is full; false when that was all.
    fn go_on(
        &mut self,
        blocks: &mut Blocks,
        changes: &mut u64,
        mut note: impl FnMut(&[u8]) -> Result<(), AssembleError>,
    ) -> Result<bool, AssembleError> {
        while !blocks.is_full() {
            if self.taken == self.piece.len() {
                if !self.pieces.next(&mut self.piece)? {
                    return Ok(false);
                }
                self.taken = 0;
                continue;
            }
            let rest = &self.piece[self.taken..];
            let (owner, ordinals, message) = spilled(rest).ok_or_else(|| self.pieces.damaged())?;
            self.taken += HEAD + message.len();
            if self.aborted.contains(&owner) {
                continue;
            }
            for relation in frame::relations(message) {
                blocks.uses(RelationId(relation))?;
            }
            if blocks.change(message, ordinals).is_some() {
                *changes += u64::from(ordinals);
                note(message)?;
                blocks.split_if_large();
            }
        }
        Ok(true)
    }
}

/// An open transaction comes again; a prepared one does not.
fn unreadable(kind: BlockKind, error: AssembleError) -> AssembleError {
    match (kind, error) {
        (BlockKind::Prepared, AssembleError::Spill(error)) => AssembleError::Sealed(error),
        (_, error) => error,
    }
}

/// The first message in what is left of a piece: whose it is, its ordinals, its bytes.
fn spilled(piece: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (head, rest) = piece.split_first_chunk::<HEAD>()?;
    let [len, owner, ordinals] = [0, 4, 8].map(|at| {
        let word = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        u32::from_be_bytes(word)
    });
    Some((owner, ordinals, rest.get(..usize::try_from(len).ok()?)?))
}

impl Assembler {
    /// Takes a message inside a block.
    pub(super) fn push_streamed(
        &mut self,
        bytes: &[u8],
        received: i64,
    ) -> Result<Step, AssembleError> {
        let (owner, message) = pgoutput::decode_streamed(bytes)?;
        let mut plain = std::mem::take(&mut self.streamed.plain);
        plain.clear();
        plain.shrink_to(PIECE);
        if let (Some(owner), Some(block)) = (owner, &mut self.streamed.block) {
            block.owner = owner;
            if let (Message::Message { .. }, Some(transaction)) =
                (message, self.streamed.open.get_mut(&block.xid))
            {
                transaction.messages |= owner == block.xid;
            }
            plain.push(bytes[0]);
            plain.extend_from_slice(&bytes[5..]);
        }
        let step = self.take(message, &plain, received);
        self.streamed.plain = plain;
        step
    }

    pub(super) fn stream_start(&mut self, xid: u32, first: bool) -> Result<(), AssembleError> {
        if self.is_inside() {
            return Err(AssembleError::Nested);
        }
        self.tables.enter(xid);
        self.streamed.begin_block(xid, first)
    }

    pub(super) fn stream_stop(&mut self) -> Result<(), AssembleError> {
        if !self.streamed.is_in_block() {
            return Err(AssembleError::Outside("the end of a part"));
        }
        self.tables.leave();
        self.streamed.end_block()
    }

    pub(super) fn stream_abort(&mut self, xid: u32, level: u32) -> Result<(), AssembleError> {
        if self.streamed.is_in_block() {
            return Err(AssembleError::Nested);
        }
        if xid != level {
            return self.streamed.roll_back_level(xid, level);
        }
        self.tables.forget(xid);
        Ok(self.streamed.forget(xid)?)
    }

    /// The transaction's file is replayed from now on, unless the journal has it.
    pub(super) fn stream_commit(&mut self, committed: Commit) -> Result<(), AssembleError> {
        let Commit { xid, commit, end, time } = committed;
        if self.is_inside() {
            return Err(AssembleError::Nested);
        }
        self.tables.keep(xid);
        let known = self.streamed.open.remove(&xid);
        let Transaction { spilled, aborted, .. } =
            known.ok_or(AssembleError::Outside("the commit of an open transaction"))?;
        self.begin(commit, time, xid)?;
        if self.blocks.is_skipping() || !spilled {
            self.streamed.spills.remove(xid)?;
            return self.commit(end);
        }
        let pieces = self.streamed.spills.read(xid)?;
        self.streamed.replay = Some(Replay::new(&committed, BlockKind::Open, aborted, pieces));
        Ok(())
    }

    /// Goes on with a replay until a block is full, or until it is done.
    pub(super) fn go_on_replaying(&mut self) -> Result<(), AssembleError> {
        let Some(replay) = &mut self.streamed.replay else { return Ok(()) };
        let (xid, kind, end) = (replay.xid, replay.kind, replay.end);
        let (watermarks, tables) = (&mut self.watermarks, &self.tables);
        let note = |message: &[u8]| watermarks.note_replayed(message, tables);
        let more = replay.go_on(&mut self.blocks, &mut self.counts.changes, note);
        if more.map_err(|error| unreadable(kind, error))? {
            return Ok(());
        }
        self.streamed.replay = None;
        match kind {
            BlockKind::Open => self.streamed.spills.remove(xid)?,
            BlockKind::Prepared => self.streamed.prepared.handed_on(xid, end),
        }
        self.commit(end)
    }
}
