//! Which plugins are in force, replaced as a whole.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::{error, info};

use super::error::{LoadError, Reason};
use super::log::Log;
use super::meters::Meters;
use super::program::Relations;
use super::trial::Family;
use super::{Config, Engine, Plugin, Version, file};
use crate::metrics::{Metrics, Outcome};
use crate::model::status::{PluginStatus, ReloadStatus};

/// Offers that are remembered for each plugin.
const LONGEST_HISTORY: usize = 20;

/// One whole set of plugins.
pub struct Plugins {
    /// Counts the swaps; the first set is 1.
    pub generation: u64,
    /// By name in the config.
    pub by_name: BTreeMap<String, Arc<Plugin>>,
}

/// The plugins in force. Cloning shares it.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    engine: Engine,
    metrics: Arc<Metrics>,
    families: BTreeMap<String, Family>,
    current: ArcSwap<Plugins>,
    /// Held for the whole of an offer: they are made one after the other.
    records: Mutex<BTreeMap<String, Record>>,
    generation: watch::Sender<u64>,
    statuses: watch::Sender<Vec<PluginStatus>>,
}

/// What happened to a plugin.
struct Record {
    since: i64,
    generation: u64,
    /// Newest first.
    history: VecDeque<ReloadStatus>,
}

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
        let family = |(name, config)| (String::clone(&name), family(name, config, &metrics));
        let families: BTreeMap<String, Family> = configs.into_iter().map(family).collect();
        let (mut by_name, mut errors) = (BTreeMap::new(), Vec::new());
        for (name, family) in &families {
            match first(engine, family) {
                Ok(plugin) => _ = by_name.insert(name.clone(), Arc::new(plugin)),
                Err(error) => errors.push((name.clone(), error)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let registry = Self(Arc::new(Shared {
            engine: engine.clone(),
            records: Mutex::new(by_name.values().map(loaded).collect()),
            metrics,
            families,
            current: ArcSwap::from_pointee(Plugins { generation: 1, by_name }),
            generation: watch::Sender::new(1),
            statuses: watch::Sender::default(),
        }));
        registry.0.metrics.plugin_generation.set(1);
        registry.publish(&registry.records());
        Ok(registry)
    }

    /// The set in force. Take it once per batch.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Plugins> {
        self.0.current.load_full()
    }

    /// Changes with every swap, so that idle pipelines wake up.
    #[must_use]
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// The latest facts about each plugin.
    #[must_use]
    pub fn statuses(&self) -> watch::Receiver<Vec<PluginStatus>> {
        self.0.statuses.subscribe()
    }

    /// Each plugin's file.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        let families = self.0.families.iter();
        families.map(|(name, family)| (name.as_str(), family.config.path.as_path()))
    }

    /// What is in a plugin's file now.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        read(self.0.families.get(name).ok_or_else(|| unknown(name))?)
    }

    /// Offers new content for a plugin: it is in force when this returns, or why not. Blocks, and
    /// the streams go on meanwhile.
    ///
    /// # Errors
    /// See [`LoadError`]; what was in force stays. It has been logged.
    pub fn offer(&self, name: &str, bytes: Vec<u8>) -> Result<Version, LoadError> {
        let Some(family) = self.0.families.get(name) else { return Err(unknown(name)) };
        let mut records = self.records();
        let version = Version::of(&bytes);
        if self.version_of(name) == Some(version) {
            return Ok(version);
        }
        let answer = family.load(&self.0.engine, &bytes);
        let generation = match &answer {
            Ok(_) => self.snapshot().generation + 1,
            Err(_) => self.snapshot().generation,
        };
        if let Some(record) = records.get_mut(name) {
            record.note(version, generation, answer.as_ref().err());
        }
        self.count(name, answer.is_ok());
        let answer = answer.map(|plugin| self.put_in_force(name, plugin, generation));
        self.publish(&records);
        match &answer {
            Ok(()) => info!(plugin = name, %version, generation, "plugin swapped"),
            Err(error) => {
                error!(plugin = name, %version, "the version in force stays: {error}");
            }
        }
        answer.map(|()| version)
    }

    fn put_in_force(&self, name: &str, plugin: Plugin, generation: u64) {
        let mut by_name = self.snapshot().by_name.clone();
        by_name.insert(name.into(), Arc::new(plugin));
        self.0.current.store(Arc::new(Plugins { generation, by_name }));
        self.0.metrics.plugin_generation.set(generation.cast_signed());
        self.0.generation.send_replace(generation);
    }

    fn version_of(&self, name: &str) -> Option<Version> {
        self.0.current.load().by_name.get(name).map(|plugin| *plugin.version())
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.0.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, name: &str, taken: bool) {
        let outcome = if taken { "ok" } else { "refused" };
        let labels = Outcome { name: name.into(), outcome };
        self.0.metrics.plugin_reloads.get_or_create(&labels).inc();
    }

    fn publish(&self, records: &BTreeMap<String, Record>) {
        let plugins = self.snapshot();
        let status = |(name, record): (&String, &Record)| {
            let plugin = plugins.by_name.get(name)?;
            let path = self.0.families.get(name)?.config.path.display().to_string();
            Some(record.status(plugin, path))
        };
        self.0.statuses.send_replace(records.iter().filter_map(status).collect());
    }
}

fn family(name: String, config: Config, metrics: &Arc<Metrics>) -> Family {
    Family {
        log: Arc::new(Log::new(&name)),
        meters: Arc::new(Meters::new(&name, metrics.clone())),
        relations: Arc::new(Relations::default()),
        role: OnceLock::new(),
        name,
        config,
    }
}

fn first(engine: &Engine, family: &Family) -> Result<Plugin, LoadError> {
    family.load(engine, &read(family)?)
}

fn read(family: &Family) -> Result<Vec<u8>, LoadError> {
    let (plugin, limit) = (family.name.clone(), family.config.limits.file);
    file::read(&family.config.path, limit.bytes()).map_err(|error| {
        family.refused(match error {
            file::Error::Unreadable(error) => Reason::Unreadable { plugin, error },
            file::Error::TooLarge(size) => Reason::TooLarge { size, limit, plugin },
        })
    })
}

fn unknown(name: &str) -> LoadError {
    LoadError {
        plugin: name.into(),
        path: PathBuf::new(),
        reason: Reason::NotConfigured(name.into()),
    }
}

fn loaded(plugin: &Arc<Plugin>) -> (String, Record) {
    info!(plugin = plugin.name(), version = %plugin.version(), "plugin loaded");
    let history = VecDeque::with_capacity(LONGEST_HISTORY);
    let mut record = Record { since: 0, generation: 1, history };
    record.note(*plugin.version(), 1, None);
    (plugin.name().into(), record)
}

impl Record {
    fn note(&mut self, version: Version, generation: u64, error: Option<&LoadError>) {
        let time = now();
        if error.is_none() {
            (self.since, self.generation) = (time, generation);
        }
        self.history.truncate(LONGEST_HISTORY - 1);
        self.history.push_front(ReloadStatus {
            time,
            version: version.to_string(),
            error: error.map(|error| error.reason.to_string()),
        });
    }

    fn status(&self, plugin: &Plugin, path: String) -> PluginStatus {
        let description = plugin.description();
        PluginStatus {
            name: plugin.name().into(),
            version: plugin.version().to_string(),
            describes: format!("{} {}", description.name, description.version),
            language: plugin.language().map(Into::into),
            size: plugin.size(),
            path,
            since: self.since,
            generation: self.generation,
            history: self.history.iter().cloned().collect(),
        }
    }
}

/// Microseconds since 1970-01-01 UTC.
fn now() -> i64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
