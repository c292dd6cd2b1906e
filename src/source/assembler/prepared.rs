//! Transactions that are prepared, and commit or are rolled back at any later time.
//!
//! All of such a transaction is in its file. That is sealed (on disk for good) before the PREPARE
//! may be confirmed, since PostgreSQL then sends no more of it than its end. With COMMIT PREPARED
//! the file is replayed into the journal, and once that has it on disk, the file goes.

use std::collections::{HashMap, HashSet};

use super::streamed::{BlockKind, Commit, InBlock, Replay, Transaction};
use super::{AssembleError, Assembler, Step};
use crate::model::Lsn;
use crate::pgoutput;
use crate::store::spill::{Sealed, SpillError, Spills};

/// The prepared transactions.
#[derive(Default)]
pub(super) struct Prepared {
    /// What was rolled back in each.
    sealed: HashMap<u32, HashSet<u32>>,
    /// The one that is being sealed: also where the log goes on behind its PREPARE.
    sealing: Option<(u32, HashSet<u32>, Lsn)>,
    /// Those that the journal was given, and where the log goes on behind their commits.
    handed_on: Vec<(u32, Lsn)>,
}

impl Prepared {
    /// Takes over from the run before: what the journal has up to `last_commit` goes.
    pub(super) fn open(spills: &Spills, last_commit: Lsn) -> Result<Self, SpillError> {
        let mut prepared = Self::default();
        for Sealed { xid, note, committed } in spills.sealed()? {
            if committed.is_some_and(|commit| commit <= last_commit) {
                spills.remove_sealed(xid)?;
                continue;
            }
            let levels = note.as_chunks().0.iter().map(|level| u32::from_be_bytes(*level));
            prepared.sealed.insert(xid, levels.collect());
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
            self.streamed.start_file(xid, &[])?;
        }
        self.streamed.prepared.sealing = Some((xid, transaction.aborted, end_lsn));
        Ok(Step::Seal)
    }

    /// Makes the transaction that was prepared last for good, for a thread that may wait for a
    /// disk.
    pub(in crate::source) fn seal(&self) -> impl FnOnce() -> Result<(), SpillError> + Send + use<> {
        let spills = self.streamed.spills.clone();
        let sealing = self.streamed.prepared.sealing.as_ref();
        let sealing = sealing.map(|(xid, aborted, _)| {
            let note: Vec<u8> = aborted.iter().flat_map(|level| level.to_be_bytes()).collect();
            (*xid, note)
        });
        move || sealing.map_or(Ok(()), |(xid, note)| spills.seal(xid, &note))
    }

    /// That is done: its PREPARE may be confirmed.
    pub(in crate::source) fn sealed(&mut self) {
        if let Some((xid, aborted, end)) = self.streamed.prepared.sealing.take() {
            self.streamed.prepared.sealed.insert(xid, aborted);
            self.idle = Some(end);
        }
    }

    /// The transaction's file is replayed from now on, unless the journal has it.
    pub(super) fn commit_prepared(
        &mut self,
        committed: Commit,
        gid: &str,
    ) -> Result<(), AssembleError> {
        let Commit { xid, commit, end, time } = committed;
        self.begin(commit, time, xid)?;
        if self.blocks.is_skipping() {
            self.streamed.prepared.handed_on(xid, end);
            return self.commit(end);
        }
        let aborted = self.streamed.prepared.sealed.get(&xid).cloned();
        let aborted = aborted.ok_or_else(|| AssembleError::Unprepared(gid.into()))?;
        self.streamed.spills.mark_committed(xid, commit)?;
        let replay = Replay::new(&committed, BlockKind::Prepared, aborted, &self.streamed.spills);
        self.streamed.replay = Some(replay.map_err(AssembleError::Sealed)?);
        Ok(())
    }

    pub(super) fn roll_back_prepared(&mut self, xid: u32, end: Lsn) -> Result<(), AssembleError> {
        if self.is_inside() {
            return Err(AssembleError::Nested);
        }
        self.idle = Some(end);
        Ok(self.streamed.remove_prepared(xid)?)
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
}

impl super::Streamed {
    fn remove_prepared(&mut self, xid: u32) -> Result<(), SpillError> {
        match self.prepared.sealed.remove(&xid) {
            Some(_) => self.spills.remove_sealed(xid),
            None => Ok(()),
        }
    }

    /// Begins a transaction's file; one that was prepared under that number comes again.
    pub(super) fn start_file(&mut self, xid: u32, piece: &[u8]) -> Result<(), SpillError> {
        self.prepared.sealed.remove(&xid);
        self.spills.start(xid, piece)
    }
}
