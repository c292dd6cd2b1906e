//! Events as changes, made once for all who read them at about the same time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::change::Change;
use super::types::{Table, Types};
use crate::store::Store;

/// Events kept.
const MOST_EVENTS: usize = 1024;
/// Bytes of their texts.
const MOST_BYTES: usize = 8 << 20;
/// Tables' definitions are read anew at most so often.
const FRESH: Duration = Duration::from_secs(1);

/// The events that were read last, and what is known of tables.
#[derive(Debug, Default)]
pub(super) struct Cache {
    recent: Mutex<Recent>,
    tables: Mutex<Tables>,
}

/// Changes by where the event's text lies. As long as it is here nothing else can lie there, and
/// whoever sees the event in the same way has the very same text.
#[derive(Debug, Default)]
struct Recent {
    by_place: HashMap<usize, (Bytes, Found)>,
    order: VecDeque<usize>,
    bytes: usize,
}

/// What an event is; `None` for what is no change of a table.
pub(super) type Found = Option<Arc<Change>>;

#[derive(Debug, Default)]
struct Tables {
    known: HashMap<(String, String), Arc<Table>>,
    read: Option<Instant>,
}

impl Cache {
    /// The change that each of these events is.
    pub(super) fn changes(&self, store: &Store, texts: &[Bytes]) -> Vec<Found> {
        let known: Vec<Option<Found>> = {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            texts.iter().map(|text| recent.get(text)).collect()
        };
        let mut made = Vec::new();
        let mut make = |text: &Bytes| {
            let types = |schema: &str, table: &str| self.types(store, schema, table);
            let change = Change::of(text.clone(), types).map(Arc::new);
            made.push((text.clone(), change.clone()));
            change
        };
        let changes = texts.iter().zip(known);
        let changes = changes.map(|(text, known)| known.unwrap_or_else(|| make(text))).collect();
        if !made.is_empty() {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            made.into_iter().for_each(|(text, change)| recent.keep(text, change));
        }
        changes
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

impl Recent {
    fn get(&self, text: &Bytes) -> Option<Found> {
        let (own, change) = self.by_place.get(&place(text))?;
        (own.len() == text.len()).then(|| change.clone())
    }

    fn keep(&mut self, text: Bytes, change: Found) {
        let (at, len) = (place(&text), text.len());
        if self.by_place.contains_key(&at) {
            return;
        }
        self.by_place.insert(at, (text, change));
        self.order.push_back(at);
        self.bytes += len;
        while self.order.len() > 1 && (self.order.len() > MOST_EVENTS || self.bytes > MOST_BYTES) {
            let oldest = self.order.pop_front().and_then(|at| self.by_place.remove(&at));
            self.bytes -= oldest.map_or(0, |(text, _)| text.len());
        }
    }
}

fn place(text: &Bytes) -> usize {
    text.as_ptr() as usize
}
