//! What a guest may call, whichever version of the world it is of: log, clock, metrics and, where
//! granted, keyed state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::UpdateDeadline;

use super::bindings::Level;
use super::limits::{Limiter, Limits, Stopwatch};
use super::log::{Log, enabled};
use super::meters::{IGNORED, Meters};
use super::state::{LARGEST_VALUE, LONGEST_KEY, State, StateError};

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
    /// What the clock says, microseconds since 1970-01-01 UTC.
    pub(super) now: i64,
    pub(super) dry_run: bool,
    state: Arc<Mutex<dyn State + Send>>,
}

impl Host {
    pub(super) fn new(
        log: Arc<Log>,
        meters: Arc<Meters>,
        limits: Limits,
        dry_run: bool,
        state: Arc<Mutex<dyn State + Send>>,
    ) -> Self {
        Self {
            log,
            meters,
            limiter: Limiter::new(limits),
            stopwatch: Stopwatch::new(limits.deadline.duration()),
            now: 0,
            dry_run,
            state,
        }
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
