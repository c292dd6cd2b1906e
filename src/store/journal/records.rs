//! The journal's entries, as its writer and its readers share them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fjall::{Keyspace, OwnedWriteBatch};
use tokio::sync::watch;

use super::{Block, block};
use crate::model::{Lsn, Offset};
use crate::store::StoreError;
use crate::store::disk::Disk;
use crate::store::log::{Cut, Entry, Log, Span};
use crate::store::tail::Tail;

/// Newest blocks in memory, so that pipelines at the end touch no file.
const TAIL: u64 = 8 << 20;

/// The stored blocks.
pub(in crate::store) struct Records {
    pub(in crate::store) log: Log,
    tail: Mutex<Tail<Block>>,
    visible: watch::Sender<Lsn>,
}

impl Records {
    /// Opens the journal and cuts a transaction off its end that is not there to its commit.
    pub(in crate::store) fn open(
        database: (&Disk, &Keyspace),
        entries: Keyspace,
    ) -> Result<Self, StoreError> {
        let names = ("journal", "journal".to_owned());
        let log = Log::open(database, entries, names, Cut::BetweenCommits)?;
        let tail = Mutex::new(Tail::new(TAIL));
        let records = Self { log, tail, visible: watch::Sender::new(Lsn::ZERO) };
        if let Some(last) = records.last()?
            && !last.complete
        {
            tracing::info!(commit = %last.first, "the journal's last transaction came only in part");
            records.cut_from(last.first)?;
        }
        let last = records.last()?;
        records.log.show(last.as_ref().map(|last| block::key(last.first, 0)));
        let commit = last.map(|last| last.last);
        // Everything may have been taken back since the last removal by retention.
        let commit = commit.unwrap_or(records.log.purged().commit);
        records.visible.send_replace(commit);
        Ok(records)
    }

    fn last(&self) -> Result<Option<Block>, StoreError> {
        let last = self.log.last()?;
        last.map(|entry| self.decode(&entry)).transpose()
    }

    fn tail(&self) -> MutexGuard<'_, Tail<Block>> {
        // Its methods do not panic half-way.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commit LSN of the last transaction that readers see.
    pub(in crate::store) fn visible(&self) -> watch::Receiver<Lsn> {
        self.visible.subscribe()
    }

    /// Takes back the parts of a transaction that never became visible.
    pub(super) fn cut_from(&self, first: Lsn) -> Result<(), StoreError> {
        let key = block::key(first, 0);
        self.tail().cut_from(key);
        self.log.cut_from(key)
    }

    /// Makes the entry of a block that follows the commit `after`.
    pub(super) fn entry(
        &self,
        previous: Option<&Entry>,
        block: &Block,
        after: Lsn,
    ) -> Result<Entry, StoreError> {
        let before = match block.part {
            0 => block::end_of(after),
            _ => Offset {
                commit: block.first,
                ordinal: block.ordinal.saturating_sub(1),
                emit: u32::MAX,
            },
        };
        let span = Span { before, last: block::end_of(block.last), latest: block.time };
        let key = block::key(block.first, block.part);
        self.log.entry(previous, key, span, (&block::head(block), &block.frames))
    }

    pub(super) fn insert(&self, batch: &mut OwnedWriteBatch, entry: &Entry) {
        self.log.insert(batch, entry);
    }

    /// These are committed; shows readers everything up to `last`.
    pub(super) fn wrote(&self, entries: Vec<Entry>, last: Lsn) -> Result<(), StoreError> {
        for entry in entries {
            let block = self.decode(&entry)?;
            let shown = block.complete.then(|| block::key(block.first, 0));
            self.log.wrote(&entry, shown);
            self.tail().push(entry, block);
        }
        self.visible.send_if_modified(|visible| std::mem::replace(visible, last) != last);
        self.log.bound_memory()
    }

    /// Runs a search in memory; `None` if only the disk can tell.
    pub(super) fn in_tail<R>(&self, search: impl FnOnce(&Tail<Block>) -> Option<R>) -> Option<R> {
        search(&self.tail())
    }

    pub(super) fn decode(&self, entry: &Entry) -> Result<Block, StoreError> {
        block::decode(entry).ok_or_else(|| self.damaged_at(entry.key.commit))
    }

    pub(super) fn damaged_at(&self, commit: Lsn) -> StoreError {
        self.log.damaged(format_args!("the block at {commit}"))
    }
}
