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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Lsn;
    use crate::store::journal::Append;
    use crate::store::testing::{block, close, open, part, visible};

    fn backfill(id: u64, rows_sent: u64) -> Backfill {
        Backfill { rows_sent, ..Backfill::new(id, ("public".into(), "t".into()), None) }
    }

    #[tokio::test]
    async fn a_backfill_is_where_its_last_whole_chunk_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        store.save_backfill(&backfill(1, 0)).unwrap();
        store.save_backfill(&backfill(2, 0)).unwrap();
        let journal = store.start_journal().unwrap();
        let send = |append| journal.appender.send(append);
        send(Append::Chunk(block(100, 100, 50), Box::new(backfill(2, 7)))).await.unwrap();
        send(Append::Block(part(200, 0, false))).await.unwrap();
        send(Append::Chunk(part(200, 1, true), Box::new(backfill(1, 20)))).await.unwrap();
        // Of this one only a part comes, and the chunk that ends it never does.
        send(Append::Block(part(300, 0, false))).await.unwrap();
        visible(&store, Lsn(200)).await;
        close(store, journal).await;
        let store = open(folder.path());
        assert_eq!(store.last_commit(), Lsn(200));
        let kept = store.backfills().unwrap();
        let kept: Vec<_> = kept.iter().map(|kept| (kept.id, kept.rows_sent)).collect();
        assert_eq!(kept, [(1, 20), (2, 7)]);
    }
}
