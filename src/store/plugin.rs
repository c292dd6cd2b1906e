//! What is kept of each plugin: which version is in force, and what happened before.

use super::{Store, StoreError, from_json, to_json};
use crate::model::plugin::PluginRecord;

impl Store {
    /// What is kept of a plugin.
    ///
    /// # Errors
    /// See [`StoreError`], here and below.
    pub fn plugin_record(&self, plugin: &str) -> Result<Option<PluginRecord>, StoreError> {
        let Some(json) = self.inner.plugins.get(plugin)? else { return Ok(None) };
        from_json(&json, || format!("the history of plugin `{plugin}`")).map(Some)
    }

    /// Keeps it, on disk when this returns: a version that was taken back must not come again
    /// because of a power cut.
    pub fn save_plugin_record(
        &self,
        plugin: &str,
        record: &PluginRecord,
    ) -> Result<(), StoreError> {
        self.inner.plugins.insert(plugin, to_json(record)?)?;
        self.inner.disk.sync()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::open;

    #[test]
    fn what_is_kept_of_a_plugin_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let record = PluginRecord { in_force: Some("ab".repeat(32)), ..PluginRecord::default() };
        let store = open(folder.path());
        assert_eq!(store.plugin_record("mask").unwrap(), None);
        store.save_plugin_record("mask", &record).unwrap();
        store.close().unwrap();
        drop(store);
        let store = open(folder.path());
        assert_eq!(store.plugin_record("mask").unwrap(), Some(record));
        store.close().unwrap();
    }
}
