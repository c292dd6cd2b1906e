//! Versions that come back: on a person's word, or because the one in force fails too often.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tracing::{error, info};

use super::super::{Plugin, Version};
use super::Registry;
use super::record::{Entry, Probation, Record, short};
use crate::model::Finding;
use crate::model::finding::did_you_mean;
use crate::model::plugin::{Candidate, Outcome, ReloadStatus, Why};

/// Digits of a version that must be given.
const SHORTEST: usize = 4;

impl Registry {
    /// Puts an earlier version in force: the one whose hash begins so, or the last good one before
    /// the one in force. Blocks while it is loaded.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn roll_back(&self, name: &str, wish: Option<&str>) -> Result<ReloadStatus, Finding> {
        self.end_trial(name);
        let digest = self.with_record(name, |record| match wish {
            Some(wish) => find(name, record, wish),
            None => record.last_good().map(|entry| entry.digest.clone()).ok_or_else(|| {
                let message = format!("no earlier version of `{name}` was in force and good");
                Finding::error("nothing-to-roll-back", name, message)
                    .suggest(format!("`walmill plugin ls {name}` lists the versions"))
            }),
        })?;
        self.bring_back(name, &digest, Why::RollBack)
    }

    /// Puts the version in force that waits; if one is named, only that one.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn promote(&self, name: &str, wish: Option<&str>) -> Result<ReloadStatus, Finding> {
        let digest = self.with_record(name, |record| {
            let waiting = record.kept.waiting.clone().ok_or_else(|| {
                let message = format!("no version of `{name}` waits");
                Finding::error("nothing-waits", name, message)
            })?;
            match wish {
                Some(wish) if !waiting.starts_with(wish) => {
                    let message = format!(
                        "version {wish} of `{name}` does not wait; {} does",
                        short(&waiting)
                    );
                    Err(Finding::error("nothing-waits", name, message))
                }
                _ => Ok(waiting),
            }
        })?;
        self.bring_back(name, &digest, Why::Promote)
    }

    /// A version's file: the one whose hash begins so, or the one in force.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn pull(&self, name: &str, wish: Option<&str>) -> Result<(String, Vec<u8>), Finding> {
        let digest = self.with_record(name, |record| match (wish, &record.kept.in_force) {
            (Some(wish), _) => find(name, record, wish),
            (None, Some(in_force)) => Ok(in_force.clone()),
            (None, None) => Err(Finding::error("unknown-version", name, "no version is in force")),
        })?;
        let bytes = self.kept(name, &digest)?;
        Ok((digest, bytes))
    }

    fn bring_back(&self, name: &str, digest: &str, why: Why) -> Result<ReloadStatus, Finding> {
        if self.version_of(name).is_some_and(|version| version.hex() == digest) {
            let message = format!("version {} of `{name}` is in force", short(digest));
            return Err(Finding::error("in-force", name, message));
        }
        let plugin = self.load_again(name, digest)?;
        let entry = Entry::new(*plugin.version(), why, Outcome::InForce);
        self.count_roll_back(name, why);
        Ok(self.go_live(name, plugin, entry))
    }

    fn load_again(&self, name: &str, digest: &str) -> Result<Arc<Plugin>, Finding> {
        if let Some(plugin) = self.previous(name, digest) {
            return Ok(plugin);
        }
        let family = self.family(name).ok_or_else(|| unknown(name, &[]))?;
        let bytes = self.kept(name, digest)?;
        let loaded = family.load(&self.0.engine, &bytes);
        loaded.map(Arc::new).map_err(|error| {
            Finding::error("refused", name, format!("it does not load any more: {error}"))
        })
    }

    /// A version to be tried: ready to run, in no set, and nothing is written down about it.
    /// Blocks while it is loaded, one at a time with what is offered.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn candidate(&self, name: &str, candidate: &Candidate) -> Result<Arc<Plugin>, Finding> {
        let _one_at_a_time = self.0.offers.lock().unwrap_or_else(PoisonError::into_inner);
        match candidate {
            Candidate::Version(wish) => {
                let digest = self.with_record(name, |record| find(name, record, wish))?;
                let in_force = self.snapshot().by_name.get(name).cloned();
                match in_force.filter(|plugin| plugin.version().hex() == digest) {
                    Some(plugin) => Ok(plugin),
                    None => self.load_again(name, &digest),
                }
            }
            Candidate::File(bytes) => {
                let family = self.family(name).ok_or_else(|| unknown(name, &[]))?;
                let loaded = family.load(&self.0.engine, bytes);
                let refused = |error| Finding::error("refused", name, format!("{error}"));
                loaded.map(Arc::new).map_err(refused)
            }
        }
    }

    /// The version before the one in force, while it is still in memory.
    fn previous(&self, name: &str, digest: &str) -> Option<Arc<Plugin>> {
        let books = self.books();
        let previous = &books.records.get(name)?.probation.as_ref()?.previous;
        (previous.version().hex() == digest).then(|| Arc::clone(previous))
    }

    fn kept(&self, name: &str, digest: &str) -> Result<Vec<u8>, Finding> {
        let version = Version::from_hex(digest);
        let bytes = version.and_then(|version| self.0.engine.cache()?.kept(&version));
        bytes.ok_or_else(|| {
            let message =
                format!("the file of version {} of `{name}` is not kept any more", short(digest));
            Finding::error("unknown-version", name, message)
                .suggest("put it in the plugin's place, or upload it")
        })
    }

    fn with_record<T>(
        &self,
        name: &str,
        work: impl FnOnce(&Record) -> Result<T, Finding>,
    ) -> Result<T, Finding> {
        let books = self.books();
        match books.records.get(name) {
            Some(record) => work(record),
            None => {
                let names: Vec<&str> = books.records.keys().map(String::as_str).collect();
                Err(unknown(name, &names))
            }
        }
    }

    /// A pipeline says that a version broke on events: one that has just gone live, and does so
    /// too often, is taken back. `stopped`: the pipeline does not go on because of it.
    pub fn note_failures(&self, plugin: &Arc<Plugin>, stopped: bool) {
        let name = plugin.name();
        let Some(family) = self.family(name) else { return };
        let mut books = self.0.books.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = books.records.get_mut(name) else { return };
        let bounds = &family.config.rollback;
        let in_force =
            self.snapshot().by_name.get(name).is_some_and(|now| Arc::ptr_eq(now, plugin));
        let watched = |probation: &Probation| {
            in_force && probation.since.elapsed() <= bounds.within.duration()
        };
        let Some(probation) = record.probation.take_if(|probation| watched(probation)) else {
            return;
        };
        let (seen, failed) = plugin.seen_and_failed();
        let too_often = seen >= bounds.least && bounds.failures.is_exceeded(failed, seen);
        let stops = stopped && bounds.failures.is_exceeded(1, 1);
        if !(too_often || stops) {
            record.probation = Some(probation);
            return;
        }
        let reason = format!(
            "version {} broke on {failed} of {seen} events{}; `plugins.{name}.rollback.failures` is {}",
            plugin.version(),
            if stopped { " and stopped a pipeline" } else { "" },
            bounds.failures
        );
        error!(plugin = name, version = %probation.previous.version(), "rolled back: {reason}");
        let entry = Entry::new(*probation.previous.version(), Why::Automatic, Outcome::InForce);
        let entry = Entry { reason: Some(reason), ..entry };
        self.count_roll_back(name, Why::Automatic);
        self.put_in_force(&mut books, name, probation.previous, entry);
    }

    /// Swaps a version in, and watches it from now on.
    pub(super) fn go_live(&self, name: &str, plugin: Arc<Plugin>, entry: Entry) -> ReloadStatus {
        let (version, why) = (*plugin.version(), entry.why);
        let mut books = self.books();
        let previous = self.snapshot().by_name.get(name).cloned();
        let done = self.put_in_force(&mut books, name, plugin, entry);
        if let Some(record) = books.records.get_mut(name) {
            // What a person took back is known; it has nowhere to go back to by itself.
            record.probation = previous
                .filter(|_| !why.takes_back())
                .map(|previous| Probation { since: Instant::now(), previous });
        }
        drop(books);
        let generation = self.snapshot().generation;
        info!(plugin = name, %version, generation, "plugin swapped: {}", why.words());
        done
    }
}

fn find(name: &str, record: &Record, wish: &str) -> Result<String, Finding> {
    let unknown = |message: String| {
        Finding::error("unknown-version", name, message)
            .suggest(format!("`walmill plugin ls {name}` lists the versions"))
    };
    if wish.len() < SHORTEST {
        return Err(unknown(format!("`{wish}` is too short: give {SHORTEST} digits at least")));
    }
    let mut found: Vec<&str> =
        record.versions().filter(|digest| digest.starts_with(wish)).collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(unknown(format!("no version {wish} of `{name}` is known"))),
        _ => Err(unknown(format!("{} versions of `{name}` begin with {wish}", found.len()))),
    }
}

fn unknown(name: &str, names: &[&str]) -> Finding {
    let suggestion = match did_you_mean(name, names.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the plugins are: {}", names.join(", ")),
    };
    Finding::error("unknown-plugin", name, format!("there is no plugin `{name}`"))
        .suggest(suggestion)
}
