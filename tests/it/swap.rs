//! A plugin is replaced while events flow: each is seen by exactly one version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::clients;
use crate::support::process::Walmill;
use crate::support::stamp::{save, stamp, version};
use crate::support::{cluster, connect, execute};

const SWAPS: u32 = 100;
/// Rows that mark the end.
const END: i64 = 1_000_000_000;

pub const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.ticks"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[plugins.stamp]
path = "stamp.wasm"

[[pipeline]]
name = "ticks"
tables = ["public.ticks"]
plugins = ["stamp"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_swaps_under_load_lose_double_and_mix_nothing() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let mut walmill = Walmill::prepare(CONFIG, &cluster.url());
    save(walmill.folder(), &stamp(0), true);
    walmill.launch();
    walmill.ready().await;
    let ended = |events: &[Value]| {
        events.last().is_some_and(|event| event["data"]["key"]["id"].as_i64() == Some(END))
    };
    let reader = tokio::spawn({
        let port = walmill.port();
        async move { clients::sse(port, "ticks", ended).await }
    });
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut next = 0_i64;
            while !stop.load(Ordering::Relaxed) {
                let sql = format!("INSERT INTO ticks SELECT generate_series({next}, {})", next + 2);
                execute(&database, &sql).await;
                next += 3;
            }
            execute(&database, &format!("INSERT INTO ticks VALUES ({END})")).await;
            next
        }
    });
    let mut generation = 1;
    for swap in 1..=SWAPS {
        save(walmill.folder(), &stamp(swap), swap % 2 == 0);
        generation = in_force_after(&walmill, generation).await;
        // The running version has seen events of its own before the next one comes.
        let seen = emitted(&walmill).await;
        walmill.wait_for("/api/v1/pipelines", |pipelines| emitted_in(pipelines) > seen).await;
    }
    stop.store(true, Ordering::Relaxed);
    let rows = writer.await.expect("the writer");
    let events = reader.await.expect("the reader");
    let ids: Vec<i64> =
        events.iter().map(|event| event["data"]["key"]["id"].as_i64().expect("an id")).collect();
    let expected: Vec<i64> = (0..rows).chain([END]).collect();
    assert_eq!(ids, expected, "every row once, in order");
    let versions: Vec<u32> = events.iter().map(version).collect();
    assert!(versions.is_sorted(), "a version never comes back");
    let mut different = versions;
    different.dedup();
    assert_eq!(different, (0..=SWAPS).collect::<Vec<_>>(), "each version saw events");
}

pub async fn in_force_after(walmill: &Walmill, before: u64) -> u64 {
    let generation = |plugins: &Value| find(plugins, "generation").as_u64().unwrap_or(0);
    walmill.wait_for("/api/v1/plugins", |plugins| generation(plugins) > before).await;
    generation(&walmill.json("/api/v1/plugins").await)
}

async fn emitted(walmill: &Walmill) -> u64 {
    emitted_in(&walmill.json("/api/v1/pipelines").await)
}

fn emitted_in(pipelines: &Value) -> u64 {
    find(pipelines, "emitted").as_u64().unwrap_or(0)
}

/// A key of the only entry of a list, which may stand under a name of its own.
fn find<'a>(answer: &'a Value, key: &str) -> &'a Value {
    let list = answer.as_array().or_else(|| answer.as_object()?.values().next()?.as_array());
    list.and_then(|list| list.first()).map_or(&Value::Null, |entry| &entry[key])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_never_goes_live_and_says_why_everywhere() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let mut walmill = Walmill::prepare(CONFIG, &cluster.url());
    save(walmill.folder(), &stamp(0), true);
    walmill.launch();
    walmill.ready().await;
    let not_one = wat::parse_str("(module)").expect("valid text");
    let half = stamp(1)[..400].to_vec();
    for (number, bad) in (1_i64..).zip([b"garbage".to_vec(), not_one, half]) {
        save(walmill.folder(), &bad, true);
        walmill
            .wait_for("/api/v1/plugins", |plugins| {
                let history = find(plugins, "history").as_array().cloned().unwrap_or_default();
                let refused = history.iter().filter(|entry| entry["error"].is_string()).count();
                refused as i64 == number && find(plugins, "generation") == 1
            })
            .await;
        execute(&database, &format!("INSERT INTO ticks VALUES ({number})")).await;
    }
    let metrics = walmill.text("/metrics").await;
    let refused = "walmill_plugin_reloads_total{name=\"stamp\",outcome=\"refused\"} 3";
    assert!(metrics.contains(refused), "{metrics}");
    assert!(walmill.log().contains("stamp"), "{}", walmill.log());
    let events = clients::sse(walmill.port(), "ticks", |events| events.len() == 3).await;
    assert!(events.iter().all(|event| version(event) == 0), "the old version runs on");
}
