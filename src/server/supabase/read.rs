//! Runs of events as changes, made once for all who read them at about the same time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::change::{Change, Changes};
use super::types::{Table, Types};
use crate::model::Offset;
use crate::model::event::Events;
use crate::store::Store;

/// Runs kept.
const MOST_RUNS: usize = 64;
/// Bytes of the events in them.
const MOST_BYTES: usize = 8 << 20;
/// Tables' definitions are read anew at most so often.
const FRESH: Duration = Duration::from_secs(1);

/// The runs that were read last, and what is known of tables.
#[derive(Debug, Default)]
pub(super) struct Cache {
    recent: Mutex<VecDeque<Arc<Slot>>>,
    tables: Mutex<Tables>,
}

#[derive(Debug)]
struct Slot {
    stream: Box<str>,
    first: Offset,
    last: Offset,
    size: usize,
    changes: OnceLock<Changes>,
}

#[derive(Debug, Default)]
struct Tables {
    known: HashMap<(String, String), Arc<Table>>,
    read: Option<Instant>,
}

impl Cache {
    /// The changes in a run of a stream.
    pub(super) fn changes(&self, store: &Store, stream: &str, events: &Events) -> Changes {
        let slot = self.slot(stream, events);
        // Outside the lock, so that only those who need this very run wait for it.
        Arc::clone(slot.changes.get_or_init(|| {
            let read = |event| Change::of(event, |schema, table| self.types(store, schema, table));
            events.after(Offset::START).filter_map(read).collect()
        }))
    }

    fn slot(&self, stream: &str, events: &Events) -> Arc<Slot> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |slot: &&Arc<Slot>| {
            (slot.first, slot.last) == (events.first, events.last) && *slot.stream == *stream
        };
        if let Some(slot) = recent.iter().find(wanted) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot {
            stream: stream.into(),
            first: events.first,
            last: events.last,
            size: events.bytes.len(),
            changes: OnceLock::new(),
        });
        recent.push_front(Arc::clone(&slot));
        let mut bytes = 0;
        let fits = recent.iter().take(MOST_RUNS).take_while(|slot| {
            bytes += slot.size;
            bytes <= MOST_BYTES
        });
        let keep = fits.count().max(1);
        recent.truncate(keep);
        slot
    }

    /// What is known of a table's columns. The journal's last definitions are looked at again from
    /// time to time; types are only named to clients, so a moment of the old name does no harm.
    fn types(&self, store: &Store, schema: &str, table: &str) -> Types {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.read.is_none_or(|read| read.elapsed() > FRESH) {
            // What can't be read is not known; the store itself says so where it matters.
            if let Ok(read) = store.tables() {
                let named = |relation: &crate::model::Relation| {
                    let name = (relation.schema.clone(), relation.table.clone());
                    (name, Arc::new(Table::of(relation)))
                };
                tables.known = read.iter().map(|(_, relation)| named(relation)).collect();
            }
            tables.read = Some(Instant::now());
        }
        let name = (schema.to_owned(), table.to_owned());
        tables.known.get(&name).cloned().map(Types::from).unwrap_or_default()
    }
}
