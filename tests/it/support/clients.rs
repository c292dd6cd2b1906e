//! Clients as users write them: each keeps its cursor, and goes on from it when the connection is
//! lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// What a client got, by stream, in the order in which it came.
pub type Received = BTreeMap<String, Vec<Value>>;

/// Between two tries to connect, while walmill is away.
const AGAIN: Duration = Duration::from_millis(20);

/// Reads streams over WebSocket until `done` says so, through every loss of the connection.
pub async fn websocket(port: u16, streams: &[&str], done: impl Fn(&Received) -> bool) -> Received {
    let mut received = Received::new();
    let mut cursors = BTreeMap::<String, String>::new();
    while !done(&received) {
        let _ = websocket_once(port, streams, &mut cursors, &mut received, &done).await;
        tokio::time::sleep(AGAIN).await;
    }
    received
}

async fn websocket_once(
    port: u16,
    streams: &[&str],
    cursors: &mut BTreeMap<String, String>,
    received: &mut Received,
    done: &impl Fn(&Received) -> bool,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let mut request = format!("ws://127.0.0.1:{port}/v1/ws").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", "walmill.v1.json".parse()?);
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await?;
    let from: BTreeMap<&str, &str> = streams
        .iter()
        .map(|stream| (*stream, cursors.get(*stream).map_or("earliest", String::as_str)))
        .collect();
    let subscribe = json!({"type": "subscribe", "id": "1", "streams": streams, "from": from});
    socket.send(Message::text(subscribe.to_string())).await?;
    while !done(received) {
        let Some(message) = socket.next().await else { return Ok(()) };
        let Message::Text(text) = message? else { continue };
        let mut frame: Value = serde_json::from_str(&text).expect("JSON");
        match frame["type"].as_str() {
            Some("event") => {
                let stream = frame["stream"].as_str().expect("a stream").to_owned();
                let cursor = frame["cursor"].as_str().expect("a cursor").to_owned();
                cursors.insert(stream.clone(), cursor);
                received.entry(stream).or_default().push(frame["event"].take());
            }
            Some("error" | "gap") => panic!("{frame}"),
            _ => {}
        }
    }
    Ok(())
}

/// Reads a stream over SSE until `done` says so, through every loss of the connection.
pub async fn sse(port: u16, stream: &str, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let mut received = Vec::new();
    let mut cursor = String::from("earliest");
    while !done(&received) {
        let _ = sse_once(port, stream, &mut cursor, &mut received, &done).await;
        tokio::time::sleep(AGAIN).await;
    }
    received
}

async fn sse_once(
    port: u16,
    stream: &str,
    cursor: &mut String,
    received: &mut Vec<Value>,
    done: &impl Fn(&[Value]) -> bool,
) -> Result<(), reqwest::Error> {
    let url = format!("http://127.0.0.1:{port}/v1/streams/{stream}/sse");
    let request = reqwest::Client::new().get(url).header("last-event-id", cursor.as_str());
    let mut answer = request.send().await?.error_for_status()?;
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        text.extend_from_slice(&chunk);
        // An event counts when the blank line behind it is there: before, it can be cut.
        while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = text.drain(..end + 2).collect();
            let block = String::from_utf8(block).expect("UTF-8");
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            assert!(field("event: gap").is_none(), "{block}");
            if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                *cursor = id.to_owned();
                received.push(serde_json::from_str(data).expect("JSON"));
                if done(received) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// A webhook receiver: what it took, in order, with the id that came with it.
#[derive(Clone, Default)]
pub struct Receiver {
    taken: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Receiver {
    /// Listens on a free port; gives its address. Every `fail_every`-th request is refused with
    /// 503, every other one taken.
    pub async fn start(fail_every: u64) -> (Self, String) {
        let receiver = Self::default();
        let taken = Arc::clone(&receiver.taken);
        let requests = Arc::new(std::sync::atomic::AtomicU64::new(1));
        let handler = move |headers: HeaderMap, body: Bytes| {
            let (taken, requests) = (Arc::clone(&taken), Arc::clone(&requests));
            async move {
                let number = requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number.is_multiple_of(fail_every) {
                    return StatusCode::SERVICE_UNAVAILABLE;
                }
                let id = headers["webhook-id"].to_str().expect("an id").to_owned();
                let event = serde_json::from_slice(&body).expect("JSON");
                taken.lock().expect("not poisoned").push((id, event));
                StatusCode::NO_CONTENT
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let router = Router::new().route("/hook", post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, format!("http://{address}/hook"))
    }

    /// What it has taken so far.
    pub fn taken(&self) -> Vec<(String, Value)> {
        self.taken.lock().expect("not poisoned").clone()
    }

    /// How many different events it has taken.
    pub fn distinct(&self) -> usize {
        let taken = self.taken.lock().expect("not poisoned");
        taken.iter().map(|(id, _)| id).collect::<std::collections::HashSet<_>>().len()
    }
}
