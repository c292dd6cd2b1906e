//! A plugin's keyed state within a batch: it reads what it wrote, and what it wrote commits with
//! the batch or not at all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use crate::model::ByteSize;
use crate::plugin::{State, StateError};
use crate::store::{StateWrite, Store, StoreError};

/// The store's values under the writes of this batch, in two layers: of calls that succeeded, and
/// of the call under way.
pub struct PluginState {
    base: Base,
    plugin: String,
    /// Of batches that are done; only where nothing is committed.
    settled: Writes,
    kept: Writes,
    tentative: Writes,
    quota: Quota,
}

type Writes = HashMap<String, Option<Vec<u8>>>;

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
    pub fn new(store: Store, plugin: &str, limit: ByteSize) -> Self {
        Self::on(Base::Live(store), plugin, limit)
    }

    /// Over values that do not change; what is written is read again, and goes nowhere.
    #[must_use]
    pub fn over(frozen: Arc<Frozen>, plugin: &str, limit: ByteSize) -> Self {
        Self::on(Base::Frozen(frozen), plugin, limit)
    }

    fn on(base: Base, plugin: &str, limit: ByteSize) -> Self {
        let quota = Quota { limit, counted: None, tentative: 0, kept: 0, spoke: false };
        let plugin = plugin.into();
        let (settled, kept, tentative) = (Writes::new(), Writes::new(), Writes::new());
        Self { base, plugin, settled, kept, tentative, quota }
    }

    /// The call succeeded: its writes stay.
    pub fn keep(&mut self) {
        self.kept.extend(self.tentative.drain());
        self.quota.kept += std::mem::take(&mut self.quota.tentative);
    }

    /// The call failed: its writes vanish.
    pub fn discard(&mut self) {
        self.tentative.clear();
        self.quota.tentative = 0;
    }

    /// The batch failed: all of its writes vanish.
    pub fn discard_all(&mut self) {
        self.discard();
        self.kept.clear();
        self.quota.kept = 0;
        if self.settled.is_empty() {
            // Writes may have been taken for a commit that failed.
            self.quota.counted = None;
        }
    }

    /// The batch's writes go nowhere, and stay for the next batch.
    pub fn settle(&mut self) {
        self.quota.take();
        self.settled.extend(self.kept.drain());
    }

    /// The batch's writes, to be committed with it.
    pub fn take_writes(&mut self) -> Vec<StateWrite> {
        self.quota.take();
        let plugin = &self.plugin;
        let write = |(key, value)| StateWrite { plugin: plugin.clone(), key, value };
        self.kept.drain().map(write).collect()
    }

    /// Bytes that a key takes as the plugin sees it now.
    fn size(&mut self, key: &str) -> Result<i64, StateError> {
        let value = match self.written(key) {
            Some(value) => value.as_ref().map(Vec::len),
            None => self.stored(key)?.map(|value| value.len()),
        };
        Ok(value.map_or(0, |len| bytes(key.len() + len)))
    }

    fn written(&self, key: &str) -> Option<&Option<Vec<u8>>> {
        let layers = [&self.tentative, &self.kept, &self.settled];
        layers.into_iter().find_map(|layer| layer.get(key))
    }

    fn stored(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        let value = match &self.base {
            Base::Live(store) => store.plugin_state(&self.plugin, key),
            Base::Frozen(frozen) => frozen.get(&self.plugin, key),
        };
        value.map_err(unavailable)
    }

    fn counted(&mut self) -> Result<i64, StateError> {
        if let Some(counted) = self.quota.counted {
            return Ok(counted);
        }
        let store = match &self.base {
            Base::Live(store) => store,
            Base::Frozen(frozen) => &frozen.store,
        };
        let size = store.plugin_state_size(&self.plugin).map_err(unavailable)?;
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        Ok(*self.quota.counted.insert(size))
    }
}

fn unavailable(error: StoreError) -> StateError {
    StateError::Unavailable(error.to_string())
}

fn bytes(len: usize) -> i64 {
    // No allocation is larger.
    len as i64
}

/// How much of the store the plugin uses. The config lets a plugin that keeps state stand in one
/// place only, so what is there at first and what this place adds is all.
struct Quota {
    limit: ByteSize,
    /// In the store; `None` until it is asked for.
    counted: Option<i64>,
    /// What the call under way and those before it add to that; less than nothing when they delete.
    tentative: i64,
    kept: i64,
    /// Whether the log has been told that it is used up.
    spoke: bool,
}

impl Quota {
    fn take(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        self.counted = self.counted.map(|counted| counted + kept);
    }
}

impl State for PluginState {
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        match self.written(key) {
            Some(value) => Ok(value.clone()),
            None => self.stored(key),
        }
    }

    fn set(&mut self, key: &str, value: Vec<u8>) -> Result<(), StateError> {
        let more = bytes(key.len() + value.len()) - self.size(key)?;
        let used = self.counted()? + self.quota.kept + self.quota.tentative;
        let limit = self.quota.limit;
        if more > 0 && u64::try_from(used + more).is_ok_and(|used| used > limit.bytes()) {
            if !std::mem::replace(&mut self.quota.spoke, true) {
                let plugin = &self.plugin;
                warn!(
                    plugin,
                    "keeps more than {limit} of state: raise `plugins.{plugin}.limits.state`"
                );
            }
            return Err(StateError::Quota);
        }
        self.quota.tentative += more;
        self.tentative.insert(key.into(), Some(value));
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), StateError> {
        if self.get(key)?.is_none() {
            // Nothing to delete, and nothing to keep of it.
            return Ok(());
        }
        self.quota.tentative -= self.size(key)?;
        self.tentative.insert(key.into(), None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Metrics;
    use crate::plugin::guests::Folder;
    use crate::store::{Config, Outcome};

    fn commit(state: &mut PluginState) {
        let outcome = Outcome { state: state.take_writes(), ..Outcome::default() };
        let Base::Live(store) = &state.base else { panic!("a state on trial is not committed") };
        store.commit(Outcome { pipeline: "p".into(), ..outcome }).unwrap();
    }

    #[test]
    fn a_key_that_is_not_there_leaves_nothing_behind_when_it_is_deleted() {
        let folder = Folder::new();
        let config = Config { path: folder.join("data"), ..Config::default() };
        let store = Store::open(&config, Arc::new(Metrics::new())).unwrap();
        let mut state = PluginState::new(store, "count", ByteSize::new(100));
        state.set("", Vec::new()).unwrap();
        state.keep();
        commit(&mut state);
        for key in ["a", "b", "", ""] {
            state.delete(key).unwrap();
        }
        state.keep();
        let writes: Vec<_> = state.take_writes().into_iter().map(|write| write.key).collect();
        assert_eq!(writes, [""]);
    }

    #[test]
    fn the_quota_counts_what_is_there_after_every_way_a_write_can_end() {
        let folder = Folder::new();
        let config = Config { path: folder.join("data"), ..Config::default() };
        let store = Store::open(&config, Arc::new(Metrics::new())).unwrap();
        let open = || PluginState::new(store.clone(), "count", ByteSize::new(100));
        let mut state = open();
        // 51 bytes with its key; twice that is too much, but in its own place it is not.
        assert_eq!(state.set("a", vec![0; 50]), Ok(()));
        assert_eq!(state.set("b", vec![0; 50]), Err(StateError::Quota));
        assert_eq!(state.set("a", vec![0; 60]), Ok(()));
        state.discard();
        assert_eq!(state.set("b", vec![0; 90]), Ok(()));
        state.keep();
        commit(&mut state);
        assert_eq!(state.set("a", vec![0; 50]), Err(StateError::Quota));
        // Another pipeline, or the next start, counts what is in the store.
        assert_eq!(open().set("a", vec![0; 50]), Err(StateError::Quota));
        state.delete("b").unwrap();
        assert_eq!(state.set("a", vec![0; 50]), Ok(()));
        state.discard_all();
        assert_eq!(state.set("a", vec![0; 50]), Err(StateError::Quota));
        state.delete("b").unwrap();
        state.keep();
        commit(&mut state);
        assert_eq!(state.set("a", vec![0; 99]), Ok(()));
        // What makes it smaller is always taken.
        assert_eq!(state.set("a", vec![0; 98]), Ok(()));
    }
}
