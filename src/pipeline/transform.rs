//! A batch through the chain of plugins: rows in, events and dead letters out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tracing::warn;

use super::OnError;
use super::changes::copy;
use super::encode::Encoder;
use super::route::Streams;
use super::rows::{Batch, Row, Tables};
use super::stage::{Failure, Stage, StageError};
use crate::model::attempt::Attempt;
use crate::model::event::EventsBuilder;
use crate::model::{EventId, clock};
use crate::plugin::Plugin;
use crate::plugin::registry::Plugins;
use crate::store::dead_letter::{By, DeadLetter};
use crate::store::{Origin, Outcome, Store, StoreError};

/// Bytes of events that are enough for a run: it is what the store writes as one value, and what a
/// reader reads, and keeps in memory, at a time.
const RUN: usize = 256 << 10;

/// Why a batch could not be finished. Nothing of it is committed.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// A plugin does not start.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event failed, and the pipeline is to stop then.
    #[error(
        "event {event} failed in plugin `{plugin}` ({version}): {reason}; the pipeline has \
         `on_error = \"stop\"` and goes on when another version of the plugin is in force"
    )]
    Stopped {
        /// The event's id.
        event: EventId,
        /// The plugin.
        plugin: String,
        /// Its version.
        version: String,
        /// Why.
        reason: String,
    },
    /// The config names a plugin that is not there; the config's check rules this out.
    #[error("there is no plugin `{0}`")]
    NoPlugin(String),
}

impl TransformError {
    /// Whether the batch has to be read again as smaller ones.
    #[must_use]
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::Stage(StageError::TooMuch))
    }
}

/// What a batch came to, for metrics and status.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Events emitted.
    pub emitted: u64,
    /// Changes dropped by a plugin.
    pub dropped: u64,
    /// Changes set aside.
    pub dead_letters: u64,
}

/// A pipeline's chain of plugins under one generation, and all that belongs to it.
pub struct Transform {
    store: Store,
    pipeline: String,
    plugins: Vec<String>,
    on_error: OnError,
    stages: Vec<Stage>,
    tables: Tables,
    streams: Streams,
    encoder: Option<Encoder>,
    voice: Voice,
    /// Plugins that broke on events of the last batch, and whether the pipeline stops for it.
    broken: Vec<(Arc<Plugin>, bool)>,
    /// Whether the batch in hand goes over passed ground again.
    again: bool,
}

impl Transform {
    /// A chain without instances yet: [`Transform::refresh`] puts them in.
    pub fn new(
        store: Store,
        pipeline: String,
        plugins: Vec<String>,
        on_error: OnError,
        streams: Streams,
    ) -> Self {
        Self {
            store,
            pipeline,
            plugins,
            on_error,
            stages: Vec::new(),
            tables: Tables::default(),
            streams,
            encoder: None,
            voice: Voice::default(),
            broken: Vec::new(),
            again: false,
        }
    }

    /// Takes over a new generation, if it changes a plugin of this chain. The whole chain starts
    /// anew then, so a batch is seen by one generation only. True when it did: tables that were
    /// handed out are forgotten.
    ///
    /// # Errors
    /// A plugin is not there.
    pub fn refresh(&mut self, plugins: &Plugins) -> Result<bool, TransformError> {
        let chain: Vec<Arc<Plugin>> = self
            .plugins
            .iter()
            .map(|name| {
                let plugin = plugins.by_name.get(name).cloned();
                plugin.ok_or_else(|| TransformError::NoPlugin(name.clone()))
            })
            .collect::<Result<_, _>>()?;
        let same = chain.len() == self.stages.len()
            && chain.iter().zip(&self.stages).all(|(new, old)| Arc::ptr_eq(new, old.plugin()));
        if same {
            return Ok(false);
        }
        let store = &self.store;
        self.stages = chain.into_iter().map(|plugin| Stage::new(plugin, store.clone())).collect();
        self.tables = Tables::default();
        Ok(true)
    }

    /// Whether the events' source is not known yet.
    #[must_use]
    pub fn needs_source(&self) -> bool {
        self.encoder.is_none()
    }

    /// From here on events say that they come from there.
    pub fn set_source(&mut self, origin: &Origin) {
        let Origin { slot, system_identifier, timeline, .. } = origin;
        let source = format!("/{slot}/{system_identifier}/{timeline}");
        self.encoder = Some(Encoder::new(&source, self.store.veil().clone()));
    }

    /// Where the tables of the next batch go.
    pub fn tables(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// Runs changes through the chain that have been through it before, perhaps under other
    /// plugins. What fails is set aside, whatever the config says of failures: the pipeline's own
    /// way through the journal does not depend on it.
    ///
    /// # Errors
    /// A plugin does not start.
    pub fn apply_again(&mut self, batch: Batch) -> Result<(Outcome, Counts), TransformError> {
        self.again = true;
        let done = self.apply(batch);
        self.again = false;
        // What fails on what is old is no reason to take a new version back.
        self.broken.clear();
        done
    }

    /// Runs every change through the chain.
    ///
    /// # Errors
    /// See [`TransformError`]; the caller goes back to its cursor.
    pub fn apply(&mut self, mut batch: Batch) -> Result<(Outcome, Counts), TransformError> {
        let mut outcome =
            Outcome { pipeline: self.pipeline.clone(), cursor: batch.end, ..Outcome::default() };
        let mut counts = Counts::default();
        for (row, reason) in std::mem::take(&mut batch.held) {
            let by = By::Schema { pipeline: self.pipeline.clone() };
            outcome.dead_letters.push(dead_letter(by, &batch, &self.tables, &row, reason));
        }
        let run = self.run_stages(&mut batch, &mut outcome, &mut counts);
        // The journal has them now, and may have let go of them when they are tried again.
        let run = run.and_then(|()| Ok(copy::enclose(&self.store, &mut outcome.dead_letters)?));
        if let Err(error) = run {
            self.stages.iter_mut().for_each(Stage::discard);
            return Err(error);
        }
        for stage in &mut self.stages {
            outcome.state.append(&mut stage.take_writes());
        }
        number_emits(&mut batch.rows);
        counts.emitted = batch.rows.len() as u64;
        counts.dead_letters = outcome.dead_letters.len() as u64;
        self.encode(&batch, &mut outcome);
        Ok((outcome, counts))
    }

    /// Plugins that broke on events of the last batch, and whether the pipeline stops for it.
    pub fn take_broken(&mut self) -> Vec<(Arc<Plugin>, bool)> {
        std::mem::take(&mut self.broken)
    }

    fn run_stages(
        &mut self,
        batch: &mut Batch,
        outcome: &mut Outcome,
        counts: &mut Counts,
    ) -> Result<(), TransformError> {
        for stage in &mut self.stages {
            let seen = batch.rows.len() as u64;
            let mut report = match stage.run(batch, &mut self.tables, &mut self.streams) {
                Ok(report) => report,
                Err(error @ StageError::TooMuch) => return Err(error.into()),
                Err(error) => {
                    self.broken.push((Arc::clone(stage.plugin()), true));
                    return Err(error.into());
                }
            };
            let failed = report.failures.iter().filter(|failure| !failure.rejected).count() as u64;
            if !self.again {
                // What fails on what is old is no reason to take a new version back.
                stage.plugin().count(seen, failed);
            }
            if failed > 0 {
                let stops = matches!(self.on_error, OnError::Stop);
                self.broken.push((Arc::clone(stage.plugin()), stops));
            }
            counts.dropped += report.dropped;
            report.set_aside_whole(batch);
            for failure in report.failures {
                let on_error = if self.again { OnError::DeadLetter } else { self.on_error };
                match on_error {
                    OnError::Stop if !failure.rejected => return Err(stopped(batch, failure)),
                    OnError::Skip if !failure.rejected => {
                        self.voice.say(&self.pipeline, "skipped", batch, &failure);
                        counts.dropped += 1;
                    }
                    _ => {
                        self.voice.say(&self.pipeline, "dead-lettered", batch, &failure);
                        let Failure { row, plugin, version, reason, .. } = failure;
                        let by = By::Plugin { pipeline: self.pipeline.clone(), plugin, version };
                        let letter = dead_letter(by, batch, &self.tables, &row, reason);
                        outcome.dead_letters.push(letter);
                    }
                }
            }
        }
        Ok(())
    }

    fn encode(&mut self, batch: &Batch, outcome: &mut Outcome) {
        let veil = || self.store.veil().clone();
        let encoder = self.encoder.get_or_insert_with(|| Encoder::new("/", veil()));
        encoder.start_batch(self.again);
        let last = last_of_transactions(batch, self.streams.count());
        let mut builders: Vec<EventsBuilder> = Vec::new();
        builders.resize_with(self.streams.count(), EventsBuilder::default);
        for (row, last) in batch.rows.iter().zip(last) {
            let stream = Arc::clone(self.streams.name(row.stream));
            let builder = &mut builders[row.stream as usize];
            encoder.event(builder, batch, &self.tables, row, &stream, last);
            if builder.len() >= RUN {
                let next = EventsBuilder::with_capacity(builder.len());
                let run = std::mem::replace(builder, next).finish();
                outcome.events.push((stream.to_string(), run));
            }
        }
        for (index, builder) in builders.into_iter().enumerate() {
            if !builder.is_empty() {
                // As many as `Streams` counts, in 32 bits.
                let name = self.streams.name(index as u32).to_string();
                outcome.events.push((name, builder.finish()));
            }
        }
    }
}

/// Speaks of failing events, at most once a second: a plugin that fails on everything must not fill
/// the disk with lines that say the same.
#[derive(Debug, Default)]
struct Voice {
    spoke: Option<Instant>,
    silent: u64,
}

impl Voice {
    fn say(&mut self, pipeline: &str, fate: &str, batch: &Batch, failure: &Failure) {
        if self.spoke.is_some_and(|spoke| spoke.elapsed() < Duration::from_secs(1)) {
            self.silent += 1;
            return;
        }
        let event = EventId(batch.offset(&failure.row));
        let Failure { plugin, version, reason, .. } = failure;
        let others = std::mem::take(&mut self.silent);
        warn!(pipeline, %event, plugin, version, others, "{fate}: {reason}");
        self.spoke = Some(Instant::now());
    }
}

/// Rows made from one change are numbered from 0, whichever plugins made them.
fn number_emits(rows: &mut [Row]) {
    let mut change = None;
    let mut next = 0;
    for row in rows {
        if change != Some((row.transaction, row.ordinal)) {
            change = Some((row.transaction, row.ordinal));
            next = 0;
        }
        row.emit = next;
        next += 1;
    }
}

/// For each row, whether it is the last of its transaction in its stream. Only known where the
/// transaction ends in this batch.
fn last_of_transactions(batch: &Batch, streams: usize) -> Vec<bool> {
    let mut seen: Vec<Option<u32>> = vec![None; streams];
    let mut last = vec![false; batch.rows.len()];
    for (at, row) in batch.rows.iter().enumerate().rev() {
        let ends = batch.transactions[row.transaction as usize].ends;
        let seen = &mut seen[row.stream as usize];
        last[at] = ends && *seen != Some(row.transaction);
        *seen = Some(row.transaction);
    }
    last
}

fn stopped(batch: &Batch, failure: Failure) -> TransformError {
    let event = EventId(batch.offset(&failure.row));
    let Failure { plugin, version, reason, .. } = failure;
    TransformError::Stopped { event, plugin, version, reason }
}

fn dead_letter(by: By, batch: &Batch, tables: &Tables, row: &Row, reason: String) -> DeadLetter {
    let event = EventId(batch.offset(row));
    let data = String::from_utf8(Encoder::data(batch, tables, row)).unwrap_or_default();
    // The encoder writes JSON; were it not so, the reason would still be kept.
    let payload = RawValue::from_string(data).unwrap_or_else(|_| RawValue::NULL.to_owned());
    let time = clock::now();
    let error = match &by {
        By::Plugin { plugin, version, .. } => format!("plugin `{plugin}` ({version}): {reason}"),
        _ => reason.clone(),
    };
    DeadLetter {
        event: event.to_string(),
        by,
        reason,
        time,
        attempts: 1,
        retrying: false,
        tries: vec![Attempt { time, took_ms: 0, error, request: None, response: None }],
        change: None,
        key: None,
        payload,
    }
}
