//! Readers that keep a cursor and go on from it, over WebSocket, SSE and page by page.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::ledger::Book;
use crate::promise::Promise;

/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(50);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Where a reader reads.
#[derive(Clone)]
pub struct Place {
    /// A port that leads to walmill.
    pub port: u16,
    pub stream: &'static str,
    pub book: Book,
}

/// Over WebSocket, for ever.
pub async fn websocket(place: Place) {
    let mut cursor = String::from("earliest");
    loop {
        let _ = websocket_once(&place, &mut cursor).await;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn websocket_once(place: &Place, cursor: &mut String) -> Result<()> {
    #[derive(Deserialize)]
    struct Frame<'a> {
        r#type: &'a str,
        cursor: Option<String>,
        #[serde(borrow)]
        event: Option<&'a RawValue>,
    }
    let mut request = format!("ws://127.0.0.1:{}/v1/ws", place.port).into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", "walmill.v1.json".parse()?);
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await?;
    let from = json!({ place.stream: cursor.as_str() });
    let subscribe =
        json!({ "type": "subscribe", "id": "1", "streams": [place.stream], "from": from });
    socket.send(Message::text(subscribe.to_string())).await?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let frame: Frame<'_> = serde_json::from_str(&text)?;
        match (frame.r#type, frame.event, frame.cursor) {
            ("event", Some(event), Some(now)) => {
                place.book.event(event.get());
                *cursor = now;
            }
            ("gap" | "error", ..) => place.book.breaks(Promise::NothingLost, text.as_str()),
            _ => {}
        }
    }
    Ok(())
}

/// Over SSE, for ever.
pub async fn sse(place: Place) {
    let mut cursor = String::from("earliest");
    loop {
        let _ = sse_once(&place, &mut cursor).await;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn sse_once(place: &Place, cursor: &mut String) -> Result<()> {
    let url = format!("http://127.0.0.1:{}/v1/streams/{}/sse", place.port, place.stream);
    let request = reqwest::Client::new().get(url).header("last-event-id", cursor.as_str());
    let mut answer = request.send().await?.error_for_status()?;
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        text.extend_from_slice(&chunk);
        // An event counts when the blank line behind it is there: before, it can be cut.
        let mut done = 0;
        while let Some(end) = text[done..].windows(2).position(|two| two == b"\n\n") {
            let block = std::str::from_utf8(&text[done..done + end])?;
            done += end + 2;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            if field("event: gap").is_some() {
                place.book.breaks(Promise::NothingLost, block);
            }
            if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                place.book.event(data);
                *cursor = id.to_owned();
            }
        }
        text.drain(..done);
    }
    Ok(())
}

/// Page by page, for ever.
pub async fn pull(place: Place) {
    let mut cursor = String::from("earliest");
    let client = reqwest::Client::new();
    loop {
        if pull_once(&client, &place, &mut cursor).await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn pull_once(client: &reqwest::Client, place: &Place, cursor: &mut String) -> Result<()> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        events: Vec<&'a RawValue>,
        next: String,
        #[serde(borrow)]
        gap: Option<&'a RawValue>,
    }
    let url = format!(
        "http://127.0.0.1:{}/v1/streams/{}/events?after={cursor}&limit=500&wait=2s",
        place.port, place.stream
    );
    let answer = client.get(url).send().await?.error_for_status()?;
    let text = answer.text().await?;
    let page: Page<'_> = serde_json::from_str(&text)?;
    if let Some(gap) = page.gap {
        place.book.breaks(Promise::NothingLost, gap.get());
    }
    page.events.iter().for_each(|event| place.book.event(event.get()));
    *cursor = page.next;
    Ok(())
}
