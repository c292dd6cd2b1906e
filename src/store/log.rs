//! What the journal and every stream are made of: entries in the order of their keys, each of which
//! names the one before it, so that a missing entry is noticed by whoever reads across the hole.
//!
//! An entry is written once. Old ones go from the front: first the place up to which everything is
//! gone is moved on and synced, then whole files that lie before it are removed, which costs no
//! tombstones and no compaction. An entry is found by key; what it weighs and when it was stored
//! stand in its header, so nothing has to be counted at the start.

use std::io::Read as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{AbstractTree as _, Keyspace, LsmError, OwnedWriteBatch, Slice};

use super::StoreError;
use super::database;
use super::disk::Disk;
use crate::model::{Offset, clock};

/// Pieces of a log that are set aside in memory before a write waits for the worker: one fewer than
/// where the database makes it wait by itself, for a tenth of a second at a time.
const SET_ASIDE: usize = 3;
/// How often a write that waits looks whether the worker took them.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long it waits. From there on the database's own bound holds.
const PATIENCE: Duration = Duration::from_secs(1);

/// What an entry says of itself and of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes that the log took before this entry, since it began.
    pub(super) start: u64,
    /// When it was stored, microseconds since 1970-01-01 UTC; never less than of the one before.
    pub(super) stored: i64,
    /// Everything up to here lies in earlier entries.
    pub(super) before: Offset,
    /// Everything up to here lies in this entry and earlier ones.
    pub(super) last: Offset,
    /// When the latest transaction of all earlier entries committed, also of those that are gone.
    pub(super) latest_before: i64,
    /// The same with this entry; so it never goes back, though commits may be out of order.
    pub(super) latest: i64,
}

/// What a new entry holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Everything up to here lies in earlier entries.
    pub(super) before: Offset,
    /// Everything up to here lies in this entry and earlier ones.
    pub(super) last: Offset,
    /// When the latest of its transactions committed, microseconds since 1970-01-01 UTC.
    pub(super) latest: i64,
}

impl Header {
    const LEN: usize = 4 * 8 + 2 * Offset::LEN;

    fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.start.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.stored.to_be_bytes());
        bytes[16..32].copy_from_slice(&self.before.to_bytes());
        bytes[32..48].copy_from_slice(&self.last.to_bytes());
        bytes[48..56].copy_from_slice(&self.latest_before.to_be_bytes());
        bytes[56..].copy_from_slice(&self.latest.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (start, rest) = bytes.split_first_chunk()?;
        let (stored, rest) = rest.split_first_chunk()?;
        let (before, rest) = rest.split_first_chunk::<{ Offset::LEN }>()?;
        let (last, rest) = rest.split_first_chunk::<{ Offset::LEN }>()?;
        let (latest_before, rest) = rest.split_first_chunk()?;
        let (latest, _) = rest.split_first_chunk()?;
        Some(Self {
            start: u64::from_be_bytes(*start),
            stored: i64::from_be_bytes(*stored),
            before: Offset::from_bytes(before)?,
            last: Offset::from_bytes(last)?,
            latest_before: i64::from_be_bytes(*latest_before),
            latest: i64::from_be_bytes(*latest),
        })
    }
}

/// One entry, as it is on disk or as it is about to be.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Offset,
    pub(super) header: Header,
    /// What the log's owner put in. It shares the memory of what the database holds.
    pub(super) body: Bytes,
    bytes: Slice,
}

impl Entry {
    /// Bytes that it takes, its key and the database's own bookkeeping aside.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Puts the parts of a body behind its header.
    fn new(key: Offset, header: Header, head: &[u8], body: &[u8]) -> Result<Self, StoreError> {
        let fixed = header.to_bytes();
        let len = fixed.len() + head.len() + body.len();
        let mut parts = fixed.chain(head).chain(body);
        let bytes = Slice::from_reader(&mut parts, len).map_err(fjall::Error::Io)?;
        Ok(Self { key, header, body: body_of(&bytes), bytes })
    }

    fn decode(key: &[u8], bytes: Slice) -> Option<Self> {
        let header = Header::from_bytes(&bytes)?;
        Some(Self { key: Offset::from_bytes(key)?, header, body: body_of(&bytes), bytes })
    }
}

fn body_of(bytes: &Slice) -> Bytes {
    Bytes::from_owner(bytes.clone()).slice(Header::LEN..)
}

/// Where a log may be cut: at every entry, or only where a commit's first entry begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Anywhere,
    BetweenCommits,
}

/// The log's ends.
#[derive(Debug, Clone, Copy)]
struct Ends {
    /// Everything up to here is gone.
    purged: Offset,
    /// [`Header::start`] of the first entry behind that.
    first: u64,
    /// Bytes written since the log began: [`Header::start`] of the next entry.
    end: u64,
    /// Key of the newest entry that may be shown; always kept.
    newest: Option<Offset>,
    /// Time of the newest entry.
    stored: i64,
    /// [`Header::latest`] of the newest entry.
    latest: i64,
}

impl Default for Ends {
    fn default() -> Self {
        let (purged, first, end, newest) = Default::default();
        Self { purged, first, end, newest, stored: 0, latest: i64::MIN }
    }
}

/// Ordered entries on disk.
pub(super) struct Log {
    /// For messages: `journal`, `stream posts`.
    name: String,
    disk: Disk,
    entries: Keyspace,
    meta: Keyspace,
    purged_key: String,
    cut: Cut,
    ends: Mutex<Ends>,
}

impl Log {
    /// The log whose entries are in `entries`, with its bookkeeping in `meta` under `id`.
    pub(super) fn open(
        (disk, meta): (&Disk, &Keyspace),
        entries: Keyspace,
        (id, name): (&str, String),
        cut: Cut,
    ) -> Result<Self, StoreError> {
        let purged_key = format!("purged/{id}");
        let (disk, meta) = (disk.clone(), meta.clone());
        let log = Self { name, disk, entries, meta, purged_key, cut, ends: Mutex::default() };
        let purged = match log.meta.get(&log.purged_key)? {
            None => Offset::START,
            Some(bytes) => Offset::from_bytes(&bytes)
                .ok_or_else(|| log.damaged("the place up to which it was removed"))?,
        };
        log.ends().purged = purged;
        let first = log.first()?;
        let newest = log.last()?;
        let mut ends = log.ends();
        ends.first = first.map_or(0, |entry| entry.header.start);
        if let Some(newest) = newest {
            ends.end = newest.header.start + newest.len();
            ends.newest = Some(newest.key);
            (ends.stored, ends.latest) = (newest.header.stored, newest.header.latest);
        }
        drop(ends);
        Ok(log)
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        // Plain values, each set in one go: a panic elsewhere leaves them usable.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Everything up to here is gone.
    pub(super) fn purged(&self) -> Offset {
        self.ends().purged
    }

    /// [`Header::start`] of the first entry that is kept.
    pub(super) fn start(&self) -> u64 {
        self.ends().first
    }

    /// Bytes that the kept entries take.
    pub(super) fn size(&self) -> u64 {
        let ends = self.ends();
        ends.end - ends.first.min(ends.end)
    }

    /// Makes the next entry. It is in the log once its batch is committed and [`Log::wrote`] told.
    pub(super) fn entry(
        &self,
        previous: Option<&Entry>,
        key: Offset,
        Span { before, last, latest }: Span,
        (head, body): (&[u8], &[u8]),
    ) -> Result<Entry, StoreError> {
        let (start, stored, latest_before) = match previous {
            Some(entry) => {
                let Header { start, stored, latest, .. } = entry.header;
                (start + entry.len(), stored, latest)
            }
            None => {
                let ends = self.ends();
                (ends.end, ends.stored, ends.latest)
            }
        };
        let (stored, latest) = (clock::now().max(stored), latest.max(latest_before));
        let header = Header { start, stored, before, last, latest_before, latest };
        Entry::new(key, header, head, body)
    }

    pub(super) fn insert(&self, batch: &mut OwnedWriteBatch, entry: &Entry) {
        batch.insert(&self.entries, entry.key.to_bytes(), entry.bytes.clone());
    }

    /// Takes back what was never shown: every entry from this key on.
    pub(super) fn cut_from(&self, key: Offset) -> Result<(), StoreError> {
        let mut batch = self.disk.db().batch();
        for entry in self.entries.range(key.to_bytes()..) {
            batch.remove(&self.entries, entry.key().map_err(|error| self.failed(error, key))?);
        }
        batch.commit()?;
        let last = self.last()?;
        let mut ends = self.ends();
        if let Some(entry) = last {
            ends.end = entry.header.start + entry.len();
            (ends.stored, ends.latest) = (entry.header.stored, entry.header.latest);
        } else {
            // Never fewer than was: what is gone may have committed later than what comes.
            ends.end = ends.first;
        }
        Ok(())
    }

    /// An entry's batch is committed. `shown` is the newest entry that may be seen now.
    pub(super) fn wrote(&self, entry: &Entry, shown: Option<Offset>) {
        let mut ends = self.ends();
        ends.end = entry.header.start + entry.len();
        (ends.stored, ends.latest) = (entry.header.stored, entry.header.latest);
        ends.newest = shown.or(ends.newest);
    }

    /// The database's worker takes what was written out of memory, but it looks at that only
    /// between two compactions and syncs, and as much as comes meanwhile would stay in memory. So
    /// what is too much is set aside here, and while there is a lot of that, this write waits.
    pub(super) fn bound_memory(&self) -> Result<(), StoreError> {
        let tree = &self.entries.tree;
        if tree.active_memtable().size() >= database::MEMORY {
            self.entries.rotate_memtable()?;
        }
        let until = Instant::now() + PATIENCE;
        while tree.sealed_memtable_count() >= SET_ASIDE && Instant::now() < until {
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// The newest entry that may be seen.
    pub(super) fn show(&self, newest: Option<Offset>) {
        self.ends().newest = newest;
    }

    pub(super) fn get(&self, key: Offset) -> Result<Option<Entry>, StoreError> {
        let found = self.entries.get(key.to_bytes()).map_err(|error| self.failed(error, key))?;
        found.map(|bytes| self.decode(&key.to_bytes(), bytes)).transpose()
    }

    /// The first entry whose key is `key` or more.
    pub(super) fn at_or_behind(&self, key: Offset) -> Result<Option<Entry>, StoreError> {
        self.take(self.entries.range(key.to_bytes()..).next(), key)
    }

    /// The last entry whose key is `key` or less.
    pub(super) fn at_or_before(&self, key: Offset) -> Result<Option<Entry>, StoreError> {
        self.take(self.entries.range(..=key.to_bytes()).next_back(), key)
    }

    pub(super) fn last(&self) -> Result<Option<Entry>, StoreError> {
        self.take(self.entries.last_key_value(), Offset::end_of(crate::model::Lsn(u64::MAX)))
    }

    fn take(&self, found: Option<fjall::Guard>, near: Offset) -> Result<Option<Entry>, StoreError> {
        let Some(found) = found else { return Ok(None) };
        let (key, bytes) = found.into_inner().map_err(|error| self.failed(error, near))?;
        self.decode(&key, bytes).map(Some)
    }

    fn decode(&self, key: &[u8], bytes: Slice) -> Result<Entry, StoreError> {
        Entry::decode(key, bytes).ok_or_else(|| self.damaged("an entry that is too short"))
    }

    /// What is wrong, and where.
    pub(super) fn damaged(&self, what: impl std::fmt::Display) -> StoreError {
        StoreError::Damaged { what: format!("{}: {what}", self.name) }
    }

    fn failed(&self, error: fjall::Error, near: Offset) -> StoreError {
        match error {
            // Every block of the database's files bears a checksum, over keys and values.
            fjall::Error::Storage(
                LsmError::ChecksumMismatch { .. }
                | LsmError::InvalidHeader(_)
                | LsmError::InvalidTag(_)
                | LsmError::InvalidTrailer
                | LsmError::Decompress(_),
            ) => self.damaged(format_args!("a block at or soon behind {} ({error})", near.commit)),
            error => StoreError::Failed(error),
        }
    }

    /// The oldest entry that is kept.
    pub(super) fn first(&self) -> Result<Option<Entry>, StoreError> {
        self.at_or_behind(self.behind(self.purged()))
    }

    /// Where the entries behind a purged place begin.
    fn behind(&self, purged: Offset) -> Offset {
        match purged {
            Offset::START => purged,
            purged => self.key(self.number(purged).saturating_add(1)),
        }
    }

    /// The first entry that may be cut at and that `keep` says to keep; it must say so of every
    /// entry behind one of which it does. The newest is found if there is no other.
    pub(super) fn find(&self, keep: impl Fn(&Header) -> bool) -> Result<Option<Entry>, StoreError> {
        let newest = self.ends().newest;
        let (Some(newest), Some(first)) = (newest, self.first()?) else { return Ok(None) };
        if keep(&first.header) {
            return Ok(Some(first));
        }
        let (mut low, mut high) = (self.number(first.key) + 1, self.number(newest));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.at_or_behind(self.key(middle))? {
                Some(entry) if self.number(entry.key) < high && !keep(&entry.header) => {
                    low = self.number(entry.key) + 1;
                }
                _ => high = middle,
            }
        }
        self.at_or_behind(self.key(high))
    }

    /// Keys as numbers, by which a search halves what is left: one for each place to cut at.
    fn number(&self, key: Offset) -> u128 {
        match self.cut {
            Cut::Anywhere => u128::from_be_bytes(key.to_bytes()),
            Cut::BetweenCommits => u128::from(key.commit.0),
        }
    }

    fn key(&self, number: u128) -> Offset {
        let bytes = match self.cut {
            Cut::Anywhere => number,
            Cut::BetweenCommits => number << 64,
        };
        Offset::from_bytes(&bytes.to_be_bytes()).unwrap_or_default()
    }

    /// Removes what lies before the first entry that `keep` says to keep. Whether there was any.
    pub(super) fn drop_before(&self, keep: impl Fn(&Header) -> bool) -> Result<bool, StoreError> {
        let Some(entry) = self.find(keep)? else { return Ok(false) };
        let purged = entry.header.before;
        if purged <= self.purged() {
            return Ok(false);
        }
        self.meta.insert(&self.purged_key, purged.to_bytes())?;
        // Removing files does not wait for a sync, so this must be on disk before.
        self.disk.sync()?;
        {
            let mut ends = self.ends();
            ends.purged = purged;
            ends.first = entry.header.start;
        }
        self.entries
            .tree
            .drop_range::<[u8; Offset::LEN], _>(..entry.key.to_bytes())
            .map_err(fjall::Error::from)?;
        Ok(true)
    }

    /// Bytes from the first entry on that `keep` says to keep; none if it is not one of ours.
    pub(super) fn size_from(&self, keep: impl Fn(&Header) -> bool) -> Result<u64, StoreError> {
        let found = self.find(&keep)?.filter(|entry| keep(&entry.header));
        let end = self.ends().end;
        Ok(found.map_or(0, |entry| end.saturating_sub(entry.header.start)))
    }

    /// Everything up to here may be left out by who wants the last so many bytes.
    pub(super) fn place_back(&self, bytes: u64) -> Result<Offset, StoreError> {
        let end = self.ends().end;
        let found = self.find(|entry| entry.start.saturating_add(bytes) >= end)?;
        Ok(found.map_or_else(|| self.purged(), |entry| entry.header.before))
    }

    /// Writes what is in memory to files.
    #[cfg(test)]
    pub(super) fn write_out(&self) -> Result<(), StoreError> {
        Ok(self.entries.rotate_memtable_and_wait()?)
    }

    /// Bytes of its files.
    #[cfg(test)]
    pub(super) fn on_disk(&self) -> u64 {
        self.entries.disk_space()
    }
}
