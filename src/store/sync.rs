//! Syncs what was written, in groups, on a thread of its own.
//!
//! A position becomes [`Durable`] only here, and only after a sync that began when it had been
//! written. After a failed sync nobody can say what is on disk (the kernel drops the pages it could
//! not write, and says so once), so it is never tried again: the position stands still for good.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::StoreError;
use super::disk::Disk;
use super::journal::Durable;
use crate::metrics::Metrics;
use crate::model::Lsn;
use crate::mutation::{Mutation, is_on};

/// The thread that syncs.
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    disk: Disk,
    interval: Duration,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    changed: Condvar,
    durable: watch::Sender<Durable>,
    failed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// The journal's position that is written.
    position: Lsn,
    /// Writes so far, and how many of them are synced.
    written: u64,
    synced: u64,
    closing: bool,
    /// The thread waits for a write. While it syncs, or lets writes gather, none wakes it up.
    idle: bool,
    failure: Option<fjall::Error>,
}

impl Syncer {
    /// `position` is on disk already.
    pub(super) fn start(
        disk: Disk,
        interval: Duration,
        metrics: Arc<Metrics>,
        position: Lsn,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            disk,
            interval,
            metrics,
            state: Mutex::new(State { position, ..State::default() }),
            changed: Condvar::new(),
            durable: watch::Sender::new(Durable::synced(position)),
            failed: watch::Sender::new(false),
        });
        let thread = thread::Builder::new().name("sync".into()).spawn({
            let shared = shared.clone();
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn durable(&self) -> watch::Receiver<Durable> {
        self.shared.durable.subscribe()
    }

    /// True once a sync failed.
    pub(super) fn failed(&self) -> watch::Receiver<bool> {
        self.shared.failed.subscribe()
    }

    /// Something was written.
    pub(super) fn wrote(&self) {
        // A position that nothing moves to.
        self.wrote_journal(Lsn::ZERO);
    }

    /// The journal was written up to here.
    pub(super) fn wrote_journal(&self, position: Lsn) {
        let mut state = self.shared.state();
        state.written += 1;
        state.position = state.position.max(position);
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.shared.changed.notify_all();
        }
    }

    /// Waits until everything written before is on disk.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.shared.state();
        let target = state.written;
        while state.synced < target && !self.has_failed() {
            state = self.shared.wait(state);
        }
        drop(state);
        if self.has_failed() { Err(self.failure()) } else { Ok(()) }
    }

    /// Why it failed: the cause for the first who asks, that it failed for all others.
    pub(super) fn failure(&self) -> StoreError {
        self.shared.state().failure.take().unwrap_or(fjall::Error::Poisoned).into()
    }

    fn has_failed(&self) -> bool {
        *self.shared.failed.borrow()
    }

    /// Syncs the rest and ends the thread.
    pub(super) fn stop(&self) -> Result<(), StoreError> {
        self.shared.state().closing = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            return Err(fjall::Error::Poisoned.into());
        }
        if self.has_failed() { Err(self.failure()) } else { Ok(()) }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!("sync at the end: {:#}", anyhow::Error::from(error));
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values, each set in one go: a panic elsewhere leaves them usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some((written, position)) = self.next() {
            let began = Instant::now();
            if let Err(error) = self.sync() {
                tracing::error!("sync to disk: {error}");
                self.state().failure = Some(error);
                self.failed.send_replace(true);
                self.changed.notify_all();
                return;
            }
            self.metrics.store_sync.observe(began.elapsed().as_secs_f64());
            self.state().synced = written;
            self.changed.notify_all();
            self.durable.send_if_modified(|durable| {
                let later = durable.lsn() < position;
                *durable = Durable::synced(durable.lsn().max(position));
                later
            });
            self.pause(began);
        }
    }

    /// What is to be synced next; `None` when all is and the thread shall end.
    fn next(&self) -> Option<(u64, Lsn)> {
        let mut state = self.state();
        loop {
            if state.written > state.synced {
                return Some((state.written, state.position));
            }
            if state.closing {
                return None;
            }
            state.idle = true;
            state = self.wait(state);
        }
    }

    fn sync(&self) -> Result<(), fjall::Error> {
        if is_on(Mutation::SkipSync) {
            return self.disk.hand_over();
        }
        self.disk.sync()
    }

    /// Lets writes gather: each sync is work for the disk, however little there is to write.
    fn pause(&self, began: Instant) {
        let mut state = self.state();
        while !state.closing {
            let left = self.interval.saturating_sub(began.elapsed());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
