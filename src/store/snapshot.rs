//! The mark of a snapshot that was begun: it says whose the slot is that was made for it.

use fjall::PersistMode;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, from_json, to_json};
use crate::model::Lsn;

const KEY: &str = "snapshot";

/// A snapshot under way, and the slot that was made for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunSnapshot {
    /// `system_identifier` of the slot's server.
    pub system_identifier: String,
    /// The slot's name.
    pub slot: String,
    /// Where the slot begins, once it is made: the snapshot is what was committed before.
    pub point: Option<Lsn>,
}

impl BegunSnapshot {
    /// Commit LSN of a snapshot's transaction: behind everything that was committed before the
    /// slot's beginning, and before everything that the slot sends.
    #[must_use]
    pub fn commit_before(point: Lsn) -> Lsn {
        Lsn(point.0.saturating_sub(1))
    }
}

impl Store {
    /// The snapshot that was begun and is not in the journal.
    ///
    /// # Errors
    /// See [`StoreError`], here and below.
    pub fn unfinished_snapshot(&self) -> Result<Option<BegunSnapshot>, StoreError> {
        let Some(json) = self.inner.meta.get(KEY)? else { return Ok(None) };
        let begun: BegunSnapshot = from_json(&json, || "the mark of a snapshot".into())?;
        // The mark was written before the snapshot's last block, so it is no newer than that.
        let commit = begun.point.map(BegunSnapshot::commit_before);
        if commit.is_some_and(|commit| self.last_commit() >= commit) {
            self.end_snapshot()?;
            return Ok(None);
        }
        Ok(Some(begun))
    }

    /// Marks a snapshot as begun, on disk when this returns.
    pub fn begin_snapshot(&self, begun: &BegunSnapshot) -> Result<(), StoreError> {
        self.inner.meta.insert(KEY, to_json(begun)?)?;
        self.inner.db.persist(PersistMode::SyncAll)?;
        Ok(())
    }

    /// Removes the mark: the snapshot is in the journal, or its slot is gone.
    pub fn end_snapshot(&self) -> Result<(), StoreError> {
        self.inner.meta.remove(KEY)?;
        self.inner.syncer.wrote();
        Ok(())
    }
}
