//! Dead letters that a person wants delivered again: one at a time, beside the streams, under the
//! ids that they had. They are late already, so they keep no order with what the streams bring.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::feed::blocking;
use super::{Delivery, End};
use crate::model::attempt;
use crate::output::{DeliverError, Output, Undelivered};
use crate::store::dead_letter::{DeadLetter, Owner};
use crate::store::{Store, StoreError};

/// What there is to deliver again.
pub struct Letters {
    news: watch::Receiver<u64>,
    /// Whether there may be one.
    more: bool,
    /// Whether one is under way.
    busy: bool,
}

/// A letter's try.
pub struct Tried {
    letter: u64,
    event: String,
    error: Option<DeliverError>,
    /// What the letter is now is on disk.
    kept: Result<(), StoreError>,
}

impl Letters {
    /// Also those that were asked for before a restart.
    pub fn new(store: &Store) -> Self {
        Self { news: store.again_news(), more: true, busy: false }
    }

    /// Becomes ready when a person asked for another try, or for a replay.
    pub async fn changed(&mut self) {
        match self.news.changed().await {
            Ok(()) => self.more = true,
            // The sender lives as long as the store.
            Err(_) => std::future::pending().await,
        }
    }
}

impl<O: Output> Delivery<O> {
    /// Whether there is a letter to be sent, and the far side may be spoken to.
    pub(super) fn may_send_letter(&self) -> bool {
        let Letters { more, busy, .. } = self.letters;
        more && !busy && self.may_start() && self.gate.closed_until(Instant::now()).is_none()
    }

    /// Sends the next letter.
    pub(super) async fn send_letter(&mut self) -> Result<(), StoreError> {
        let (store, name) = (self.store.clone(), self.config.name.clone());
        let next = blocking(move || store.next_dead_letter(Owner::Output(&name), 0)).await?;
        let Some((id, letter)) = next else {
            self.letters.more = false;
            return Ok(());
        };
        self.letters.busy = true;
        let (output, store) = (self.output.clone(), self.store.clone());
        self.sending.spawn(async move {
            let (start, event) = (Instant::now(), letter.event.clone());
            let sent = match letter.delivered_again() {
                Some(event) => output.deliver(std::slice::from_ref(&event)).await,
                None => return super::Try::Letter(unreadable(store, id, letter).await),
            };
            let error = sent.err().map(|Undelivered { error, .. }| error);
            let kept = settle(store, id, letter, error.as_ref(), start.elapsed()).await;
            super::Try::Letter(Tried { letter: id, event, error, kept })
        });
        Ok(())
    }

    /// Acts on what came of a letter.
    pub(super) fn letter_tried(&mut self, tried: Tried) -> Result<(), End> {
        self.letters.busy = false;
        let Tried { letter, event, error, kept } = tried;
        let output = &self.config.name;
        kept.map_err(End::Failed)?;
        match error {
            None => {
                tracing::info!(output, event, letter, "a dead letter is delivered");
                self.count("ok", 1);
                self.gate.succeeded();
                self.status.send_modify(|status| status.delivered += 1);
            }
            Some(DeliverError::Gone(cause)) => return Err(self.gone(&cause)),
            Some(DeliverError::Refused { cause, .. } | DeliverError::Unavailable { cause, .. }) => {
                tracing::warn!(output, event, letter, "a dead letter was not taken: {cause:#}");
                self.count("dead_letter", 1);
                self.show(&cause);
            }
        }
        Ok(())
    }
}

/// Writes down what a letter's try came to.
async fn settle(
    store: Store,
    id: u64,
    mut letter: DeadLetter,
    error: Option<&DeliverError>,
    took: Duration,
) -> Result<(), StoreError> {
    let Some(error) = error else {
        return blocking(move || store.dead_letter_delivered(id)).await;
    };
    if let DeliverError::Gone(_) = error {
        // The output stops, and a person decides. Then this is still to be done.
        return Ok(());
    }
    letter.reason = error.reason();
    letter.attempts = letter.attempts.saturating_add(1);
    attempt::keep(&mut letter.tries, error.attempt(took));
    blocking(move || store.dead_letter_failed(id, &letter)).await
}

async fn unreadable(store: Store, id: u64, mut letter: DeadLetter) -> Tried {
    letter.reason = format!("{} (what is kept of it is no event)", letter.reason);
    let event = letter.event.clone();
    let kept = blocking(move || store.dead_letter_failed(id, &letter)).await;
    Tried { letter: id, event, error: None, kept }
}
