//! A new version, from its bytes to its place, or to the reason why it has none.

use std::sync::{Arc, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::super::error::{LoadError, Reason};
use super::super::promotion::Decision;
use super::super::{Plugin, Version};
use super::record::Entry;
use super::{Plugins, Registry, unknown};
use crate::model::plugin::{Outcome, ReloadStatus, Why};
use crate::model::shadow::ShadowReport;

/// Runs a version beside those in force, over what the journal still has.
pub trait Rehearsal: Send + Sync {
    /// What `candidate` would make of the last `events` events of each pipeline that runs it;
    /// `cancel` ends it early.
    fn rehearse(
        &self,
        in_force: &Plugins,
        candidate: &Arc<Plugin>,
        events: u32,
        cancel: &CancellationToken,
    ) -> ShadowReport;
}

/// The shadow run under way, and whether there may be any.
#[derive(Default)]
pub(super) struct Trials {
    /// How many want quiet.
    quiet: usize,
    /// Of which plugin it is, and what ends it.
    current: Option<(String, CancellationToken)>,
}

/// While it is held there is no shadow run, and nothing that needs one is decided.
pub struct Quiet(Registry);

impl Drop for Quiet {
    fn drop(&mut self) {
        self.0.trials().quiet -= 1;
    }
}

/// What came of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// Nothing new: it is in force, or was decided about before.
    Known,
    /// It was put in force.
    InForce(Box<ReloadStatus>),
    /// It works, and waits for a person's word.
    Waiting(Box<ReloadStatus>),
}

impl Registry {
    /// Offers what a plugin's file holds now: it is in force when this returns, or waits, or why
    /// not. Blocks, and the streams go on meanwhile.
    ///
    /// # Errors
    /// See [`LoadError`]; what was in force stays. It has been logged.
    pub fn offer(&self, name: &str, bytes: Vec<u8>) -> Result<Version, LoadError> {
        let version = Version::of(&bytes);
        self.offer_as(name, &bytes, Why::File).map(|_| version)
    }

    /// Offers new content for a plugin, for this reason.
    ///
    /// # Errors
    /// See [`LoadError`]; what was in force stays. It has been logged.
    pub fn offer_as(&self, name: &str, bytes: &[u8], why: Why) -> Result<Offered, LoadError> {
        let _one_at_a_time = self.0.offers.lock().unwrap_or_else(PoisonError::into_inner);
        let family = self.family(name).ok_or_else(|| unknown(name))?;
        let version = Version::of(bytes);
        if self.is_known(name, version, why) {
            return Ok(Offered::Known);
        }
        let answer = family.load(&self.0.engine, bytes).map(Arc::new);
        let report = match &answer {
            Ok(plugin) => self.rehearse(plugin).map_err(|CutShort| {
                info!(plugin = name, %version, "its shadow run was cut short: nothing is decided");
                family.refused(Reason::CutShort)
            })?,
            Err(_) => None,
        };
        let decided = answer.and_then(|plugin| {
            let bound = family.config.rollback.failures;
            match family.config.promote.decide(report.as_ref(), bound) {
                Decision::Refuse(why) => Err(family.refused(Reason::Shadow(why))),
                decision => Ok((plugin, decision)),
            }
        });
        let entry = |outcome| Entry { shadow: report.clone(), ..Entry::new(version, why, outcome) };
        match decided {
            Ok((plugin, Decision::Wait(reason))) => {
                warn!(plugin = name, %version, "the version waits for `walmill plugin promote`: {reason}");
                let entry = Entry { reason: Some(reason), ..entry(Outcome::Waiting) };
                Ok(Offered::Waiting(Box::new(self.note(plugin.name(), entry))))
            }
            Ok((plugin, _)) => {
                let done = self.go_live(name, plugin, entry(Outcome::InForce));
                Ok(Offered::InForce(Box::new(done)))
            }
            Err(refusal) => {
                error!(plugin = name, %version, "the version in force stays: {refusal}");
                let error = Some(refusal.reason.to_string());
                self.note(name, Entry { error, ..entry(Outcome::Refused) });
                Err(refusal)
            }
        }
    }

    /// Whether there is nothing to decide.
    fn is_known(&self, name: &str, version: Version, why: Why) -> bool {
        let in_force = self.version_of(name) == Some(version);
        let mut books = self.books();
        let Some(record) = books.records.get_mut(name) else { return in_force };
        let digest = version.hex();
        let seen = record.kept.seen.as_deref() == Some(&digest);
        if why == Why::File && in_force && !seen {
            record.kept.seen = Some(digest);
            // The file that held what waits is no more.
            record.kept.waiting = None;
            self.keep(name, record);
            self.publish(&books);
        }
        in_force || why == Why::File && seen
    }

    /// Ends the shadow run under way, and lets none begin while the answer is held: whoever changes
    /// the plugins as a whole does not wait for one.
    #[must_use]
    pub fn quiet(&self) -> Quiet {
        let mut trials = self.trials();
        trials.quiet += 1;
        if let Some((_, cancel)) = &trials.current {
            cancel.cancel();
        }
        Quiet(self.clone())
    }

    /// Ends the shadow run of this plugin, if there is one: what it compares with is replaced.
    pub(super) fn end_trial(&self, name: &str) {
        if let Some((_, cancel)) = self.trials().current.as_ref().filter(|(of, _)| of == name) {
            cancel.cancel();
        }
    }

    fn trials(&self) -> MutexGuard<'_, Trials> {
        self.0.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shadow run, if there is to be one.
    fn rehearse(&self, plugin: &Arc<Plugin>) -> Result<Option<ShadowReport>, CutShort> {
        let name = plugin.name();
        let events = self.family(name).map_or(0, |family| family.config.shadow.events);
        let Some((rehearsal, shutdown)) = self.0.rehearsal.get().filter(|_| events > 0) else {
            return Ok(None);
        };
        let cancel = shutdown.child_token();
        {
            let mut trials = self.trials();
            if trials.quiet > 0 {
                return Err(CutShort);
            }
            trials.current = Some((name.to_owned(), cancel.clone()));
        }
        let report = self.on_its_thread(&**rehearsal, plugin, events, &cancel);
        self.trials().current = None;
        if cancel.is_cancelled() {
            return Err(CutShort);
        }
        self.count_shadow(name, &report);
        info!(plugin = name, version = %plugin.version(), "shadow run: {}", report.summary());
        Ok(Some(report))
    }

    /// So that a panic is its own, too.
    fn on_its_thread(
        &self,
        rehearsal: &dyn Rehearsal,
        plugin: &Arc<Plugin>,
        events: u32,
        cancel: &CancellationToken,
    ) -> ShadowReport {
        let in_force = self.snapshot();
        let report = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(format!("shadow {}", plugin.name()));
            let run = || rehearsal.rehearse(&in_force, plugin, events, cancel);
            let thread = thread.spawn_scoped(scope, run).map_err(|error| error.to_string());
            thread.and_then(|thread| thread.join().map_err(|_| "it panicked".to_owned()))
        });
        report.unwrap_or_else(|why| ShadowReport::without(format!("no shadow run: {why}")))
    }
}

/// A shadow run was ended before it could say anything.
struct CutShort;
