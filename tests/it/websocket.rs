//! Streams over WebSocket, as clients see them: real sockets over a real store.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};
use walmill::model::{ByteSize, Cursor, Epoch, EventId, Lsn, Offset, Period, Secret};
use walmill::server::{Config, Origin};
use walmill::store;
use walmill::store::retention::Retention;

use crate::support::serving::Serving;

fn id(commit: u64, ordinal: u32) -> String {
    EventId(Offset::new(Lsn(8 * commit), ordinal)).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_is_told_where_it_begins_and_gets_what_was_there_and_what_comes() {
    let server = Serving::start().await;
    server.commit("posts", 2);
    server.commit("comments", 1);
    let mut client = server.connect().await;
    let subscribed = client.subscribe(&["posts"], "earliest").await;
    let expected = json!([{
        "name": "posts",
        "from": Cursor { epoch: server.store.epoch(), offset: Offset::START }.to_string(),
        "head": server.cursor(1, 1),
    }]);
    assert_eq!(subscribed["type"], "subscribed");
    assert_eq!((&subscribed["id"], &subscribed["streams"]), (&json!("1"), &expected));
    let event = client.next().await;
    assert_eq!((&event["type"], &event["stream"]), (&json!("event"), &json!("posts")));
    assert_eq!(event["cursor"], server.cursor(1, 0));
    assert_eq!(event["event"]["id"], id(1, 0));
    assert_eq!(event["event"]["data"]["key"]["id"], 8_000_000);
    assert_eq!(client.ids(1).await, [id(1, 1)]);
    server.commit("posts", 1);
    assert_eq!(client.ids(1).await, [id(3, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_skips_what_was_there_and_a_cursor_goes_on_behind_it() {
    let server = Serving::start().await;
    server.commit("posts", 3);
    let mut late = server.connect().await;
    late.subscribe(&["posts"], "latest").await;
    let mut resumed = server.connect().await;
    resumed.subscribe(&["posts"], json!({ "posts": server.cursor(1, 1) })).await;
    server.commit("posts", 1);
    assert_eq!(late.ids(1).await, [id(2, 0)]);
    assert_eq!(resumed.ids(2).await, [id(1, 2), id(2, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_reads_several_streams_and_leaves_them_one_by_one() {
    let server = Serving::start().await;
    let mut client = server.connect().await;
    client.subscribe(&["posts", "comments"], "earliest").await;
    server.commit("posts", 1);
    assert_eq!(client.next().await["stream"], "posts");
    server.commit("comments", 1);
    assert_eq!(client.next().await["stream"], "comments");
    client.send(&json!({ "type": "unsubscribe", "streams": ["comments"] })).await;
    assert_eq!(client.next().await["streams"], json!(["comments"]));
    server.commit("comments", 1);
    server.commit("posts", 1);
    assert_eq!(client.ids(1).await, [id(4, 0)]);
    client.send(&json!({ "type": "unsubscribe", "id": "1" })).await;
    assert_eq!(client.next().await["streams"], json!(["posts"]));
    client.send(&json!({ "type": "ping" })).await;
    assert_eq!(client.next().await["type"], "pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_reconnects_under_full_speed_miss_nothing_and_see_nothing_twice() {
    let server = Arc::new(Serving::start().await);
    let writing = Arc::new(AtomicBool::new(true));
    let writer = std::thread::spawn({
        let (server, writing) = (Arc::clone(&server), Arc::clone(&writing));
        move || {
            let mut written = 0;
            while writing.load(Ordering::Relaxed) {
                server.commit("posts", 1 + written % 7);
                written += 1;
            }
            written
        }
    });
    let mut cursor = json!("earliest");
    let mut seen = Vec::new();
    for round in 0..200 {
        let mut client = server.connect().await;
        client.subscribe(&["posts"], cursor.clone()).await;
        // Each round leaves at another place within a run.
        for _ in 0..=(round % 11) {
            let message = client.next().await;
            assert_eq!(message["type"], "event", "{message}");
            cursor = message["cursor"].clone();
            seen.push(message["event"]["id"].as_str().unwrap().to_owned());
        }
    }
    writing.store(false, Ordering::Relaxed);
    let written: u32 = tokio::task::spawn_blocking(move || writer.join().unwrap()).await.unwrap();
    let all: Vec<String> = (0..written)
        .flat_map(|at| (0..1 + at % 7).map(move |ordinal| id(u64::from(at) + 1, ordinal)))
        .collect();
    assert_eq!(seen, all[..seen.len()]);
    let mut client = server.connect().await;
    client.subscribe(&["posts"], cursor).await;
    let rest = client.ids(all.len() - seen.len()).await;
    assert_eq!(rest, all[seen.len()..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_that_come_while_events_are_committed_all_see_the_same() {
    let server = Arc::new(Serving::start().await);
    const COMMITS: u64 = 300;
    let writer = tokio::task::spawn_blocking({
        let server = Arc::clone(&server);
        move || (0..COMMITS).for_each(|_| server.commit("posts", 3))
    });
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let mut client = server.connect().await;
                client.subscribe(&["posts"], "earliest").await;
                client.ids(3 * usize::try_from(COMMITS).unwrap()).await
            })
        })
        .collect();
    writer.await.unwrap();
    let all: Vec<String> =
        (1..=COMMITS).flat_map(|at| (0..3).map(move |ordinal| id(at, ordinal))).collect();
    for client in clients {
        assert_eq!(client.await.unwrap(), all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_let_go_with_the_cursor_it_goes_on_from() {
    let config = Config {
        client_buffer: ByteSize::new(64 << 10),
        client_timeout: Period::from_millis(300),
        ..Config::default()
    };
    let server = Serving::configured(config, store::Config::default()).await;
    let text = "x".repeat(10_000);
    (0..30).for_each(|_| server.commit_with("posts", 100, &text));
    let mut slow = server.connect().await;
    slow.send(&json!({ "type": "subscribe", "streams": ["posts"], "from": "earliest" })).await;
    server.left("websocket", "slow", 1).await;

    let (messages, close) = slow.rest().await;
    let (last, events) = messages.split_last().expect("messages");
    let (code, cursor) = close.expect("a close frame");
    assert_eq!(code, 1013);
    assert_eq!((&last["type"], &last["code"]), (&json!("closing"), &json!("slow")));
    assert_eq!(last["streams"], json!([{ "name": "posts", "cursor": cursor }]));
    let events = &events[1..];
    assert!(events.len() < 3000, "it got everything, so it was not slow");
    let received = events.iter().map(|message| message["event"]["id"].clone());

    let mut again = server.connect().await;
    again.subscribe(&["posts"], cursor).await;
    let rest = again.ids(3000 - events.len()).await.into_iter().map(Value::from);
    let all = (1..=30).flat_map(|at| (0..100).map(move |ordinal| Value::from(id(at, ordinal))));
    assert!(received.chain(rest).eq(all));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_holds_events_back_until_they_are_acknowledged() {
    let server = Serving::start().await;
    server.commit("posts", 5);
    let mut client = server.connect().await;
    let subscribe =
        json!({ "type": "subscribe", "streams": ["posts"], "from": "earliest", "window": 2 });
    client.send(&subscribe).await;
    assert_eq!(client.next().await["type"], "subscribed");
    assert_eq!(client.ids(2).await, [id(1, 0), id(1, 1)]);
    // The answer to a ping comes behind whatever was sent before it: nothing was.
    client.send(&json!({ "type": "ping", "id": "still?" })).await;
    assert_eq!(client.next().await, json!({ "type": "pong", "id": "still?" }));
    let ack = json!({ "type": "ack", "stream": "posts", "cursor": server.cursor(1, 0) });
    client.send(&ack).await;
    assert_eq!(client.ids(1).await, [id(1, 2)]);
    let ack = json!({ "type": "ack", "stream": "posts", "cursor": server.cursor(1, 2) });
    client.send(&ack).await;
    assert_eq!(client.ids(2).await, [id(1, 3), id(1, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_is_an_explicit_gap() {
    let retention = Retention { size: ByteSize::new(200_000), ..Retention::default() };
    let store = store::Config { retention, ..store::Config::default() };
    let server = Serving::configured(Config::default(), store).await;
    let text = "x".repeat(1000);
    (0..100).for_each(|_| server.commit_with("posts", 10, &text));
    server.store.retain_now().unwrap();
    let purged = server.store.stream("posts").unwrap().purged();
    assert!(purged > Offset::START);
    let purged = Cursor { epoch: server.store.epoch(), offset: purged }.to_string();

    let mut client = server.connect().await;
    let subscribed = client.subscribe(&["posts"], server.cursor(1, 3)).await;
    assert_eq!(subscribed["streams"][0]["from"], purged);
    let gap = client.next().await;
    assert_eq!((&gap["type"], &gap["stream"]), (&json!("gap"), &json!("posts")));
    assert_eq!((&gap["purged"], &gap["reason"]), (&json!(purged), &json!("retention")));
    assert_eq!(client.next().await["type"], "event");

    let mut earliest = server.connect().await;
    assert_eq!(earliest.subscribe(&["posts"], "earliest").await["streams"][0]["from"], purged);
    assert_eq!(earliest.next().await["type"], "event", "who asks for what is left misses nothing");

    let path = format!("/v1/ws?streams=posts&from={}", server.cursor(1, 3));
    let headers = [("sec-websocket-protocol", "cloudevents.json")];
    let mut events = server.try_connect(&path, &headers).await.unwrap();
    let gap = events.next().await;
    assert_eq!((&gap["type"], &gap["specversion"]), (&json!("walmill.gap"), &json!("1.0")));
    assert_eq!(gap["data"]["purged"], purged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_store_is_a_gap_and_one_from_beyond_the_log_an_error() {
    let server = Serving::start().await;
    server.commit("posts", 1);
    let mut client = server.connect().await;
    let epoch = Epoch(server.store.epoch().0 ^ 1);
    let foreign = Cursor { epoch, offset: Offset::new(Lsn(8), 0) }.to_string();
    client.subscribe(&["posts"], foreign).await;
    let gap = client.next().await;
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("other-store")));
    assert_eq!(client.ids(1).await, [id(1, 0)]);

    let beyond = Offset::new(Lsn(2 << 32), 0);
    let beyond = Cursor { epoch: server.store.epoch(), offset: beyond }.to_string();
    let error = client.subscribe(&["comments"], beyond).await;
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("cursor-ahead")));
    assert_eq!(error["id"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_ahead_of_a_tail_that_is_made_again_waits_for_what_follows() {
    let server = Serving::start().await;
    let mut client = server.connect().await;
    let subscribed = client.subscribe(&["posts"], server.cursor(2, 0)).await;
    assert_eq!(subscribed["streams"][0]["from"], server.cursor(2, 0));
    server.commit("posts", 2);
    server.commit("posts", 2);
    assert_eq!(client.ids(1).await, [id(2, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_messages_are_answered_and_the_connection_goes_on() {
    let server = Serving::start().await;
    server.commit("posts", 1);
    let mut client = server.connect().await;
    let nested = "[".repeat(60_000);
    let cases: &[(&str, &str)] = &[
        ("", "bad-message"),
        ("null", "bad-message"),
        ("{", "bad-message"),
        ("[]", "bad-message"),
        (&nested, "bad-message"),
        (r#"{"type":"subscribe"}"#, "no-streams"),
        (r#"{"type":"subscribe","streams":[]}"#, "no-streams"),
        (r#"{"type":"subscribe","streams":"posts"}"#, "bad-message"),
        (r#"{"type":"subscribe","streams":["posts"],"filter":"x"}"#, "bad-filter"),
        (r#"{"type":"subscribe","streams":["posts"],"window":0}"#, "bad-message"),
        (r#"{"type":"subscribe","streams":["posts"],"window":-1}"#, "bad-message"),
        (r#"{"type":"subscribe","streams":["posts"],"window":1e99}"#, "bad-message"),
        (r#"{"type":"subscribe","streams":["posts"],"window":4294967295}"#, "bad-window"),
        (r#"{"type":"subscribe","streams":["posts","posts"]}"#, "already-subscribed"),
        (r#"{"type":"subscribe","streams":["nope"]}"#, "unknown-stream"),
        (r#"{"type":"subscribe","streams":["posts"],"from":"0"}"#, "bad-cursor"),
        (r#"{"type":"subscribe","streams":["posts"],"from":{"x":"latest"}}"#, "bad-message"),
        (r#"{"type":"subscribe","streams":["posts"],"from":7}"#, "bad-message"),
        (r#"{"type":"unsubscribe"}"#, "not-subscribed"),
        (r#"{"type":"unsubscribe","streams":["posts"]}"#, "not-subscribed"),
        (r#"{"type":"ack"}"#, "bad-message"),
        (r#"{"type":"ack","stream":"posts","cursor":"x"}"#, "bad-cursor"),
        (r#"{"type":"drop table"}"#, "unknown-type"),
        (r#"{"type":"event"}"#, "unknown-type"),
        (r#"{"type":"ping","type":"ping"}"#, "bad-message"),
    ];
    for (text, code) in cases {
        client.socket.send(Message::text(*text)).await.unwrap();
        let answer = client.next().await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{text}");
    }
    let answer = client.subscribe(&["nope"], "latest").await;
    assert_eq!(answer["suggestion"], "the streams are: comments, posts");
    assert_eq!(client.subscribe(&["posts"], "earliest").await["type"], "subscribed");
    assert_eq!(client.ids(1).await, [id(1, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_at_all_ends_the_connection_with_the_reason() {
    let server = Serving::start().await;
    let mut binary = server.connect().await;
    binary.socket.send(Message::binary(vec![0; 8])).await.unwrap();
    let (_, close) = binary.rest().await;
    assert_eq!(close, Some((1003, "messages are JSON texts".into())));

    // Most of it is never read, so the connection may be reset before the reason arrives.
    let mut large = server.connect().await;
    let _ = large.socket.send(Message::text("x".repeat(1 << 20))).await;
    let (messages, close) = large.rest().await;
    assert!(messages.iter().all(|message| message["code"] == "unreadable"));
    assert!(close.is_none_or(|(code, _)| code == 1009));
    server.left("websocket", "error", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_chooses_a_subprotocol_or_refuses() {
    let server = Serving::start().await;
    server.commit("posts", 1);
    server.commit("comments", 1);
    let chosen = async |asked: &str, path: &str| {
        let headers = [("sec-websocket-protocol", asked)];
        match server.try_connect(path, &headers).await {
            Ok(client) => Ok(client.protocol),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(server.connect().await.protocol, None);
    assert_eq!(chosen("walmill.v1.json", "/v1/ws").await, Ok(Some("walmill.v1.json".into())));
    let both = chosen("graphql-ws, cloudevents.json", "/v1/ws?streams=posts").await;
    assert_eq!(both, Ok(Some("cloudevents.json".into())));
    assert_eq!(chosen("graphql-ws", "/v1/ws").await, Err(400));
    assert_eq!(chosen("cloudevents.json", "/v1/ws").await, Err(400));
    assert_eq!(chosen("cloudevents.json", "/v1/ws?streams=nope").await, Err(404));
    assert_eq!(chosen("cloudevents.json", "/v1/ws?streams=posts&from=x").await, Err(400));
    assert_eq!(chosen("walmill.v1.json", "/v1/ws?stream=posts").await, Err(400));
    assert_eq!(server.get("/v1/ws").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudevents_come_as_they_are_and_an_events_id_is_a_place_to_go_on_from() {
    let server = Serving::start().await;
    server.commit("posts", 2);
    server.commit("comments", 2);
    let headers = [("sec-websocket-protocol", "cloudevents.json")];
    let path = format!("/v1/ws?streams=posts,comments&from={},earliest", id(1, 0));
    let mut client = server.try_connect(&path, &headers).await.unwrap();
    let mut seen = HashSet::new();
    for _ in 0..3 {
        let event = client.next().await;
        assert_eq!(event["specversion"], "1.0");
        seen.insert((event["stream"].as_str().unwrap().to_owned(), event["id"].to_string()));
    }
    let pair = |stream: &str, id: String| (stream.to_owned(), format!("\"{id}\""));
    let expected =
        [pair("posts", id(1, 1)), pair("comments", id(2, 0)), pair("comments", id(2, 1))];
    assert_eq!(seen, expected.into());
    server.shutdown.cancel();
    let (_, close) = client.rest().await;
    let cursors = format!("{},{}", server.cursor(1, 1), server.cursor(2, 1));
    assert_eq!(close, Some((1012, cursors)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_refused_and_listed_ones_are_not() {
    let config = Config {
        origins: vec![Origin::try_from("https://app.example".to_owned()).unwrap()],
        ..Config::default()
    };
    let server = Serving::configured(config, store::Config::default()).await;
    let own = format!("http://{}", server.address);
    for (origin, allowed) in [
        (own.as_str(), true),
        ("https://app.example", true),
        ("https://evil.example", false),
        ("https://app.example.evil.example", false),
        ("null", false),
    ] {
        let result = server.try_connect("/v1/ws", &[("origin", origin)]).await;
        match result {
            Ok(_) => assert!(allowed, "{origin}"),
            Err(Error::Http(response)) => {
                assert!(!allowed, "{origin}");
                assert_eq!(response.status(), 403);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_everywhere_but_for_health() {
    let config = Config { token: Some(Secret::new("s3cret")), ..Config::default() };
    let server = Serving::configured(config, store::Config::default()).await;
    for path in ["/v1/streams", "/metrics", "/api/v1/status", "/v1/streams/posts/events", "/nope"] {
        let (status, finding) = server.get(path).await;
        assert_eq!((status, &finding["code"]), (401, &json!("unauthorized")), "{path}");
        let separator = if path.contains('?') { '&' } else { '?' };
        assert_eq!(server.get(&format!("{path}{separator}token=S3cret")).await.0, 401, "{path}");
    }
    for path in ["/livez", "/readyz", "/console", "/v1/streams?token=s3cret"] {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    let bearer = [("authorization", "Bearer s3cret")];
    assert!(server.try_connect("/v1/ws", &bearer).await.is_ok());
    assert!(server.try_connect("/v1/ws?token=s3cret", &[]).await.is_ok());
    let error = server.try_connect("/v1/ws", &[]).await.err().expect("no token");
    assert!(matches!(error, Error::Http(response) if response.status() == 401));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_shutdown_a_client_hears_where_to_go_on() {
    let server = Serving::start().await;
    server.commit("posts", 2);
    let mut client = server.connect().await;
    client.subscribe(&["posts"], "earliest").await;
    client.ids(2).await;
    server.shutdown.cancel();
    let (messages, close) = client.rest().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(
        (&messages[0]["type"], &messages[0]["code"]),
        (&json!("closing"), &json!("shutdown"))
    );
    assert_eq!(close, Some((1012, server.cursor(1, 1))));
    server.ended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_beyond_the_bound_are_refused_and_let_in_when_others_left() {
    let config = Config { max_clients: 2.try_into().unwrap(), ..Config::default() };
    let server = Serving::configured(config, store::Config::default()).await;
    let first = server.connect().await;
    let _second = server.connect().await;
    let error = server.try_connect("/v1/ws", &[]).await.err().expect("no place");
    assert!(matches!(error, Error::Http(response) if response.status() == 503));
    assert_eq!(server.get("/v1/streams/posts/sse").await.0, 503);
    drop(first);
    server.left("websocket", "closed", 1).await;
    server.connect().await;
}
