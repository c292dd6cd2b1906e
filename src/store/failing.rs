//! Events that an output could not deliver and tries again, so that a restart knows which try is
//! next and when it is due.

use std::collections::BTreeMap;

use fjall::{Keyspace, OwnedWriteBatch};
use serde::{Deserialize, Serialize};

use super::dead_letter::DeadLetter;
use super::{Store, StoreError, from_json, to_json};
use crate::model::attempt::{self, Attempt};
use crate::model::{EventId, Offset};

/// How far an event is on its schedule. Times are microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Tries that failed.
    pub attempts: u32,
    /// When it was first tried.
    pub first: i64,
    /// When it is tried next.
    pub due: i64,
    /// Whether the far side asked for that.
    #[serde(default)]
    pub asked: bool,
    /// How long it was to wait, whatever the wall clock says by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<i64>,
    /// The newest tries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tries: Vec<Attempt>,
}

/// A try that failed, and how far the event is now. Its `tries` are new ones only.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The stream.
    pub stream: String,
    /// The event's place.
    pub offset: Offset,
    /// How far it is.
    pub failing: Failing,
}

/// The keyspace of events that are failing: output, stream and place.
pub(super) struct Failings {
    entries: Keyspace,
}

impl Failings {
    pub(super) fn new(entries: Keyspace) -> Self {
        Self { entries }
    }

    /// A checkpoint moves to `offset`: what was failing up to there is done. The tries of what was
    /// given up go to its letter.
    pub(super) fn pass(
        &self,
        batch: &mut OwnedWriteBatch,
        (output, stream): (&str, &str),
        offset: Offset,
        letters: &mut [DeadLetter],
    ) -> Result<(), StoreError> {
        let (from, to) = (key(output, stream, Offset::START), key(output, stream, offset));
        for entry in self.entries.range(from..=to) {
            let (key, json) = entry.into_inner()?;
            let failing: Failing = read(&json)?;
            let event = place(&key).map(|offset| EventId(offset).to_string());
            if let Some(letter) =
                letters.iter_mut().find(|letter| Some(&letter.event) == event.as_ref())
            {
                let last = std::mem::replace(&mut letter.tries, failing.tries);
                last.into_iter().for_each(|last| attempt::keep(&mut letter.tries, last));
            }
            batch.remove(&self.entries, key);
        }
        Ok(())
    }
}

impl Store {
    /// What of a stream an output was failing to deliver when it last said so, behind a place.
    ///
    /// # Errors
    /// See [`StoreError`], here and below.
    pub fn failing(
        &self,
        output: &str,
        stream: &str,
        after: Offset,
    ) -> Result<Vec<(Offset, Failing)>, StoreError> {
        let (from, to) = (key(output, stream, after), key(output, stream, LAST));
        let mut found = Vec::new();
        for entry in self.inner.failings.entries.range(from..=to) {
            let (key, json) = entry.into_inner()?;
            if let Some(offset) = place(&key).filter(|offset| *offset > after) {
                // Their tries stay on disk until they are needed.
                found.push((offset, Failing { tries: Vec::new(), ..read(&json)? }));
            }
        }
        Ok(found)
    }

    /// Keeps how far events are on their schedules.
    pub fn save_failed(&self, output: &str, failed: Vec<Failed>) -> Result<(), StoreError> {
        let failings = &self.inner.failings.entries;
        let mut changed: BTreeMap<Vec<u8>, Failing> = BTreeMap::new();
        for Failed { stream, offset, failing } in failed {
            let key = key(output, &stream, offset);
            let before = match changed.remove(&key) {
                Some(before) => Some(before),
                None => failings.get(&key)?.map(|json| read(&json)).transpose()?,
            };
            let mut tries = before.map_or(Vec::new(), |before| before.tries);
            failing.tries.into_iter().for_each(|last| attempt::keep(&mut tries, last));
            changed.insert(key, Failing { tries, ..failing });
        }
        let mut batch = self.inner.db.batch();
        for (key, failing) in changed {
            batch.insert(failings, key, to_json(&failing)?);
        }
        batch.commit()?;
        self.inner.syncer.wrote();
        Ok(())
    }
}

/// Behind every event.
const LAST: Offset =
    Offset { commit: crate::model::Lsn(u64::MAX), ordinal: u32::MAX, emit: u32::MAX };

fn read(json: &[u8]) -> Result<Failing, StoreError> {
    from_json(json, || "an event that is tried again".into())
}

/// Names come from the config, where they hold no zero byte.
fn key(output: &str, stream: &str, offset: Offset) -> Vec<u8> {
    [output.as_bytes(), b"\0", stream.as_bytes(), b"\0", &offset.to_bytes()].concat()
}

fn place(key: &[u8]) -> Option<Offset> {
    key.last_chunk::<{ Offset::LEN }>().and_then(|bytes| Offset::from_bytes(bytes))
}
