//! Definitions of tables by number, and numbers by definition.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fjall::{Database, Keyspace};
use sha2::{Digest as _, Sha256};

use super::{StoreError, from_json, to_json};
use crate::model::{Relation, RelationId};

/// Definitions kept in memory. A table that changes all the time must not fill it.
const CACHED: usize = 4096;

/// Every definition that the journal speaks of.
pub(super) struct Relations {
    db: Database,
    /// `r` and number → definition, `h` and hash of the definition → number.
    entries: Keyspace,
    cache: Mutex<HashMap<RelationId, Arc<Relation>>>,
    next: Mutex<u32>,
}

impl Relations {
    pub(super) fn open(db: &Database, entries: Keyspace) -> Result<Self, StoreError> {
        let last = match entries.prefix("r").next_back() {
            Some(entry) => Some(number(&entry.key()?[1..])?),
            None => None,
        };
        let next = Mutex::new(last.map_or(1, |last| last.saturating_add(1)));
        Ok(Self { db: db.clone(), entries, cache: Mutex::default(), next })
    }

    pub(super) fn intern(&self, relation: &Relation) -> Result<RelationId, StoreError> {
        let json = to_json(relation)?;
        let mut hash = vec![b'h'];
        hash.extend(Sha256::digest(&json));
        // Held over the write, so that one definition gets one number.
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.entries.get(&hash)? {
            return number(&known).map(RelationId);
        }
        let id = RelationId(*next);
        let mut batch = self.db.batch();
        batch.insert(&self.entries, key(id), json);
        batch.insert(&self.entries, hash, id.0.to_be_bytes());
        batch.commit()?;
        *next = next.saturating_add(1);
        self.remember(id, Arc::new(relation.clone()));
        Ok(id)
    }

    pub(super) fn get(&self, id: RelationId) -> Result<Option<Arc<Relation>>, StoreError> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(relation) = cache.get(&id) {
            return Ok(Some(relation.clone()));
        }
        drop(cache);
        let Some(json) = self.entries.get(key(id))? else { return Ok(None) };
        let relation: Arc<Relation> = Arc::new(from_json(&json, || format!("relation {}", id.0))?);
        self.remember(id, relation.clone());
        Ok(Some(relation))
    }

    fn remember(&self, id: RelationId, relation: Arc<Relation>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED {
            cache.clear();
        }
        cache.insert(id, relation);
    }
}

fn key(id: RelationId) -> Vec<u8> {
    let mut key = vec![b'r'];
    key.extend(id.0.to_be_bytes());
    key
}

fn number(bytes: &[u8]) -> Result<u32, StoreError> {
    let bytes = <[u8; 4]>::try_from(bytes);
    let bytes = bytes.map_err(|_| StoreError::Damaged { what: "a relation's number".into() })?;
    Ok(u32::from_be_bytes(bytes))
}
