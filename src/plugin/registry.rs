//! Which plugins are in force, replaced as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Config, Engine, Plugin, Version};
use crate::metrics::Metrics;
use crate::model::status::PluginStatus;

/// One whole set of plugins.
pub struct Plugins {
    /// Counts the swaps; the first set is 1.
    pub generation: u64,
    /// By name in the config.
    pub by_name: BTreeMap<String, Arc<Plugin>>,
}

/// Why a file does not become a plugin.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(String);

/// The plugins in force. Cloning shares it.
#[derive(Clone)]
pub struct Registry {}

impl Registry {
    /// Loads every plugin. Blocks: compiling can take seconds.
    ///
    /// # Errors
    /// Every plugin that did not load, and why.
    pub fn open(
        engine: &Engine,
        configs: BTreeMap<String, Config>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Vec<(String, LoadError)>> {
        todo!()
    }

    /// The set in force. Take it once per batch.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Plugins> {
        todo!()
    }

    /// Changes with every swap, so that idle pipelines wake up.
    #[must_use]
    pub fn generation(&self) -> watch::Receiver<u64> {
        todo!()
    }

    /// The latest facts about each plugin.
    #[must_use]
    pub fn statuses(&self) -> watch::Receiver<Vec<PluginStatus>> {
        todo!()
    }

    /// Offers new content for a plugin: it is in force when this returns, or why not. Blocks.
    ///
    /// # Errors
    /// See [`LoadError`]; what was in force stays.
    pub fn offer(&self, name: &str, bytes: Vec<u8>) -> Result<Version, LoadError> {
        todo!()
    }
}
