//! Dead letters on disk: one keyspace by ascending number, and one of marks that says which are to
//! be tried again by whom.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fjall::{Keyspace, OwnedWriteBatch};
use tokio::sync::watch;

use super::{DeadLetter, Owner};
use crate::model::attempt;
use crate::store::{StoreError, from_json, to_json};

/// The keyspaces of dead letters.
pub(in crate::store) struct DeadLetters {
    entries: Keyspace,
    marks: Keyspace,
    next: AtomicU64,
    kept: Mutex<Delta>,
    /// Held by the one who changes letters that are there already.
    changing: Mutex<()>,
    /// How often letters were marked.
    marked: watch::Sender<u64>,
}

/// By how much letters become more, or less, once a batch is committed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Delta {
    pub(in crate::store) count: i64,
    pub(in crate::store) bytes: i64,
}

impl AddAssign for Delta {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

impl Delta {
    fn of(count: i64, bytes: usize) -> Self {
        Self { count, bytes: count * i64::try_from(bytes).unwrap_or(i64::MAX) }
    }
}

impl DeadLetters {
    pub(in crate::store) fn open(entries: Keyspace, marks: Keyspace) -> Result<Self, StoreError> {
        let (mut next, mut kept) = (1, Delta::default());
        for entry in entries.iter() {
            let (key, json) = entry.into_inner()?;
            next = number(&key)?.saturating_add(1);
            kept += Delta::of(1, json.len());
        }
        Ok(Self {
            entries,
            marks,
            next: AtomicU64::new(next),
            kept: Mutex::new(kept),
            changing: Mutex::new(()),
            marked: watch::Sender::new(0),
        })
    }

    /// Adds letters.
    pub(in crate::store) fn write(
        &self,
        batch: &mut OwnedWriteBatch,
        letters: &[DeadLetter],
    ) -> Result<Delta, StoreError> {
        let mut delta = Delta::default();
        for letter in letters {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let json = to_json(letter)?;
            delta += Delta::of(1, json.len());
            batch.insert(&self.entries, id.to_be_bytes(), json);
        }
        Ok(delta)
    }

    /// Removes a letter, with its mark; while [`DeadLetters::changing`] is held.
    pub(in crate::store) fn remove(
        &self,
        batch: &mut OwnedWriteBatch,
        id: u64,
    ) -> Result<Delta, StoreError> {
        let Some(json) = self.entries.get(id.to_be_bytes())? else { return Ok(Delta::default()) };
        if let Ok(letter) = decode(id, &json) {
            batch.remove(&self.marks, mark(letter.by.owner(), id));
        }
        batch.remove(&self.entries, id.to_be_bytes());
        Ok(Delta::of(-1, json.len()))
    }

    /// Puts a letter in the place of one that is still there, and unmarks it, or marks it, as it
    /// says; while [`DeadLetters::changing`] is held.
    pub(in crate::store) fn replace(
        &self,
        batch: &mut OwnedWriteBatch,
        id: u64,
        letter: &DeadLetter,
    ) -> Result<Delta, StoreError> {
        let Some(old) = self.entries.get(id.to_be_bytes())? else { return Ok(Delta::default()) };
        let json = to_json(letter)?;
        let mut delta = Delta::of(1, json.len());
        delta += Delta::of(-1, old.len());
        let key = mark(letter.by.owner(), id);
        match letter.retrying {
            true => batch.insert(&self.marks, key, []),
            false => batch.remove(&self.marks, key),
        }
        batch.insert(&self.entries, id.to_be_bytes(), json);
        Ok(delta)
    }

    /// A letter's change was run again: what failed of it this time takes its place, with the tries
    /// before; while [`DeadLetters::changing`] is held.
    pub(in crate::store) fn settle(
        &self,
        batch: &mut OwnedWriteBatch,
        id: u64,
        failed: &[DeadLetter],
    ) -> Result<Delta, StoreError> {
        let (Some((first, rest)), Some(old)) = (failed.split_first(), self.get(id)?) else {
            let mut delta = self.remove(batch, id)?;
            delta += self.write(batch, failed)?;
            return Ok(delta);
        };
        let attempts = old.attempts.saturating_add(first.attempts);
        let mut tries = old.tries;
        first.tries.iter().for_each(|attempt| attempt::keep(&mut tries, attempt.clone()));
        let letter = DeadLetter { time: old.time, attempts, tries, ..first.clone() };
        let mut delta = self.replace(batch, id, &letter)?;
        delta += self.write(batch, rest)?;
        Ok(delta)
    }

    /// Lets one at a time change letters that are there.
    pub(in crate::store) fn changing(&self) -> MutexGuard<'_, ()> {
        // It guards no data.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch with this is committed.
    pub(in crate::store) fn wrote(&self, delta: Delta) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) += delta;
    }

    /// How many there are, and the bytes that they take.
    pub(in crate::store) fn kept(&self) -> Delta {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::store) fn get(&self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        let found = self.entries.get(id.to_be_bytes())?;
        found.map(|json| decode(id, &json)).transpose()
    }

    /// Letters below a number, the newest first.
    pub(in crate::store) fn below(
        &self,
        id: u64,
    ) -> impl Iterator<Item = Result<(u64, DeadLetter), StoreError>> {
        self.entries.range(..id.to_be_bytes()).rev().map(read)
    }

    /// The oldest, and those behind it.
    pub(in crate::store) fn oldest_first(
        &self,
    ) -> impl Iterator<Item = Result<(u64, DeadLetter), StoreError>> {
        self.entries.iter().map(read)
    }

    /// The next that its owner is to try again, behind this number.
    pub(in crate::store) fn next_marked(
        &self,
        owner: Owner<'_>,
        behind: u64,
    ) -> Result<Option<(u64, DeadLetter)>, StoreError> {
        let (from, end) = (mark(owner, behind.saturating_add(1)), mark(owner, u64::MAX));
        for entry in self.marks.range(from..=end) {
            let key = entry.key()?;
            let id = key.last_chunk().map(|id| u64::from_be_bytes(*id)).unwrap_or_default();
            if let Some(letter) = self.get(id)? {
                return Ok(Some((id, letter)));
            }
        }
        Ok(None)
    }

    /// Changes when letters are marked to be tried again.
    pub(in crate::store) fn news(&self) -> watch::Receiver<u64> {
        self.marked.subscribe()
    }

    pub(in crate::store) fn tell(&self) {
        self.marked.send_modify(|count| *count += 1);
    }
}

fn read(entry: fjall::Guard) -> Result<(u64, DeadLetter), StoreError> {
    let (key, json) = entry.into_inner()?;
    let id = number(&key)?;
    Ok((id, decode(id, &json)?))
}

fn decode(id: u64, json: &[u8]) -> Result<DeadLetter, StoreError> {
    from_json(json, || format!("dead letter {id}"))
}

/// Names come from the config, where they hold no zero byte.
fn mark(owner: Owner<'_>, id: u64) -> Vec<u8> {
    let (kind, name) = match owner {
        Owner::Pipeline(name) => ("pipeline", name),
        Owner::Output(name) => ("output", name),
    };
    [kind.as_bytes(), b"\0", name.as_bytes(), b"\0", &id.to_be_bytes()].concat()
}

fn number(key: &[u8]) -> Result<u64, StoreError> {
    let key = <[u8; 8]>::try_from(key);
    let key = key.map_err(|_| StoreError::Damaged { what: "a dead letter's number".into() })?;
    Ok(u64::from_be_bytes(key))
}
