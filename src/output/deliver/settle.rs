//! What follows from a try: the next event, a later try, a dead letter, or the end.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::lanes::{Failure, LaneId, Place};
use super::{Delivery, End, Tried, Try};
use crate::metrics::{Name, Outcome};
use crate::model::attempt::Attempt;
use crate::model::{EventRecord, clock};
use crate::output::{DeliverError, Output, Undelivered};
use crate::store::dead_letter::{By, DeadLetter};
use crate::store::failing::{Failed, Failing};

impl<O: Output> Delivery<O> {
    /// Acts on the result of a try. Err: nothing more is to be sent.
    pub(super) fn settle(&mut self, attempt: Result<Try, JoinError>) -> Result<(), End> {
        let Tried { lanes, took, result } = match attempt {
            Ok(Try::Batch(tried)) => tried,
            Ok(Try::Letter(tried)) => return self.letter_tried(tried),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => return Ok(()),
            },
        };
        let name = Name { name: self.config.name.clone() };
        self.metrics.output_attempt.get_or_create(&name).observe(took.as_secs_f64());
        let Err(Undelivered { taken, error }) = result else {
            self.delivered(&lanes);
            self.metrics.output_circuit_open.get_or_create(&name).set(0);
            return Ok(());
        };
        // One that claims more than it was given has still not delivered its last.
        let taken = taken.min(lanes.len() - 1);
        self.delivered(&lanes[..taken]);
        let end = self.failed(lanes[taken], took, error);
        self.lanes.put_back(&lanes[taken..]);
        let open = i64::from(self.gate.is_probing());
        self.metrics.output_circuit_open.get_or_create(&name).set(open);
        end
    }

    fn delivered(&mut self, lanes: &[LaneId]) {
        if lanes.is_empty() {
            return;
        }
        self.gate.succeeded();
        for &lane in lanes {
            if let Some((place, _)) = self.leave(lane) {
                self.feeds[place.feed].window.finish(place.seq, None);
            }
        }
        let delivered = lanes.len() as u64;
        self.count("ok", delivered);
        let failing = self.lanes.any_failing();
        self.status.send_modify(|status| {
            status.delivered += delivered;
            if !failing {
                status.error = None;
            }
        });
    }

    fn failed(&mut self, lane: LaneId, took: Duration, error: DeliverError) -> Result<(), End> {
        let now = Instant::now();
        let Some(failure) = self.lanes.fail(lane, now) else { return Ok(()) };
        let attempts = failure.attempts;
        match &error {
            DeliverError::Gone(cause) => return Err(self.gone(cause)),
            DeliverError::Refused { cause, .. } => {
                self.show(cause);
                self.give_up(lane, attempts, took, &error);
            }
            DeliverError::Unavailable { cause, retry_after, .. } => {
                self.show(cause);
                let retry = &self.config.retry;
                self.gate.failed(lane, *retry_after, retry, now);
                if retry.is_over(attempts, failure.since_first_try) {
                    self.give_up(lane, attempts, took, &error);
                } else {
                    let wait = retry.wait(attempts, *retry_after);
                    let asked = retry_after.is_some();
                    self.note(lane, &failure, (wait, asked), error.attempt(took));
                    self.try_again(lane, attempts, wait, cause);
                }
            }
        }
        Ok(())
    }

    /// The far side wants no more: what the output's end is.
    pub(super) fn gone(&self, cause: &anyhow::Error) -> End {
        self.show(cause);
        End::Gone(format!("{cause:#}"))
    }

    fn try_again(&mut self, lane: LaneId, attempts: u32, wait: Duration, cause: &anyhow::Error) {
        let output = &self.config.name;
        // The first failure of an event is news; the status shows the later ones.
        if attempts == 1 {
            tracing::warn!(output, ?wait, "not delivered, trying again: {cause:#}");
        } else {
            tracing::debug!(output, attempts, ?wait, "not delivered, trying again: {cause:#}");
        }
        for place in self.lanes.retry(lane, Instant::now() + wait) {
            self.feeds[place.feed].window.release(place.seq);
        }
        self.count("retry", 1);
    }

    /// Notes how far the event is on its schedule, for a restart and for its dead letter.
    fn note(
        &mut self,
        lane: LaneId,
        failure: &Failure,
        (wait, asked): (Duration, bool),
        attempt: Attempt,
    ) {
        let Some((place, offset)) = self.lanes.first(lane) else { return };
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let now = clock::now();
        let failing = Failing {
            attempts: failure.attempts,
            first: now.saturating_sub(micros(failure.since_first_try)),
            due: now.saturating_add(micros(wait)),
            asked,
            tries: vec![attempt],
        };
        let stream = self.feeds[place.feed].name().to_owned();
        self.failed.push(Failed { stream, offset, failing });
    }

    /// Sets the event aside. Its dead letter is written together with the checkpoint that moves
    /// over it.
    fn give_up(&mut self, lane: LaneId, attempts: u32, took: Duration, error: &DeliverError) {
        let Some((place, event)) = self.leave(lane) else { return };
        let (feed, output) = (&mut self.feeds[place.feed], &self.config.name);
        let attempt = error.attempt(took);
        let id = event.id().to_string();
        tracing::warn!(output, event = id, attempts, "dead-lettered: {}", attempt.error);
        let letter = DeadLetter {
            event: id,
            by: By::Output { output: output.clone(), stream: feed.name().to_owned() },
            reason: error.reason(),
            time: attempt.time,
            attempts,
            retrying: false,
            tries: vec![attempt],
            change: None,
            key: Some(String::from_utf8_lossy(&event.key).into_owned()),
            payload: payload(&event),
        };
        feed.window.finish(place.seq, Some(letter));
        self.count("dead_letter", 1);
        self.status.send_modify(|status| status.dead_letters += 1);
    }

    /// The lane's first event is done with: what waited for it may go.
    fn leave(&mut self, lane: LaneId) -> Option<(Place, EventRecord)> {
        let (place, event) = self.lanes.finish(lane)?;
        self.feeds[place.feed].line.leave();
        self.admit(place.feed);
        Some((place, event))
    }

    pub(super) fn show(&self, cause: &anyhow::Error) {
        self.status.send_modify(|status| {
            status.failed += 1;
            status.error = Some(format!("{cause:#}"));
        });
    }

    pub(super) fn count(&self, outcome: &'static str, events: u64) {
        let name = self.config.name.clone();
        self.metrics.output_deliveries.get_or_create(&Outcome { name, outcome }).inc_by(events);
    }
}

/// The event's JSON. What is no JSON, which a plugin's own `data` cannot make it, is kept as text.
fn payload(event: &EventRecord) -> Box<RawValue> {
    serde_json::from_slice(&event.json).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&event.json);
        serde_json::value::to_raw_value(&text).unwrap_or_default()
    })
}
