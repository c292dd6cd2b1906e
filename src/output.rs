//! Outputs: what walmill connects to and delivers events to, each at its own pace and from its own
//! durable checkpoint.
//!
//! [`deliver`] is the part that all have in common: reading streams, order per key, retries, dead
//! letters, the checkpoint. A kind of output, such as [`webhook`], only knows how events are handed
//! over and what the far side's answer means.

pub mod broker;
pub mod deliver;
pub mod envelope;
pub mod format;
#[cfg_attr(not(feature = "kafka"), path = "output/kafka_missing.rs")]
pub mod kafka;
// So that its test runs where everything else is tested.
#[cfg(all(test, feature = "kafka"))]
#[path = "output/kafka_missing.rs"]
pub mod kafka_missing;
pub mod nats;
pub mod redis;
pub mod template;
pub mod webhook;

use std::future::Future;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Deserialize;

use crate::model::attempt::{Attempt, Exchange};
use crate::model::pattern::Glob;
use crate::model::{EventId, EventRecord, clock};

/// `[[output.KIND]]`, a table per kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[[output.webhook]]`
    #[serde(default)]
    pub webhook: Vec<webhook::Config>,
    /// `[[output.nats]]`
    #[serde(default)]
    pub nats: Vec<nats::Config>,
    /// `[[output.redis]]`
    #[serde(default)]
    pub redis: Vec<redis::Config>,
    /// `[[output.kafka]]`
    #[serde(default)]
    pub kafka: Vec<kafka::Config>,
}

/// What all kinds of outputs have in their sections.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// `output.KIND[INDEX]`
    pub kind: &'static str,
    /// Which one of its kind.
    pub index: usize,
    /// Its name.
    pub name: &'a str,
    /// The streams that it delivers.
    pub streams: &'a [Glob],
}

impl Config {
    /// Every output, of whatever kind.
    pub fn sections(&self) -> impl Iterator<Item = Section<'_>> {
        let webhooks = self.webhook.iter().map(|it| ("webhook", &it.name, &it.streams));
        let brokers = self.brokers().map(|(kind, it)| (kind, &it.name, &it.streams));
        let mut index = 0;
        let mut last = "";
        webhooks.chain(brokers).map(move |(kind, name, streams)| {
            index = if std::mem::replace(&mut last, kind) == kind { index + 1 } else { 0 };
            Section { kind, index, name, streams }
        })
    }

    /// The names of those that the other config has just so.
    #[must_use]
    pub fn same_in(&self, other: &Self) -> Vec<String> {
        fn same<'a, C: PartialEq>(own: &'a [C], other: &'a [C]) -> impl Iterator<Item = &'a C> {
            own.iter().filter(|config| other.contains(config))
        }
        let webhooks = same(&self.webhook, &other.webhook).map(|it| &it.name);
        let nats = same(&self.nats, &other.nats).map(|it| &it.delivery.name);
        let redis = same(&self.redis, &other.redis).map(|it| &it.delivery.name);
        let kafka = same(&self.kafka, &other.kafka).map(|it| &it.delivery().name);
        webhooks.chain(nats).chain(redis).chain(kafka).cloned().collect()
    }

    fn brokers(&self) -> impl Iterator<Item = (&'static str, &broker::Delivery)> {
        let nats = self.nats.iter().map(|it| ("nats", &it.delivery));
        let redis = self.redis.iter().map(|it| ("redis", &it.delivery));
        let kafka = self.kafka.iter().map(|it| ("kafka", it.delivery()));
        nats.chain(redis).chain(kafka)
    }
}

/// A far side that takes events.
pub trait Output: Send + Sync + 'static {
    /// What kind it is, as in the config: `webhook`.
    fn kind(&self) -> &'static str;

    /// Where it delivers to, without secrets, for a person.
    fn target(&self) -> String;

    /// How much it takes in one call.
    fn batch(&self) -> Batch {
        Batch::ONE
    }

    /// How long a batch that is not full waits for more.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }

    /// Hands events over, at least one, in this order. `Ok` means that the far side has taken all
    /// of them and answers for them.
    ///
    /// Several may be of one key. So once one was not taken, none of its key behind it may be.
    fn deliver(
        &self,
        events: &[EventRecord],
    ) -> impl Future<Output = Result<(), Undelivered>> + Send;
}

/// How many events one call of [`Output::deliver`] carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// At most so many events.
    pub events: NonZeroUsize,
    /// At most so many bytes of JSON, unless the first event alone has more.
    pub bytes: usize,
    /// Whether several of them may be of one key.
    pub same_key: bool,
}

impl Batch {
    /// Each event by itself.
    pub const ONE: Self = Self { events: NonZeroUsize::MIN, bytes: 0, same_key: false };
}

/// A batch that was not taken as a whole.
#[derive(Debug)]
pub struct Undelivered {
    /// So many events, counted from the first, were taken.
    pub taken: usize,
    /// Why the next was not. Those behind it come again, whether they were taken or not.
    pub error: DeliverError,
}

impl From<DeliverError> for Undelivered {
    /// Nothing was taken.
    fn from(error: DeliverError) -> Self {
        Self { taken: 0, error }
    }
}

impl DeliverError {
    fn parts(&self) -> (&anyhow::Error, &str) {
        match self {
            Self::Unavailable { cause, answer, .. } | Self::Refused { cause, answer, .. } => {
                (cause, answer)
            }
            Self::Gone(cause) => (cause, ""),
        }
    }

    /// Why, with the beginning of the answer: for a dead letter.
    #[must_use]
    pub fn reason(&self) -> String {
        match self.parts() {
            (cause, "") => format!("{cause:#}"),
            (cause, answer) => format!("{cause:#}: {answer}"),
        }
    }

    /// The try that it ended, for a dead letter.
    #[must_use]
    pub fn attempt(&self, took: Duration) -> Attempt {
        let (cause, _) = self.parts();
        let exchange = cause.downcast_ref::<Exchange>();
        Attempt {
            time: clock::now(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            error: format!("{cause:#}"),
            request: exchange.map(|exchange| exchange.request.clone()),
            response: exchange.and_then(|exchange| exchange.response.clone()),
        }
    }
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

impl DeliverError {
    /// The far side did not take the event now, for this reason.
    pub fn unavailable(cause: impl Into<anyhow::Error>) -> Self {
        Self::Unavailable { cause: cause.into(), answer: String::new(), retry_after: None }
    }
}
