//! What plugins write to the log, at a bounded rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, trace, warn};

use super::bindings::Level;
use super::text::clean;

/// How many seconds' lines may come at once.
const BURST: u32 = 5;
const LONGEST_LINE: usize = 2_048;

/// One plugin's log, shared by its instances.
pub(super) struct Log {
    plugin: String,
    /// Lines per second.
    rate: u32,
    budget: Mutex<Budget>,
}

impl Log {
    pub(super) fn new(plugin: &str, rate: u32) -> Self {
        let budget = Mutex::new(Budget::new(Instant::now(), rate));
        Self { plugin: plugin.into(), rate, budget }
    }

    /// Writes a line, unless there have been too many.
    pub(super) fn write(&self, level: Level, message: &str) {
        if !enabled(level) {
            return;
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = budget.take(Instant::now());
        drop(budget);
        let (plugin, rate) = (&self.plugin, self.rate);
        match turn {
            Turn::Line { suppressed: 0 } => {}
            Turn::Line { suppressed } => warn!(plugin, suppressed, "lines that were not shown"),
            Turn::FirstOver => {
                return warn!(
                    plugin,
                    "logs more than {rate} lines per second: raise \
                     `plugins.{plugin}.limits.log_lines`"
                );
            }
            Turn::Over => return,
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

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// It is shown, the first since that many were not.
    Line { suppressed: u64 },
    /// It is the first that is not shown.
    FirstOver,
    /// It is not shown, either.
    Over,
}

/// A token bucket that remembers what it refused.
struct Budget {
    tokens: u32,
    burst: u32,
    /// Between two tokens; `None`: there are none.
    refill: Option<Duration>,
    filled: Instant,
    suppressed: u64,
}

impl Budget {
    fn new(now: Instant, rate: u32) -> Self {
        let burst = rate.saturating_mul(BURST);
        let refill = Duration::from_secs(1).checked_div(rate).filter(|refill| !refill.is_zero());
        Self { tokens: burst, burst, refill, filled: now, suppressed: 0 }
    }

    fn take(&mut self, now: Instant) -> Turn {
        if let Some(refill) = self.refill {
            self.refill(now, refill);
        }
        if self.tokens == 0 {
            self.suppressed += 1;
            return if self.suppressed == 1 { Turn::FirstOver } else { Turn::Over };
        }
        self.tokens -= 1;
        Turn::Line { suppressed: std::mem::take(&mut self.suppressed) }
    }

    fn refill(&mut self, now: Instant, refill: Duration) {
        let refills = now.saturating_duration_since(self.filled).as_nanos() / refill.as_nanos();
        let refills = u32::try_from(refills).unwrap_or(u32::MAX);
        if refills > 0 {
            self.tokens = self.tokens.saturating_add(refills).min(self.burst);
            // Past a full bucket the time between is forgotten, or the product could overflow.
            let full = self.tokens == self.burst;
            self.filled = if full { now } else { self.filled + refill * refills };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(budget: &mut Budget, now: Instant) -> usize {
        (0..1_000).filter(|_| matches!(budget.take(now), Turn::Line { .. })).count()
    }

    #[test]
    fn a_flood_is_cut_off_and_counted() {
        let start = Instant::now();
        let refill = Duration::from_millis(50);
        let mut budget = Budget::new(start, 20);
        assert_eq!(shown(&mut budget, start), 100);
        assert_eq!(budget.take(start + refill), Turn::Line { suppressed: 900 });
        assert_eq!(budget.take(start + refill), Turn::FirstOver);
        assert_eq!(budget.take(start + refill), Turn::Over);
        assert_eq!(budget.take(start + refill * 3), Turn::Line { suppressed: 2 });
        assert_eq!(budget.take(start + refill * 3), Turn::Line { suppressed: 0 });
        assert_eq!(budget.take(start + refill * 3), Turn::FirstOver);
    }

    #[test]
    fn the_bucket_never_holds_more_than_a_burst() {
        let start = Instant::now();
        let mut budget = Budget::new(start, 20);
        assert_eq!(shown(&mut budget, start + Duration::from_secs(1_000_000_000)), 100);
    }

    #[test]
    fn a_plugin_may_be_given_no_line_at_all() {
        let start = Instant::now();
        let mut budget = Budget::new(start, 0);
        assert_eq!(budget.take(start + Duration::from_secs(1_000)), Turn::FirstOver);
    }
}
