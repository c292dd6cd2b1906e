//! What a guest may call: log, clock, metrics and, where granted, keyed state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::UpdateDeadline;
use wasmtime::component::{HasSelf, Linker};

use super::bindings::Guest;
use super::bindings::host::{clock, kv, log, metrics, types};
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
    dry_run: bool,
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

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, kv::Error> {
        check_key(key)?;
        Ok(self.state().get(key)?)
    }
}

/// Makes everything that the world offers available to guests.
pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    Guest::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host)?;
    Ok(linker)
}

impl types::Host for Host {}

impl log::Host for Host {
    fn enabled(&mut self, level: log::Level) -> bool {
        enabled(level)
    }

    fn log(&mut self, level: log::Level, message: String) {
        self.log.write(level, &message);
    }
}

impl clock::Host for Host {
    fn now(&mut self) -> i64 {
        self.now
    }
}

impl metrics::Host for Host {
    fn counter(&mut self, name: String, _help: String) -> u32 {
        if self.dry_run { IGNORED } else { self.meters.counter(&name) }
    }

    fn gauge(&mut self, name: String, _help: String) -> u32 {
        if self.dry_run { IGNORED } else { self.meters.gauge(&name) }
    }

    fn add(&mut self, id: u32, delta: u64) {
        self.meters.add(id, delta);
    }

    fn set(&mut self, id: u32, value: f64) {
        self.meters.set(id, value);
    }
}

impl kv::Host for Host {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, kv::Error> {
        Host::get(self, &key)
    }

    fn get_many(&mut self, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, kv::Error> {
        if keys.len() > MOST_KEYS {
            return Err(kv::Error::TooLarge);
        }
        let (mut values, mut size) = (Vec::with_capacity(keys.len()), 0);
        for key in &keys {
            let value = Host::get(self, key)?;
            size += value.as_ref().map_or(0, Vec::len);
            if size > LARGEST_ANSWER {
                return Err(kv::Error::TooLarge);
            }
            values.push(value);
        }
        Ok(values)
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), kv::Error> {
        check_key(&key)?;
        if value.len() > LARGEST_VALUE {
            return Err(kv::Error::TooLarge);
        }
        Ok(self.state().set(&key, value)?)
    }

    fn delete(&mut self, key: String) -> Result<(), kv::Error> {
        check_key(&key)?;
        Ok(self.state().delete(&key)?)
    }
}

fn check_key(key: &str) -> Result<(), kv::Error> {
    if key.len() > LONGEST_KEY { Err(kv::Error::TooLarge) } else { Ok(()) }
}

impl From<StateError> for kv::Error {
    fn from(error: StateError) -> Self {
        match error {
            StateError::TooLarge => Self::TooLarge,
            StateError::Quota => Self::Quota,
            StateError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}
