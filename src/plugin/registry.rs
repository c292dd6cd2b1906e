//! Which plugins are in force, replaced as a whole.

mod change;
mod offer;
mod record;
mod take_back;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::error::{LoadError, Reason};
use super::log::Log;
use super::meters::Meters;
use super::program::Relations;
use super::trial::Family;
use super::{Config, Engine, Plugin, Version, file};
use crate::metrics::{Metrics, Name, Outcome as Labels};
use crate::model::plugin::{Outcome, ReloadStatus, Why};
use crate::model::shadow::ShadowReport;
use crate::model::status::PluginStatus;
pub use change::Prepared;
use change::{Begun, seen_and_taken, start};
use offer::Trials;
pub use offer::{Offered, Quiet, Rehearsal};
use record::{Entry, Record};
pub use record::{Memory, NoMemory};

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
    memory: Arc<dyn Memory>,
    /// And the token that ends it with walmill.
    rehearsal: OnceLock<(Arc<dyn Rehearsal>, CancellationToken)>,
    /// Held for a moment.
    trials: Mutex<Trials>,
    current: ArcSwap<Plugins>,
    /// Held for the whole of an offer: they are made one after the other.
    offers: Mutex<()>,
    /// Held for a moment; also whenever the set in force is replaced.
    books: Mutex<Books>,
    generation: watch::Sender<u64>,
    statuses: watch::Sender<Vec<PluginStatus>>,
}

/// What is known of each plugin of the config.
#[derive(Default)]
struct Books {
    families: BTreeMap<String, Arc<Family>>,
    records: BTreeMap<String, Record>,
}

impl Registry {
    /// Loads every plugin, with no memory of earlier runs. Blocks: compiling can take seconds.
    ///
    /// # Errors
    /// Every plugin that did not load, and why.
    pub fn open(
        engine: &Engine,
        configs: BTreeMap<String, Config>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Vec<(String, LoadError)>> {
        Self::open_with(engine, configs, metrics, Arc::new(NoMemory))
    }

    /// Loads every plugin: what was in force before, unless its file has changed since and works.
    /// Blocks.
    ///
    /// # Errors
    /// Every plugin that did not load, and why.
    pub fn open_with(
        engine: &Engine,
        configs: BTreeMap<String, Config>,
        metrics: Arc<Metrics>,
        memory: Arc<dyn Memory>,
    ) -> Result<Self, Vec<(String, LoadError)>> {
        let (mut books, mut by_name) = (Books::default(), BTreeMap::new());
        let mut errors = Vec::new();
        let recall = |name: &String| Record::of(memory.recall(name).unwrap_or_default());
        books.records = configs.keys().map(|name| (name.clone(), recall(name))).collect();
        // Before anything is compiled, and something else makes room for it.
        protect(engine, &books);
        for (name, config) in configs {
            let family = Arc::new(family(name.clone(), config, &metrics));
            let record = books.records.entry(name.clone()).or_default();
            match start(engine, &family, &record.kept) {
                Ok((begun, refusal)) => {
                    record.kept.seen = seen_and_taken(record);
                    begun.note(record, Why::Start, 1);
                    if let Some(refusal) = refusal {
                        let version = begun.plugin.version();
                        error!(plugin = name, %version, "the version in force stays: {refusal}");
                        record.note(begun.refused(&refusal), 1);
                        metrics.plugin_reloads.get_or_create(&labels(&name, "refused")).inc();
                    }
                    memory.keep(&name, &record.kept);
                    loaded(&begun);
                    by_name.insert(name.clone(), begun.plugin);
                }
                Err(error) => errors.push((name.clone(), error)),
            }
            books.families.insert(name, family);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let registry = Self(Arc::new(Shared {
            engine: engine.clone(),
            metrics,
            memory,
            rehearsal: OnceLock::new(),
            trials: Mutex::default(),
            current: ArcSwap::from_pointee(Plugins { generation: 1, by_name }),
            offers: Mutex::default(),
            books: Mutex::new(books),
            generation: watch::Sender::new(1),
            statuses: watch::Sender::default(),
        }));
        registry.0.metrics.plugin_generation.set(1);
        registry.protect(&registry.books());
        registry.publish(&registry.books());
        Ok(registry)
    }

    /// From now on, new versions run beside those in force first, until the shutdown.
    pub fn rehearse_with(&self, rehearsal: Arc<dyn Rehearsal>, shutdown: CancellationToken) {
        // Called once, when everything that it needs is there.
        let _ = self.0.rehearsal.set((rehearsal, shutdown));
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
    pub(super) fn files(&self) -> Vec<(String, PathBuf)> {
        let books = self.books();
        let file =
            |(name, family): (&String, &Arc<Family>)| (name.clone(), family.config.path.clone());
        books.families.iter().map(file).collect()
    }

    /// What is in a plugin's file now.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        read(&*self.family(name).ok_or_else(|| unknown(name))?)
    }

    fn family(&self, name: &str) -> Option<Arc<Family>> {
        self.books().families.get(name).cloned()
    }

    /// Replaces a version, and writes down that it did.
    fn put_in_force(
        &self,
        books: &mut Books,
        name: &str,
        plugin: Arc<Plugin>,
        entry: Entry,
    ) -> ReloadStatus {
        let now = self.snapshot();
        let (generation, mut by_name) = (now.generation + 1, now.by_name.clone());
        by_name.insert(name.into(), plugin);
        let record = books.records.entry(name.into()).or_default();
        let done = record.note(entry, generation);
        // First on disk: after a power cut the version is in force that was shown to be.
        self.keep(name, record);
        self.publish_set(Plugins { generation, by_name });
        self.count(name, Outcome::InForce);
        self.protect(books);
        self.publish(books);
        done
    }

    fn publish_set(&self, plugins: Plugins) {
        let generation = plugins.generation;
        self.0.current.store(Arc::new(plugins));
        self.0.metrics.plugin_generation.set(generation.cast_signed());
        self.0.generation.send_replace(generation);
    }

    /// Writes down what was not put in force.
    fn note(&self, name: &str, entry: Entry) -> ReloadStatus {
        let mut books = self.books();
        let outcome = entry.outcome;
        let record = books.records.entry(name.into()).or_default();
        let generation = record.generation;
        let done = record.note(entry, generation);
        self.keep(name, record);
        self.count(name, outcome);
        self.protect(&books);
        self.publish(&books);
        done
    }

    fn keep(&self, name: &str, record: &Record) {
        self.0.memory.keep(name, &record.kept);
        let waiting = i64::from(record.kept.waiting.is_some());
        self.0.metrics.plugin_waiting.get_or_create(&Name { name: name.into() }).set(waiting);
    }

    fn version_of(&self, name: &str) -> Option<Version> {
        self.0.current.load().by_name.get(name).map(|plugin| *plugin.version())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, name: &str, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::InForce => "ok",
            Outcome::Refused => "refused",
            Outcome::Waiting => "waiting",
        };
        self.0.metrics.plugin_reloads.get_or_create(&labels(name, outcome)).inc();
    }

    fn count_roll_back(&self, name: &str, why: Why) {
        let outcome = match why {
            Why::Automatic => "automatic",
            Why::RollBack => "asked",
            _ => return,
        };
        self.0.metrics.plugin_rollbacks.get_or_create(&labels(name, outcome)).inc();
    }

    fn count_shadow(&self, name: &str, report: &ShadowReport) {
        let (events, differ) = (report.events(), report.differ());
        for (outcome, count) in [("same", events.saturating_sub(differ)), ("different", differ)] {
            let counter = self.0.metrics.plugin_shadow_events.get_or_create(&labels(name, outcome));
            counter.inc_by(count);
        }
    }

    /// The files of what may be wanted again stay.
    fn protect(&self, books: &Books) {
        protect(&self.0.engine, books);
    }

    fn publish(&self, books: &Books) {
        let plugins = self.snapshot();
        let status = |(name, record): (&String, &Record)| {
            let plugin = plugins.by_name.get(name)?;
            let path = books.families.get(name)?.config.path.display().to_string();
            Some(record.status(plugin, path))
        };
        self.0.statuses.send_replace(books.records.iter().filter_map(status).collect());
    }
}

/// Loads one plugin that is in no set, to try it.
///
/// # Errors
/// See [`LoadError`].
pub fn load_alone(engine: &Engine, name: &str, config: Config) -> Result<Arc<Plugin>, LoadError> {
    let family = family(name.to_owned(), config, &Arc::new(Metrics::new()));
    family.load(engine, &read(&family)?).map(Arc::new)
}

fn protect(engine: &Engine, books: &Books) {
    if let Some(cache) = engine.cache() {
        let versions = books.records.values().flat_map(Record::versions);
        cache.protect(versions.filter_map(Version::from_hex).collect());
    }
}

fn labels(name: &str, outcome: &'static str) -> Labels {
    Labels { name: name.into(), outcome }
}

fn family(name: String, config: Config, metrics: &Arc<Metrics>) -> Family {
    Family {
        log: Arc::new(Log::new(&name, config.limits.log_lines)),
        meters: Arc::new(Meters::new(&name, metrics.clone())),
        relations: Arc::new(Relations::default()),
        role: OnceLock::new(),
        name,
        config,
    }
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

fn loaded(begun: &Begun) {
    let plugin = &begun.plugin;
    info!(plugin = plugin.name(), version = %plugin.version(), "plugin loaded");
}

#[cfg(test)]
mod tests;
