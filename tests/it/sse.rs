//! Streams by server-sent events, as browsers and `curl -N` see them.

use std::collections::HashMap;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use walmill::model::{ByteSize, Cursor, Epoch, EventId, Lsn, Offset, Period};
use walmill::server::Config;
use walmill::store;
use walmill::store::retention::Retention;

use crate::support::serving::Serving;

fn id(commit: u64, ordinal: u32) -> String {
    EventId(Offset::new(Lsn(8 * commit), ordinal)).to_string()
}

/// An SSE client: blocks of fields, as they come.
struct Source {
    response: Response,
    buffer: Vec<u8>,
}

impl Source {
    async fn open(server: &Serving, path: &str, last_event_id: Option<&str>) -> Self {
        let mut request = Client::new().get(server.url(path));
        if let Some(cursor) = last_event_id {
            request = request.header("last-event-id", cursor);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{path} {last_event_id:?}");
        Self { response, buffer: Vec::new() }
    }

    fn header(&self, name: &str) -> &str {
        self.response.headers().get(name).expect(name).to_str().expect("text")
    }

    /// The next block's fields; `None` when the server ended it.
    async fn block(&mut self) -> Option<HashMap<String, String>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let block = String::from_utf8(block).expect("UTF-8");
                let fields = block.lines().filter_map(|line| line.split_once(": "));
                return Some(fields.map(|(name, value)| (name.into(), value.into())).collect());
            }
            let chunk = self.response.chunk().await.expect("a chunk")?;
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// The next block that has an event in it: its name, its id and its data.
    async fn event(&mut self) -> Option<(String, String, Value)> {
        loop {
            let mut block = self.block().await?;
            let Some(data) = block.remove("data") else { continue };
            let mut field = |name| block.remove(name).unwrap_or_default();
            let data = serde_json::from_str(&data).expect("JSON");
            return Some((field("event"), field("id"), data));
        }
    }

    async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let (name, _, data) = self.event().await.expect("an event");
            assert_eq!(name, "", "{data}");
            ids.push(data["id"].as_str().expect("an id").to_owned());
        }
        ids
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_events_id_is_its_cursor_and_the_headers_keep_proxies_from_holding_it_back() {
    let server = Serving::start().await;
    server.commit("posts", 2);
    let mut source =
        Source::open(&server, "/v1/streams/posts/sse?last_event_id=earliest", None).await;
    assert_eq!(source.header("content-type"), "text/event-stream");
    assert_eq!(source.header("cache-control"), "no-cache");
    assert_eq!(source.header("x-accel-buffering"), "no");
    assert_eq!(source.block().await.unwrap()["retry"], "2000");
    let (name, cursor, event) = source.event().await.unwrap();
    assert_eq!((name.as_str(), cursor), ("", server.cursor(1, 0)));
    assert_eq!(event["id"], id(1, 0));
    assert_eq!(source.ids(1).await, [id(1, 1)]);
    server.commit("posts", 1);
    assert_eq!(source.ids(1).await, [id(2, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_say_where_to_begin_is_understood_and_answered() {
    let server = Serving::start().await;
    server.commit("posts", 3);
    let first = server.cursor(1, 0);
    let by_query = |text: &str| format!("/v1/streams/posts/sse?last_event_id={text}");
    let plain = "/v1/streams/posts/sse".to_owned();
    let start = Cursor { epoch: server.store.epoch(), offset: Offset::START }.to_string();
    let head = server.cursor(1, 2);
    for (path, header, really) in [
        (plain.clone(), None, &head),
        (plain.clone(), Some("latest"), &head),
        (plain.clone(), Some("earliest"), &start),
        (plain.clone(), Some(first.as_str()), &first),
        (plain, Some(&*id(1, 0)), &first),
        (by_query("latest"), None, &head),
        (by_query("earliest"), None, &start),
        (by_query(&first), None, &first),
        (by_query(""), None, &head),
        // A browser that reconnects repeats the address, and knows better by now.
        (by_query("earliest"), Some(first.as_str()), &first),
    ] {
        let source = Source::open(&server, &path, header).await;
        assert_eq!(source.header("walmill-replay-from"), really, "{path} {header:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_with_the_last_id_misses_nothing_and_sees_nothing_twice() {
    let server = Serving::start().await;
    (0..50).for_each(|_| server.commit("posts", 4));
    let mut cursor = "earliest".to_owned();
    let mut seen = Vec::new();
    while seen.len() < 200 {
        let mut source = Source::open(&server, "/v1/streams/posts/sse", Some(&cursor)).await;
        for _ in 0..(7.min(200 - seen.len())) {
            let (_, id, event) = source.event().await.unwrap();
            cursor = id;
            seen.push(event["id"].as_str().unwrap().to_owned());
        }
    }
    let all: Vec<String> = (1..=50).flat_map(|at| (0..4).map(move |n| id(at, n))).collect();
    assert_eq!(seen, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_cursors_and_addresses_are_refused_with_a_finding() {
    let server = Serving::start().await;
    let beyond = Offset::new(Lsn(2 << 32), 0);
    let beyond = Cursor { epoch: server.store.epoch(), offset: beyond }.to_string();
    let long = "A".repeat(4000);
    for (path, header, status, code) in [
        ("/v1/streams/nope/sse", None, 404, "unknown-stream"),
        ("/v1/streams/%2e%2e%2fposts/sse", None, 404, "unknown-stream"),
        ("/v1/streams/%FF/sse", None, 400, "bad-address"),
        ("/v1/streams/posts/sse?last_event_id=x", None, 400, "bad-cursor"),
        ("/v1/streams/posts/sse?last_event_id=%00", None, 400, "bad-cursor"),
        ("/v1/streams/posts/sse?form=latest", None, 400, "unknown-parameter"),
        ("/v1/streams/posts/sse", Some("0"), 400, "bad-cursor"),
        ("/v1/streams/posts/sse", Some("-1"), 400, "bad-cursor"),
        ("/v1/streams/posts/sse", Some("Earliest"), 400, "bad-cursor"),
        ("/v1/streams/posts/sse", Some("' OR 1=1 --"), 400, "bad-cursor"),
        ("/v1/streams/posts/sse", Some(long.as_str()), 400, "bad-cursor"),
        ("/v1/streams/posts/sse", Some("\u{e9}"), 400, "bad-cursor"),
        ("/v1/streams/posts/sse", Some(beyond.as_str()), 409, "cursor-ahead"),
    ] {
        let mut request = Client::new().get(server.url(path));
        if let Some(text) = header {
            let value = reqwest::header::HeaderValue::from_bytes(text.as_bytes()).unwrap();
            request = request.header("last-event-id", value);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{path} {header:?}");
        let finding: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(finding["code"], code, "{path} {header:?}");
        assert_eq!(finding["severity"], "error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_an_event_and_its_id_is_where_it_goes_on() {
    let retention = Retention { size: ByteSize::new(200_000), ..Retention::default() };
    let store = store::Config { retention, ..store::Config::default() };
    let server = Serving::configured(Config::default(), store).await;
    let text = "x".repeat(1000);
    (0..100).for_each(|_| server.commit_with("posts", 10, &text));
    server.store.retain_now().unwrap();
    let purged = server.store.stream("posts").unwrap().purged();
    let purged = Cursor { epoch: server.store.epoch(), offset: purged }.to_string();
    let foreign = Cursor { epoch: Epoch(1), offset: Offset::new(Lsn(8), 0) }.to_string();
    for (cursor, reason) in [(server.cursor(1, 3), "retention"), (foreign, "other-store")] {
        let mut source = Source::open(&server, "/v1/streams/posts/sse", Some(&cursor)).await;
        assert_eq!(source.header("walmill-replay-from"), purged);
        let (name, id, gap) = source.event().await.unwrap();
        assert_eq!((name.as_str(), &id), ("gap", &purged));
        assert_eq!((&gap["reason"], &gap["stream"]), (&json!(reason), &json!("posts")));
        assert_eq!(source.event().await.unwrap().0, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_says_that_it_is_there() {
    let server = Serving::start().await;
    let mut source = Source::open(&server, "/v1/streams/posts/sse", None).await;
    assert_eq!(source.block().await.unwrap()["retry"], "2000");
    assert_eq!(source.block().await.unwrap(), HashMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_listed_origin_is_told_that_it_may_read() {
    let config = Config {
        origins: vec!["https://app.example".to_owned().try_into().unwrap()],
        ..Config::default()
    };
    let server = Serving::configured(config, store::Config::default()).await;
    let url = server.url("/v1/streams/posts/sse");
    let ask = |method, origin| Client::new().request(method, &url).header("origin", origin).send();
    let preflight = ask(reqwest::Method::OPTIONS, "https://app.example").await.unwrap();
    assert_eq!(preflight.status(), 204);
    for response in [preflight, ask(reqwest::Method::GET, "https://app.example").await.unwrap()] {
        let headers = response.headers();
        assert_eq!(headers["access-control-allow-origin"], "https://app.example");
        assert_eq!(headers["access-control-expose-headers"], "walmill-replay-from");
        assert_eq!(headers["vary"], "origin, authorization");
    }
    let other = ask(reqwest::Method::GET, "https://evil.example").await.unwrap();
    assert_eq!(other.status(), 403);
    assert!(!other.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_shutdown_the_last_event_is_closing_with_the_cursor() {
    let server = Serving::start().await;
    server.commit("posts", 1);
    let mut source = Source::open(&server, "/v1/streams/posts/sse", Some("earliest")).await;
    source.ids(1).await;
    server.shutdown.cancel();
    let (name, id, data) = source.event().await.unwrap();
    assert_eq!((name.as_str(), id.as_str()), ("closing", ""));
    assert_eq!(data["cursor"], server.cursor(1, 0));
    assert_eq!(source.event().await, None);
    server.ended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_let_go() {
    let config = Config {
        client_buffer: ByteSize::new(64 << 10),
        client_timeout: Period::from_millis(300),
        ..Config::default()
    };
    let server = Serving::configured(config, store::Config::default()).await;
    let text = "x".repeat(10_000);
    (0..30).for_each(|_| server.commit_with("posts", 100, &text));
    let _unread = Source::open(&server, "/v1/streams/posts/sse", Some("earliest")).await;
    server.left("sse", "slow", 1).await;
}
