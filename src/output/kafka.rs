//! Kafka: an idempotent producer, and the row's key decides the partition.
//!
//! What an answer means:
//!
//! | answer | what happens |
//! | --- | --- |
//! | all replicas in sync have it | taken |
//! | larger than the client, the topic or the broker takes | the event goes to the dead letters |
//! | the producer was fenced, or failed for good | a new producer goes on where this one was |
//! | everything else (no such topic, no right), or none | tried again until it is taken |
//!
//! librdkafka tries again by itself, in order and without duplicates, for as long as it takes. When
//! an answer is late the output says so, and goes on waiting for that answer: what was handed over
//! once is not handed over again.

mod config;

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout_at};

use super::broker::Delivery;
use super::envelope::Envelope;
use super::format::{Encoder, Message};
use super::{Batch, DeliverError, Output, Undelivered};
use crate::model::{EventId, EventRecord, Offset};
pub use config::Config;

/// Events in one batch.
const BATCH_EVENTS: NonZeroUsize = NonZeroUsize::new(2000).expect("not zero");
/// Bytes of events in one batch.
const BATCH_BYTES: usize = 4 << 20;

/// A Kafka cluster.
pub struct Kafka {
    config: Config,
    encoder: Encoder,
    state: AsyncMutex<State>,
}

struct State {
    producer: FutureProducer<Notes>,
    notes: Notes,
    /// What was handed to the producer and has not been seen to be answered.
    pending: HashMap<Name, Pending>,
}

struct Pending {
    answers: VecDeque<DeliveryFuture>,
    /// Whether nothing else was under way, so that no answer is about another event.
    alone: bool,
}

/// An event by its stream, its place and its key: two pipelines make events of one place and one
/// key from a table that both read. Not by its JSON, which says more when it is replayed.
type Name = (Box<str>, Offset, Bytes);

/// Why librdkafka last had trouble.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Option<String>>>);

impl ClientContext for Notes {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("kafka: {error}: {reason}");
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(reason.to_owned());
    }
}

impl Notes {
    fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Config {
    /// Its name, its streams and how they are delivered.
    #[must_use]
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", format!("walmill-{}", self.delivery.name))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // What is given up could be overtaken by what is behind it. So the producer fails as a
            // whole instead, nothing behind it has been sent by then, and a new one begins there.
            .set("enable.gapless.guarantee", "true")
            .set("max.in.flight.requests.per.connection", "1")
            .set("message.timeout.ms", "0")
            // As other clients choose a key's partition.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "2");
        for (key, value) in &self.properties {
            client.set(key, value.reveal());
        }
        client
    }
}

impl State {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let notes = Notes::default();
        let producer = config.client().create_with_context(notes.clone());
        let name = &config.delivery.name;
        let producer = producer.with_context(|| format!("set up output {name}"))?;
        Ok(Self { producer, notes, pending: HashMap::new() })
    }

    /// Waits until the event's messages are all answered.
    async fn answer(&mut self, event: &Name) -> Result<(), KafkaError> {
        let Some(Pending { answers, .. }) = self.pending.get_mut(event) else { return Ok(()) };
        while let Some(answer) = answers.front_mut() {
            match answer.await {
                Ok(Ok(_)) => answers.pop_front(),
                Ok(Err((error, _))) => return Err(error),
                Err(_) => return Err(KafkaError::Canceled),
            };
        }
        Ok(())
    }
}

impl Kafka {
    /// Begins to look for the brokers.
    ///
    /// # Errors
    /// A property that librdkafka does not know, or cannot do.
    pub fn new(config: &Config, database: &str) -> anyhow::Result<Self> {
        Ok(Self {
            config: config.clone(),
            encoder: Encoder::new(config.format, database, config.tombstones),
            state: AsyncMutex::new(State::new(config)?),
        })
    }

    /// Hands those events to the producer that it does not have already.
    /// `names` are those of the events that it has then.
    fn hand_over(
        &self,
        state: &mut State,
        events: &[EventRecord],
        names: &mut Vec<Name>,
    ) -> Result<(), Undelivered> {
        for (taken, event) in events.iter().enumerate() {
            let failed = |error| Undelivered { taken, error };
            let envelope = Envelope::read(event).map_err(failed)?;
            let stream = envelope.attribute("stream").into();
            let name = (stream, event.offset, event.key.clone());
            if !state.pending.contains_key(&name) {
                let alone = events.len() == 1 && state.pending.is_empty();
                let answers = self.produce(state, &envelope).map_err(failed)?;
                state.pending.insert(name.clone(), Pending { answers, alone });
            }
            names.push(name);
        }
        Ok(())
    }

    fn produce(
        &self,
        state: &State,
        envelope: &Envelope<'_>,
    ) -> Result<VecDeque<DeliveryFuture>, DeliverError> {
        let topic = self.config.topic.name(envelope)?;
        let mut answers = VecDeque::with_capacity(1);
        for message in self.encoder.messages(envelope) {
            let record = FutureRecord::to(&topic).key(&*message.key).headers(headers(&message));
            let record = match message.body.as_deref() {
                Some(body) => record.payload(body),
                None => record,
            };
            match state.producer.send_result(record) {
                Ok(answer) => answers.push_back(answer),
                // It is too large even for itself.
                Err((error, _)) => return Err(self.judge(envelope.id(), &error, true)),
            }
        }
        Ok(answers)
    }

    /// `alone`: no other event can be what the answer is about.
    fn judge(&self, event: EventId, error: &KafkaError, alone: bool) -> DeliverError {
        let topic = &self.config.topic;
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
                if alone =>
            {
                let cause = anyhow!("the event is too large: {error}");
                DeliverError::Refused { event, cause, answer: String::new() }
            }
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => DeliverError::unavailable(anyhow!(
                "there is no such topic (`{topic}`): {error}; make it, or let the brokers make \
                 topics"
            )),
            _ => DeliverError::unavailable(anyhow!("{error}")),
        }
    }

    /// Where the producer has failed for good, another takes its place: what it had not answered
    /// is handed over again.
    async fn renew(&self, state: &mut State) {
        let Some((code, reason)) = state.producer.client().fatal_error() else { return };
        let output = &self.config.delivery.name;
        tracing::warn!(
            output,
            "the producer has failed, a new one takes its place: {code}: {reason}"
        );
        match State::new(&self.config) {
            Ok(new) => {
                let old = std::mem::replace(state, new);
                // It waits for threads of its own.
                let _ = tokio::task::spawn_blocking(move || drop(old)).await;
            }
            // It had the same config; the next try makes it.
            Err(error) => tracing::error!(output, "no new producer: {error:#}"),
        }
    }
}

impl Output for Kafka {
    fn kind(&self) -> &'static str {
        "kafka"
    }

    fn target(&self) -> String {
        self.config.brokers.join(", ")
    }

    fn batch(&self) -> Batch {
        Batch { events: BATCH_EVENTS, bytes: BATCH_BYTES, same_key: true }
    }

    async fn deliver(&self, events: &[EventRecord]) -> Result<(), Undelivered> {
        let mut state = self.state.lock().await;
        let mut names = Vec::with_capacity(events.len());
        let stopped = self.hand_over(&mut state, events, &mut names);
        let deadline = Instant::now() + self.config.timeout.duration();
        for (taken, (event, name)) in events.iter().zip(&names).enumerate() {
            let error = match timeout_at(deadline, state.answer(name)).await {
                Ok(Ok(())) => {
                    state.pending.remove(name);
                    continue;
                }
                Ok(Err(error)) => {
                    let pending = state.pending.remove(name);
                    let alone = pending.is_some_and(|pending| pending.alone);
                    let error = self.judge(event.id(), &error, alone);
                    self.renew(&mut state).await;
                    error
                }
                Err(_) => DeliverError::unavailable(match state.notes.last() {
                    Some(why) => anyhow!("no answer within {}: {why}", self.config.timeout),
                    None => anyhow!("no answer within {}", self.config.timeout),
                }),
            };
            return Err(Undelivered { taken, error });
        }
        if stopped.is_err() {
            self.renew(&mut state).await;
        }
        stopped
    }
}

/// A CloudEvent's attributes, as the Kafka protocol binding names them.
fn headers(message: &Message<'_>) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(message.attributes.len());
    for (name, value) in message.attributes {
        let value = Some(value.as_bytes());
        headers = match &**name {
            "datacontenttype" => headers.insert(Header { key: "content-type", value }),
            name => headers.insert(Header { key: &format!("ce_{name}"), value }),
        };
    }
    headers
}
