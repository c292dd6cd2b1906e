//! Outputs: what walmill connects to and delivers events to, each at its own pace and from its own
//! durable checkpoint.
//!
//! [`deliver`] is the part that all have in common: reading streams, order per key, retries, dead
//! letters, the checkpoint. A kind of output, such as [`webhook`], only knows how one event is
//! handed over and what the far side's answer means.

pub mod deliver;
pub mod webhook;

use std::future::Future;
use std::time::Duration;

use serde::Deserialize;

use crate::model::{EventId, EventRecord};

/// `[[output.KIND]]`, a table per kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[[output.webhook]]`
    #[serde(default)]
    pub webhook: Vec<webhook::Config>,
}

/// A far side that takes events.
pub trait Output: Send + Sync + 'static {
    /// What kind it is, as in the config: `webhook`.
    fn kind(&self) -> &'static str;

    /// Where it delivers to, without secrets, for a person.
    fn target(&self) -> String;

    /// Hands one event over. `Ok` means that the far side has taken it and answers for it.
    fn deliver(&self, event: &EventRecord)
    -> impl Future<Output = Result<(), DeliverError>> + Send;
}

/// Why an event did not arrive. Each variant is a decision, and says what happens next.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The far side did not take the event now. The same event is tried again, later and later.
    #[error("output is unavailable")]
    Unavailable {
        /// Why.
        #[source]
        cause: anyhow::Error,
        /// The beginning of what it answered: for the dead letter, and not for the log, because it
        /// may repeat values of rows.
        answer: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The far side will never take this event. It goes to the dead letters; the rest go on.
    #[error("event {event} was refused")]
    Refused {
        /// Which event.
        event: EventId,
        /// Why.
        #[source]
        cause: anyhow::Error,
        /// The beginning of what it answered.
        answer: String,
    },
    /// The far side wants nothing from us any more. The output stops where it is, so that nothing
    /// is lost, and a person decides.
    #[error("output is gone")]
    Gone(#[source] anyhow::Error),
}
