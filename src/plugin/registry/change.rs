//! Another config: plugins that come, go, or are set up otherwise, all in one step.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{error, warn};

use super::super::error::LoadError;
use super::super::promotion::Promote;
use super::super::trial::Family;
use super::super::{Config, Engine, Plugin, Role, Version};
use super::record::{Entry, Record};
use super::{Books, Plugins, Registry, family, read};
use crate::model::plugin::{Outcome, PluginRecord, Why};

/// A set of plugins that works, ready to be put in force.
pub struct Prepared {
    /// Every plugin of the new config, new ones and old ones.
    families: BTreeMap<String, Arc<Family>>,
    /// Those that were loaded for it.
    begun: BTreeMap<String, Begun>,
}

impl Prepared {
    /// What a plugin of the set is for.
    #[must_use]
    pub fn role(&self, registry: &Registry, name: &str) -> Option<Role> {
        match self.begun.get(name) {
            Some(begun) => Some(begun.plugin.role()),
            None => Some(registry.snapshot().by_name.get(name)?.role()),
        }
    }
}

/// A plugin's first version under a config.
pub(super) struct Begun {
    pub(super) plugin: Arc<Plugin>,
    /// What its file holds.
    seen: Version,
    /// Why it is not what the record says, where that matters.
    reason: Option<String>,
    /// The version that was in force when this one was picked.
    beside: Option<String>,
}

impl Begun {
    /// What its file holds, as an entry of the history of one that did not take it.
    pub(super) fn refused(&self, refusal: &LoadError) -> Entry {
        let error = Some(refusal.reason.to_string());
        Entry { error, ..Entry::new(self.seen, Why::File, Outcome::Refused) }
    }

    /// As an entry of its history.
    fn entry(&self, why: Why) -> Entry {
        let entry = Entry::new(*self.plugin.version(), why, Outcome::InForce);
        Entry { reason: self.reason.clone(), ..entry }
    }

    /// Notes it in the plugin's record, if it is news.
    pub(super) fn note(&self, record: &mut Record, why: Why, generation: u64) {
        let version = *self.plugin.version();
        if version == self.seen {
            record.kept.seen = Some(self.seen.hex());
        }
        let same = record.kept.in_force.as_deref() == Some(&version.hex());
        if same && why == Why::Start {
            (record.since, record.generation) = (crate::model::clock::now(), generation);
            return;
        }
        record.note(self.entry(why), generation);
    }
}

/// Which version a plugin begins with: the one that was in force, unless its file has other
/// content now. With `stay`, and where new versions need a person's word, the one that was in
/// force in any case; the file is then offered like any other.
pub(super) fn begin(
    engine: &Engine,
    family: &Family,
    record: &PluginRecord,
    stay: bool,
) -> Result<Begun, LoadError> {
    let bytes = read(family)?;
    let seen = Version::of(&bytes);
    let beside = record.in_force.clone();
    let last = record.history.iter().find(|entry| entry.digest == seen.hex());
    let stay = stay
        || family.config.promote != Promote::Auto
        || record.seen.as_deref() == Some(&seen.hex())
        || last.is_some_and(|entry| entry.outcome == Outcome::Refused);
    let kept = record.in_force.as_deref().and_then(Version::from_hex).filter(|_| stay);
    let mut reason = None;
    if let Some(kept) = kept.filter(|kept| *kept != seen) {
        match engine.cache().and_then(|cache| cache.kept(&kept)) {
            Some(bytes) => match family.load(engine, &bytes) {
                Ok(plugin) => {
                    return Ok(Begun { plugin: Arc::new(plugin), seen, reason: None, beside });
                }
                Err(error) => {
                    reason = Some(format!("version {kept} does not load: {}", error.reason))
                }
            },
            None => reason = Some(format!("the file of version {kept} is not kept any more")),
        }
    }
    if let Some(reason) = &reason {
        warn!(plugin = family.name, "the version in the plugin's file takes over: {reason}");
    }
    Ok(Begun { plugin: Arc::new(family.load(engine, &bytes)?), seen, reason, beside })
}

/// The same at the start of walmill. A file that was saved while it was down and does not work
/// stops nothing: the version that was in force is, and why the file is refused is said beside it.
pub(super) fn start(
    engine: &Engine,
    family: &Family,
    record: &PluginRecord,
) -> Result<(Begun, Option<LoadError>), LoadError> {
    match begin(engine, family, record, false) {
        Ok(begun) => Ok((begun, None)),
        Err(refusal) if record.in_force.is_none() => Err(refusal),
        Err(refusal) => match begin(engine, family, record, true) {
            Ok(begun) => Ok((begun, Some(refusal))),
            Err(_) => Err(refusal),
        },
    }
}

impl Registry {
    /// Loads what is new in a config, with no effect yet. Blocks.
    ///
    /// # Errors
    /// Every plugin that did not load, and why.
    pub fn prepare(
        &self,
        configs: &BTreeMap<String, Config>,
    ) -> Result<Prepared, Vec<(String, LoadError)>> {
        let mut prepared = Prepared { families: BTreeMap::new(), begun: BTreeMap::new() };
        let mut errors = Vec::new();
        for (name, config) in configs {
            let known = self.family(name);
            if let Some(known) = known.as_ref().filter(|known| known.config == *config) {
                prepared.families.insert(name.clone(), Arc::clone(known));
                continue;
            }
            let same_path = known.is_some_and(|known| known.config.path == config.path);
            let family = Arc::new(family(name.clone(), config.clone(), &self.0.metrics));
            match begin(&self.0.engine, &family, &self.recall(name, same_path), same_path) {
                Ok(begun) => {
                    prepared.families.insert(name.clone(), family);
                    prepared.begun.insert(name.clone(), begun);
                }
                Err(error) => errors.push((name.clone(), error)),
            }
        }
        if errors.is_empty() { Ok(prepared) } else { Err(errors) }
    }

    /// Picks the version of an overtaken plugin once more.
    fn begin_again(
        &self,
        name: &str,
        families: &BTreeMap<String, Arc<Family>>,
        begun: &mut BTreeMap<String, Begun>,
    ) {
        let record = self.recall(name, true);
        let again = families.get(name).map(|family| begin(&self.0.engine, family, &record, true));
        match (again, begun.get_mut(name)) {
            (Some(Ok(again)), Some(begun)) => *begun = again,
            (Some(Err(error)), Some(begun)) => {
                // Others have been stopped for the new set by now, so it is too late to refuse it.
                error!(plugin = name, "the version that was taken back does not load: {error}");
                begun.beside = record.in_force;
            }
            (_, _) => _ = begun.remove(name),
        }
    }

    /// What is known of a plugin; of another file, only what happened.
    fn recall(&self, name: &str, same_path: bool) -> PluginRecord {
        let here = self.books().records.get(name).map(|record| record.kept.clone());
        let known = here.clone().or_else(|| self.0.memory.recall(name)).unwrap_or_default();
        match here.is_some() && !same_path {
            true => PluginRecord { seen: None, ..known },
            false => known,
        }
    }

    /// Puts a prepared set in force in one step. Blocks where something has to be loaded again.
    pub fn apply(&self, prepared: Prepared) {
        let Prepared { families, mut begun } = prepared;
        let mut books = loop {
            let books = self.books();
            let Some(name) = overtaken(&books, &begun) else { break books };
            drop(books);
            self.begin_again(&name, &families, &mut begun);
        };
        let now = self.snapshot();
        let generation = now.generation + 1;
        let mut by_name = now.by_name.clone();
        by_name.retain(|name, _| families.contains_key(name));
        if begun.is_empty() && by_name.len() == now.by_name.len() {
            return;
        }
        books.records.retain(|name, _| families.contains_key(name));
        books.families = families;
        for (name, begun) in begun {
            by_name.insert(name.clone(), Arc::clone(&begun.plugin));
            let kept = || Record::of(self.0.memory.recall(&name).unwrap_or_default());
            let record = books.records.entry(name.clone()).or_insert_with(kept);
            record.probation = None;
            record.kept.seen = seen_and_taken(record);
            begun.note(record, Why::Reload, generation);
            self.keep(&name, record);
        }
        self.publish_set(Plugins { generation, by_name });
        self.protect(&books);
        self.publish(&books);
    }
}

/// A plugin of which the new set has the version that was in force, and now another one is: one
/// that failed too often was taken back meanwhile.
fn overtaken(books: &Books, begun: &BTreeMap<String, Begun>) -> Option<String> {
    let is_overtaken = |(name, begun): &(&String, &Begun)| {
        let stays = begun.beside.as_deref() == Some(&begun.plugin.version().hex());
        let record = books.records.get(*name);
        stays && record.is_some_and(|record| record.kept.in_force != begun.beside)
    };
    begun.iter().find(is_overtaken).map(|(name, _)| name.clone())
}

/// What the file was seen to hold; not if that was refused, since another config may mend it.
pub(super) fn seen_and_taken(record: &Record) -> Option<String> {
    let seen = record.kept.seen.clone()?;
    let last = record.kept.history.iter().find(|entry| entry.digest == seen);
    (last.is_none_or(|entry| entry.outcome != Outcome::Refused)).then_some(seen)
}
