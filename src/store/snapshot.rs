//! The mark of a snapshot that was begun: it says whose the slot is that was made for it.

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
        self.inner.disk.sync()?;
        Ok(())
    }

    /// Removes the mark: the snapshot is in the journal, or its slot is gone.
    pub fn end_snapshot(&self) -> Result<(), StoreError> {
        self.inner.meta.remove(KEY)?;
        self.inner.syncer.wrote();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{append, block, close, open, part};

    fn begun(point: Option<u64>) -> BegunSnapshot {
        let (system_identifier, slot) = ("7".into(), "walmill".into());
        BegunSnapshot { system_identifier, slot, point: point.map(Lsn) }
    }

    #[tokio::test]
    async fn a_snapshot_is_unfinished_until_its_last_part_is_in_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        assert_eq!(store.unfinished_snapshot().unwrap(), None);
        for mark in [begun(None), begun(Some(501))] {
            store.begin_snapshot(&mark).unwrap();
            assert_eq!(store.unfinished_snapshot().unwrap(), Some(mark));
        }
        let journal = store.start_journal().unwrap();
        // An older stream, and a part.
        append(&store, &journal, &[block(100, 400, 10)]).await;
        journal
            .appender
            .send(crate::store::journal::Append::Block(part(500, 0, false)))
            .await
            .unwrap();
        close(store, journal).await;
        let store = open(folder.path());
        assert_eq!(store.unfinished_snapshot().unwrap(), Some(begun(Some(501))));
        let journal = store.start_journal().unwrap();
        append(&store, &journal, &[part(500, 0, false), part(500, 1, true)]).await;
        assert_eq!(store.unfinished_snapshot().unwrap(), None);
        close(store, journal).await;
        assert_eq!(open(folder.path()).unfinished_snapshot().unwrap(), None);
    }
}
