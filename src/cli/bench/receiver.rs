//! Who receives the events: a client, an endpoint, a broker. They count, and are not measured.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::task::AbortOnDropHandle;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tungstenite::{Message, WebSocket};

use super::cases::Output;
use super::process::free_port;

/// How an event begins.
pub(super) const EVENT: &str = r#"{"type":"event""#;
/// Larger than any batch of a webhook.
const LARGEST_BODY: usize = 64 << 20;
/// Looks at a server that starts, each after a moment.
const LOOKS: u32 = 500;
const MOMENT: Duration = Duration::from_millis(10);

/// Somebody who counts what comes.
pub(super) enum Receiver {
    Nobody,
    WebSocket { received: Arc<AtomicU64>, reading: Option<JoinHandle<anyhow::Result<()>>> },
    Webhook { received: Arc<AtomicU64>, port: u16, _serving: AbortOnDropHandle<()> },
    Nats(Box<Nats>),
}

/// Why there is no receiver of a kind.
pub(super) enum Unready {
    /// This machine lacks what it takes.
    Missing(&'static str),
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Unready {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Receiver {
    /// Everything but a client is there before walmill is.
    pub(super) async fn start(output: Output) -> Result<Self, Unready> {
        Ok(match output {
            Output::None => Self::Nobody,
            Output::WebSocket => Self::WebSocket { received: Arc::default(), reading: None },
            Output::Webhook => Self::webhook().await?,
            Output::Nats => Self::Nats(Box::new(Nats::start().await?)),
        })
    }

    async fn webhook() -> anyhow::Result<Self> {
        let received = Arc::<AtomicU64>::default();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let app = Router::new()
            .route("/", post(take))
            .layer(DefaultBodyLimit::max(LARGEST_BODY))
            .with_state(Arc::clone(&received));
        let serving = tokio::spawn(async move {
            // It never ends by itself.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self::Webhook { received, port, _serving: AbortOnDropHandle::new(serving) })
    }

    /// What walmill's config says about it.
    pub(super) fn config(&self) -> String {
        match self {
            Self::Nobody | Self::WebSocket { .. } => String::new(),
            Self::Webhook { port, .. } => format!(
                "[[output.webhook]]\nname = 'bench'\nstreams = ['orders']\n\
                 url = 'http://127.0.0.1:{port}/'\nmode = 'batch'\nunsigned = true\n\
                 allow_private = true\n"
            ),
            Self::Nats(nats) => format!(
                "[[output.nats]]\nname = 'bench'\nstreams = ['orders']\n\
                 url = 'nats://127.0.0.1:{}'\nstream = '{}'\ncreate_stream = true\n",
                nats.port,
                Nats::STREAM
            ),
        }
    }

    /// Walmill listens here now.
    pub(super) async fn connect(
        &mut self,
        port: u16,
        streams: &'static [&'static str],
    ) -> anyhow::Result<()> {
        if let Self::WebSocket { received, reading } = self {
            let mut socket = spawn_blocking(move || subscribe(port, streams)).await??;
            let received = Arc::clone(received);
            *reading = Some(spawn_blocking(move || count(&mut socket, &received).map(drop)));
        }
        Ok(())
    }

    /// Events that have come.
    pub(super) async fn received(&mut self) -> anyhow::Result<u64> {
        if let Self::WebSocket { reading, .. } = self
            && let Some(ended) = reading.take_if(|reading| reading.is_finished())
        {
            ended.await??;
        }
        Ok(match self {
            Self::Nobody => 0,
            Self::WebSocket { received, .. } | Self::Webhook { received, .. } => {
                received.load(Ordering::Relaxed)
            }
            Self::Nats(nats) => nats.stored().await,
        })
    }

    /// Events that have come in the end, once walmill has said goodbye.
    pub(super) async fn finish(mut self) -> anyhow::Result<u64> {
        if let Self::WebSocket { reading, .. } = &mut self
            && let Some(reading) = reading.take()
        {
            reading.await??;
        }
        self.received().await
    }
}

/// Takes a batch of a webhook.
async fn take(State(received): State<Arc<AtomicU64>>, body: Bytes) -> StatusCode {
    match serde_json::from_slice::<Vec<&RawValue>>(&body) {
        Ok(events) => {
            received.fetch_add(events.len() as u64, Ordering::Relaxed);
            StatusCode::NO_CONTENT
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

/// A client that reads everything there is of these streams.
pub(super) fn subscribe(port: u16, streams: &[&str]) -> anyhow::Result<WebSocket<TcpStream>> {
    let mut request = format!("ws://127.0.0.1:{port}/v1/ws").into_client_request()?;
    let protocol = HeaderValue::from_static("walmill.v1.json");
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = tungstenite::client(request, stream).context("open a WebSocket")?;
    for stream in streams {
        wish(&mut socket, stream)?;
    }
    Ok(socket)
}

fn wish(socket: &mut WebSocket<TcpStream>, stream: &str) -> anyhow::Result<()> {
    let wish = json!({ "type": "subscribe", "streams": [stream], "from": "earliest" });
    Ok(socket.send(Message::text(wish.to_string()))?)
}

/// Takes what is no event. A stream that is not there yet is asked for again: a
/// route makes it with its first event.
pub(super) fn hear(socket: &mut WebSocket<TcpStream>, text: &str) -> anyhow::Result<()> {
    let told: Value = serde_json::from_str(text)?;
    match (told["type"].as_str(), told["code"].as_str(), told["path"].as_str()) {
        (Some("subscribed" | "closing"), _, _) => Ok(()),
        (_, Some("unknown-stream"), Some(stream)) => {
            std::thread::sleep(MOMENT);
            wish(socket, stream)
        }
        _ => bail!("the client was told: {text}"),
    }
}

/// Counts events until the server says goodbye, or, where the socket doesn't wait, as long as some
/// are there. Whether more may come.
pub(super) fn count(
    socket: &mut WebSocket<TcpStream>,
    received: &AtomicU64,
) -> anyhow::Result<bool> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) if text.starts_with(EVENT) => {
                received.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Message::Text(text)) => hear(socket, &text)?,
            Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => return Ok(false),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(true);
            }
            Err(error) => return Err(error).context("read a WebSocket"),
        }
    }
}

/// A `nats-server` of our own, with JetStream.
pub(super) struct Nats {
    _server: Server,
    port: u16,
    context: jetstream::Context,
    _folder: TempDir,
}

/// A process that ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Nats {
    const STREAM: &str = "BENCH";

    async fn start() -> Result<Self, Unready> {
        let (folder, port) = (tempfile::tempdir()?, free_port()?);
        let server = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let missing = |_| Unready::Missing("there is no nats-server on the PATH");
        let server = Server(server.map_err(missing)?);
        let mut looks = 0;
        let client = loop {
            match async_nats::connect(format!("nats://127.0.0.1:{port}")).await {
                Ok(client) => break client,
                Err(error) if looks == LOOKS => return Err(error.into()),
                Err(_) => tokio::time::sleep(MOMENT).await,
            }
            looks += 1;
        };
        let context = jetstream::new(client);
        Ok(Self { _server: server, port, context, _folder: folder })
    }

    /// Messages in the stream, which walmill makes.
    async fn stored(&self) -> u64 {
        let stream = self.context.get_stream(Self::STREAM).await;
        stream.map_or(0, |stream| stream.cached_info().state.messages)
    }
}
