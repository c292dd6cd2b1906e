//! Redis Streams: events are added with `XADD`, a batch of them in one transaction.
//!
//! What an answer means:
//!
//! | answer | what happens |
//! | --- | --- |
//! | all were added | taken |
//! | none were (out of memory, read-only, loading, no right, …), or no answer | tried again until they are taken |
//! | some were not (their key is no stream) | those before the first are taken, and it is tried again |
//!
//! Redis runs a transaction as a whole or not at all, so that a connection that breaks in the
//! middle leaves nothing half done, and of each Redis stream all commands fail or none. Before
//! anything is tried again on a new connection, the old one is ended at the server: what still lay
//! there unread must not come behind what is newer.

mod config;

use anyhow::{Context as _, anyhow};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, Pipeline, RedisError, RedisResult,
    TlsCertificates, Value, cmd,
};
use tokio::sync::Mutex;

use super::broker::{Link, Tls};
use super::envelope::Envelope;
use super::format::{Encoder, Message};
use super::{Batch, DeliverError, Output, Undelivered};
use crate::model::EventRecord;
pub use config::{Address, Config};

/// Bytes of events in one transaction: it keeps other clients waiting.
const BATCH_BYTES: usize = 1 << 20;
/// Redis takes no longer value (`proto-max-bulk-len`): it ends the connection without an answer.
const LONGEST_VALUE: usize = 512 << 20;

/// A Redis server.
pub struct Redis {
    config: Config,
    encoder: Encoder,
    client: Client,
    /// What walmill's connections are called at the server; nobody else's are.
    client_name: String,
    link: Link<MultiplexedConnection>,
    /// The number of the connection that was last made.
    last: Mutex<Option<u64>>,
}

impl Redis {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The TLS certificates cannot be used.
    pub fn new(config: &Config, database: &str) -> anyhow::Result<Self> {
        let name = &config.delivery.name;
        Ok(Self {
            config: config.clone(),
            encoder: Encoder::new(config.format, database, false),
            client: client(config).with_context(|| format!("set up output {name}"))?,
            client_name: format!("walmill-{:016x}", rand::random::<u64>()),
            link: Link::default(),
            last: Mutex::default(),
        })
    }

    async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        let timeout = Some(self.config.timeout.duration());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(timeout)
            .set_response_timeout(timeout);
        let connected = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection =
            connected.with_context(|| format!("connect to {}", self.config.url))?;
        self.end_the_last(&mut connection).await?;
        Ok(connection)
    }

    /// Ends the connection before this one, if the server still has it. A server that does not let
    /// us do so has none of ours under this name, or keeps the order by itself only.
    async fn end_the_last(&self, connection: &mut MultiplexedConnection) -> anyhow::Result<()> {
        let mut last = self.last.lock().await;
        if let Some(id) = *last {
            let mut list = cmd("CLIENT");
            list.arg("LIST").arg("ID").arg(id);
            let listed = unless_lost(list.query_async::<String>(connection).await)?;
            let ours = format!(" name={} ", self.client_name);
            if listed.is_some_and(|line| line.contains(&ours)) {
                let mut kill = cmd("CLIENT");
                kill.arg("KILL").arg("ID").arg(id);
                unless_lost(kill.query_async::<Value>(connection).await)?;
            }
        }
        let mut name = cmd("CLIENT");
        name.arg("SETNAME").arg(&self.client_name);
        unless_lost(name.query_async::<Value>(connection).await)?;
        *last = unless_lost(cmd("CLIENT").arg("ID").query_async::<u64>(connection).await)?;
        Ok(())
    }

    /// The commands of as many events as can be sent, which event each is of, and why the next
    /// cannot be.
    fn commands(&self, events: &[EventRecord]) -> Commands {
        let mut pipeline = Pipeline::with_capacity(events.len());
        pipeline.atomic().ignore_errors();
        let mut commands = Commands { pipeline, events: Vec::new(), stopped: Ok(()) };
        for (index, event) in events.iter().enumerate() {
            match self.event(event) {
                Ok(entries) => {
                    for entry in entries {
                        commands.pipeline.add_command(entry);
                        commands.events.push(index);
                    }
                }
                Err(error) => {
                    commands.stopped = Err(Undelivered { taken: index, error });
                    break;
                }
            }
        }
        commands
    }

    fn event(&self, event: &EventRecord) -> Result<Vec<Cmd>, DeliverError> {
        let envelope = Envelope::read(event)?;
        if event.json.len() >= LONGEST_VALUE {
            return Err(DeliverError::Refused {
                event: envelope.id(),
                cause: anyhow!("the event is larger than a value in Redis can be, 512 MiB"),
                answer: String::new(),
            });
        }
        let key = self.config.key.name(&envelope)?;
        let messages = self.encoder.messages(&envelope);
        Ok(messages.iter().map(|message| self.entry(&key, message)).collect())
    }

    fn entry(&self, key: &str, message: &Message<'_>) -> Cmd {
        let mut entry = cmd("XADD");
        entry.arg(key);
        if let Some(maxlen) = self.config.maxlen {
            entry.arg("MAXLEN").arg("~").arg(maxlen.get());
        }
        entry.arg("*");
        for (name, value) in message.attributes {
            entry.arg(&**name).arg(&**value);
        }
        let body = message.body.as_deref().unwrap_or_default();
        match self.encoder {
            Encoder::CloudEvents | Encoder::Plain => entry.arg("data").arg(body),
            // As Debezium's own server names them.
            Encoder::Debezium(_) => entry.arg("key").arg(&*message.key).arg("value").arg(body),
        };
        entry
    }
}

struct Commands {
    pipeline: Pipeline,
    /// Which event each command is of.
    events: Vec<usize>,
    stopped: Result<(), Undelivered>,
}

impl Output for Redis {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn target(&self) -> String {
        self.config.url.to_string()
    }

    fn batch(&self) -> Batch {
        Batch { events: self.config.batch, bytes: BATCH_BYTES, same_key: true }
    }

    async fn deliver(&self, events: &[EventRecord]) -> Result<(), Undelivered> {
        let commands = self.commands(events);
        if commands.events.is_empty() {
            return commands.stopped;
        }
        let mut connection = self.link.get(|| self.connect()).await?;
        let answers: RedisResult<Vec<RedisResult<Value>>> =
            commands.pipeline.query_async(&mut connection).await;
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                if ends_connection(&error) {
                    self.link.drop().await;
                }
                return Err(unavailable(&error).into());
            }
        };
        for (&taken, answer) in commands.events.iter().zip(answers) {
            answer.map_err(|error| Undelivered { taken, error: unavailable(&error) })?;
        }
        commands.stopped
    }
}

fn client(config: &Config) -> anyhow::Result<Client> {
    let info = config.url.info.clone();
    let mut settings = info.redis_settings().clone();
    if let Some(user) = &config.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &config.password {
        settings = settings.set_password(password.reveal());
    }
    let info = info.set_redis_settings(settings);
    if let redis::ConnectionAddr::TcpTls { .. } = info.addr() {
        return Ok(Client::build_with_tls(info, certificates(&config.tls))?);
    }
    Ok(Client::open(info)?)
}

fn certificates(tls: &Tls) -> TlsCertificates {
    let bytes = |secret: &crate::model::Secret| secret.reveal().as_bytes().to_vec();
    TlsCertificates {
        client_tls: tls.client.as_ref().map(|(certificate, key)| ClientTlsConfig {
            client_cert: bytes(certificate),
            client_key: bytes(key),
        }),
        root_cert: tls.ca.as_ref().map(bytes),
    }
}

/// What the server answered; nothing where it says no, for old servers lack some commands and
/// users some rights.
fn unless_lost<T>(answer: RedisResult<T>) -> RedisResult<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_io_error() || error.is_timeout() => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether it needs another connection: this one is broken, or leads to a server that is no longer
/// the one to write to.
fn ends_connection(error: &RedisError) -> bool {
    match said(error) {
        Some((code, _)) => matches!(code.as_str(), "READONLY" | "MASTERDOWN"),
        None => true,
    }
}

/// The code and the text of the server's first error, if it is one of the server's.
fn said(error: &RedisError) -> Option<(String, String)> {
    let errors = error.clone().into_server_errors()?;
    let (_, first) = errors.first()?;
    Some((first.code().to_owned(), first.details().unwrap_or_default().to_owned()))
}

fn unavailable(error: &RedisError) -> DeliverError {
    let Some((code, text)) = said(error) else {
        return DeliverError::unavailable(anyhow!("{error}"));
    };
    let hint = match code.as_str() {
        "OOM" => "; give the server more memory, or let the streams be cut with `maxlen`",
        "WRONGTYPE" => "; the key is no stream: choose another `key`",
        "READONLY" => "; it is a replica: the `url` has to lead to the primary",
        "NOAUTH" => "; give `password`",
        _ => "",
    };
    DeliverError::unavailable(anyhow!("{code} {text}{hint}"))
}
