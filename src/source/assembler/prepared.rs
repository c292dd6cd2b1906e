//! Transactions that are prepared, and commit or are rolled back at any later time.
//!
//! All of such a transaction is in its file. That is sealed (on disk for good) before the PREPARE
//! may be confirmed, since PostgreSQL then sends no more of it than its end. With COMMIT PREPARED
//! the file is replayed into the journal, and once that has it on disk, the file goes.
//!
//! On a new connection PostgreSQL reads such a transaction once more, and although it skips a
//! PREPARE that was confirmed, it may send the changes as those of an open transaction, with no end
//! but COMMIT PREPARED. So only another PREPARE puts what comes in the place of what is sealed.

use std::collections::HashSet;

use super::streamed::{BlockKind, Commit, InBlock, Replay, Transaction};
use super::{AssembleError, Assembler, Step};
use crate::model::Lsn;
use crate::pgoutput;
use crate::store::spill::{Sealed, SpillError, Spills};

/// The prepared transactions.
#[derive(Default)]
pub(super) struct Prepared {
    /// Those whose files are sealed, each with a note of the levels that were rolled back in it.
    sealed: HashSet<u32>,
    /// The one that is being sealed.
    sealing: Option<Sealing>,
    /// Those that the journal was given, and where the log goes on behind their commits.
    handed_on: Vec<(u32, Lsn)>,
}

/// A transaction that was just prepared.
struct Sealing {
    xid: u32,
    aborted: HashSet<u32>,
    /// Where the log goes on behind its PREPARE.
    end: Lsn,
}

impl Prepared {
    /// Takes over from the run before: what the journal has up to `last_commit` goes.
    pub(super) fn open(spills: &Spills, last_commit: Lsn) -> Result<Self, SpillError> {
        let mut prepared = Self::default();
        for Sealed { xid, committed } in spills.sealed()? {
            match committed.is_some_and(|commit| commit <= last_commit) {
                true => spills.remove_sealed(xid)?,
                false => drop(prepared.sealed.insert(xid)),
            }
        }
        Ok(prepared)
    }

    /// The connection is gone: one that was not sealed yet comes again.
    pub(super) fn forget_unsealed(&mut self) {
        self.sealing = None;
    }

    /// The journal was given all of it.
    pub(super) fn handed_on(&mut self, xid: u32, end: Lsn) {
        self.handed_on.push((xid, end));
    }
}

impl Assembler {
    pub(super) fn begin_prepare(
        &mut self,
        prepared: pgoutput::Prepared<'_>,
    ) -> Result<(), AssembleError> {
        let xid = prepared.xid;
        if self.is_inside() {
            return Err(AssembleError::Nested);
        }
        self.streamed.open.insert(xid, Transaction::default());
        self.streamed.block = Some(InBlock { xid, kind: BlockKind::Prepared, owner: xid });
        Ok(())
    }

    pub(super) fn prepare(
        &mut self,
        prepared: pgoutput::Prepared<'_>,
    ) -> Result<Step, AssembleError> {
        match self.streamed.block {
            Some(InBlock { xid, kind: BlockKind::Prepared, .. }) if xid == prepared.xid => {
                self.streamed.end_block()?;
            }
            _ => return Err(AssembleError::Outside("a prepare")),
        }
        self.end_prepare(prepared)
    }

    pub(super) fn stream_prepare(
        &mut self,
        prepared: pgoutput::Prepared<'_>,
    ) -> Result<Step, AssembleError> {
        if self.is_inside() {
            return Err(AssembleError::Nested);
        }
        self.tables.keep(prepared.xid);
        self.end_prepare(prepared)
    }

    fn end_prepare(&mut self, prepared: pgoutput::Prepared<'_>) -> Result<Step, AssembleError> {
        let pgoutput::Prepared { xid, end_lsn, .. } = prepared;
        let transaction = self.streamed.open.remove(&xid);
        let transaction = transaction.ok_or(AssembleError::Outside("a prepare"))?;
        if !transaction.spilled {
            self.streamed.spills.start(xid, &[])?;
        }
        let sealing = Sealing { xid, aborted: transaction.aborted, end: end_lsn };
        self.streamed.prepared.sealing = Some(sealing);
        Ok(Step::Seal)
    }

    /// Makes the transaction that was prepared last for good, for a thread that may wait for a
    /// disk.
    pub(in crate::source) fn seal(&self) -> impl FnOnce() -> Result<(), SpillError> + Send + use<> {
        let sealing = self.streamed.prepared.sealing.as_ref();
        let seal = sealing.map(|Sealing { xid, aborted, .. }| {
            let note = aborted.iter().flat_map(|level| level.to_be_bytes()).collect();
            self.streamed.spills.seal(*xid, note)
        });
        move || seal.map_or(Ok(()), |seal| seal())
    }

    /// That is done: its PREPARE may be confirmed.
    pub(in crate::source) fn sealed(&mut self) {
        if let Some(Sealing { xid, end, .. }) = self.streamed.prepared.sealing.take() {
            self.streamed.prepared.sealed.insert(xid);
            self.idle = Some(end);
        }
    }

    /// The transaction's sealed file is replayed from now on, unless the journal has it.
    pub(super) fn commit_prepared(
        &mut self,
        committed: Commit,
        gid: &str,
    ) -> Result<(), AssembleError> {
        let Commit { xid, commit, end, time } = committed;
        self.begin(commit, time, xid)?;
        self.forget_again(xid)?;
        if self.blocks.is_skipping() {
            self.streamed.prepared.handed_on(xid, end);
            return self.commit(end);
        }
        if !self.streamed.prepared.sealed.contains(&xid) {
            return Err(AssembleError::Unprepared(gid.into()));
        }
        self.streamed.spills.mark_committed(xid, commit)?;
        let sealed = self.streamed.spills.read_sealed(xid);
        let (note, pieces) = sealed.map_err(AssembleError::Sealed)?;
        let aborted = note.as_chunks().0.iter().map(|level| u32::from_be_bytes(*level)).collect();
        self.streamed.replay = Some(Replay::new(&committed, BlockKind::Prepared, aborted, pieces));
        Ok(())
    }

    pub(super) fn roll_back_prepared(&mut self, xid: u32, end: Lsn) -> Result<(), AssembleError> {
        if self.is_inside() {
            return Err(AssembleError::Nested);
        }
        self.forget_again(xid)?;
        self.idle = Some(end);
        Ok(self.streamed.remove_prepared(xid)?)
    }

    /// What came again of a prepared transaction in blocks is not needed: all of it is sealed.
    fn forget_again(&mut self, xid: u32) -> Result<(), SpillError> {
        self.tables.forget(xid);
        self.streamed.forget(xid)
    }

    /// Everything up to `durable` is on disk in the journal: the files of what has committed
    /// before go.
    pub(in crate::source) fn settle(&mut self, durable: Lsn) -> Result<(), AssembleError> {
        let handed_on = &mut self.streamed.prepared.handed_on;
        let settled = handed_on.iter().take_while(|(_, end)| *end <= durable).count();
        let settled: Vec<_> = handed_on.drain(..settled).collect();
        for (xid, _) in settled {
            self.streamed.remove_prepared(xid)?;
        }
        Ok(())
    }

    /// The server is on another timeline than it was, which has all that the journal has on disk,
    /// up to `durable`. What committed behind that may commit at another place now, or be rolled
    /// back.
    pub(in crate::source) fn timeline_moved(&mut self, durable: Lsn) -> Result<(), AssembleError> {
        self.settle(durable)?;
        self.streamed.prepared.handed_on.clear();
        Ok(self.streamed.spills.forget_commits()?)
    }

    /// The slot was made anew. That waits for whatever is prepared, so nothing that was prepared
    /// before has its end on the new slot.
    pub(in crate::source) fn slot_renewed(&mut self) -> Result<(), AssembleError> {
        self.streamed.prepared = Prepared::default();
        for Sealed { xid, .. } in self.streamed.spills.sealed()? {
            self.streamed.spills.remove_sealed(xid)?;
        }
        Ok(())
    }
}

impl super::Streamed {
    fn remove_prepared(&mut self, xid: u32) -> Result<(), SpillError> {
        match self.prepared.sealed.remove(&xid) {
            true => self.spills.remove_sealed(xid),
            false => Ok(()),
        }
    }
}
