//! Streams page by page, and what can be asked about walmill itself.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use walmill::model::status::SourceState;
use walmill::model::{ByteSize, Cursor, EventId, Lsn, Offset};
use walmill::server::Config;
use walmill::store::dead_letter::{By, DeadLetter};
use walmill::store::retention::Retention;
use walmill::store::{self, Outcome};

use crate::support::serving::Serving;

fn id(commit: u64, ordinal: u32) -> String {
    EventId(Offset::new(Lsn(8 * commit), ordinal)).to_string()
}

fn ids(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().expect("events");
    events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_to_the_head_whatever_their_size() {
    let server = Serving::start().await;
    (0..20).for_each(|_| server.commit("posts", 5));
    let all: Vec<String> = (1..=20).flat_map(|at| (0..5).map(move |n| id(at, n))).collect();
    for limit in [1, 7, 100, 1000] {
        let (mut after, mut seen) = ("earliest".to_owned(), Vec::new());
        loop {
            let path = format!("/v1/streams/posts/events?after={after}&limit={limit}");
            let (status, page) = server.get(&path).await;
            assert_eq!((status, &page["gap"]), (200, &Value::Null));
            seen.extend(ids(&page));
            after = page["next"].as_str().unwrap().to_owned();
            if page["more"] == json!(false) {
                break;
            }
            assert_eq!(ids(&page).len(), limit);
        }
        assert_eq!(seen, all, "limit {limit}");
        let path = format!("/v1/streams/posts/events?after={after}");
        let (_, page) = server.get(&path).await;
        assert_eq!((ids(&page).len(), &page["next"]), (0, &json!(after)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_full_pages_behind_a_cursor_may_be_cached() {
    let server = Serving::start().await;
    server.commit("posts", 4);
    let cursor = server.cursor(1, 0);
    for (query, cached) in [
        (format!("after={cursor}&limit=2"), true),
        (format!("after={cursor}&limit=3"), false),
        (format!("after={cursor}&limit=100"), false),
        ("limit=2".to_owned(), false),
        ("after=earliest&limit=2".to_owned(), false),
    ] {
        let url = server.url(&format!("/v1/streams/posts/events?{query}"));
        let response = reqwest::get(url).await.unwrap();
        let caching = response.headers()["cache-control"].to_str().unwrap();
        let expected = if cached { "public, max-age=3600, immutable" } else { "no-store" };
        assert_eq!(caching, expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_request_is_answered_by_the_next_event() {
    let server = Serving::start().await;
    server.commit("posts", 1);
    let path = format!("/v1/streams/posts/events?after={}&wait=60s", server.cursor(1, 0));
    let (page, ()) = tokio::join!(server.get(&path), async {
        server.commit("comments", 1);
        server.commit("posts", 1);
    });
    assert_eq!(ids(&page.1), [id(3, 0)]);
    let (_, page) = server.get("/v1/streams/posts/events?after=latest&wait=10ms").await;
    assert_eq!((ids(&page).len(), &page["next"]), (0, &json!(server.cursor(3, 0))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_told_at_the_head_of_its_page() {
    let retention = Retention { size: ByteSize::new(200_000), ..Retention::default() };
    let store = store::Config { retention, ..store::Config::default() };
    let server = Serving::configured(Config::default(), store).await;
    let text = "x".repeat(1000);
    (0..100).for_each(|_| server.commit_with("posts", 10, &text));
    server.store.retain_now().unwrap();
    let purged = server.store.stream("posts").unwrap().purged();
    let purged = Cursor { epoch: server.store.epoch(), offset: purged }.to_string();
    let path = format!("/v1/streams/posts/events?after={}&limit=1", server.cursor(1, 0));
    let (_, page) = server.get(&path).await;
    assert_eq!(page["gap"]["purged"], purged);
    assert_eq!(page["gap"]["reason"], "retention");
    assert_eq!(ids(&page).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_refused_with_what_to_do() {
    let server = Serving::start().await;
    for (query, code) in [
        ("limit=0", "bad-limit"),
        ("limit=1001", "bad-limit"),
        ("limit=-1", "bad-limit"),
        ("limit=many", "bad-limit"),
        ("wait=61s", "bad-wait"),
        ("wait=forever", "bad-wait"),
        ("wait=99999999999999999999", "bad-wait"),
        ("after=yesterday", "bad-cursor"),
        ("afer=latest", "unknown-parameter"),
    ] {
        let (status, finding) = server.get(&format!("/v1/streams/posts/events?{query}")).await;
        assert_eq!((status, &finding["code"]), (400, &json!(code)), "{query}");
    }
    let (_, finding) = server.get("/v1/streams/posts/events?afer=latest").await;
    assert_eq!(finding["suggestion"], "did you mean `after`?");
    let (status, finding) = server.get("/v1/nothing").await;
    assert_eq!((status, &finding["code"]), (404, &json!("unknown-address")));
    let post = reqwest::Client::new().post(server.url("/v1/streams")).send().await.unwrap();
    assert_eq!(post.status(), 405);
    assert!(post.text().await.unwrap().contains("use GET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_finishes_its_headers_is_closed() {
    let server = Serving::start().await;
    let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    socket.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_the_check_that_fails() {
    let server = Serving::start().await;
    assert_eq!(server.get("/livez").await.0, 200);
    let (status, ready) = server.get("/readyz").await;
    assert_eq!((status, &ready["status"]), (200, &json!("ready")));

    server.pipeline.send_modify(|pipeline| pipeline.stopped = Some("plugin trapped".into()));
    let (status, ready) = server.get("/readyz").await;
    let failed = json!({ "name": "pipeline main", "ok": false, "message": "plugin trapped" });
    assert_eq!((status, &ready["checks"][1]), (503, &failed));

    server.source.send_modify(|source| {
        let (error, remedy) = ("connection refused".into(), "start PostgreSQL".into());
        source.state = SourceState::Waiting { error, remedy, retry_ms: 100 };
    });
    let (_, ready) = server.get("/readyz").await;
    assert_eq!(ready["checks"][0]["message"], "connection refused: start PostgreSQL");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_source_streams_and_dead_letters() {
    let server = Serving::start().await;
    server.commit("posts", 2);
    let (_, status) = server.get("/api/v1/status").await;
    assert_eq!(status["source"]["state"]["state"], "streaming");
    assert_eq!(status["pipelines"][0]["name"], "main");
    assert_eq!(status["streams"][1]["name"], "posts");
    assert_eq!(status["streams"][1]["head"], server.cursor(1, 1));
    let (_, streams) = server.get("/v1/streams").await;
    assert_eq!(streams["streams"], status["streams"]);

    let payload = r#"{"id": 1.10, "text": "kept as it was"}"#;
    let letter = DeadLetter {
        event: "0/8/0".into(),
        by: By::Route { pipeline: "main".into() },
        reason: "no such stream".into(),
        time: 1,
        attempts: 1,
        retrying: false,
        tries: Vec::new(),
        change: None,
        key: None,
        payload: serde_json::value::RawValue::from_string(payload.into()).unwrap(),
    };
    let outcome = Outcome {
        pipeline: "main".into(),
        cursor: Offset::end_of(Lsn(16)),
        dead_letters: vec![letter],
        ..Outcome::default()
    };
    server.store.commit(outcome).unwrap();
    let text =
        reqwest::get(server.url("/api/v1/dlq?limit=10")).await.unwrap().text().await.unwrap();
    assert!(text.contains(payload), "{text}");
    let letters: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(letters["dead_letters"][0]["by"]["kind"], "route");
    assert!(letters["dead_letters"][0]["id"].is_number());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_come_as_open_metrics_and_count_what_was_sent() {
    let server = Serving::start().await;
    server.commit("posts", 3);
    server.get("/v1/streams/posts/events").await;
    let response = reqwest::get(server.url("/metrics")).await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = response.text().await.unwrap();
    assert!(text.contains(r#"walmill_client_events_total{name="pull"} 3"#), "{text}");
    assert!(text.ends_with("# EOF\n"));
}
