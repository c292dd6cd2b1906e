//! The journal's own thread: appends what arrives, in order, and shows it to readers at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fjall::OwnedWriteBatch;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Append, Block, Journal};
use crate::model::{Lsn, RelationId};
use crate::store::log::Entry;
use crate::store::{Inner, StoreError, position};

/// Messages that wait for the writer.
const QUEUE: usize = 8;
/// Bytes of blocks that are enough for one write.
const WRITE: usize = 2 << 20;
/// While it takes nothing, how often it looks whether it may again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Starts the thread. Must be called in a Tokio runtime.
pub(in crate::store) fn start(store: Arc<Inner>) -> Result<Journal, StoreError> {
    let (appender, input) = mpsc::channel(QUEUE);
    let (blocked, blocked_now) = watch::channel(None);
    let (result, ended) = oneshot::channel();
    let durable = store.syncer.durable();
    let failed = store.syncer.failed();
    let writer = Writer {
        last: *store.records.visible().borrow(),
        position: position::read(&store.meta)?,
        open: None,
        input,
        blocked,
        store: store.clone(),
    };
    thread::Builder::new()
        .name("journal".into())
        .spawn(move || {
            // Nobody waits for the result of a journal that was let go.
            let _ = result.send(writer.run());
        })
        .map_err(fjall::Error::Io)?;
    let done = tokio::spawn(finished(store, ended, failed));
    Ok(Journal { appender, durable, blocked: blocked_now, done })
}

/// Ends with the thread, or as soon as a sync failed.
async fn finished(
    store: Arc<Inner>,
    ended: oneshot::Receiver<Result<(), StoreError>>,
    mut failed: watch::Receiver<bool>,
) -> Result<(), StoreError> {
    let ended = async { ended.await.unwrap_or_else(|_| Err(fjall::Error::Poisoned.into())) };
    tokio::select! {
        result = ended => result,
        Ok(_) = failed.wait_for(|failed| *failed) => Err(store.syncer.failure()),
    }
}

struct Writer {
    store: Arc<Inner>,
    input: mpsc::Receiver<Append>,
    blocked: watch::Sender<Option<String>>,
    /// Commit of the last transaction stored whole.
    last: Lsn,
    /// Where PostgreSQL goes on behind everything stored whole.
    position: Lsn,
    /// A transaction of which only parts are stored: its commit, and the part to come.
    open: Option<(Lsn, u32)>,
}

/// What goes to the database in one batch.
struct Pending {
    batch: OwnedWriteBatch,
    entries: Vec<Entry>,
    /// The last word on each table: a key stands only once in a batch.
    tables: HashMap<u32, Option<RelationId>>,
    position: Lsn,
}

impl Writer {
    fn run(mut self) -> Result<(), StoreError> {
        while let Some(append) = self.input.blocking_recv() {
            if !self.wait_for_room()? {
                // Shut down while full. What is left was never confirmed and comes again.
                return Ok(());
            }
            let mut size = append.size();
            let mut appends = vec![append];
            while appends.len() < QUEUE
                && size < WRITE
                && let Ok(append) = self.input.try_recv()
            {
                size += append.size();
                appends.push(append);
            }
            self.append(appends)?;
        }
        self.store.syncer.flush()
    }

    /// Waits while nothing may be written. False if the source went away meanwhile.
    fn wait_for_room(&self) -> Result<bool, StoreError> {
        // A transaction that was begun is let in whole: no pipeline can read it and make room
        // before its commit is there.
        let inside = self.open.is_some();
        let Some(reason) = self.store.no_room(inside)? else { return Ok(true) };
        tracing::warn!("the journal takes nothing more: {reason}");
        self.blocked.send_replace(Some(reason));
        while let Some(reason) = self.store.no_room(inside)? {
            if self.input.is_closed() {
                return Ok(false);
            }
            self.blocked.send_if_modified(|before| before.replace(reason.clone()) != Some(reason));
            thread::sleep(LOOK_AGAIN);
        }
        tracing::info!("the journal goes on");
        self.blocked.send_replace(None);
        Ok(true)
    }

    fn append(&mut self, appends: Vec<Append>) -> Result<(), StoreError> {
        let mut pending = self.pending();
        for append in appends {
            match append {
                Append::Idle(lsn) => self.position = self.position.max(lsn),
                Append::Block(block) => {
                    pending = self.block(block, pending)?;
                }
                Append::Chunk(block, backfill) => {
                    pending = self.block(block, pending)?;
                    self.store.backfills.write(&mut pending.batch, &backfill)?;
                }
            }
        }
        self.commit(pending)
    }

    fn pending(&self) -> Pending {
        let (batch, position) = (self.store.db.batch(), self.position);
        Pending { batch, entries: Vec::new(), tables: HashMap::new(), position }
    }

    fn block(&mut self, block: Block, mut pending: Pending) -> Result<Pending, StoreError> {
        if block.last <= self.last {
            // PostgreSQL sent it again; it is here.
            if block.complete {
                self.position = self.position.max(block.end);
            }
            return Ok(pending);
        }
        if self.open.is_some() && block.part == 0 {
            pending = self.take_back(pending)?;
        }
        self.check(&block)?;
        let entry = self.store.records.entry(pending.entries.last(), &block, self.last)?;
        self.store.records.insert(&mut pending.batch, &entry);
        pending.tables.extend(block.tables.iter().map(|table| (table.oid, table.relation)));
        pending.entries.push(entry);
        if block.complete {
            (self.last, self.open) = (block.last, None);
            self.position = self.position.max(block.end);
        } else {
            self.open = Some((block.first, block.part.saturating_add(1)));
        }
        Ok(pending)
    }

    /// The connection was lost in the middle of a transaction, which now comes again: removes the
    /// parts of it that are stored, in a batch of its own, since one batch cannot both remove a key
    /// and write it.
    fn take_back(&mut self, pending: Pending) -> Result<Pending, StoreError> {
        self.commit(pending)?;
        if let Some((first, _)) = self.open.take() {
            self.store.records.cut_from(first)?;
        }
        Ok(self.pending())
    }

    fn check(&self, block: &Block) -> Result<(), StoreError> {
        let fits = match self.open {
            Some(open) => open == (block.first, block.part),
            None => block.part == 0 && block.first > self.last,
        };
        if fits && block.first <= block.last && (block.complete || block.first == block.last) {
            return Ok(());
        }
        Err(StoreError::OutOfOrder(format!(
            "journal: block {} part {} to {} behind {}, open {:?}",
            block.first, block.part, block.last, self.last, self.open
        )))
    }

    fn commit(&mut self, mut pending: Pending) -> Result<(), StoreError> {
        let moved = self.position > pending.position;
        if pending.entries.is_empty() && !moved {
            return Ok(());
        }
        if moved {
            position::write(&mut pending.batch, &self.store.meta, self.position);
        }
        self.store.tables.write(&mut pending.batch, &pending.tables);
        pending.batch.commit()?;
        self.store.metrics.journal_blocks.inc_by(pending.entries.len() as u64);
        self.store.records.wrote(pending.entries, self.last)?;
        self.store.syncer.wrote_journal(self.position);
        Ok(())
    }
}
