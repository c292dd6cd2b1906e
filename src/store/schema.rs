//! What each pipeline holds back because a table's definition changed, and what a person accepted
//! of that. The pipeline alone writes the one, in the batch that it belongs to; whoever accepts
//! writes the other, so neither overwrites what it has not seen.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use fjall::{Keyspace, OwnedWriteBatch};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{StoreError, from_json, to_json};
use crate::model::Offset;

/// A table whose rows a pipeline sets aside since its definition changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// OID of the table.
    pub oid: u32,
    /// `schema.table`
    pub table: String,
    /// What changed, for a person.
    pub change: String,
    /// Where the change stands.
    pub since: Place,
}

/// An [`Offset`] as it is written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    commit: u64,
    ordinal: u32,
}

impl Place {
    /// The place of a change; its events' count does not matter.
    #[must_use]
    pub fn of(offset: Offset) -> Self {
        Self { commit: offset.commit.0, ordinal: offset.ordinal }
    }

    /// The same as an offset.
    #[must_use]
    pub fn offset(self) -> Offset {
        Offset::new(crate::model::Lsn(self.commit), self.ordinal)
    }
}

/// The keyspace of holds and of what was accepted.
pub(super) struct Schemas {
    entries: Keyspace,
    /// Up to which change of a definition each pipeline goes on, where that was asked for.
    accepted: Mutex<HashMap<String, Option<Place>>>,
    news: watch::Sender<u64>,
}

impl Schemas {
    pub(super) fn new(entries: Keyspace) -> Self {
        Self { entries, accepted: Mutex::default(), news: watch::Sender::new(0) }
    }

    pub(super) fn holds(&self, pipeline: &str) -> Result<Vec<Hold>, StoreError> {
        let Some(json) = self.entries.get(key("holds", pipeline))? else { return Ok(Vec::new()) };
        from_json(&json, || format!("what pipeline `{pipeline}` holds back"))
    }

    pub(super) fn write_holds(
        &self,
        batch: &mut OwnedWriteBatch,
        pipeline: &str,
        holds: &[Hold],
    ) -> Result<(), StoreError> {
        batch.insert(&self.entries, key("holds", pipeline), to_json(&holds)?);
        Ok(())
    }

    pub(super) fn accepted(&self, pipeline: &str) -> Result<Option<Place>, StoreError> {
        let mut known = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(accepted) = known.get(pipeline) {
            return Ok(*accepted);
        }
        let stored = self.entries.get(key("accepted", pipeline))?;
        let what = || format!("what pipeline `{pipeline}` accepts");
        let accepted = stored.map(|json| from_json(&json, what)).transpose()?;
        known.insert(pipeline.to_owned(), accepted);
        Ok(accepted)
    }

    /// Writes it; the caller sees to the sync before it tells.
    pub(super) fn accept(&self, pipeline: &str, up_to: Place) -> Result<(), StoreError> {
        let up_to = self.accepted(pipeline)?.map_or(up_to, |before| before.max(up_to));
        self.entries.insert(key("accepted", pipeline), to_json(&up_to)?)?;
        let mut known = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(pipeline.to_owned(), Some(up_to));
        Ok(())
    }

    pub(super) fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}

fn key(what: &str, pipeline: &str) -> Vec<u8> {
    [what, pipeline].join("\0").into_bytes()
}
