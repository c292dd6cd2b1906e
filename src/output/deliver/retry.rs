//! When a failed delivery is tried again, and when it is given up.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use crate::model::Period;

/// How failed deliveries are tried again: `retry = { initial = "500ms", max = "5m" }`.
///
/// Try n + 1 comes after a time drawn evenly between zero and `initial` doubled n times, at most
/// `max`, so that many events which failed together do not come back together. With a `schedule`
/// it comes after the schedule's time number n, or up to a fifth more; and at its end the event is
/// given up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// The longest wait before the second try.
    pub initial: Period,
    /// The longest wait before any try.
    pub max: Period,
    /// An event that has not been taken so long after its first try goes to the dead letters.
    pub give_up_after: Period,
    /// An event that failed so often goes to the dead letters; as often as time allows if not set.
    pub max_attempts: Option<NonZeroU32>,
    /// The waits one by one, in place of `initial` and `max`.
    pub schedule: Vec<Period>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            initial: Period::from_millis(500),
            max: Period::from_millis(5 * 60_000),
            give_up_after: Period::from_millis(24 * 3_600_000),
            max_attempts: None,
            schedule: Vec::new(),
        }
    }
}

/// What the far side asks for in `Retry-After` is believed up to here.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

impl Retry {
    /// How long to wait after failed try number `attempts`, counted from 1, of an event.
    #[must_use]
    pub fn wait(&self, attempts: u32, retry_after: Option<Duration>) -> Duration {
        let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        if let Some(wait) = self.scheduled(attempts) {
            return wait.mul_f64(1.0 + 0.2 * rand::random::<f64>()).max(asked);
        }
        self.longest_wait(attempts).mul_f64(rand::random::<f64>()).max(asked)
    }

    /// Whether an event has had its chances.
    #[must_use]
    pub fn is_over(&self, attempts: u32, since_first_try: Duration) -> bool {
        if !self.schedule.is_empty() {
            return self.scheduled(attempts).is_none()
                || self.max_attempts.is_some_and(|max| attempts >= max.get());
        }
        since_first_try >= self.give_up_after.duration()
            || self.max_attempts.is_some_and(|max| attempts >= max.get())
    }

    fn scheduled(&self, attempts: u32) -> Option<Duration> {
        let at = usize::try_from(attempts.checked_sub(1)?).ok()?;
        self.schedule.get(at).map(|wait| wait.duration())
    }

    /// No wait for what failed so often is longer than this. `asked`: the far side set it.
    #[must_use]
    pub fn bound(&self, attempts: u32, asked: bool) -> Duration {
        let wait = self.scheduled(attempts).map(|wait| wait.mul_f64(1.2));
        let wait = wait.unwrap_or_else(|| self.longest_wait(attempts));
        if asked { wait.max(LONGEST_RETRY_AFTER) } else { wait }
    }

    fn longest_wait(&self, attempts: u32) -> Duration {
        // 2^31 times the smallest period is 24 days, beyond any sensible `max`.
        let doubled = 1_u32 << attempts.saturating_sub(1).min(31);
        self.initial.duration().saturating_mul(doubled).min(self.max.duration())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry() -> Retry {
        Retry { max_attempts: NonZeroU32::new(5), ..Retry::default() }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let longest = |attempts| retry().longest_wait(attempts).as_millis();
        assert_eq!([1, 2, 3, 10].map(longest), [500, 1_000, 2_000, 256_000]);
        assert_eq!([11, 100, u32::MAX].map(longest), [300_000; 3]);
    }

    #[test]
    fn a_wait_is_drawn_below_the_longest_and_no_shorter_than_asked() {
        for attempts in 1..100 {
            assert!(retry().wait(attempts, None) <= retry().longest_wait(attempts));
            let asked = Duration::from_secs(7);
            assert!(retry().wait(attempts, Some(asked)) >= asked);
        }
        assert_eq!(retry().wait(1, Some(Duration::MAX)), LONGEST_RETRY_AFTER);
    }

    #[test]
    fn a_schedule_is_followed_to_its_end() {
        let schedule = [5_000, 300_000, 1_800_000].map(Period::from_millis).to_vec();
        let retry = Retry { schedule, ..Retry::default() };
        for (attempts, seconds) in [(1, 5), (2, 300), (3, 1_800)] {
            let wait = retry.wait(attempts, None).as_secs_f64();
            assert!((f64::from(seconds)..=f64::from(seconds) * 1.2).contains(&wait), "{wait}");
            assert!(!retry.is_over(attempts, Duration::from_secs(1_000_000)));
        }
        assert!(retry.is_over(4, Duration::ZERO));
        assert_eq!(retry.wait(1, Some(Duration::from_secs(60))), Duration::from_secs(60));
    }

    #[test]
    fn an_event_is_given_up_by_tries_or_by_time() {
        let day = Duration::from_secs(24 * 3600);
        assert!(!retry().is_over(4, day - Duration::from_millis(1)));
        assert!(retry().is_over(5, Duration::ZERO));
        assert!(retry().is_over(1, day));
        assert!(!Retry::default().is_over(u32::MAX, Duration::ZERO));
    }
}
