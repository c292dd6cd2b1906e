//! When to try again: soon at first, then less and less often, and never in step with others.

use std::time::Duration;

use super::fault::Fault;

const SOON: Duration = Duration::from_millis(100);
const SOON_MAX: Duration = Duration::from_secs(30);
/// Between two looks of a standby: as long as a failover may take it to notice.
const TURN: Duration = Duration::from_secs(1);
/// Where somebody has to do something first.
const SELDOM: Duration = Duration::from_secs(5);
const SELDOM_MAX: Duration = Duration::from_secs(60);

/// How often it failed in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It works again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure.
    pub(super) fn next(&mut self, fault: &Fault) -> Duration {
        let wait = wait(fault, self.failures);
        self.failures = self.failures.saturating_add(1);
        // Many that lost the same server do not come back all at once.
        wait.mul_f64(rand::random_range(0.5..1.0))
    }
}

fn wait(fault: &Fault, failures: u32) -> Duration {
    let (first, most) = match fault {
        Fault::Away(_) => (SOON, SOON_MAX),
        Fault::Taken(_) => (TURN, TURN),
        Fault::Person(_) => (SELDOM, SELDOM_MAX),
        Fault::Lost(_) | Fault::Halt(_) | Fault::Store(_) => (SELDOM_MAX, SELDOM_MAX),
    };
    first.saturating_mul(1 << failures.min(16)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fault::Report;

    #[test]
    fn waits_grow_to_a_bound() {
        let waits = |fault: &Fault| [0, 1, 5, 60].map(|failures| wait(fault, failures).as_millis());
        assert_eq!(waits(&Fault::away("", "")), [100, 200, 3_200, 30_000]);
        assert_eq!(waits(&Fault::person("", "")), [5_000, 10_000, 60_000, 60_000]);
        let taken = Fault::Taken(Report { error: String::new(), remedy: String::new() });
        assert_eq!(waits(&taken), [1_000; 4]);
        assert_eq!(waits(&Fault::halt("", "")), [60_000; 4]);
    }

    #[test]
    fn jitter_stays_between_half_and_whole() {
        let mut backoff = Backoff::default();
        let wait = backoff.next(&Fault::away("", ""));
        assert!(wait >= SOON / 2 && wait < SOON, "{wait:?}");
        backoff.reset();
        assert!(backoff.next(&Fault::away("", "")) < SOON);
    }
}
