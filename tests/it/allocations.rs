//! On the way of an event memory is asked for by batch, and not by row.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use walmill::metrics::Metrics;
use walmill::pipeline::{self, Pipeline, Shutdown};
use walmill::plugin::{self, Engine, Registry};
use walmill::source::fuzz::receive;
use walmill::store::Store;

use crate::support::allocations::during;
use crate::support::process::built_plugins;
use crate::support::streaming::Streaming;
use crate::support::{cluster, config, connect, execute, folder};

/// Ten columns, as in `walmill bench`.
const TABLE: &str = "create table people (
    id bigint primary key, age integer not null, balance numeric(12,2) not null,
    name text not null, email text not null, country text not null, note text not null,
    active boolean not null, created_at timestamptz not null, profile jsonb not null)";

fn rows(first: u32, last: u32) -> String {
    format!(
        "insert into people select i, i % 90, (i % 100000) / 100.0, 'Name ' || i,
         'user' || i || '@example.com', (array['NZ', 'DE', 'US', 'JP'])[1 + i % 4],
         repeat('note ', 8), i % 2 = 0, now(), jsonb_build_object('a', i, 'b', repeat('x', 80))
         from generate_series({first}, {last}) i"
    )
}

/// A message of a replication stream as a server sends it.
fn sent(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(4 + 25 + message.len()).expect("a short message");
    [&b"d"[..], &len.to_be_bytes(), b"w", &[0; 24], message].concat()
}

/// What a server sends of so many transactions of 100 rows of one table with two columns.
fn transactions(count: u32) -> Vec<u8> {
    let column = |key: u8, name: &str, oid: u32| {
        [&[key], name.as_bytes(), &[0], &oid.to_be_bytes(), &(-1_i32).to_be_bytes()].concat()
    };
    let (id, note) = (column(1, "id", 23), column(0, "note", 25));
    let table = [&b"R\0\0\0\x07public\0t\0d\0\x02"[..], &id, &note].concat();
    let row = b"I\0\0\0\x07N\0\x02t\0\0\0\x0242t\0\0\0\x05hello";
    let mut bytes = sent(&table);
    for n in 1..=u64::from(count) {
        let (lsn, time) = ((n * 1000).to_be_bytes(), [0; 8]);
        bytes.extend(sent(&[&b"B"[..], &lsn, &time, &[0, 0, 0, 9]].concat()));
        (0..100).for_each(|_| bytes.extend(sent(row)));
        bytes.extend(sent(&[&b"C\0"[..], &lsn, &lsn, &time].concat()));
    }
    bytes
}

#[test]
fn the_source_asks_for_memory_by_block() {
    let cost = |count| {
        let (bytes, folder) = (transactions(count), folder());
        let (blocks, cost) = during(|| receive(&bytes, folder.path()));
        assert!(!blocks.expect("a stream").is_empty());
        cost
    };
    let (few, many) = (cost(100), cost(300));
    // 20,000 rows in 200 transactions more.
    let per_row = (many - few) as f64 / 20_000.0;
    assert!(per_row < 0.02, "{per_row} for each row: {few} for 10,000 and {many} for 30,000");
}

/// Runs a pipeline over all that the journal has, on this thread; what it asked for.
fn run(store: &Store, runtime: &Handle, name: &str, plugin: Option<(&str, &str)>) -> u64 {
    let metrics = Arc::new(Metrics::new());
    let engine = Engine::new(None).expect("an engine");
    let mut plugins = BTreeMap::new();
    let mut chain = Vec::new();
    if let Some((file, config)) = plugin {
        let path = built_plugins().join(file).with_extension("wasm");
        let config = config.replace("NAME", name);
        let text = format!("path = '{}'\nconfig = {config}", path.display());
        let config: plugin::Config = toml::from_str(&text).expect("a plugin's config");
        plugins.insert(file.to_owned(), config);
        chain.push(file);
    }
    let registry = Registry::open(&engine, plugins, Arc::clone(&metrics)).expect("the plugins");
    let text = format!(
        "name = '{name}'\ntables = ['public.people']\nplugins = {chain:?}\nstreams = ['{name}.*']"
    );
    let config: pipeline::Config = toml::from_str(&text).expect("a pipeline's config");
    let pipeline = Pipeline::new(config, store.clone(), registry, metrics).expect("a pipeline");
    let status = pipeline.status();
    let shutdown = Shutdown { drain: CancellationToken::new(), abort: CancellationToken::new() };
    shutdown.drain.cancel();
    let (ended, cost) = during(|| pipeline.run(runtime, &shutdown));
    ended.expect("the pipeline runs");
    let status = status.borrow();
    assert!(status.emitted + status.dropped > 0 && status.dead_letters == 0, "{status:?}");
    cost
}

async fn journal(folder: &Path) -> (walmill::cluster::Cluster, tokio_postgres::Client, Streaming) {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let source = Streaming::start(folder, config(&cluster.url()));
    source.streaming().await;
    (cluster, client, source)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_asks_for_memory_by_batch_whatever_its_plugin() {
    let folder = folder();
    let (_cluster, client, source) = journal(folder.path()).await;
    let plugins = [
        ("none", None),
        ("filter", Some(("filter", "{ where = \"country == 'NZ'\" }"))),
        ("reshape", Some(("reshape", "{ mask = { email = 'email' }, drop = ['note'] }"))),
        ("route", Some(("route", "{ column = 'country', prefix = 'NAME.' }"))),
    ];
    let mut costs = Vec::new();
    for (first, last) in [(1, 5_000), (5_001, 25_000)] {
        execute(&client, &rows(first, last)).await;
        source.changes(last as usize).await;
        let (store, runtime) = (source.store.clone(), Handle::current());
        let all = tokio::task::spawn_blocking(move || {
            plugins.map(|(name, plugin)| {
                // From the start of the journal each time.
                run(&store, &runtime, &format!("{name}{last}"), plugin)
            })
        });
        costs.push(all.await.expect("no panic"));
    }
    for (at, (name, _)) in plugins.iter().enumerate() {
        let (few, many) = (costs[0][at], costs[1][at]);
        let per_row = many.saturating_sub(few) as f64 / 20_000.0;
        println!("{name}: {few} for 5,000 rows, {many} for 25,000, {per_row} for each more");
        assert!(per_row < 0.1, "{name}: {per_row} for each row, {few} and {many}");
    }
    source.stop().await;
}
