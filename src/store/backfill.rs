//! Backfills as they are kept: each with the place up to which its rows are in the journal. A
//! chunk's rows and its place are one atomic write, so that no crash loses or doubles a chunk.

use fjall::{Keyspace, OwnedWriteBatch};

use super::{Store, StoreError, from_json, to_json};
use crate::model::backfill::Backfill;

/// The keyspace of backfills.
pub(super) struct Backfills {
    entries: Keyspace,
}

impl Backfills {
    pub(super) fn new(entries: Keyspace) -> Self {
        Self { entries }
    }

    /// Together with what else is in the batch.
    pub(super) fn write(
        &self,
        batch: &mut OwnedWriteBatch,
        backfill: &Backfill,
    ) -> Result<(), StoreError> {
        batch.insert(&self.entries, backfill.id.to_be_bytes(), to_json(backfill)?);
        Ok(())
    }
}

impl Store {
    /// Every backfill, by number.
    ///
    /// # Errors
    /// See [`StoreError`], here and below.
    pub fn backfills(&self) -> Result<Vec<Backfill>, StoreError> {
        let read = |entry: fjall::Guard| from_json(&entry.value()?, || "a backfill".into());
        self.inner.backfills.entries.iter().map(read).collect()
    }

    /// Keeps a backfill as it is now. For one whose chunk is on its way to the journal, that is for
    /// the journal to do.
    pub fn save_backfill(&self, backfill: &Backfill) -> Result<(), StoreError> {
        let mut batch = self.inner.db.batch();
        self.inner.backfills.write(&mut batch, backfill)?;
        batch.commit()?;
        self.inner.syncer.wrote();
        Ok(())
    }
}
