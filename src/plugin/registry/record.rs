//! What happened to a plugin, as it is kept and as it is shown.

use std::sync::Arc;
use std::time::Instant;

use super::super::{Plugin, Version};
use crate::model::clock;
use crate::model::plugin::{Outcome, PluginRecord, ReloadStatus, Why};
use crate::model::shadow::ShadowReport;
use crate::model::status::PluginStatus;

/// Entries that are kept for each plugin.
pub(super) const LONGEST_HISTORY: usize = 20;

/// Where records outlive walmill.
pub trait Memory: Send + Sync {
    /// What is kept of a plugin.
    fn recall(&self, plugin: &str) -> Option<PluginRecord>;

    /// Keeps it. A failure is for the memory to report: the version is in force all the same.
    fn keep(&self, plugin: &str, record: &PluginRecord);
}

/// No memory: for checks, and for tests of one run.
pub struct NoMemory;

impl Memory for NoMemory {
    fn recall(&self, _plugin: &str) -> Option<PluginRecord> {
        None
    }

    fn keep(&self, _plugin: &str, _record: &PluginRecord) {}
}

/// What happened to a plugin.
#[derive(Default)]
pub(super) struct Record {
    pub(super) kept: PluginRecord,
    pub(super) since: i64,
    pub(super) generation: u64,
    /// While a new version is watched.
    pub(super) probation: Option<Probation>,
}

/// A version that went live, and the one before it, for as long as it can be taken back by itself.
pub(super) struct Probation {
    pub(super) since: Instant,
    pub(super) previous: Arc<Plugin>,
}

/// An entry in the making.
pub(super) struct Entry {
    pub(super) version: Version,
    pub(super) why: Why,
    pub(super) outcome: Outcome,
    pub(super) error: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) shadow: Option<ShadowReport>,
}

impl Entry {
    pub(super) fn new(version: Version, why: Why, outcome: Outcome) -> Self {
        Self { version, why, outcome, error: None, reason: None, shadow: None }
    }
}

impl Record {
    pub(super) fn of(kept: PluginRecord) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Adds an entry. Who is in force, and who waits, follows from it.
    pub(super) fn note(&mut self, entry: Entry, generation: u64) -> ReloadStatus {
        let Entry { version, why, outcome, error, reason, shadow } = entry;
        let (time, digest) = (clock::now(), version.hex());
        let mut replaced = None;
        match outcome {
            Outcome::InForce => {
                replaced = self.kept.in_force.replace(digest.clone()).filter(|old| *old != digest);
                self.kept.waiting = None;
                (self.since, self.generation) = (time, generation);
            }
            Outcome::Waiting => self.kept.waiting = Some(digest.clone()),
            Outcome::Refused => {}
        }
        if why == Why::File {
            // Not before: what was stopped in between is offered again.
            self.kept.seen = Some(digest.clone());
        }
        let entry = ReloadStatus {
            time,
            version: version.to_string(),
            digest,
            why,
            outcome,
            error,
            reason,
            replaced,
            shadow,
        };
        self.kept.history.truncate(LONGEST_HISTORY - 1);
        self.kept.history.push_front(entry.clone());
        entry
    }

    /// The newest version that was in force before, and that was not taken back.
    pub(super) fn last_good(&self) -> Option<&ReloadStatus> {
        let in_force = self.kept.in_force.as_deref();
        let taken_back = |digest: &str| {
            let history = self.kept.history.iter().filter(|entry| entry.why.takes_back());
            history.into_iter().any(|entry| entry.replaced.as_deref() == Some(digest))
        };
        let was_in_force = |entry: &&ReloadStatus| {
            entry.outcome == Outcome::InForce && Some(entry.digest.as_str()) != in_force
        };
        let mut earlier = self.kept.history.iter().filter(was_in_force);
        earlier.find(|entry| !taken_back(&entry.digest))
    }

    /// Versions that a person may want again.
    pub(super) fn versions(&self) -> impl Iterator<Item = &str> {
        let of_history = self.kept.history.iter().map(|entry| entry.digest.as_str());
        let others = [&self.kept.in_force, &self.kept.waiting].into_iter().flatten();
        of_history.chain(others.map(String::as_str))
    }

    pub(super) fn status(&self, plugin: &Plugin, path: String) -> PluginStatus {
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
            waiting: self.kept.waiting.as_deref().map(short),
            note: self.state(plugin.name()),
            max_size: plugin.limits().file.bytes(),
            history: self.kept.history.iter().cloned().collect(),
        }
    }

    /// What is unusual, in words.
    fn state(&self, name: &str) -> Option<String> {
        let PluginRecord { in_force, seen, waiting, .. } = &self.kept;
        if let Some(waiting) = waiting {
            return Some(format!(
                "version {} waits; `walmill plugin promote {name}` puts it in force",
                short(waiting)
            ));
        }
        let seen = seen.as_ref().filter(|seen| in_force.as_ref() != Some(*seen))?;
        let last = self.kept.history.iter().find(|entry| entry.digest == *seen);
        if let Some(entry) = last.filter(|entry| entry.outcome == Outcome::Refused) {
            return Some(format!(
                "the file holds version {}, which was refused: {}; version {} stays in force until \
                 the file's content changes",
                short(seen),
                entry.error.as_deref().unwrap_or("it does not work"),
                in_force.as_deref().map(short).unwrap_or_default()
            ));
        }
        Some(format!(
            "the file holds version {}, which is not in force; it stays so, also after a restart, \
             until the file's content changes",
            short(seen)
        ))
    }
}

/// The digits of a version that are shown.
pub(super) fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}
