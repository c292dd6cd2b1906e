//! Where an output with `from = "latest"` begins, and that it skips nothing once it has begun.

use super::*;
use crate::support::process::Walmill;
use crate::support::{cluster, connect, execute};

/// An output `billing` that begins at the newest.
fn latest(streams: &Streams, receiver: &Receiver, wants: &str) -> Output {
    starting(streams, receiver, wants, "latest")
}

fn starting(streams: &Streams, receiver: &Receiver, wants: &str, from: &str) -> Output {
    let config = format!(
        "name = 'billing'\nstreams = {wants}\nurl = '{}'\nsecret = '{SECRET}'\n\
         allow_private = true\nfrom = '{from}'\nretry = {{ initial = '10ms' }}",
        receiver.url()
    );
    Output::with(streams, &config)
}

/// What has come, once it is so many.
async fn come(receiver: &Receiver, count: usize) -> Vec<String> {
    until("all has come", || receiver.taken().len() >= count).await;
    let mut came: Vec<_> = receiver.taken().iter().map(|taken| taken.event("subject")).collect();
    came.sort();
    came
}

#[tokio::test]
async fn a_stream_that_was_made_while_a_latest_output_was_stopped_is_delivered_whole() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let old = streams.commit("orders.eu", &["old"]);
    let output = latest(&streams, &receiver, "['orders.*']");
    until("it has begun", || streams.checkpoint("orders.eu") == old.last().copied()).await;
    output.stop().await;
    streams.commit("orders.us", &["b"]);
    streams.commit("orders.eu", &["c"]);
    let mut streams = streams.reopen();
    let output = latest(&streams, &receiver, "['orders.*']");
    streams.commit("orders.us", &["d"]);
    assert_eq!(come(&receiver, 3).await, ["b", "c", "d"]);
    output.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_made_while_a_latest_output_runs_is_delivered_whole() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let old = streams.commit("orders.eu", &["old"]);
    let output = latest(&streams, &receiver, "['orders.*']");
    until("it has begun", || streams.checkpoint("orders.eu") == old.last().copied()).await;
    streams.commit("orders.us", &["b"]);
    streams.commit("posts", &["not wanted"]);
    streams.commit("orders.eu", &["c"]);
    assert_eq!(come(&receiver, 2).await, ["b", "c"]);
    output.stop().await;
}

#[tokio::test]
async fn a_new_stream_is_kept_while_the_receiver_is_away_and_delivered_whole() {
    let mut streams = Streams::kept_for(Period::from_millis(1));
    let (receiver, back) = Receiver::away(503).await;
    let old = streams.commit("orders.eu", &["old"]);
    let output = latest(&streams, &receiver, "['orders.*']");
    until("it has begun", || streams.checkpoint("orders.eu") == old.last().copied()).await;
    for key in ["a", "b"] {
        streams.commit("orders.us", &[key]);
        streams.commit("posts", &[key]);
    }
    until("it was tried", || !receiver.requests().is_empty()).await;
    streams.store.retain_now().expect("what is old goes");
    assert!(streams.store.stream("posts").expect("a stream").purged() > Offset::START);
    output.stop().await;
    back.store(true, SeqCst);
    let output = latest(&streams, &receiver, "['orders.*']");
    assert_eq!(come(&receiver, 2).await, ["a", "b"]);
    output.stop().await;
}

#[tokio::test]
async fn an_output_that_begins_before_there_is_any_stream_skips_nothing() {
    let streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    latest(&streams, &receiver, "['orders.*']").stop().await;
    let mut streams = streams.reopen();
    streams.commit("orders.eu", &["a"]);
    let output = latest(&streams, &receiver, "['orders.*']");
    assert_eq!(come(&receiver, 1).await, ["a"]);
    output.stop().await;
}

#[tokio::test]
async fn what_comes_while_a_latest_output_is_disabled_is_kept_and_delivered() {
    let mut streams = Streams::kept_for(Period::from_millis(1));
    let (receiver, back) = Receiver::away(410).await;
    let old = streams.commit("orders.eu", &["old"]);
    let output = latest(&streams, &receiver, "['orders.*']");
    until("it has begun", || streams.checkpoint("orders.eu") == old.last().copied()).await;
    streams.commit("orders.eu", &["a"]);
    until("it is disabled", || output.status.borrow().disabled.is_some()).await;
    for key in ["b", "c"] {
        streams.commit("orders.us", &[key]);
        streams.commit("posts", &[key]);
    }
    let purged = |stream| streams.store.stream(stream).expect("a stream").purged();
    until("what is old goes", || {
        streams.store.retain_now().expect("a store that works");
        purged("posts") > Offset::START
    })
    .await;
    assert_eq!(purged("orders.us"), Offset::START);
    output.stop().await;
    let streams = streams.reopen();
    let output = latest(&streams, &receiver, "['orders.*']");
    until("it is disabled still", || output.status.borrow().disabled.is_some()).await;
    back.store(true, SeqCst);
    assert!(streams.store.enable("billing").expect("a store that works"));
    assert_eq!(come(&receiver, 3).await, ["a", "b", "c"]);
    output.stop().await;
}

#[tokio::test]
async fn a_widened_pattern_begins_at_the_newest_of_what_is_there_and_takes_later_streams_whole() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    streams.commit("orders.eu", &["old"]);
    streams.commit("posts", &["old"]);
    latest(&streams, &receiver, "['orders.*']").stop().await;
    // This one fits what it wanted already, and it has not seen it; the other one is new to it.
    streams.commit("orders.us", &["a"]);
    streams.commit("posts", &["old"]);
    latest(&streams, &receiver, "['posts', 'orders.eu', 'orders.us', 'later']").stop().await;
    streams.commit("posts", &["b"]);
    streams.commit("later", &["c"]);
    let output = latest(&streams, &receiver, "['posts', 'orders.eu', 'orders.us', 'later']");
    assert_eq!(come(&receiver, 3).await, ["a", "b", "c"]);
    output.stop().await;
}

#[tokio::test]
async fn a_widened_pattern_takes_what_is_there_whole_where_an_output_begins_at_the_earliest() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    streams.commit("orders", &["a"]);
    streams.commit("posts", &["b"]);
    starting(&streams, &receiver, "['orders']", "earliest").stop().await;
    let output = starting(&streams, &receiver, "['orders', 'posts']", "earliest");
    assert_eq!(come(&receiver, 2).await, ["a", "b"]);
    output.stop().await;
    // What it delivers already is not changed by what `from` says.
    streams.commit("orders", &["c"]);
    let output = starting(&streams, &receiver, "['orders', 'posts']", "latest");
    assert_eq!(come(&receiver, 3).await, ["a", "b", "c"]);
    output.stop().await;
}

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.orders", "public.returns"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[[pipeline]]
name = "shop.orders"
tables = ["public.orders"]

[[pipeline]]
name = "shop.returns"
tables = ["public.returns"]

[[output.webhook]]
name = "billing"
streams = ["shop.*"]
url = "HOOK"
secret = "SECRET"
allow_private = true
from = "latest"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_nothing_of_what_came_while_a_latest_output_was_disabled() {
    let (receiver, back) = Receiver::away(410).await;
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE orders (id bigint PRIMARY KEY)").await;
    execute(&database, "CREATE TABLE returns (id bigint PRIMARY KEY)").await;
    let config = CONFIG.replace("HOOK", &receiver.url()).replace("SECRET", SECRET);
    let mut walmill = Walmill::start(&config, &cluster.url()).await;
    execute(&database, "INSERT INTO orders VALUES (1)").await;
    let is_disabled = |answer: &serde_json::Value| answer["outputs"][0]["disabled"].is_object();
    walmill.wait_for("/api/v1/outputs", is_disabled).await;
    execute(&database, "INSERT INTO returns VALUES (2)").await;
    let has_come =
        |page: &serde_json::Value| page["events"].as_array().is_some_and(|e| e.len() == 1);
    walmill.wait_for("/v1/streams/shop.returns/events", has_come).await;
    walmill.kill();
    walmill.launch();
    walmill.ready().await;
    walmill.wait_for("/api/v1/outputs", is_disabled).await;
    back.store(true, SeqCst);
    let url = walmill.url("/api/v1/outputs/billing/enable");
    let enabled = reqwest::Client::new().post(url).send().await.expect("an answer");
    assert_eq!(enabled.status(), 200);
    assert_eq!(come(&receiver, 2).await, ["public.orders/1", "public.returns/2"]);
}
