//! One plugin's place in a pipeline: it announces tables, fills batches, and turns answers back
//! into rows.
//!
//! A call that fails is taken apart: the batch is halved on fresh instances until the event that
//! causes it stands alone, so one bad event costs its neighbours nothing.

mod answer;
mod input;
mod plan;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::rows::{Batch, MOST_MADE, Row, Tables};
use super::state::{Frozen, PluginState};
use crate::model::ByteSize;
use crate::plugin::{Asked, CallError, Instance, Plugin, bindings};
use crate::store::{StateWrite, Store};
use answer::{Answer, Measured, check_size, pass};
use input::{clear, empty, fill_envelope, moment};
pub(super) use input::{describe, is_of_table};
use plan::Plan;

/// Events of one call at most: beyond this nothing is gained (`benches/boundary.rs`).
const CALL_EVENTS: usize = 256;
/// Bytes of values in one call at most, unless a single event has more.
const CALL_BYTES: usize = 1 << 20;

/// Why a stage has nothing to say about any event of a batch.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The plugin could not be started again after it failed.
    #[error("plugin `{plugin}` ({version}) does not start: {cause}")]
    Start {
        /// The plugin.
        plugin: String,
        /// Its version.
        version: String,
        /// Why.
        cause: CallError,
    },
    /// The batch has to be read again as smaller ones.
    #[error("plugins make more of so many changes than is kept in memory at once")]
    TooMuch,
}

/// A row that did not get through, as it was before the plugin saw it.
#[derive(Debug)]
pub struct Failure {
    /// The row.
    pub row: Row,
    /// The plugin's name.
    pub plugin: String,
    /// The version that failed.
    pub version: String,
    /// Why.
    pub reason: String,
    /// The plugin said so itself, by `reject`; otherwise it broke.
    pub rejected: bool,
}

/// What a stage made of a batch, beside the rows.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows that it dropped.
    pub dropped: u64,
    /// Rows that did not get through.
    pub failures: Vec<Failure>,
}

impl Report {
    /// A change is delivered whole or set aside whole: where one of its rows failed, the others go
    /// no further, and one failure stands for all.
    pub fn set_aside_whole(&mut self, batch: &mut Batch) {
        if self.failures.is_empty() {
            return;
        }
        let change = |row: &Row| (row.transaction, row.ordinal);
        let mut failed = HashSet::new();
        self.failures.retain(|failure| failed.insert(change(&failure.row)));
        batch.rows.retain(|row| !failed.contains(&change(row)));
    }
}

/// One plugin of a pipeline's chain, running.
pub struct Stage {
    plugin: Arc<Plugin>,
    instance: Option<Instance>,
    state: Arc<Mutex<PluginState>>,
    /// By index of the table.
    plans: Vec<Planned>,
    /// What each table's plan was last, by index: an instance that is started again most often
    /// answers as the one before it, and the tables that its shapes made are there already.
    made: Vec<Option<Arc<Plan>>>,
    input: bindings::Batch,
    /// Room for rows, kept from batch to batch.
    room: Vec<Row>,
    /// What the plugin asked in a call of several events. From then on calls are made so that it
    /// has an answer: whatever a replay puts into one batch, the plugin is told the same.
    asked: Option<Asked>,
    /// Nothing that comes of it is delivered.
    dry_run: bool,
}

enum Planned {
    /// Not announced to the instance in hand.
    Unknown,
    /// The plugin does not take this table; every event of it fails with this reason.
    Refused(String),
    Ready(Arc<Plan>),
}

/// A table and its plan: most often, the next row is of the same table.
#[derive(Default)]
struct Last(Option<(u32, Arc<Plan>)>);

/// Interns a plugin's route as a stream of the pipeline, or says why it may not go there.
pub trait Routes {
    /// The index of the stream of that name.
    ///
    /// # Errors
    /// The name is not one that the pipeline allows.
    fn stream(&mut self, name: &str) -> Result<u32, String>;
}

impl Stage {
    /// The plugin in its place; it is started by the first row.
    #[must_use]
    pub fn new(plugin: Arc<Plugin>, store: Store) -> Self {
        let state = PluginState::new(store, plugin.name(), plugin.limits().state);
        Self::with_state(plugin, state, false)
    }

    /// The plugin on trial: what it writes stays with it.
    #[must_use]
    pub fn dry(plugin: Arc<Plugin>, frozen: &Arc<Frozen>) -> Self {
        let limit = plugin.limits().state;
        let state = PluginState::over(Arc::clone(frozen), plugin.name(), limit);
        Self::with_state(plugin, state, true)
    }

    fn with_state(plugin: Arc<Plugin>, state: PluginState, dry_run: bool) -> Self {
        let (state, input) = (Arc::new(Mutex::new(state)), empty());
        let asked = plugin.imports_clock().then_some(Asked::Time);
        Self {
            plugin,
            instance: None,
            state,
            plans: Vec::new(),
            made: Vec::new(),
            input,
            room: Vec::new(),
            asked,
            dry_run,
        }
    }

    /// Which plugin this is.
    #[must_use]
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Runs the rows of a batch through the plugin, in order.
    ///
    /// # Errors
    /// See [`StageError`]; what fails on single rows is in the report.
    pub fn run(
        &mut self,
        batch: &mut Batch,
        tables: &mut Tables,
        routes: &mut dyn Routes,
    ) -> Result<Report, StageError> {
        // What goes on takes the room of the last batch, and leaves this one's for the next.
        let rows = std::mem::replace(&mut batch.rows, std::mem::take(&mut self.room));
        let mut report = Report::default();
        let ran = self.run_rows(batch, tables, routes, &rows, &mut report);
        self.room = rows;
        self.room.clear();
        ran.map(|()| report)
    }

    fn run_rows(
        &mut self,
        batch: &mut Batch,
        tables: &mut Tables,
        routes: &mut dyn Routes,
        rows: &[Row],
        report: &mut Report,
    ) -> Result<(), StageError> {
        let mut next = 0;
        let whole = batch.whole || is_one_change(rows);
        let bound = self.bound(whole);
        while next < rows.len() && !batch.is_heavier_than(bound) {
            let plan = match self.plan(rows[next], tables)? {
                Ok(plan) => plan,
                Err(reason) => {
                    report.failures.push(self.failure(rows[next], reason, false));
                    next += 1;
                    continue;
                }
            };
            match plan.answer.mode {
                bindings::Mode::Drop => report.dropped += 1,
                bindings::Mode::Pass => {
                    let row = pass(batch, &plan, rows[next]);
                    batch.rows.extend(row);
                }
                bindings::Mode::Call => {
                    let end = self.call_end(batch, tables, rows, next)?;
                    self.call(batch, tables, routes, &rows[next..end], report)?;
                    next = end;
                    continue;
                }
            }
            next += 1;
        }
        let left = if batch.has_overflowed() { rows } else { &rows[next..] };
        if !(left.is_empty() || whole) {
            return Err(StageError::TooMuch);
        }
        // No smaller batch would help.
        for row in left {
            let (limit, plugin) = (ByteSize::new(bound as u64), self.plugin.name());
            let reason = format!(
                "plugins made more than {limit} of one change: raise \
                 `plugins.{plugin}.limits.output`, or have them make less"
            );
            report.failures.push(self.failure(*row, reason, false));
        }
        Ok(())
    }

    /// What may be made of a batch: of one change alone, the chain may make what a few calls may.
    fn bound(&self, whole: bool) -> usize {
        let call = usize::try_from(self.plugin.limits().output.bytes()).unwrap_or(usize::MAX);
        if whole { MOST_MADE.max(call.saturating_mul(4)) } else { MOST_MADE }
    }

    /// What was written in the batch stays for the next ones.
    pub fn settle(&mut self) {
        self.state().settle();
    }

    /// The keyed state that was written since the last time.
    pub fn take_writes(&mut self) -> Vec<StateWrite> {
        self.state().take_writes()
    }

    /// Throws away what was written, with the instance that may remember it.
    pub fn discard(&mut self) {
        self.state().discard_all();
        self.drop_instance();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, PluginState> {
        // Nothing panics while holding it; were it so, the map is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_instance(&mut self) {
        self.instance = None;
        self.plans.clear();
    }

    fn failure(&self, row: Row, reason: String, rejected: bool) -> Failure {
        Failure {
            row,
            plugin: self.plugin.name().to_owned(),
            version: self.plugin.version().to_string(),
            reason,
            rejected,
        }
    }

    /// How far one call reaches from `from`: rows to be called, within the bounds of a call.
    fn call_end(
        &mut self,
        batch: &Batch,
        tables: &mut Tables,
        rows: &[Row],
        from: usize,
    ) -> Result<usize, StageError> {
        let (mut bytes, mut last) = (0, Last::default());
        for (at, row) in rows.iter().enumerate().skip(from) {
            let Ok(plan) = self.plan_after(&mut last, row, tables)? else { return Ok(at) };
            let size = plan.size(batch, row);
            let fits = at - from < CALL_EVENTS
                && bytes + size <= CALL_BYTES
                && self.belong_together(&rows[from], row);
            if at > from && !(fits && matches!(plan.answer.mode, bindings::Mode::Call)) {
                return Ok(at);
            }
            bytes += size;
        }
        Ok(rows.len())
    }

    /// Whether two rows may be in one call, by what the plugin asks.
    fn belong_together(&self, first: &Row, row: &Row) -> bool {
        match self.asked {
            None => true,
            Some(Asked::Time) => row.transaction == first.transaction,
            Some(Asked::Random) => false,
        }
    }

    /// Calls for `rows`, as few as the plugin's questions allow.
    fn call_apart(
        &mut self,
        batch: &mut Batch,
        tables: &mut Tables,
        routes: &mut dyn Routes,
        mut rows: &[Row],
        report: &mut Report,
    ) -> Result<(), StageError> {
        while let Some(first) = rows.first() {
            let end = rows[1..].iter().position(|row| !self.belong_together(first, row));
            let (call, rest) = rows.split_at(end.map_or(rows.len(), |at| at + 1));
            self.call(batch, tables, routes, call, report)?;
            rows = rest;
        }
        Ok(())
    }

    /// One call for `rows`; where it fails, two for their halves.
    fn call(
        &mut self,
        batch: &mut Batch,
        tables: &mut Tables,
        routes: &mut dyn Routes,
        rows: &[Row],
        report: &mut Report,
    ) -> Result<(), StageError> {
        let reason = match self.try_call(batch, tables, rows)? {
            Ok(outcome) => {
                self.state().keep();
                let answer = Answer { plugin: &self.plugin, rows, outcome };
                answer.apply(batch, routes, &self.plans, report);
                return Ok(());
            }
            Err(reason) => reason,
        };
        self.state().discard();
        if rows.iter().any(|row| !self.belong_together(&rows[0], row)) && rows.len() > 1 {
            // It has asked something just now.
            return self.call_apart(batch, tables, routes, rows, report);
        }
        let (left, right) = rows.split_at(rows.len() / 2);
        if left.is_empty() {
            // Alone, and still failing. Once more, in case it was its instance and not the event.
            match self.try_call(batch, tables, rows)? {
                Ok(outcome) => {
                    self.state().keep();
                    let answer = Answer { plugin: &self.plugin, rows, outcome };
                    answer.apply(batch, routes, &self.plans, report);
                    return Ok(());
                }
                Err(_) => self.state().discard(),
            }
            report.failures.push(self.failure(rows[0], reason, false));
            return Ok(());
        }
        self.call(batch, tables, routes, left, report)?;
        self.call(batch, tables, routes, right, report)
    }

    /// The plugin's answer for `rows`, or why there is none.
    fn try_call(
        &mut self,
        batch: &Batch,
        tables: &mut Tables,
        rows: &[Row],
    ) -> Result<Result<Measured, String>, StageError> {
        let mut input = std::mem::replace(&mut self.input, empty());
        clear(&mut input);
        let mut envelope = false;
        for rows in rows.chunk_by(|row, next| row.table == next.table) {
            match self.plan(rows[0], tables)? {
                Ok(plan) => {
                    envelope |= plan.answer.envelope;
                    plan.fill(&mut input, batch, tables, rows);
                }
                Err(reason) => return Ok(Err(reason)),
            }
        }
        if envelope {
            fill_envelope(&mut input, batch, rows);
        }
        let answer = self.instance()?.process_at(&input, moment(batch, rows));
        self.input = input;
        let outcome = match answer {
            Ok(outcome) => outcome,
            Err(error) => {
                if let CallError::Asked(asked) = error {
                    self.asked = self.asked.max(Some(asked));
                }
                if self.instance.as_ref().is_some_and(|instance| !instance.is_alive()) {
                    self.drop_instance();
                }
                return Ok(Err(error.to_string()));
            }
        };
        let measured = check_size(self.plugin.bounds(), batch, &self.plans, rows, &outcome);
        Ok(measured
            .map(|repeated| Measured { outcome, repeated })
            .map_err(|fault| fault.to_string()))
    }

    fn instance(&mut self) -> Result<&mut Instance, StageError> {
        let instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                let state: Arc<Mutex<PluginState>> = Arc::clone(&self.state);
                let started = self.plugin.instantiate(0, 1, self.dry_run, state);
                started.map_err(|cause| StageError::Start {
                    plugin: self.plugin.name().to_owned(),
                    version: self.plugin.version().to_string(),
                    cause,
                })?
            }
        };
        Ok(self.instance.insert(instance))
    }

    /// [`Stage::plan`], looked up only when the row is of another table than the last.
    fn plan_after<'l>(
        &mut self,
        last: &'l mut Last,
        row: &Row,
        tables: &mut Tables,
    ) -> Result<Result<&'l Plan, String>, StageError> {
        let fits = |(table, _): &(u32, Arc<Plan>)| *table == row.table && is_of_table(row.op);
        if !last.0.as_ref().is_some_and(fits) {
            last.0 = match self.plan(*row, tables)? {
                Ok(plan) => Some((if is_of_table(row.op) { row.table } else { u32::MAX }, plan)),
                Err(reason) => return Ok(Err(reason)),
            };
        }
        Ok(last.0.as_ref().map(|(_, plan)| &**plan).ok_or_else(|| "no plan".into()))
    }

    /// The plan for a row's table, announced to the instance in hand; or why it has none.
    fn plan(
        &mut self,
        row: Row,
        tables: &mut Tables,
    ) -> Result<Result<Arc<Plan>, String>, StageError> {
        if !is_of_table(row.op) {
            // This is no row of any table, so there is nothing that a plugin could plan for.
            return Ok(Ok(Arc::new(Plan::pass())));
        }
        let index = row.table as usize;
        match self.plans.get(index) {
            Some(Planned::Ready(plan)) => return Ok(Ok(Arc::clone(plan))),
            Some(Planned::Refused(reason)) => return Ok(Err(reason.clone())),
            Some(Planned::Unknown) | None => {}
        }
        let table = Arc::clone(tables.get(row.table));
        let announced = self.instance()?.on_relation(&describe(&table));
        if self.instance.as_ref().is_some_and(|instance| !instance.is_alive()) {
            self.drop_instance();
        }
        let planned = match announced {
            Ok(plan) => Planned::Ready(self.make(plan, row.table, tables)),
            Err(error) => Planned::Refused(format!("table {}: {error}", table.relation)),
        };
        if self.plans.len() <= index {
            self.plans.resize_with(index + 1, || Planned::Unknown);
        }
        self.plans[index] = planned;
        match &self.plans[index] {
            Planned::Ready(plan) => Ok(Ok(Arc::clone(plan))),
            Planned::Refused(reason) => Ok(Err(reason.clone())),
            Planned::Unknown => Ok(Err("the table has no plan".into())),
        }
    }

    /// The answer as a plan: the last one, if that was the same.
    fn make(&mut self, answer: bindings::Plan, table: u32, tables: &mut Tables) -> Arc<Plan> {
        let index = table as usize;
        if self.made.len() <= index {
            self.made.resize_with(index + 1, || None);
        }
        if let Some(made) = self.made[index].as_ref().filter(|made| made.answer == answer) {
            return Arc::clone(made);
        }
        let table = Arc::clone(tables.get(table));
        Arc::clone(self.made[index].insert(Arc::new(Plan::new(answer, &table, tables))))
    }
}

/// Whether nothing smaller can be read again.
fn is_one_change(rows: &[Row]) -> bool {
    let change = |row: &Row| (row.transaction, row.ordinal);
    rows.first().map(change) == rows.last().map(change)
}
