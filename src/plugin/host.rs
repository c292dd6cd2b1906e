//! What a guest may call, whichever version of the world it is of: log, clock, metrics and, where
//! granted, keyed state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime::UpdateDeadline;

use super::bindings::Level;
use super::limits::{Limiter, Stopwatch};
use super::log::{Log, enabled};
use super::meters::{IGNORED, Meters};
use super::moment::{Asked, Moment, Random};
use super::program::Program;
use super::state::{LARGEST_VALUE, LONGEST_KEY, State, StateError};
use super::wasi::{Grants, Wasi};

/// Keys in one `get-many`, and bytes in its answer.
const MOST_KEYS: usize = 1_024;
const LARGEST_ANSWER: usize = 16 << 20;

/// Ticks of the engine between two looks at the stopwatch.
pub(super) const TICKS: u64 = 1;

/// The host's side of one instance.
pub(super) struct Host {
    pub(super) log: Arc<Log>,
    pub(super) meters: Arc<Meters>,
    pub(super) limiter: Limiter,
    pub(super) stopwatch: Stopwatch,
    moment: Moment,
    /// Of the call under way.
    pub(super) random: Random,
    /// Nanoseconds that the guest has waited for in the call under way.
    pub(super) slept: u64,
    grants: Arc<Grants>,
    longest_wait: Duration,
    /// Made when the guest first uses it.
    wasi: Option<Box<Wasi>>,
    pub(super) dry_run: bool,
    state: Arc<Mutex<dyn State + Send>>,
}

impl Host {
    pub(super) fn new(
        program: &Program,
        dry_run: bool,
        state: Arc<Mutex<dyn State + Send>>,
    ) -> Self {
        let limits = program.limits;
        Self {
            log: Arc::clone(&program.log),
            meters: Arc::clone(&program.meters),
            limiter: Limiter::new(limits),
            stopwatch: Stopwatch::new(limits.deadline.duration()),
            moment: Moment::START,
            random: Moment::START.random(),
            slept: 0,
            grants: Arc::clone(&program.grants),
            longest_wait: limits.http_time.duration(),
            wasi: None,
            dry_run,
            state,
        }
    }

    /// A call begins, and takes place at this moment.
    pub(super) fn begin_call(&mut self, moment: Moment) {
        self.moment = moment;
        self.random = moment.random();
        self.slept = 0;
        if let Some(wasi) = &mut self.wasi {
            wasi.begin_call();
        }
    }

    /// The time of the call's events, in microseconds since 1970-01-01 UTC.
    pub(super) fn now(&self) -> Result<i64, Asked> {
        self.moment.time()
    }

    pub(super) fn wasi(&mut self) -> &mut Wasi {
        let (log, grants, longest) = (&self.log, &self.grants, self.longest_wait);
        self.wasi.get_or_insert_with(|| Box::new(Wasi::new(log, grants, longest)))
    }

    /// Called at every tick of the engine while the guest runs.
    pub(super) fn tick(&mut self) -> UpdateDeadline {
        if self.stopwatch.check() {
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::Continue(TICKS)
        }
    }

    fn state(&self) -> MutexGuard<'_, dyn State + Send + 'static> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line of that level would be shown.
    pub(super) fn enabled(level: Level) -> bool {
        enabled(level)
    }

    pub(super) fn log(&self, level: Level, message: &str) {
        self.log.write(level, message);
    }

    /// The id of a counter; what a dry run counts is not kept.
    pub(super) fn counter(&self, name: &str) -> u32 {
        if self.dry_run { IGNORED } else { self.meters.counter(name) }
    }

    /// See [`Host::counter`].
    pub(super) fn gauge(&self, name: &str) -> u32 {
        if self.dry_run { IGNORED } else { self.meters.gauge(name) }
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        check_key(key)?;
        self.state().get(key)
    }

    pub(super) fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        if keys.len() > MOST_KEYS {
            return Err(StateError::TooLarge);
        }
        let (mut values, mut size) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            let value = self.get(key)?;
            size += value.as_ref().map_or(0, Vec::len);
            if size > LARGEST_ANSWER {
                return Err(StateError::TooLarge);
            }
            values.push(value);
        }
        Ok(values)
    }

    pub(super) fn set(&self, key: &str, value: Vec<u8>) -> Result<(), StateError> {
        check_key(key)?;
        if value.len() > LARGEST_VALUE {
            return Err(StateError::TooLarge);
        }
        self.state().set(key, value)
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), StateError> {
        check_key(key)?;
        self.state().delete(key)
    }
}

fn check_key(key: &str) -> Result<(), StateError> {
    if key.len() > LONGEST_KEY { Err(StateError::TooLarge) } else { Ok(()) }
}
