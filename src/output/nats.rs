//! NATS JetStream: each event is published under its id and counts once the server has stored it.
//!
//! What an answer means:
//!
//! | answer | what happens |
//! | --- | --- |
//! | stored, or known under this id | taken |
//! | larger than the server or the stream takes | the event goes to the dead letters |
//! | everything else, or none | tried again until it is taken |
//!
//! Many events are under way at a time, but of each key one: a server that has no leader for a
//! moment may refuse an event and take the one behind it. Where nobody else writes to the stream
//! (`exclusive`), each event names the one before it as the last that must have been stored, and
//! the server keeps the order by itself; then a whole batch goes at once, whatever its keys.

mod answers;
mod config;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::connection::State;
use async_nats::header::IntoHeaderName as _;
use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, HeaderName, header};
use bytes::Bytes;
use rustls::ClientConfig;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::broker::Link;
use super::envelope::Envelope;
use super::format::{Encoder, Message};
use super::{Batch, DeliverError, Output, Undelivered};
use crate::model::{EventId, EventRecord};
use answers::{Answers, Refusal};
pub use config::{Config, Login, Server};

/// Bytes of events in one batch.
const BATCH_BYTES: usize = 4 << 20;
/// The longest wait before another try to connect anew.
const LONGEST_RECONNECT: Duration = Duration::from_secs(2);

/// A NATS server, or a cluster of them.
pub struct Nats {
    config: Config,
    encoder: Encoder,
    tls: Option<ClientConfig>,
    link: Link<Connection>,
}

#[derive(Clone)]
struct Connection {
    client: Client,
    /// Held by the batch under way.
    answers: Arc<Mutex<Answers>>,
    /// How often the connection was lost, and why last.
    lost: watch::Receiver<Lost>,
}

#[derive(Debug, Clone, Default)]
struct Lost {
    times: u64,
    why: Option<Arc<str>>,
}

impl Nats {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The system's TLS certificates cannot be read.
    pub fn new(config: &Config, database: &str) -> anyhow::Result<Self> {
        let tls = config.tls.as_ref().map(|tls| tls.client_config()).transpose();
        Ok(Self {
            config: config.clone(),
            encoder: Encoder::new(config.format, database, false),
            tls: tls.with_context(|| format!("set up output {}", config.delivery.name))?,
            link: Link::default(),
        })
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let (sender, lost) = watch::channel(Lost::default());
        let servers: Vec<&str> = self.config.servers.iter().map(Server::as_str).collect();
        let client = self
            .options()?
            .event_callback(move |event| {
                note(&sender, &event);
                std::future::ready(())
            })
            .connect(servers.as_slice())
            .await
            .with_context(|| format!("connect to {}", self.target()))?;
        let context =
            ContextBuilder::new().timeout(self.config.timeout.duration()).build(client.clone());
        if self.config.create_stream {
            self.make_stream(&context).await?;
        }
        let answers = Answers::open(&client).await.context("subscribe to answers")?;
        Ok(Connection { client, answers: Arc::new(Mutex::new(answers)), lost })
    }

    fn options(&self) -> anyhow::Result<ConnectOptions> {
        let options = match &self.config.login {
            Login::None => ConnectOptions::new(),
            Login::Token(token) => ConnectOptions::with_token(token.reveal().to_owned()),
            Login::User(user, password) => {
                ConnectOptions::with_user_and_password(user.clone(), password.reveal().to_owned())
            }
            Login::NKey(seed) => ConnectOptions::with_nkey(seed.reveal().to_owned()),
            Login::Credentials(content) => {
                // Without the line break at its end, which secrets lose, it would not be read.
                let content = format!("{}\n", content.reveal());
                ConnectOptions::with_credentials(&content)
                    .map_err(|_| anyhow!("`credentials` is not the content of a .creds file"))?
            }
        };
        let options = options
            .name(format!("walmill {}", self.config.delivery.name))
            .connection_timeout(self.config.timeout.duration())
            // An answer for each message, and as many that are late; more would be thrown away.
            .subscription_capacity(4 * self.config.in_flight.get().clamp(1024, 1 << 24))
            .reconnect_delay_callback(|attempts| {
                let doubled = Duration::from_millis(50 << attempts.min(6));
                doubled.min(LONGEST_RECONNECT)
            });
        Ok(match &self.tls {
            None => options,
            Some(tls) => options.require_tls(true).tls_client_config(tls.clone()),
        })
    }

    async fn make_stream(&self, context: &Context) -> anyhow::Result<()> {
        let Some(name) = &self.config.stream else { return Ok(()) };
        let subjects = self.config.stream_subject().into_iter().collect();
        let stream =
            jetstream::stream::Config { name: name.clone(), subjects, ..Default::default() };
        let made = context.get_or_create_stream(stream).await;
        made.map(|_| ()).with_context(|| format!("make the JetStream stream {name}"))
    }

    fn headers(&self, message: &Message<'_>, previous: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in message.attributes {
            headers.insert(header_name(name), header_value(value).as_ref());
        }
        if message.attributes.is_empty() {
            headers.insert(CONTENT_TYPE, "application/json");
        }
        headers.insert(header::NATS_MESSAGE_ID, message.id.as_str());
        if let Some(stream) = &self.config.stream {
            headers.insert(header::NATS_EXPECTED_STREAM, stream.as_str());
        }
        if let Some(previous) = previous.filter(|_| self.config.exclusive) {
            headers.insert(header::NATS_EXPECTED_LAST_MESSAGE_ID, previous);
        }
        headers
    }
}

impl Output for Nats {
    fn kind(&self) -> &'static str {
        "nats"
    }

    fn target(&self) -> String {
        let servers = self.config.servers.iter().map(Server::as_str);
        servers.collect::<Vec<_>>().join(", ")
    }

    fn batch(&self) -> Batch {
        Batch { events: self.config.in_flight, bytes: BATCH_BYTES, same_key: self.config.exclusive }
    }

    async fn deliver(&self, events: &[EventRecord]) -> Result<(), Undelivered> {
        let Connection { client, answers, mut lost } = self.link.get(|| self.connect()).await?;
        lost.mark_unchanged();
        if client.connection_state() != State::Connected {
            return Err(not_connected(&lost.borrow()).into());
        }
        let mut answers = answers.lock().await;
        let mut batch = answers.begin();
        let patience = self.config.timeout.duration();
        let delivered = async {
            let sent = timeout(patience, self.send(&client, events, &mut batch)).await;
            batch.stored(patience).await.map_err(|(taken, refusal)| {
                let error = judge(events[taken].id(), refusal);
                Undelivered { taken, error }
            })?;
            sent.unwrap_or_else(|_late| {
                let error = DeliverError::unavailable(Refusal::Late);
                Err(Undelivered { taken: batch.taken(), error })
            })
        };
        let delivered = tokio::select! {
            biased;
            delivered = delivered => Some(delivered),
            _ = lost.changed() => None,
        };
        delivered.unwrap_or_else(|| {
            let error = not_connected(&lost.borrow());
            Err(Undelivered { taken: batch.taken(), error })
        })
    }
}

impl Nats {
    /// Sends events without waiting for answers, up to one that cannot be sent.
    async fn send(
        &self,
        client: &Client,
        events: &[EventRecord],
        batch: &mut answers::Batch<'_>,
    ) -> Result<(), Undelivered> {
        let mut previous = None;
        for (index, event) in events.iter().enumerate() {
            self.send_event(client, (index, event), &mut previous, batch)
                .await
                .map_err(|error| Undelivered { taken: index, error })?;
        }
        Ok(())
    }

    async fn send_event(
        &self,
        client: &Client,
        (index, event): (usize, &EventRecord),
        previous: &mut Option<String>,
        batch: &mut answers::Batch<'_>,
    ) -> Result<(), DeliverError> {
        let envelope = Envelope::read(event)?;
        let subject = self.config.subject.name(&envelope)?;
        for mut message in self.encoder.messages(&envelope) {
            if self.config.reads_several() {
                message.id = format!("{}/{}", envelope.attribute("stream"), message.id);
            }
            if event.is_replayed() {
                // A person wants it once more, whatever the server has seen of it lately.
                message.id = format!("{}/{:08x}", message.id, rand::random::<u32>());
            }
            let headers = self.headers(&message, previous.as_deref());
            let (subject, reply) = (subject.to_string(), batch.reply());
            let body = shared(&event.json, message.body);
            let sent = client.publish_with_reply_and_headers(subject, reply, headers, body).await;
            sent.map_err(|error| unsent(event, error))?;
            batch.sent(index);
            *previous = Some(message.id);
        }
        Ok(())
    }
}

/// A message's body without a copy, where it is a part of the event as it stands.
fn shared(event: &Bytes, body: Option<Cow<'_, [u8]>>) -> Bytes {
    match body {
        None => Bytes::new(),
        Some(Cow::Owned(body)) => body.into(),
        Some(Cow::Borrowed(body)) => {
            let (whole, part) = (event.as_ptr_range(), body.as_ptr_range());
            match whole.start <= part.start && part.end <= whole.end {
                true => event.slice_ref(body),
                false => Bytes::copy_from_slice(body),
            }
        }
    }
}

fn note(lost: &watch::Sender<Lost>, event: &Event) {
    match event {
        Event::Disconnected | Event::Closed => lost.send_modify(|lost| lost.times += 1),
        Event::ServerError(_) | Event::ClientError(_) => {
            let why = event.to_string().into();
            lost.send_if_modified(|lost| {
                lost.why = Some(why);
                // It is the loss of the connection that ends what is under way.
                false
            });
        }
        _ => {}
    }
}

fn not_connected(lost: &Lost) -> DeliverError {
    DeliverError::unavailable(match &lost.why {
        Some(why) => anyhow!("the connection is lost: {why}"),
        None => anyhow!("the connection is lost"),
    })
}

/// What follows from a message that could not be sent.
fn unsent(event: &EventRecord, error: PublishError) -> DeliverError {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => too_large(event.id(), error.into()),
        _ => DeliverError::unavailable(error),
    }
}

/// What follows from an answer that is not that the message is stored.
fn judge(event: EventId, refusal: Refusal) -> DeliverError {
    let code = match &refusal {
        Refusal::Server(error) => Some(error.error_code()),
        _ => None,
    };
    let cause = match (&refusal, code) {
        (_, Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)) => {
            return too_large(event, refusal.into());
        }
        (Refusal::NoStream, _) => anyhow!(
            "no JetStream stream takes the event's subject; make one, or let walmill do so with \
             `stream` and `create_stream = true`"
        ),
        (_, Some(ErrorCode::STREAM_WRONG_LAST_MESSAGE_ID)) => anyhow!(
            "the server did not store the event before this one, or somebody else writes to the \
             stream; then take out `exclusive`"
        ),
        _ => refusal.into(),
    };
    DeliverError::unavailable(cause)
}

fn too_large(event: EventId, cause: anyhow::Error) -> DeliverError {
    let cause = cause.context("the event is too large");
    DeliverError::Refused { event, cause, answer: String::new() }
}

const CONTENT_TYPE: HeaderName = HeaderName::from_static("content-type");

/// An attribute's name as CloudEvents has it in headers. Those that every event has cost no
/// allocation.
fn header_name(attribute: &str) -> HeaderName {
    HeaderName::from_static(match attribute {
        "datacontenttype" => return CONTENT_TYPE,
        "specversion" => "ce-specversion",
        "source" => "ce-source",
        "id" => "ce-id",
        "type" => "ce-type",
        "subject" => "ce-subject",
        "time" => "ce-time",
        "lsn" => "ce-lsn",
        "xid" => "ce-xid",
        "partitionkey" => "ce-partitionkey",
        "stream" => "ce-stream",
        "txend" => "ce-txend",
        other => return format!("ce-{other}").into_header_name(),
    })
}

/// A header's value as CloudEvents wants it over HTTP: what is not visible ASCII, quotes and
/// percent signs are percent-encoded, so that no value of a row can end a header.
fn header_value(value: &str) -> Cow<'_, str> {
    let plain = |byte: u8| (0x21..=0x7e).contains(&byte) && !matches!(byte, b'"' | b'%');
    if value.bytes().all(plain) {
        return Cow::Borrowed(value);
    }
    let mut encoded = String::with_capacity(value.len() + 16);
    for byte in value.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_end_a_header() {
        assert_eq!(header_value("public.t/1"), "public.t/1");
        assert_eq!(header_value("a b\r\nx: y\0%\"é"), "a%20b%0D%0Ax:%20y%00%25%22%C3%A9");
    }
}
