//! A pipeline: the tables it takes, the plugins it runs, and a cursor into the journal.
//!
//! It runs on a thread of its own, because plugins are called synchronously, and it is one loop:
//! read a batch behind the cursor, run the plugins of one generation, commit everything at once.

mod again;
#[doc(hidden)]
pub mod boundary;
mod changes;
mod encode;
#[doc(hidden)]
pub mod fuzz;
pub mod input;
mod json;
mod replay;
mod route;
mod rows;
mod schema;
pub mod shadow;
mod shape;
mod stage;
mod state;
mod tagged;
#[cfg(test)]
mod tests;
mod transform;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub use changes::ChangesError;
pub use route::{OpenError, valid_name};
pub use schema::OnSchemaChange;
pub use transform::TransformError;

use crate::metrics::{Metrics, Name, Outcome as OutcomeLabel};
use crate::model::pattern::{Glob, TablePattern};
use crate::model::status::{PipelineStatus, SchemaStatus};
use crate::model::{Offset, clock};
use crate::plugin::registry::Registry;
use crate::store::{Store, StoreError};
use changes::Changes;
use replay::Replays;
use route::Streams;
use schema::Gate;
use transform::{Counts, Transform};

/// One `[[pipeline]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name, and the name of the stream that its events go to.
    pub name: String,
    /// The tables that it takes: `schema.table`, with `*`.
    #[serde(default)]
    pub tables: Vec<TablePattern>,
    /// The prefixes of logical messages that it takes, with `*`.
    #[serde(default)]
    pub messages: Vec<Glob>,
    /// Plugins, in the order in which they run.
    #[serde(default)]
    pub plugins: Vec<String>,
    /// Further streams that a plugin's route may pick, with `*`.
    #[serde(default)]
    pub streams: Vec<Glob>,
    /// What happens when a plugin fails on an event.
    #[serde(default)]
    pub on_error: OnError,
    /// What happens when the definition of a table changes.
    #[serde(default)]
    pub on_schema_change: OnSchemaChange,
}

/// What happens when a plugin fails on an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The event goes to the dead letters, the rest flows on.
    #[default]
    DeadLetter,
    /// The pipeline stops until another version of the plugin is in force.
    Stop,
    /// The event is left out, with a line in the log.
    Skip,
}

/// Bounds of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows in it.
    pub rows: usize,
    /// Bytes of change messages in it; a single larger change is a batch of its own.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 4096, bytes: 1 << 20 }
    }
}

impl Limits {
    /// After a batch of which plugins made too much: half of its rows.
    fn shrink(&mut self, rows: usize) {
        self.rows = (self.rows.min(rows) / 2).max(1);
    }

    /// After one that went through.
    fn grow(&mut self) {
        self.rows = self.rows.saturating_mul(2).min(Self::default().rows);
    }
}

/// How long a pipeline that cannot go on waits before it tries again.
const RETRY: Duration = Duration::from_secs(5);

/// Why a pipeline ended for good.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a round brought nothing, and the pipeline waits for something to change.
#[derive(Debug, thiserror::Error)]
enum Halt {
    #[error(transparent)]
    Changes(#[from] ChangesError),
    #[error(transparent)]
    Transform(#[from] TransformError),
}

/// One pipeline, ready to run.
pub struct Pipeline {
    name: String,
    store: Store,
    registry: Registry,
    metrics: Arc<Metrics>,
    transform: Transform,
    changes: Changes,
    /// Reads what is run again.
    again: Changes,
    replays: Replays,
    cursor: Offset,
    /// Of the next batch.
    limits: Limits,
    status: watch::Sender<PipelineStatus>,
}

/// When a pipeline ends: `drain` once it has read everything, `abort` after the batch in hand.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// Nothing more will come.
    pub drain: CancellationToken,
    /// Time is up.
    pub abort: CancellationToken,
}

impl Pipeline {
    /// A pipeline at its stored cursor.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn new(
        config: Config,
        store: Store,
        registry: Registry,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let cursor = store.pipeline_cursor(&config.name)?.unwrap_or(Offset::START);
        let again = again::reader(&store, &config)?;
        let replays = Replays::new(&config);
        let streams = Streams::open(store.clone(), &config.name, config.streams)?;
        let gate = Gate::open(store.clone(), config.name.clone(), config.on_schema_change)?;
        let schema_changes = gate.status();
        let changes = Changes::new(store.clone(), config.tables, config.messages, gate, cursor);
        let transform = Transform::new(
            store.clone(),
            config.name.clone(),
            config.plugins.clone(),
            config.on_error,
            streams,
        );
        let status = PipelineStatus {
            name: config.name.clone(),
            plugins: config.plugins,
            cursor: cursor.commit,
            emitted: 0,
            dropped: 0,
            dead_letters: 0,
            stopped: None,
            schema_changes,
        };
        let status = watch::Sender::new(status);
        let name = config.name;
        Ok(Self {
            name,
            store,
            registry,
            metrics,
            transform,
            changes,
            again,
            replays,
            cursor,
            limits: Limits::default(),
            status,
        })
    }

    /// The latest facts about it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<PipelineStatus> {
        self.status.subscribe()
    }

    /// Runs until shutdown, on the thread that calls it; `runtime` is where it waits.
    ///
    /// # Errors
    /// See [`PipelineError`].
    pub fn run(mut self, runtime: &Handle, shutdown: &Shutdown) -> Result<(), PipelineError> {
        info!(pipeline = self.name, cursor = %self.cursor.commit, "pipeline runs");
        self.set_running(true);
        let mut generation = self.registry.generation();
        let mut accepted = self.store.schema_news();
        let mut news = self.store.again_news();
        while !shutdown.abort.is_cancelled() {
            generation.mark_unchanged();
            accepted.mark_unchanged();
            if news.has_changed().unwrap_or(false) {
                news.mark_unchanged();
                self.replays.look();
            }
            self.changes.visible().mark_unchanged();
            match self.round() {
                Ok(true) => {}
                Ok(false) if shutdown.drain.is_cancelled() => break,
                Ok(false) => runtime.block_on(async {
                    tokio::select! {
                        _ = self.changes.visible().changed() => {}
                        _ = generation.changed() => {}
                        _ = accepted.changed() => {}
                        _ = news.changed() => self.replays.look(),
                        () = shutdown.drain.cancelled() => {}
                        () = shutdown.abort.cancelled() => {}
                    }
                }),
                Err(Halt::Changes(ChangesError::Store(error))) => return Err(error.into()),
                Err(halt) => {
                    self.halt(&halt);
                    runtime.block_on(async {
                        tokio::select! {
                            _ = generation.changed() => {}
                            _ = accepted.changed() => {}
                            _ = news.changed() => self.replays.look(),
                            () = tokio::time::sleep(RETRY) => {}
                            () = shutdown.drain.cancelled() => {}
                            () = shutdown.abort.cancelled() => {}
                        }
                    });
                    if shutdown.drain.is_cancelled() {
                        break;
                    }
                }
            }
        }
        self.set_running(false);
        Ok(())
    }

    /// One batch: false when there was none.
    fn round(&mut self) -> Result<bool, Halt> {
        let plugins = self.registry.snapshot();
        if self.transform.refresh(&plugins)? {
            self.changes.forget_tables();
            self.again.forget_tables();
            self.replays.forget_tables();
        }
        if self.transform.needs_source() {
            // The source records its origin before its first block.
            let Some(origin) = self.store.origin().map_err(ChangesError::Store)? else {
                return Ok(false);
            };
            self.transform.set_source(&origin);
        }
        let retried = self.retry_letter()?;
        if self.replay_batch()? {
            return Ok(true);
        }
        let batch = match self.changes.next_batch(self.transform.tables(), &self.limits) {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                let waiting = self.changes.gate().status();
                self.show_schema_changes(waiting);
                return Ok(retried);
            }
            // The reader stands behind the gap, and goes on from there.
            Err(gap @ ChangesError::Gap { .. }) => return Err(gap.into()),
            Err(error) => {
                // What was read of it is not done: the next try reads it again.
                self.changes.seek(self.cursor);
                return Err(error.into());
            }
        };
        let rows = batch.rows.len();
        let committed = batch.transactions.last().map(|transaction| transaction.time);
        let applied = self.transform.apply(batch);
        for (plugin, stopped) in self.transform.take_broken() {
            self.registry.note_failures(&plugin, stopped);
        }
        let (mut outcome, counts) = match applied {
            Ok(done) => done,
            Err(error) => {
                self.changes.seek(self.cursor);
                if error.is_too_much() {
                    self.limits.shrink(rows);
                    return Ok(true);
                }
                return Err(error.into());
            }
        };
        self.limits.grow();
        let cursor = outcome.cursor;
        outcome.holds = self.changes.gate().to_write();
        self.store.commit(outcome).map_err(ChangesError::Store)?;
        self.cursor = cursor;
        self.changes.gate().committed();
        let waiting = self.changes.gate().status();
        self.show_schema_changes(waiting);
        self.record(counts, committed);
        Ok(true)
    }

    fn count(&self, counts: Counts) {
        let outcomes = [
            ("emitted", counts.emitted),
            ("dropped", counts.dropped),
            ("dead_letter", counts.dead_letters),
        ];
        for (outcome, count) in outcomes {
            let label = OutcomeLabel { name: self.name.clone(), outcome };
            self.metrics.pipeline_changes.get_or_create(&label).inc_by(count);
        }
    }

    fn record(&self, counts: Counts, committed: Option<i64>) {
        self.count(counts);
        let name = Name { name: self.name.clone() };
        if let Some(committed) = committed.filter(|_| counts.emitted > 0) {
            let seconds = clock::now().saturating_sub(committed) as f64 / 1e6;
            self.metrics.pipeline_latency.get_or_create(&name).observe(seconds.max(0.0));
        }
        let lag = self.store.last_commit().since(self.cursor.commit);
        self.metrics.pipeline_lag.get_or_create(&name).set(i64::try_from(lag).unwrap_or(i64::MAX));
        if self.status.borrow().stopped.is_some() {
            info!(pipeline = self.name, "pipeline goes on");
            self.set_running(true);
        }
        self.status.send_modify(|status| {
            status.cursor = self.cursor.commit;
            status.emitted += counts.emitted;
            status.dropped += counts.dropped;
            status.dead_letters += counts.dead_letters;
            status.stopped = None;
        });
    }

    /// Says once why it does not go on.
    fn halt(&self, halt: &Halt) {
        let reason = halt.to_string();
        let known = self.status.borrow().stopped.as_deref() == Some(reason.as_str());
        if !known {
            error!(pipeline = self.name, "pipeline stopped: {reason}");
            self.set_running(false);
            self.status.send_modify(|status| status.stopped = Some(reason));
        }
        if let Halt::Changes(ChangesError::Schema(halted)) = halt {
            self.show_schema_changes(vec![halted.status()]);
        }
    }

    fn show_schema_changes(&self, waiting: Vec<SchemaStatus>) {
        let name = Name { name: self.name.clone() };
        let count = i64::try_from(waiting.len()).unwrap_or(i64::MAX);
        self.metrics.pipeline_schema_changes.get_or_create(&name).set(count);
        self.status.send_if_modified(|status| {
            let news = status.schema_changes != waiting;
            status.schema_changes = waiting;
            news
        });
    }

    fn set_running(&self, running: bool) {
        let name = Name { name: self.name.clone() };
        self.metrics.pipeline_running.get_or_create(&name).set(i64::from(running));
    }
}
