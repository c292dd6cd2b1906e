//! What a plugin may consume, and the two watchmen that see to it: one for memory and tables, one
//! for processor time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use wasmtime::ResourceLimiter;

use super::engine::TICK;
use crate::model::quantity::{ByteSize, Period};

/// `[plugins.NAME.limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Size of the `.wasm` file.
    pub file: ByteSize,
    /// Memory of one instance: its linear memories and, where a language has one in WebAssembly,
    /// its garbage-collected heap. A JavaScript plugin starts with more than 64 MiB.
    pub memory: ByteSize,
    /// Elements in all tables of one instance.
    pub table: u32,
    /// Processor time of one call: a batch, a relation, or the start.
    pub deadline: Period,
    /// What one call may hand over to the host, and what its events may become in all.
    pub output: ByteSize,
    /// What one event may become, beyond its own size: values that were computed, names, and its
    /// own columns where they come more than once.
    pub event_output: ByteSize,
    /// Lines per second in walmill's log; five times as many at once.
    pub log_lines: u32,
    /// Keyed state: keys and values.
    pub state: ByteSize,
    /// For all requests of one call, where requests are granted: until when their answers must be
    /// there.
    pub http_time: Period,
    /// Of the body of a request, and of an answer.
    pub http_size: ByteSize,
    /// Processor time of compiling the file.
    pub compile_time: Period,
    /// Memory of the process that compiles it.
    pub compile_memory: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file: ByteSize::new(32 << 20),
            memory: ByteSize::new(256 << 20),
            table: 200_000,
            deadline: Period::from_millis(1_000),
            output: ByteSize::new(64 << 20),
            event_output: ByteSize::new(16 << 20),
            log_lines: 20,
            state: ByteSize::new(64 << 20),
            http_time: Period::from_millis(5_000),
            http_size: ByteSize::new(1 << 20),
            compile_time: Period::from_millis(60_000),
            compile_memory: ByteSize::new(2 << 30),
        }
    }
}

/// Core instances and tables per plugin; Python needs more than 20 of each.
const MOST_INSTANCES: usize = 1_000;
const MOST_MEMORIES: usize = 100;

/// Says yes or no when the guest asks for memory or table space.
pub(super) struct Limiter {
    limits: Limits,
    memory: usize,
    elements: usize,
    /// Whether memory was refused since this was last set to `false`.
    pub(super) refused_memory: bool,
    /// Likewise, room in a table.
    pub(super) refused_table: bool,
}

impl Limiter {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, memory: 0, elements: 0, refused_memory: false, refused_table: false }
    }
}

/// What is in use together with the growth, if that is within the limit. A growth that is granted
/// and then fails stays counted: undoing it would let a guest make growths that fail on purpose.
fn grown(used: usize, current: usize, desired: usize, limit: u64) -> Option<usize> {
    let total = used.saturating_add(desired.saturating_sub(current));
    (total as u64 <= limit).then_some(total)
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let total = grown(self.memory, current, desired, self.limits.memory.bytes());
        self.memory = total.unwrap_or(self.memory);
        self.refused_memory |= total.is_none();
        Ok(total.is_some())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let total = grown(self.elements, current, desired, self.limits.table.into());
        self.elements = total.unwrap_or(self.elements);
        self.refused_table |= total.is_none();
        Ok(total.is_some())
    }

    fn instances(&self) -> usize {
        MOST_INSTANCES
    }

    fn tables(&self) -> usize {
        MOST_INSTANCES
    }

    fn memories(&self) -> usize {
        MOST_MEMORIES
    }
}

/// Measures one call, by processor time of the calling thread and not by wall time: on a loaded
/// machine an honest guest that has to wait for its turn would be ended for it.
///
/// Asking for a thread's processor time is a system call, which would cost a short call more than
/// all else together. So it is asked from the engine's first tick on, and the time before that, at
/// most a tick, is not held against the guest.
pub(super) struct Stopwatch {
    limit: Duration,
    started: Instant,
    first_tick: Option<FirstTick>,
    /// Whether the call was ended for the time it took.
    pub(super) overdue: bool,
}

struct FirstTick {
    /// Of the call, in wall time; at most a tick.
    before: Duration,
    thread_time: Duration,
}

impl Stopwatch {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, started: Instant::now(), first_tick: None, overdue: false }
    }

    pub(super) fn start(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Whether the time is up; called at every tick of the engine.
    pub(super) fn check(&mut self) -> bool {
        let now = thread_time();
        let before = || self.started.elapsed().min(TICK);
        let first =
            self.first_tick.get_or_insert_with(|| FirstTick { before: before(), thread_time: now });
        self.overdue = now.saturating_sub(first.thread_time) > self.limit;
        self.overdue
    }

    /// Processor time of the call: what a call without a tick took is nearly that.
    pub(super) fn used(&self) -> Duration {
        match &self.first_tick {
            None => self.started.elapsed(),
            Some(first) => first.before + thread_time().saturating_sub(first.thread_time),
        }
    }
}

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_memories_share_one_limit() {
        let limits = Limits { memory: ByteSize::new(100), ..Limits::default() };
        let mut limiter = Limiter::new(limits);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.refused_memory);
        assert!(limiter.memory_growing(60, 100, None).unwrap());
    }

    #[test]
    fn growing_past_a_memory_s_own_maximum_counts_for_nothing() {
        let mut limiter = Limiter::new(Limits::default());
        assert!(!limiter.memory_growing(10, 20, Some(15)).unwrap());
        assert!(!limiter.refused_memory);
        assert_eq!(limiter.memory, 0);
    }

    #[test]
    fn the_config_names_only_what_differs() {
        let limits: Limits = toml::from_str("memory = \"64MiB\"\ndeadline = \"100ms\"").unwrap();
        assert_eq!(limits.memory.bytes(), 64 << 20);
        assert_eq!(limits.deadline.duration(), Duration::from_millis(100));
        assert_eq!(limits.table, Limits::default().table);
        assert!(toml::from_str::<Limits>("memroy = \"64MiB\"").is_err());
    }
}
