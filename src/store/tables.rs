//! Which definition each table's last change in the journal uses. It is written in the same batch
//! as the block that holds the change, so it is never ahead of the journal, and never behind.

use std::collections::HashMap;

use fjall::{Keyspace, OwnedWriteBatch};

use super::StoreError;
use crate::model::RelationId;

/// The keyspace of tables: OID → number of the definition.
pub(super) struct Tables {
    entries: Keyspace,
}

impl Tables {
    pub(super) fn new(entries: Keyspace) -> Self {
        Self { entries }
    }

    /// `None`: the table is gone.
    pub(super) fn write(
        &self,
        batch: &mut OwnedWriteBatch,
        uses: &HashMap<u32, Option<RelationId>>,
    ) {
        for (oid, relation) in uses {
            match relation {
                Some(id) => batch.insert(&self.entries, oid.to_be_bytes(), id.0.to_be_bytes()),
                None => batch.remove(&self.entries, oid.to_be_bytes()),
            }
        }
    }

    pub(super) fn all(&self) -> Result<Vec<RelationId>, StoreError> {
        let number = |bytes: &[u8]| {
            let bytes = <[u8; 4]>::try_from(bytes).ok();
            let damaged = || StoreError::Damaged { what: "a table's definition".into() };
            bytes.map(|bytes| RelationId(u32::from_be_bytes(bytes))).ok_or_else(damaged)
        };
        self.entries.iter().map(|entry| number(&entry.into_inner()?.1)).collect()
    }
}
