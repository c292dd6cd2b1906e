//! A running plugin: one call, within time and memory; thrown away after a trap.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use wasmtime::{Store, WasmBacktrace};

use super::bindings::lifecycle::{Description, Setup};
use super::bindings::{Batch, Outcome, Plan, Relation};
use super::check::{Fault, Shapes, check_grant, check_outcome, check_plan};
use super::host::{Host, TICKS};
use super::moment::{Asked, Moment};
use super::program::Program;
use super::state::State;
use super::text::clean;
use super::world::Guest;
use crate::model::access::{Grant, Subscriber};
use crate::model::quantity::{ByteSize, Period};

/// Bytes of a guest's own words that are kept in an error.
const LONGEST_REASON: usize = 1_000;
/// Functions of a trap's backtrace that are named, innermost first.
const MOST_FRAMES: usize = 6;
const MOST_FINDINGS: usize = 50;

/// What is wrong with a plugin's config, as the plugin says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where, as a path into the config table.
    pub path: String,
    /// What.
    pub message: String,
}

/// Why a call gave no answer. [`Instance::is_alive`] says whether the instance outlived it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It trapped.
    #[error("{0}")]
    Trap(String),
    /// It used more processor time than it may.
    #[error("took more than {limit} of processor time: raise `plugins.{plugin}.limits.deadline`")]
    Deadline {
        /// `limits.deadline`
        limit: Period,
        /// The plugin's name.
        plugin: String,
    },
    /// It asked for more memory than it may have, and then trapped.
    #[error("used more than {limit} of memory: raise `plugins.{plugin}.limits.memory`")]
    Memory {
        /// `limits.memory`
        limit: ByteSize,
        /// The plugin's name.
        plugin: String,
    },
    /// It asked for more table elements than it may have, and then trapped.
    #[error("used more than {limit} table elements: raise `plugins.{plugin}.limits.table`")]
    Table {
        /// `limits.table`
        limit: u32,
        /// The plugin's name.
        plugin: String,
    },
    /// It handed over, or made of the events, more than it may.
    #[error("{0}")]
    Output(String),
    /// It asked something that has no answer for a call of several events.
    #[error("{0}")]
    Asked(Asked),
    /// The plugin returned an error, or an answer that does not hold together.
    #[error("{0}")]
    Failed(String),
    /// `init` does not take the config.
    #[error("refuses its config: {}", findings(.0))]
    Findings(Vec<Finding>),
}

fn findings(findings: &[Finding]) -> String {
    let line = |finding: &Finding| match finding.path.as_str() {
        "" => finding.message.clone(),
        path => format!("`{path}`: {}", finding.message),
    };
    findings.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// A running plugin. It counts its calls and their processor time in the metrics `plugin_calls`
/// and `plugin_cpu` by itself.
pub struct Instance {
    program: Arc<Program>,
    store: Store<Host>,
    guest: Box<dyn Guest>,
    /// Of the relations that were announced.
    shapes: HashMap<u32, Shapes>,
    /// What ended it.
    dead: Option<CallError>,
}

impl Instance {
    /// Instantiates the program, no more.
    pub(super) fn start(
        program: &Arc<Program>,
        dry_run: bool,
        state: Arc<Mutex<dyn State + Send>>,
    ) -> Result<Self, CallError> {
        let limits = program.limits;
        let host = Host::new(program, dry_run, state);
        let mut store = Store::new(&program.compiled.engine, host);
        store.limiter(|host| &mut host.limiter);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().tick()));
        store.set_hostcall_fuel(usize::try_from(limits.output.bytes()).unwrap_or(usize::MAX));
        let guest = watched(program, &mut store, |store| program.compiled.linked.start(store))?;
        Ok(Self { program: program.clone(), store, guest, shapes: HashMap::new(), dead: None })
    }

    pub(super) fn describe(&mut self) -> Result<Description, CallError> {
        self.call(|guest, store| guest.describe(store))
    }

    pub(super) fn init(&mut self, setup: &Setup) -> Result<(), CallError> {
        let answer = self.call(|guest, store| guest.init(store, setup))?;
        let finding = |finding: super::bindings::lifecycle::Finding| Finding {
            path: clean(&finding.path, LONGEST_REASON),
            message: clean(&finding.message, LONGEST_REASON),
        };
        answer.map_err(|findings| {
            CallError::Findings(findings.into_iter().take(MOST_FINDINGS).map(finding).collect())
        })
    }

    /// Announces a relation. The plan has been checked against it and is remembered: `process`
    /// checks its answers by it.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn on_relation(&mut self, relation: &Relation) -> Result<Plan, CallError> {
        self.store.data_mut().begin_call(Moment::START);
        let answer = self
            .call(|guest, store| guest.on_relation(store, relation))
            .and_then(|answer| self.planned(answer, relation));
        self.count(&answer);
        answer
    }

    fn planned(
        &mut self,
        answer: Result<Plan, String>,
        relation: &Relation,
    ) -> Result<Plan, CallError> {
        let plan = answer.map_err(|why| failed(&why))?;
        check_plan(&plan, relation).map_err(|what| wrong("plan", &what))?;
        self.shapes.insert(relation.id, Shapes::of(&plan));
        if !self.store.data().dry_run {
            self.program.announced(relation);
        }
        Ok(plan)
    }

    /// Runs a batch of events of one transaction, which was committed at `now`, in microseconds
    /// since 1970-01-01 UTC; see [`Instance::process_at`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn process(&mut self, batch: &Batch, now: i64) -> Result<Outcome, CallError> {
        let moment = match batch.count {
            0 | 1 => Moment::of_event(now, 0, 0),
            _ => Moment::of_transaction(now),
        };
        self.process_at(batch, moment)
    }

    /// Runs a batch. Every relation in it must have been announced. The outcome has been checked.
    ///
    /// # Errors
    /// See [`CallError`]; after [`CallError::Asked`] the same events must be given to a new
    /// instance, fewer at once.
    pub fn process_at(&mut self, batch: &Batch, moment: Moment) -> Result<Outcome, CallError> {
        self.store.data_mut().begin_call(moment);
        let answer = self
            .call(|guest, store| guest.process(store, batch))
            .and_then(|answer| answer.map_err(|why| failed(&why)))
            .and_then(|outcome| self.checked(outcome, batch));
        self.count(&answer);
        answer
    }

    fn checked(&self, mut outcome: Outcome, batch: &Batch) -> Result<Outcome, CallError> {
        // Most often, neighbours are of the same relation.
        let last: Cell<Option<(u32, &Shapes)>> = Cell::new(None);
        let shapes_of = |event: usize| {
            let id = *batch.relations.get(event)?;
            if last.get().is_none_or(|(last, _)| last != id) {
                last.set(self.shapes.get(&id).map(|shapes| (id, shapes)));
            }
            last.get().map(|(_, shapes)| shapes)
        };
        let checked =
            check_outcome(&outcome, batch.count as usize, self.program.bounds(), shapes_of);
        checked.map_err(|fault| match fault {
            Fault::Wrong(what) => wrong("outcome", &what),
            Fault::Large(what) => CallError::Output(what),
        })?;
        for reason in &mut outcome.reasons {
            *reason = clean(reason, LONGEST_REASON);
        }
        Ok(outcome)
    }

    /// Asks an authorizer about a subscriber, now. The inner error is its reason for refusing. The
    /// grant has been checked.
    pub(super) fn open(
        &mut self,
        subscriber: &Subscriber,
    ) -> Result<Result<Grant, String>, CallError> {
        self.store.data_mut().begin_call(Moment::now());
        let answer = self.call(|guest, store| guest.open(store, subscriber)).and_then(|answer| {
            let Ok(grant) = &answer else { return Ok(answer) };
            check_grant(grant).map_err(|what| wrong("grant", &what)).map(|()| answer)
        });
        self.count(&answer);
        Ok(answer?.map_err(|why| clean(&why, LONGEST_REASON)))
    }

    /// Whether it can still be called.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.dead.is_none()
    }

    fn call<T>(
        &mut self,
        work: impl FnOnce(&dyn Guest, &mut Store<Host>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        if let Some(error) = &self.dead {
            return Err(CallError::Trap(format!("the instance is dead, since it {}", past(error))));
        }
        let guest = &*self.guest;
        let answer = watched(&self.program, &mut self.store, |store| work(guest, store));
        self.dead = answer.as_ref().err().cloned();
        answer
    }

    fn count<T>(&self, answer: &Result<T, CallError>) {
        if !self.store.data().dry_run {
            self.program.meters.called(answer);
        }
    }
}

fn past(error: &CallError) -> String {
    match error {
        CallError::Trap(what) => format!("trapped: {what}"),
        other => other.to_string(),
    }
}

/// What the plugin itself says about its failure.
fn failed(why: &str) -> CallError {
    CallError::Failed(clean(why, LONGEST_REASON))
}

fn wrong(answer: &str, what: &str) -> CallError {
    CallError::Failed(format!("returned a wrong {answer}: {}", clean(what, LONGEST_REASON)))
}

/// Runs guest code within its limits, and says how it ended.
fn watched<T>(
    program: &Program,
    store: &mut Store<Host>,
    work: impl FnOnce(&mut Store<Host>) -> wasmtime::Result<T>,
) -> Result<T, CallError> {
    let host = store.data_mut();
    (host.limiter.refused_memory, host.limiter.refused_table) = (false, false);
    host.stopwatch.start();
    store.set_epoch_deadline(TICKS);
    // wasmtime is sound, but a guest made to break it may find a panic in it. The store is thrown
    // away then, as after a trap.
    let answer = catch_unwind(AssertUnwindSafe(|| work(store)));
    let host = store.data();
    program.meters.used(host.stopwatch.used());
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ended(program, host, &error)),
        Err(_) => Err(CallError::Trap("made the host panic".into())),
    }
}

fn ended(program: &Program, host: &Host, error: &wasmtime::Error) -> CallError {
    let (limits, plugin) = (&program.limits, program.name.clone());
    if host.stopwatch.overdue {
        return CallError::Deadline { limit: limits.deadline, plugin };
    }
    if host.limiter.refused_memory {
        return CallError::Memory { limit: limits.memory, plugin };
    }
    if host.limiter.refused_table {
        return CallError::Table { limit: limits.table, plugin };
    }
    if let Some(asked) = error.downcast_ref::<Asked>() {
        return CallError::Asked(*asked);
    }
    let cause = error.root_cause().to_string();
    // wasmtime has no type for this one.
    if cause.contains("fuel allocated for hostcalls has been exhausted") {
        return CallError::Output(format!(
            "handed over more than {} in one call: raise `plugins.{plugin}.limits.output`",
            limits.output
        ));
    }
    CallError::Trap(clean(&format!("{cause}{}", place(error)), LONGEST_REASON))
}

/// Where in the guest, in short: ` in f < g < h`.
fn place(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    // One frame a line, `0: 0x1234 - module!function`: only here are the names demangled.
    let text = backtrace.to_string();
    let names = text.lines().filter_map(|line| line.split_once(" - ")?.1.split_once('!'));
    let names: Vec<&str> = names.map(|(_, function)| function).take(MOST_FRAMES).collect();
    if names.is_empty() { String::new() } else { format!(" in {}", names.join(" < ")) }
}

#[cfg(test)]
mod tests;
