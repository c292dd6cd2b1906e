//! Streams from a time on.

use serde_json::{Value, json};
use walmill::model::{ByteSize, Cursor, Offset};
use walmill::server::Config;
use walmill::store;
use walmill::store::retention::Retention;

use crate::support::process::Walmill;
use crate::support::serving::Serving;
use crate::support::{clients, cluster, connect, execute};
use crate::swap::CONFIG;

const T: &str = "2026-11-25T09:30";

fn ids(page: &Value) -> Vec<&str> {
    let events = page["events"].as_array().expect("events");
    events.iter().map(|event| event["id"].as_str().expect("an id")).collect()
}

/// The ids of what a page from here on has, and where it says that it began.
async fn page(server: &Serving, parameters: &str) -> (Value, String) {
    let url = server.url(&format!("/v1/streams/posts/events?{parameters}"));
    let answer = reqwest::get(url).await.expect("an answer");
    assert_eq!(answer.status(), 200, "{parameters}");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let began = answer.headers()["walmill-replay-from"].to_str().expect("text").to_owned();
    let body = answer.bytes().await.expect("a body");
    (serde_json::from_slice(&body).expect("JSON"), began)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_the_first_event_of_a_time_by_websocket_sse_and_pages() {
    let server = Serving::start().await;
    // The third committed before the second, by a clock that was set.
    for second in [10, 20, 15, 30] {
        server.commit_at("posts", second, "text");
    }
    let id = |number: u64| format!("0/{:X}/0", 8 * number);
    for (time, first) in [
        (format!("{T}:00Z"), 1),
        (format!("{T}:10Z"), 1),
        (format!("{T}:10.000001Z"), 2),
        // What is older and stands behind it comes, too: the stream keeps its order.
        (format!("{T}:15Z"), 2),
        ("2026-11-25T22:30:20%2B13:00".to_owned(), 2),
        (format!("{T}:21Z"), 4),
        ("2026-11-25".to_owned(), 1),
    ] {
        let expected: Vec<String> = (first..=4).map(id).collect();
        for parameter in ["from", "after"] {
            let (found, began) = page(&server, &format!("{parameter}={time}&limit=9")).await;
            assert_eq!(
                (ids(&found), &found["gap"]),
                (expected.iter().map(String::as_str).collect(), &json!(null)),
                "{time}"
            );
            let expected = match first {
                1 => Cursor { epoch: server.store.epoch(), offset: Offset::START }.to_string(),
                _ => server.cursor(first - 1, 0),
            };
            assert_eq!(began, expected, "{time}");
        }
        let time = time.replace("%2B", "+");
        let mut client = server.connect().await;
        let subscribed = client.subscribe(&["posts"], time.as_str()).await;
        assert_eq!(client.next().await["event"]["id"], id(first), "{time}: {subscribed}");
    }
    let url = server.url(&format!("/v1/streams/posts/sse?from={T}:30Z"));
    let mut answer = reqwest::get(url).await.expect("an answer");
    assert_eq!(answer.headers()["walmill-replay-from"], server.cursor(3, 0));
    let mut text = String::new();
    while !text.contains("data:") {
        text += std::str::from_utf8(&answer.chunk().await.expect("a chunk").expect("more"))
            .expect("UTF-8");
    }
    assert!(text.contains(&id(4)) && !text.contains(&id(3)), "{text}");
    // Nothing has committed then: what comes next is the first.
    let (empty, began) = page(&server, &format!("from={T}:31Z")).await;
    assert_eq!((ids(&empty).len(), began), (0, server.cursor(4, 0)));
    for (parameters, why) in [
        ("from=2026-11-25T09:30:00", "bad-cursor"),
        ("from=yesterday", "bad-cursor"),
        ("from=2026-11-25&after=earliest", "bad-from"),
    ] {
        let (status, problem) = server.get(&format!("/v1/streams/posts/events?{parameters}")).await;
        assert_eq!((status, &problem["code"]), (400, &json!(why)), "{parameters}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_before_what_is_kept_is_an_explicit_gap() {
    let retention = Retention { size: ByteSize::new(20_000), ..Retention::default() };
    let store = store::Config { retention, ..store::Config::default() };
    let server = Serving::configured(Config::default(), store).await;
    let text = "x".repeat(1000);
    (0..60).for_each(|second| server.commit_at("posts", second, &text));
    server.store.retain_now().expect("retention");
    let purged = server.store.stream("posts").expect("a stream").purged();
    let cursor = Cursor { epoch: server.store.epoch(), offset: purged }.to_string();
    let last_gone = u32::try_from(purged.commit.0 / 8 - 1).expect("a second");
    assert!(last_gone > 0 && last_gone < 59, "{last_gone}");
    let (gone, began) = page(&server, &format!("from={T}:{last_gone:02}Z&limit=1")).await;
    assert_eq!(
        (&gone["gap"]["reason"], &gone["gap"]["purged"]),
        (&json!("retention"), &json!(cursor))
    );
    assert_eq!(began, cursor);
    let first_kept = last_gone + 1;
    let (kept, _) = page(&server, &format!("from={T}:{first_kept:02}Z&limit=1")).await;
    assert_eq!((&kept["gap"], ids(&kept).len()), (&json!(null), 1));
    let mut client = server.connect().await;
    let subscribed = client.subscribe(&["posts"], format!("{T}:00Z")).await;
    assert_eq!(subscribed["streams"][0]["from"], cursor);
    let gap = client.next().await;
    assert_eq!((&gap["type"], &gap["purged"]), (&json!("gap"), &json!(cursor)));
    let url = server.url(&format!("/v1/streams/posts/sse?from={T}:00Z"));
    let mut answer = reqwest::get(url).await.expect("an answer");
    let mut text = String::new();
    while !text.contains("data:") {
        text += std::str::from_utf8(&answer.chunk().await.expect("a chunk").expect("more"))
            .expect("UTF-8");
    }
    assert!(text.contains("event: gap") && text.contains(&cursor), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_times_of_a_database_s_commits_are_found_after_a_restart_too() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let config = CONFIG.replace("[plugins.stamp]\npath = \"stamp.wasm\"", "");
    let mut walmill =
        Walmill::prepare(&config.replace("plugins = [\"stamp\"]", ""), &cluster.url());
    walmill.launch();
    walmill.ready().await;
    for row in 1..=20 {
        execute(&database, &format!("INSERT INTO ticks VALUES ({row})")).await;
    }
    let all = clients::sse(walmill.port(), "ticks", |events| events.len() == 20).await;
    for restarted in [false, true] {
        if restarted {
            walmill.kill();
            walmill.launch();
            walmill.ready().await;
        }
        for (at, event) in all.iter().enumerate() {
            let time = event["time"].as_str().expect("a time");
            let address = format!("/v1/streams/ticks/events?from={time}&limit=100");
            let rest = walmill.json(&address).await;
            let first = all.iter().position(|event| event["time"].as_str() >= Some(time));
            assert_eq!(rest["events"], json!(all[first.expect("itself")..]), "{at} {time}");
        }
    }
}
