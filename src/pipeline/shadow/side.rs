//! One chain over the events, and what it makes of each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::super::Limits;
use super::super::changes::Changes;
use super::super::encode::Encoder;
use super::super::route::DryStreams;
use super::super::rows::{Batch, Row, Tables};
use super::super::stage::{Failure, Stage, StageError};
use super::super::state::Frozen;
use super::{ShadowError, Trial, changes, next_batch};
use crate::model::event::EventsBuilder;
use crate::model::replay::Times;
use crate::model::shadow::{Tally, Verdict};
use crate::model::{Offset, Op};
use crate::plugin::Plugin;
use crate::store::{Store, StoreError};

/// Rows of a batch at most.
const MOST_ROWS: usize = 256;
/// A batch that takes longer is followed by a small one.
const SLOW: Duration = Duration::from_secs(1);
/// Different reasons that are kept.
const MOST_ERRORS: usize = 3;

/// What a side made of one change.
pub(super) struct Judged {
    /// The change.
    pub(super) change: Offset,
    pub(super) table: String,
    pub(super) verdict: Verdict,
}

/// One chain over the events.
pub(super) struct Side {
    changes: Changes,
    tables: Tables,
    stages: Vec<Stage>,
    streams: DryStreams,
    encoder: Encoder,
    until: Offset,
    /// Everything up to here is read.
    at: Offset,
    times: Times,
    /// Rows of the next batch: few after a failure or a long wait, so that a chain that hangs is
    /// found out soon.
    rows: usize,
    judged: VecDeque<Judged>,
    used: Duration,
    tally: Tally,
}

impl Side {
    pub(super) fn new(
        store: &Store,
        trial: &Trial,
        chain: &[Arc<Plugin>],
        frozen: &Arc<Frozen>,
        (after, until): (Offset, Offset),
    ) -> Result<Self, StoreError> {
        let config = &trial.config;
        let stage = |plugin: &Arc<Plugin>| Stage::dry(Arc::clone(plugin), frozen);
        Ok(Self {
            changes: changes(store, config, after)?,
            tables: Tables::default(),
            stages: chain.iter().map(stage).collect(),
            streams: DryStreams::new(&config.name, config.streams.clone()),
            encoder: Encoder::new("/", store.veil().clone()),
            until,
            at: after,
            times: trial.times,
            rows: 1,
            judged: VecDeque::new(),
            used: Duration::ZERO,
            tally: Tally::default(),
        })
    }

    /// What it makes of the next change; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Judged>, ShadowError> {
        while self.judged.is_empty() && self.at < self.until {
            let limits = Limits { rows: self.rows, bytes: 1 << 20 };
            match next_batch(&mut self.changes, &mut self.tables, &limits)? {
                Some(batch) => self.judge(batch)?,
                None => break,
            }
        }
        let judged = self.judged.pop_front();
        if let Some(judged) = &judged {
            self.count(&judged.verdict);
        }
        Ok(judged)
    }

    /// Processor time of its plugins.
    pub(super) fn used(&self) -> Duration {
        self.used
    }

    /// Changes on which a plugin broke.
    pub(super) fn failed(&self) -> u64 {
        self.tally.failed
    }

    /// What it made of the events so far.
    pub(super) fn tally(&self, events: u64) -> Tally {
        let nanos = u64::try_from(self.used.as_nanos()).unwrap_or(u64::MAX);
        Tally { nanos_per_event: nanos / events.max(1), ..self.tally.clone() }
    }

    fn judge(&mut self, mut batch: Batch) -> Result<(), ShadowError> {
        let end = batch.end;
        let rows = std::mem::take(&mut batch.rows);
        let is_wanted = |row: &Row| {
            let time = batch.transactions[row.transaction as usize].time;
            batch.offset(row) <= self.until && self.times.include(time)
        };
        // Definitions and gaps pass every plugin.
        let judged = |row: &Row| !matches!(row.op, Op::Schema | Op::Gap) && is_wanted(row);
        let rows: Vec<Row> = rows.into_iter().filter(judged).collect();
        let inputs: Vec<(Offset, String)> =
            rows.iter().map(|row| self.input(&batch, row)).collect();
        batch.rows = rows;
        let mut failures = Vec::new();
        let (started, clock, read) = (thread_time(), Instant::now(), batch.rows.len());
        for stage in &mut self.stages {
            let mut report = match stage.run(&mut batch, &mut self.tables, &mut self.streams) {
                Ok(report) => report,
                Err(StageError::TooMuch) => {
                    self.stages.iter_mut().for_each(Stage::discard);
                    self.used += thread_time().saturating_sub(started);
                    self.changes.seek(self.at);
                    self.rows = (self.rows.min(read) / 2).max(1);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            report.set_aside_whole(&mut batch);
            failures.append(&mut report.failures);
        }
        self.stages.iter_mut().for_each(Stage::settle);
        self.at = end;
        self.used += thread_time().saturating_sub(started);
        let broke = failures.iter().any(|failure| !failure.rejected);
        let slow = clock.elapsed() > SLOW;
        self.rows = if broke || slow { 1 } else { (self.rows * 2).min(MOST_ROWS) };
        let mut verdicts = self.emitted(&batch);
        for failure in failures {
            self.set_aside(&batch, failure, &mut verdicts);
        }
        let judge = |(change, table)| {
            let verdict = verdicts.remove(&change).unwrap_or(Verdict::Dropped);
            Judged { change, table, verdict }
        };
        self.judged.extend(inputs.into_iter().map(judge));
        Ok(())
    }

    fn input(&self, batch: &Batch, row: &Row) -> (Offset, String) {
        let table = self.tables.get(row.table).relation.to_string();
        (change(batch, row), table)
    }

    /// The events of each change, as clients would see them.
    fn emitted(&mut self, batch: &Batch) -> BTreeMap<Offset, Verdict> {
        let mut verdicts: BTreeMap<Offset, Verdict> = BTreeMap::new();
        self.encoder.start_batch(false);
        for row in &batch.rows {
            let mut builder = EventsBuilder::default();
            let stream = Arc::clone(self.streams.name(row.stream));
            self.encoder.event(&mut builder, batch, &self.tables, row, &stream, false);
            let events = builder.finish();
            // The very first place can be no event's.
            let texts = events.after(Offset::START);
            let texts = texts.map(|event| String::from_utf8_lossy(&event.json).into_owned());
            let verdict = verdicts
                .entry(change(batch, row))
                .or_insert_with(|| Verdict::Emitted { events: Vec::new() });
            if let Verdict::Emitted { events } = verdict {
                events.extend(texts);
            }
        }
        verdicts
    }

    fn set_aside(
        &mut self,
        batch: &Batch,
        failure: Failure,
        verdicts: &mut BTreeMap<Offset, Verdict>,
    ) {
        let Failure { row, plugin, reason, rejected, .. } = failure;
        let reason = format!("plugin `{plugin}`: {reason}");
        let verdict = match rejected {
            true => Verdict::Rejected { reason },
            false => {
                let errors = &mut self.tally.errors;
                if errors.len() < MOST_ERRORS && !errors.contains(&reason) {
                    errors.push(reason.clone());
                }
                Verdict::Failed { reason }
            }
        };
        verdicts.insert(change(batch, &row), verdict);
    }

    fn count(&mut self, verdict: &Verdict) {
        let tally = &mut self.tally;
        match verdict {
            Verdict::Emitted { events } => tally.emitted += events.len() as u64,
            Verdict::Dropped => tally.dropped += 1,
            Verdict::Rejected { .. } => tally.rejected += 1,
            Verdict::Failed { .. } => tally.failed += 1,
        }
    }
}

/// The place of the change that a row was made from.
fn change(batch: &Batch, row: &Row) -> Offset {
    Offset { emit: 0, ..batch.offset(row) }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
