//! Holds back a whole output while its far side asks for a pause, or is down: one key that fails is
//! that key's affair, many keys that fail are the far side's.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::lanes::LaneId;
use super::retry::Retry;

/// So many lanes have failed, and none has succeeded since the first of them: the far side is down.
const FAILED_LANES: usize = 8;
/// Once it is down it is tried at least this often, so that it is noticed when it is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether anything may be sent now.
#[derive(Debug, Default)]
pub struct Gate {
    /// Lanes that failed since the last success, up to [`FAILED_LANES`].
    failed: HashSet<LaneId>,
    /// Probes that failed in a row.
    probes: u32,
    closed_until: Option<Instant>,
}

impl Gate {
    /// A delivery arrived: the far side is there.
    pub fn succeeded(&mut self) {
        self.failed.clear();
        self.probes = 0;
    }

    /// A delivery did not arrive.
    pub fn failed(
        &mut self,
        lane: LaneId,
        retry_after: Option<Duration>,
        retry: &Retry,
        now: Instant,
    ) {
        if retry_after.is_some() {
            self.close(now + retry.wait(1, retry_after));
        }
        if self.failed.len() < FAILED_LANES {
            self.failed.insert(lane);
        }
        if self.is_probing() {
            self.probes = self.probes.saturating_add(1);
            self.close(now + retry.wait(self.probes, None).min(LONGEST_PAUSE));
        }
    }

    /// Whether the far side is down, so that deliveries go one at a time until one arrives.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.failed.len() >= FAILED_LANES
    }

    /// Until when nothing may be sent, if that lies ahead.
    #[must_use]
    pub fn closed_until(&self, now: Instant) -> Option<Instant> {
        self.closed_until.filter(|&until| until > now)
    }

    fn close(&mut self, until: Instant) {
        self.closed_until = self.closed_until.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dead_key_never_closes_the_gate() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        for _ in 0..1000 {
            gate.failed(LaneId(1), None, &Retry::default(), now);
        }
        assert!(!gate.is_probing());
        assert_eq!(gate.closed_until(now), None);
    }

    #[test]
    fn many_failing_keys_leave_one_probe_at_a_time_until_one_arrives() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        for lane in 0..FAILED_LANES as u64 {
            assert!(!gate.is_probing());
            gate.failed(LaneId(lane), None, &Retry::default(), now);
        }
        assert!(gate.is_probing());
        for _ in 0..100 {
            gate.failed(LaneId(0), None, &Retry::default(), now);
        }
        assert!(gate.closed_until(now).is_some_and(|until| until <= now + LONGEST_PAUSE));
        gate.succeeded();
        assert!(!gate.is_probing());
    }

    #[test]
    fn a_pause_that_the_far_side_asks_for_holds_for_all_keys() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let pause = Duration::from_secs(20);
        gate.failed(LaneId(1), Some(pause), &Retry::default(), now);
        gate.succeeded();
        assert_eq!(gate.closed_until(now), Some(now + pause));
        assert_eq!(gate.closed_until(now + pause), None);
    }
}
