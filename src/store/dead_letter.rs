//! Events that a plugin failed on, or that an output refused, kept with the reason.

use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Keyspace, OwnedWriteBatch};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{StoreError, from_json, to_json};

/// One event that was set aside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event's id (of the change, where a pipeline set it aside).
    pub event: String,
    /// Who set it aside.
    pub by: By,
    /// Why, for a person.
    pub reason: String,
    /// When, microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// Tries before it was given up.
    pub attempts: u32,
    /// The event as it was, as JSON.
    pub payload: Box<RawValue>,
}

/// Who set an event aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum By {
    /// A plugin failed on it, or rejected it.
    Plugin {
        /// The pipeline it ran in.
        pipeline: String,
        /// The plugin's name.
        plugin: String,
        /// The version's content hash.
        version: String,
    },
    /// A route chose a stream that the pipeline does not allow.
    Route {
        /// The pipeline.
        pipeline: String,
    },
    /// Its table's definition changed, and the pipeline sets such rows aside until a person accepts
    /// the change.
    Schema {
        /// The pipeline.
        pipeline: String,
    },
    /// An output gave it up.
    Output {
        /// The output's name.
        output: String,
        /// The stream it came from.
        stream: String,
    },
}

/// The keyspace of dead letters, by ascending number.
pub(super) struct DeadLetters {
    entries: Keyspace,
    next: AtomicU64,
}

impl DeadLetters {
    pub(super) fn open(entries: Keyspace) -> Result<Self, StoreError> {
        let next = match entries.last_key_value() {
            Some(last) => number(&last.key()?)?.saturating_add(1),
            None => 1,
        };
        Ok(Self { entries, next: AtomicU64::new(next) })
    }

    pub(super) fn write(
        &self,
        batch: &mut OwnedWriteBatch,
        letters: &[DeadLetter],
    ) -> Result<(), StoreError> {
        for letter in letters {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            batch.insert(&self.entries, id.to_be_bytes(), to_json(letter)?);
        }
        Ok(())
    }

    pub(super) fn newest(&self, limit: usize) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
        let newest = self.entries.iter().rev().take(limit);
        let read = newest.map(|entry| {
            let (key, json) = entry.into_inner()?;
            let id = number(&key)?;
            Ok((id, from_json(&json, || format!("dead letter {id}"))?))
        });
        read.collect()
    }
}

fn number(key: &[u8]) -> Result<u64, StoreError> {
    let key = <[u8; 8]>::try_from(key);
    let key = key.map_err(|_| StoreError::Damaged { what: "a dead letter's number".into() })?;
    Ok(u64::from_be_bytes(key))
}
