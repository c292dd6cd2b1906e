//! The server over a real store, without the parts around it: a test commits events itself, and
//! says what the source and the plugins would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use walmill::metrics::Metrics;
use walmill::model::access::Authorize;
use walmill::model::backfill::Backfills;
use walmill::model::event::Events;
use walmill::model::input::{Page, ReadInput};
use walmill::model::reload::Reloads;
use walmill::model::status::{PipelineStatus, PluginStatus, SourceState, SourceStatus};
use walmill::model::{Cursor, EventId, EventsBuilder, Finding, Lsn, Offset};
use walmill::server::{self, Config, State};
use walmill::store::{self, Outcome, Store};

/// A server and everything that it shows.
pub struct Serving {
    pub store: Store,
    pub metrics: Arc<Metrics>,
    pub source: watch::Sender<SourceStatus>,
    pub plugins: watch::Sender<Vec<PluginStatus>>,
    pub pipeline: watch::Sender<PipelineStatus>,
    pub address: SocketAddr,
    pub shutdown: CancellationToken,
    pub ended: JoinHandle<()>,
    committed: AtomicU64,
    _folder: TempDir,
}

/// By name.
pub type Authorizers = BTreeMap<String, Arc<dyn Authorize>>;

/// One per transaction, so that any place between two of them can be named.
const COMMIT_STEP: u64 = 8;

/// Where no pipeline runs.
struct NoInput;

impl ReadInput for NoInput {
    fn read(&self, pipeline: &str, _: Offset, _: usize) -> Result<Page, Finding> {
        Err(Finding::error("unknown-part", "pipeline", pipeline))
    }
}

/// Backfills of a source that is not there.
fn no_backfills() -> Backfills {
    Backfills { commands: mpsc::channel(1).0, status: watch::channel(Vec::new()).1 }
}

impl Serving {
    /// With the streams `posts` and `comments`, both empty.
    pub async fn start() -> Self {
        Self::configured(Config::default(), store::Config::default()).await
    }

    /// The same with another config; `listen` and `path` are chosen here.
    pub async fn configured(config: Config, store: store::Config) -> Self {
        Self::authorized(config, store, Authorizers::new()).await
    }

    /// The same with a config that is written as in the file, below `[server]`.
    pub async fn written(config: &str) -> Self {
        let config = toml::from_str(config).expect("a config");
        Self::configured(config, store::Config::default()).await
    }

    /// The same with plugins that decide about readers.
    pub async fn authorized(
        config: Config,
        store: store::Config,
        authorizers: Authorizers,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let metrics = Arc::new(Metrics::new());
        let store = store::Config { path: folder.path().to_owned(), ..store };
        let store = Store::open(&store, Arc::clone(&metrics)).expect("open the store");
        for stream in ["posts", "comments"] {
            store.declare_stream(stream, "main").expect("declare");
        }
        let (source, source_seen) = watch::channel(streaming());
        let (plugins, plugins_seen) = watch::channel(Vec::new());
        let (pipeline, pipeline_seen) = watch::channel(running());
        let state = State {
            store: store.clone(),
            metrics: Arc::clone(&metrics),
            source: source_seen,
            backfills: no_backfills(),
            plugins: plugins_seen,
            plugin_requests: mpsc::channel(1).0,
            pipelines: watch::channel(vec![pipeline_seen]).1,
            outputs: watch::channel(Vec::new()).1,
            reloads: Reloads { requests: mpsc::channel(1).0, last: watch::channel(None).1 },
            inputs: Arc::new(NoInput),
            authorizers,
        };
        let config = Config { listen: ([127, 0, 0, 1], 0).into(), ..config };
        let listener = server::bind(&config).await.expect("bind");
        let address = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let ended = tokio::spawn(server::serve(listener, config, state, shutdown.clone()));
        let committed = AtomicU64::new(0);
        Self {
            store,
            metrics,
            source,
            plugins,
            pipeline,
            address,
            shutdown,
            ended,
            committed,
            _folder: folder,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Commits a transaction of so many events to a stream.
    pub fn commit(&self, stream: &str, events: u32) {
        self.commit_with(stream, events, "");
    }

    /// The same, each with this text in it.
    pub fn commit_with(&self, stream: &str, events: u32, text: &str) {
        let commit = Lsn(COMMIT_STEP * (1 + self.committed.fetch_add(1, Ordering::Relaxed)));
        self.store
            .commit(Outcome {
                pipeline: "main".into(),
                cursor: Offset::end_of(commit),
                events: vec![(stream.into(), transaction(stream, commit, events, text))],
                ..Outcome::default()
            })
            .expect("commit");
    }

    /// Commits a transaction of one event at this second of 2026-11-25T09:30:00Z, with this text.
    pub fn commit_at(&self, stream: &str, second: u32, text: &str) {
        let commit = Lsn(COMMIT_STEP * (1 + self.committed.fetch_add(1, Ordering::Relaxed)));
        let offset = Offset::new(commit, 0);
        let event = json!({
            "specversion": "1.0", "id": EventId(offset).to_string(), "source": "/test/1/1",
            "type": "walmill.row.insert", "subject": "t/1", "stream": stream,
            "time": format!("2026-11-25T09:30:{second:02}.000000Z"), "data": text,
        });
        let mut builder = EventsBuilder::default();
        builder.committed(1_795_599_000_000_000 + i64::from(second) * 1_000_000);
        builder.push(
            offset,
            |bytes| bytes.extend_from_slice(b"t/1"),
            |bytes| bytes.extend_from_slice(event.to_string().as_bytes()),
        );
        self.store
            .commit(Outcome {
                pipeline: "main".into(),
                cursor: Offset::end_of(commit),
                events: vec![(stream.into(), builder.finish())],
                ..Outcome::default()
            })
            .expect("commit");
    }

    /// Commits a transaction of these events' `data`; the key is each record's `id`.
    pub fn commit_rows(&self, stream: &str, rows: &[Value]) {
        let commit = Lsn(COMMIT_STEP * (1 + self.committed.fetch_add(1, Ordering::Relaxed)));
        let mut builder = EventsBuilder::default();
        for (ordinal, data) in (0..).zip(rows) {
            let row =
                if data["record"].is_object() { &data["record"] } else { &data["old_record"] };
            let key = format!("public.{stream}/{}", row["id"]);
            let offset = Offset::new(commit, ordinal);
            let event = json!({
                "specversion": "1.0", "id": EventId(offset).to_string(), "source": "/test/1/1",
                "type": format!("walmill.row.{}", data["op"].as_str().unwrap_or("insert")),
                "subject": key, "partitionkey": key, "stream": stream, "data": data,
            });
            builder.push(
                offset,
                |bytes| bytes.extend_from_slice(key.as_bytes()),
                |bytes| bytes.extend_from_slice(event.to_string().as_bytes()),
            );
        }
        self.store
            .commit(Outcome {
                pipeline: "main".into(),
                cursor: Offset::end_of(commit),
                events: vec![(stream.into(), builder.finish())],
                ..Outcome::default()
            })
            .expect("commit");
    }

    /// The cursor behind the event of this ordinal in the `transaction`-th commit, from 1.
    pub fn cursor(&self, transaction: u64, ordinal: u32) -> String {
        let offset = Offset::new(Lsn(COMMIT_STEP * transaction), ordinal);
        Cursor { epoch: self.store.epoch(), offset }.to_string()
    }

    /// A WebSocket client that speaks `walmill.v1.json`.
    pub async fn connect(&self) -> Socket {
        self.try_connect("/v1/ws", &[]).await.expect("connect")
    }

    /// A WebSocket client with these headers.
    pub async fn try_connect(&self, path: &str, headers: &[(&str, &str)]) -> Result<Socket, Error> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request()?;
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a value"));
        }
        let (socket, response) = tokio_tungstenite::connect_async(request).await?;
        let protocol = response.headers().get("sec-websocket-protocol");
        let protocol = protocol.map(|value| value.to_str().expect("text").to_owned());
        Ok(Socket { socket, protocol })
    }

    /// A page, and the status it came with.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let response = reqwest::get(self.url(path)).await.expect("an answer");
        let status = response.status().as_u16();
        let body = response.bytes().await.expect("a body");
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Waits until so many clients have left for this reason.
    pub async fn left(&self, protocol: &str, outcome: &'static str, count: u64) {
        let label = walmill::metrics::Outcome { name: protocol.into(), outcome };
        let left = || self.metrics.clients_left.get_or_create(&label).get() >= count;
        crate::support::until(&format!("{count} {protocol} clients left: {outcome}"), left).await;
    }
}

fn transaction(stream: &str, commit: Lsn, events: u32, text: &str) -> Events {
    let mut builder = EventsBuilder::default();
    for ordinal in 0..events {
        let offset = Offset::new(commit, ordinal);
        let number = u64::from(ordinal) + commit.0 * 1_000_000;
        let event = json!({
            "specversion": "1.0", "id": EventId(offset).to_string(), "source": "/test/1/1",
            "type": "walmill.row.insert", "subject": format!("public.{stream}/{number}"),
            "time": "2026-11-24T03:07:13.123456Z", "datacontenttype": "application/json",
            "stream": stream, "lsn": commit.to_string(), "xid": "735",
            "partitionkey": format!("public.{stream}/{number}"),
            "data": {
                "schema": "public", "table": stream, "op": "insert", "key": { "id": number },
                "record": { "id": number, "text": text }, "old_record": null, "unchanged": [],
            },
        });
        let key = format!("public.{stream}/{number}");
        builder.push(
            offset,
            |bytes| bytes.extend_from_slice(key.as_bytes()),
            |bytes| bytes.extend_from_slice(event.to_string().as_bytes()),
        );
    }
    builder.finish()
}

fn streaming() -> SourceStatus {
    SourceStatus {
        state: SourceState::Streaming,
        slot: "walmill".into(),
        publication: "walmill".into(),
        server_version: Some("15.14".into()),
        system_identifier: Some("7".into()),
        timeline: Some(1),
        server_lsn: Lsn(1 << 32),
        received_lsn: Lsn(1 << 32),
        confirmed_lsn: Lsn(1 << 32),
        last_commit_time: Some(1_795_490_000_000_000),
        connections: 1,
        wal: None,
    }
}

fn running() -> PipelineStatus {
    PipelineStatus {
        name: "main".into(),
        plugins: Vec::new(),
        cursor: Lsn::ZERO,
        emitted: 0,
        dropped: 0,
        dead_letters: 0,
        stopped: None,
        schema_changes: Vec::new(),
    }
}

/// A WebSocket client.
pub struct Socket {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub protocol: Option<String>,
}

impl Socket {
    pub async fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.expect("send");
    }

    /// The next JSON message.
    pub async fn next(&mut self) -> Value {
        loop {
            match self.socket.next().await.expect("another message").expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Subscribes, and gives the answer.
    pub async fn subscribe(&mut self, streams: &[&str], from: impl Into<Value>) -> Value {
        let from: Value = from.into();
        self.send(&json!({ "type": "subscribe", "id": "1", "streams": streams, "from": from }))
            .await;
        self.next().await
    }

    /// The ids of the next events; any other message fails.
    pub async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let message = self.next().await;
            assert_eq!(message["type"], "event", "{message}");
            ids.push(message["event"]["id"].as_str().expect("an id").to_owned());
        }
        ids
    }

    /// Everything up to the close frame, and that: code and reason.
    pub async fn rest(mut self) -> (Vec<Value>, Option<(u16, String)>) {
        let mut messages = Vec::new();
        while let Some(Ok(message)) = self.socket.next().await {
            match message {
                Message::Text(text) => messages.push(serde_json::from_str(&text).expect("JSON")),
                Message::Close(Some(frame)) => {
                    return (messages, Some((frame.code.into(), frame.reason.to_string())));
                }
                _ => {}
            }
        }
        (messages, None)
    }
}
