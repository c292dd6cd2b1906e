//! Plugins' keyed state.

use fjall::{Keyspace, OwnedWriteBatch};

use super::{StateWrite, StoreError};

/// The keyspace of plugins' values.
pub(super) struct States {
    entries: Keyspace,
}

impl States {
    pub(super) fn new(entries: Keyspace) -> Self {
        Self { entries }
    }

    pub(super) fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.entries.get(state_key(plugin, key))?.map(|value| value.to_vec()))
    }

    /// Bytes of all keys and values of a plugin.
    pub(super) fn size(&self, plugin: &str) -> Result<u64, StoreError> {
        let prefix = state_key(plugin, "");
        let entries = self.entries.prefix(&prefix);
        entries
            .map(|entry| {
                let (key, value) = entry.into_inner()?;
                Ok((key.len() - prefix.len() + value.len()) as u64)
            })
            .sum()
    }

    /// Of several writes to one key the last one counts: a batch must name a key only once, since
    /// all of it is written at one moment.
    pub(super) fn write(&self, batch: &mut OwnedWriteBatch, writes: Vec<StateWrite>) {
        let keyed = writes.into_iter().map(|w| (state_key(&w.plugin, &w.key), w.value));
        for (key, value) in keyed.collect::<std::collections::BTreeMap<_, _>>() {
            match value {
                Some(value) => batch.insert(&self.entries, key, value),
                None => batch.remove(&self.entries, key),
            }
        }
    }
}

/// Plugins' names come from the config, where they hold no zero byte.
fn state_key(plugin: &str, key: &str) -> Vec<u8> {
    [plugin, key].join("\0").into_bytes()
}
