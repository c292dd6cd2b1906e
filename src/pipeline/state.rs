//! A plugin's keyed state within a batch: it reads what it wrote, and what it wrote commits with
//! the batch or not at all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::plugin::{State, StateError};
use crate::store::{StateWrite, Store, StoreError};

/// The store's values under the writes of this batch, in two layers: of calls that succeeded, and
/// of the call under way.
pub struct PluginState {
    base: Base,
    plugin: String,
    kept: HashMap<String, Option<Vec<u8>>>,
    tentative: HashMap<String, Option<Vec<u8>>>,
}

/// What lies under the writes.
enum Base {
    Live(Store),
    Frozen(Arc<Frozen>),
}

/// The store's values as they were when each was first asked for, for those who must see the same.
pub struct Frozen {
    store: Store,
    values: Mutex<Values>,
}

/// By plugin and key.
type Values = HashMap<(String, String), Option<Vec<u8>>>;

impl Frozen {
    /// Nothing has been asked for.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, values: Mutex::default() }
    }

    fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (plugin.to_owned(), key.to_owned());
        if let Some(value) = values.get(&place) {
            return Ok(value.clone());
        }
        let value = self.store.plugin_state(plugin, key)?;
        values.insert(place, value.clone());
        Ok(value)
    }
}

impl PluginState {
    /// The state of a plugin; it belongs to the name, so it outlives a swap.
    #[must_use]
    pub fn new(store: Store, plugin: &str) -> Self {
        Self::on(Base::Live(store), plugin)
    }

    /// Over values that do not change; what is written is read again, and goes nowhere.
    #[must_use]
    pub fn over(frozen: Arc<Frozen>, plugin: &str) -> Self {
        Self::on(Base::Frozen(frozen), plugin)
    }

    fn on(base: Base, plugin: &str) -> Self {
        Self { base, plugin: plugin.into(), kept: HashMap::new(), tentative: HashMap::new() }
    }

    /// The call succeeded: its writes stay.
    pub fn keep(&mut self) {
        self.kept.extend(self.tentative.drain());
    }

    /// The call failed: its writes vanish.
    pub fn discard(&mut self) {
        self.tentative.clear();
    }

    /// The batch failed: all of its writes vanish.
    pub fn discard_all(&mut self) {
        self.tentative.clear();
        self.kept.clear();
    }

    /// The batch's writes, to be committed with it.
    pub fn take_writes(&mut self) -> Vec<StateWrite> {
        let plugin = &self.plugin;
        let write = |(key, value)| StateWrite { plugin: plugin.clone(), key, value };
        self.kept.drain().map(write).collect()
    }
}

impl State for PluginState {
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        match self.tentative.get(key).or_else(|| self.kept.get(key)) {
            Some(value) => Ok(value.clone()),
            None => match &self.base {
                Base::Live(store) => store.plugin_state(&self.plugin, key),
                Base::Frozen(frozen) => frozen.get(&self.plugin, key),
            }
            .map_err(|error| StateError::Unavailable(error.to_string())),
        }
    }

    fn set(&mut self, key: &str, value: Vec<u8>) -> Result<(), StateError> {
        self.tentative.insert(key.into(), Some(value));
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), StateError> {
        self.tentative.insert(key.into(), None);
        Ok(())
    }
}
