//! What plugins write to the log, at a bounded rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, trace, warn};

use super::bindings::Level;
use super::text::clean;

/// Lines at once, after which it is one per [`REFILL`].
const BURST: u32 = 100;
const REFILL: Duration = Duration::from_millis(50);
const LONGEST_LINE: usize = 2_048;

/// One plugin's log, shared by its instances.
pub(super) struct Log {
    plugin: String,
    budget: Mutex<Budget>,
}

impl Log {
    pub(super) fn new(plugin: &str) -> Self {
        Self { plugin: plugin.into(), budget: Mutex::new(Budget::new(Instant::now())) }
    }

    /// Writes a line, unless there have been too many.
    pub(super) fn write(&self, level: Level, message: &str) {
        if !enabled(level) {
            return;
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suppressed) = budget.take(Instant::now()) else { return };
        drop(budget);
        let plugin = &self.plugin;
        if suppressed > 0 {
            warn!(plugin, suppressed, "the plugin logs faster than is shown");
        }
        let message = clean(message, LONGEST_LINE);
        match level {
            Level::Trace => trace!(plugin, "{message}"),
            Level::Debug => debug!(plugin, "{message}"),
            Level::Info => info!(plugin, "{message}"),
            Level::Warn => warn!(plugin, "{message}"),
            Level::Error => error!(plugin, "{message}"),
        }
    }
}

/// Whether a line of that level would be shown.
pub(super) fn enabled(level: Level) -> bool {
    match level {
        Level::Trace => tracing::enabled!(tracing::Level::TRACE),
        Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(tracing::Level::INFO),
        Level::Warn => tracing::enabled!(tracing::Level::WARN),
        Level::Error => tracing::enabled!(tracing::Level::ERROR),
    }
}

/// A token bucket that remembers what it refused.
struct Budget {
    tokens: u32,
    filled: Instant,
    suppressed: u64,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled: now, suppressed: 0 }
    }

    /// Whether a line may be written now, and how many were not since the last one that was.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let refills = now.saturating_duration_since(self.filled).as_millis() / REFILL.as_millis();
        let refills = u32::try_from(refills).unwrap_or(u32::MAX);
        if refills > 0 {
            self.tokens = self.tokens.saturating_add(refills).min(BURST);
            // Past a full bucket the time between is forgotten, or the product could overflow.
            self.filled = if self.tokens == BURST { now } else { self.filled + REFILL * refills };
        }
        if self.tokens == 0 {
            self.suppressed += 1;
            return None;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_off_and_counted() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let shown = (0..1_000).filter(|_| budget.take(start).is_some()).count();
        assert_eq!(shown, 100);
        assert_eq!(budget.take(start + REFILL), Some(900));
        assert_eq!(budget.take(start + REFILL), None);
        assert_eq!(budget.take(start + REFILL * 3), Some(1));
        assert_eq!(budget.take(start + REFILL * 3), Some(0));
        assert_eq!(budget.take(start + REFILL * 3), None);
    }

    #[test]
    fn the_bucket_never_holds_more_than_a_burst() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let later = start + Duration::from_secs(1_000_000_000);
        assert_eq!((0..1_000).filter(|_| budget.take(later).is_some()).count(), 100);
    }
}
