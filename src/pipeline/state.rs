//! A plugin's keyed state within a batch: it reads what it wrote, and what it wrote commits with
//! the batch or not at all.

use std::collections::HashMap;

use crate::plugin::{State, StateError};
use crate::store::{StateWrite, Store};

/// The store's values under the writes of this batch, in two layers: of calls that succeeded, and
/// of the call under way.
pub struct PluginState {
    store: Store,
    plugin: String,
    kept: HashMap<String, Option<Vec<u8>>>,
    tentative: HashMap<String, Option<Vec<u8>>>,
}

impl PluginState {
    /// The state of a plugin; it belongs to the name, so it outlives a swap.
    #[must_use]
    pub fn new(store: Store, plugin: &str) -> Self {
        Self { store, plugin: plugin.into(), kept: HashMap::new(), tentative: HashMap::new() }
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
            None => self
                .store
                .plugin_state(&self.plugin, key)
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
