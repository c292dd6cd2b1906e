//! One version of a plugin as its instances share it: the code, and what they may use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::bindings::Relation;
use super::check::Bounds;
use super::component::Compiled;
use super::limits::Limits;
use super::log::Log;
use super::meters::Meters;
use super::wasi::Grants;

/// Tables whose latest definitions are remembered, to be announced to the next version on trial.
const MOST_TABLES: usize = 10_000;

/// The code, and what it may use.
pub(super) struct Program {
    pub(super) name: String,
    pub(super) compiled: Compiled,
    pub(super) limits: Limits,
    pub(super) grants: Arc<Grants>,
    pub(super) log: Arc<Log>,
    pub(super) meters: Arc<Meters>,
    pub(super) relations: Arc<Relations>,
}

impl Program {
    /// What its answers may come to.
    pub(super) fn bounds(&self) -> Bounds<'_> {
        let Self { name, limits, .. } = self;
        Bounds { plugin: name, event: limits.event_output, call: limits.output }
    }

    /// Remembers a relation that this version takes.
    pub(super) fn announced(&self, relation: &Relation) {
        self.relations.add(relation);
    }
}

/// The relations that a plugin has been announced and takes: the last definition of each table.
#[derive(Default)]
pub(super) struct Relations(Mutex<BTreeMap<(String, String), Relation>>);

impl Relations {
    fn add(&self, relation: &Relation) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let table = (relation.schema.clone(), relation.table.clone());
        if known.len() < MOST_TABLES || known.contains_key(&table) {
            known.insert(table, relation.clone());
        }
    }

    pub(super) fn all(&self) -> Vec<Relation> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().cloned().collect()
    }
}
