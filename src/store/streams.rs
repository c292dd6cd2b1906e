//! Every stream, by name, and the numbers under which they are kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use fjall::Keyspace;
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::log::{Cut, Log};
use super::stream::Stream;
use super::{StoreError, database, from_json, to_json};

/// Key of a stream's record: this and its name.
const PREFIX: &str = "stream/";

/// What is kept of a stream beside its events.
#[derive(Serialize, Deserialize)]
struct Record {
    id: u32,
    owner: String,
}

/// The streams of a store.
pub(super) struct Streams {
    disk: Disk,
    meta: Keyspace,
    by_name: RwLock<BTreeMap<String, Arc<Stream>>>,
    /// The number of the next stream; held while one is made.
    next: Mutex<u32>,
}

impl Streams {
    pub(super) fn open(disk: &Disk, meta: &Keyspace) -> Result<Self, StoreError> {
        let (mut by_name, mut next) = (BTreeMap::new(), 1);
        for entry in meta.prefix(PREFIX) {
            let (key, json) = entry.into_inner()?;
            let name = String::from_utf8_lossy(&key[PREFIX.len()..]).into_owned();
            let record: Record = from_json(&json, || format!("stream {name}: its record"))?;
            next = next.max(record.id.saturating_add(1));
            by_name.insert(name.clone(), open(disk, meta, &name, &record)?);
        }
        let (by_name, next) = (RwLock::new(by_name), Mutex::new(next));
        Ok(Self { disk: disk.clone(), meta: meta.clone(), by_name, next })
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Stream>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Stream>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn declare(&self, name: &str, owner: &str) -> Result<Arc<Stream>, StoreError> {
        if let Some(stream) = self.get(name) {
            return Ok(stream);
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = self.get(name) {
            return Ok(stream);
        }
        let record = Record { id: *next, owner: owner.into() };
        self.meta.insert(format!("{PREFIX}{name}"), to_json(&record)?)?;
        let stream = open(&self.disk, &self.meta, name, &record)?;
        *next = next.saturating_add(1);
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(name.into(), stream.clone());
        Ok(stream)
    }
}

fn open(
    disk: &Disk,
    meta: &Keyspace,
    name: &str,
    record: &Record,
) -> Result<Arc<Stream>, StoreError> {
    let id = format!("stream-{}", record.id);
    let entries = disk.db().keyspace(&id, database::events)?;
    let log = Log::open((disk, meta), entries, (&id, format!("stream {name}")), Cut::Anywhere)?;
    Ok(Arc::new(Stream::open(name, &record.owner, log)?))
}
