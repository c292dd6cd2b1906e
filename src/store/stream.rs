//! Named sequences of events. The newest are kept in memory too, so that readers at the tail do not
//! touch the disk; every reader reads one log by offset, so nothing is between "live" and
//! "backlog".

use std::sync::{Mutex, MutexGuard, PoisonError};

use fjall::OwnedWriteBatch;
use tokio::sync::watch;

use super::StoreError;
use super::log::{Entry, Log, Span};
use super::tail::Tail;
use crate::model::Offset;
use crate::model::event::Events;

/// Newest events of each stream in memory.
const TAIL: u64 = 4 << 20;
const HEAD: usize = Offset::LEN + 4;

/// What [`Stream::read`] found.
#[derive(Debug, Clone)]
pub enum Read {
    /// A run of events, some of them behind the place asked for: take [`Events::after`].
    Events(Events),
    /// Nothing behind that place yet: wait for [`Stream::head`] to change.
    End,
    /// Retention removed events behind the place asked for. Reading goes on behind `purged`.
    Gap {
        /// Everything up to and including this place is gone.
        purged: Offset,
    },
}

/// Where the events since a time begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Behind this place. Where there is none yet, that is the stream's end.
    Kept(Offset),
    /// Retention removed the first of them; what is left begins behind this place.
    Removed(Offset),
}

/// One stream.
pub struct Stream {
    name: String,
    owner: String,
    /// Runs of events by the offset of their last.
    pub(super) log: Log,
    tail: Mutex<Tail<Events>>,
    head: watch::Sender<Offset>,
    /// Held by the one who appends, from making entries until readers can see them.
    appending: Mutex<()>,
}

impl Stream {
    pub(super) fn open(name: &str, owner: &str, log: Log) -> Result<Self, StoreError> {
        let head = log.last()?.map_or(log.purged(), |entry| entry.header.last);
        Ok(Self {
            name: name.into(),
            owner: owner.into(),
            log,
            tail: Mutex::new(Tail::new(TAIL)),
            head: watch::Sender::new(head),
            appending: Mutex::new(()),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pipeline that wrote it, or declared it, first.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Offset of the newest event ([`Offset::START`] while there is none), and when it changes.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Offset> {
        self.head.subscribe()
    }

    /// Everything up to and including this place has been removed by retention.
    #[must_use]
    pub fn purged(&self) -> Offset {
        self.log.purged()
    }

    /// Bytes that its events take.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.log.size()
    }

    /// The run of events that goes on behind `after`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the next run is not what was written, or is missing.
    pub fn read(&self, after: Offset) -> Result<Read, StoreError> {
        if let Some(recent) = self.recent(after) {
            return Ok(recent);
        }
        match self.log.at_or_behind(next(after))? {
            Some(entry) if entry.header.before <= after => self.decode(&entry).map(Read::Events),
            // Retention may have removed it a moment ago.
            _ => self.gap(after).ok_or_else(|| {
                self.log.damaged(format_args!("what follows the event at {}", after.commit))
            }),
        }
    }

    /// The same as far as it is in memory; `None` where the disk has to be asked.
    #[must_use]
    pub fn recent(&self, after: Offset) -> Option<Read> {
        if after >= *self.head.borrow() {
            return Some(Read::End);
        }
        let in_tail = || {
            let tail = self.tail();
            let (_, events) = tail.at_or_behind(next(after), after)?;
            Some(Read::Events(events.clone()))
        };
        self.gap(after).or_else(in_tail)
    }

    /// Where the events since a time begin: with the first one, in the stream's order, that
    /// committed then or later. Transactions may have committed out of order, by clocks that were
    /// set, so others that are older can stand behind it. Found without reading the stream.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where what is stored is not what was written.
    pub fn since(&self, time: i64) -> Result<Since, StoreError> {
        let head = *self.head.borrow();
        let found = self.log.find(|entry| entry.latest >= time)?;
        let Some(entry) = found.filter(|entry| entry.header.latest >= time) else {
            return Ok(Since::Kept(head));
        };
        let before = entry.header.before;
        if entry.header.latest_before >= time {
            // It is the first that is kept: the one before it would have been found.
            return Ok(Since::Removed(before));
        }
        let mut after = before;
        for event in self.decode(&entry)?.after(before) {
            if event.time().is_some_and(|committed| committed >= time) {
                break;
            }
            after = event.offset;
        }
        Ok(Since::Kept(after))
    }

    fn gap(&self, after: Offset) -> Option<Read> {
        let purged = self.log.purged();
        (after < purged).then_some(Read::Gap { purged })
    }

    fn tail(&self) -> MutexGuard<'_, Tail<Events>> {
        // Its methods do not panic half-way.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decode(&self, entry: &Entry) -> Result<Events, StoreError> {
        decode(entry).ok_or_else(|| {
            self.log.damaged(format_args!("the events at {}", entry.header.last.commit))
        })
    }

    /// Lets one batch at a time append.
    pub(super) fn appending(&self) -> MutexGuard<'_, ()> {
        // It guards no data.
        self.appending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives events that come again the next places, while [`Stream::appending`] is held.
    pub(super) fn place_again(&self, runs: &mut [Events]) -> Result<(), StoreError> {
        let mut head = *self.head.borrow();
        for run in runs.iter_mut().filter(|run| run.count > 0) {
            *run = run.again_behind(head).map_err(|_| {
                let what = format!("stream {}: no place for what comes again", self.name);
                StoreError::OutOfOrder(what)
            })?;
            head = run.last;
        }
        Ok(())
    }

    /// Puts runs of events into a batch, while [`Stream::appending`] is held.
    pub(super) fn append(
        &self,
        batch: &mut OwnedWriteBatch,
        runs: &[Events],
    ) -> Result<Vec<Entry>, StoreError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(runs.len());
        let mut before = *self.head.borrow();
        for run in runs.iter().filter(|run| run.count > 0) {
            if run.first <= before || run.last < run.first {
                return Err(StoreError::OutOfOrder(format!(
                    "stream {}: events {:?} to {:?} behind {before:?}",
                    self.name, run.first, run.last
                )));
            }
            let span = Span { before, last: run.last, latest: run.latest };
            let entry = self.log.entry(entries.last(), run.last, span, (&head(run), &run.bytes))?;
            self.log.insert(batch, &entry);
            before = run.last;
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The batch with these is committed: readers may see them.
    pub(super) fn wrote(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        let mut head = None;
        for entry in entries {
            head = Some(entry.header.last);
            let events = self.decode(&entry)?;
            self.log.wrote(&entry, head);
            self.tail().push(entry, events);
        }
        if let Some(head) = head {
            self.head.send_replace(head);
        }
        self.log.bound_memory()
    }
}

/// What stands before a run's bytes: the offset of its first event, and how many they are.
fn head(run: &Events) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    bytes[..Offset::LEN].copy_from_slice(&run.first.to_bytes());
    bytes[Offset::LEN..].copy_from_slice(&run.count.to_be_bytes());
    bytes
}

/// The run in an entry, sharing its memory; `None` if it is none.
fn decode(entry: &Entry) -> Option<Events> {
    let (first, rest) = entry.body.split_first_chunk::<{ Offset::LEN }>()?;
    let (count, _) = rest.split_first_chunk()?;
    Some(Events {
        first: Offset::from_bytes(first)?,
        last: entry.header.last,
        latest: entry.header.latest,
        count: u32::from_be_bytes(*count),
        bytes: entry.body.slice(HEAD..),
    })
}

/// The first place behind `offset`.
fn next(offset: Offset) -> Offset {
    let number = u128::from_be_bytes(offset.to_bytes()).saturating_add(1);
    Offset::from_bytes(&number.to_be_bytes()).unwrap_or(offset)
}

#[cfg(test)]
mod tests;
