//! Keyed state that plugins keep: it commits with the events, so counts add up and nothing is taken
//! for a repeat that is none, however often walmill is killed.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::support::process::{PATIENCE, Walmill};
use crate::support::turmoil::seed;
use crate::support::{cluster, connect, execute};

const CONFIG: &str = r#"
[source]
url = "DATABASE"
slot = "walmill"
publication = "walmill"
tables = ["public.visits"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[plugins.visits]
path = "PLUGINS/count.wasm"
config = { by = ["country"], as = "visit" }
allow = { kv = true }

[plugins.once]
path = "PLUGINS/deduplicate.wasm"
config = { by = ["request"], window = "365d" }
allow = { kv = true }

[[pipeline]]
name = "counted"
tables = ["public.visits"]
plugins = ["visits"]

[[pipeline]]
name = "once"
tables = ["public.visits"]
plugins = ["once"]
"#;

const KILLS: usize = 12;
const TRANSACTIONS: usize = 40;

/// The rows of a stream's events, from the first to the one of the country `end`.
async fn records(walmill: &Walmill, stream: &str) -> Vec<Value> {
    let (mut after, mut records) = ("earliest".to_owned(), Vec::new());
    loop {
        let path = format!("/v1/streams/{stream}/events?after={after}&limit=1000&wait=10s");
        let page = walmill.json(&path).await;
        assert_eq!(page["gap"], Value::Null);
        for event in page["events"].as_array().expect("events") {
            let record = event["data"]["record"].clone();
            let last = record["country"] == "end";
            records.push(record);
            if last {
                return records;
            }
        }
        after = page["next"].as_str().expect("a cursor").to_owned();
    }
}

fn int(record: &Value, column: &str) -> i64 {
    record[column].as_i64().unwrap_or_else(|| panic!("{column} in {record}"))
}

fn text(record: &Value, column: &str) -> String {
    record[column].as_str().unwrap_or_else(|| panic!("{column} in {record}")).to_owned()
}

/// Transactions of a few visits each, some from countries and of requests that were there before.
fn visits(random: &mut StdRng) -> String {
    let transaction = |random: &mut StdRng| {
        let rows = random.random_range(1..=9);
        let row = |random: &mut StdRng| {
            let (country, request) = (random.random_range(0..7), random.random_range(0..900));
            format!("('c{country}', 'r{request}')")
        };
        let rows: Vec<String> = (0..rows).map(|_| row(random)).collect();
        format!("insert into visits (country, request) values {};", rows.join(", "))
    };
    (0..TRANSACTIONS).map(|_| transaction(random)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_add_up_and_repeats_are_repeats_through_every_kill() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    let table = "create table visits (id bigserial primary key, country text, request text);
                 create publication walmill for table visits";
    execute(&client, table).await;
    let mut random = StdRng::seed_from_u64(seed());
    let mut walmill = Walmill::start(CONFIG, &cluster.url()).await;
    for _ in 0..KILLS {
        // One statement is one transaction, so the kill falls somewhere among their batches.
        for statement in visits(&mut random).split_inclusive(';') {
            execute(&client, statement).await;
        }
        walmill.kill();
        walmill.launch();
        if random.random_bool(0.7) {
            walmill.ready().await;
        }
    }
    execute(&client, "insert into visits (country, request) values ('end', 'end')").await;
    walmill.ready().await;

    let read = async { (records(&walmill, "counted").await, records(&walmill, "once").await) };
    let read = tokio::time::timeout(PATIENCE, read).await;
    let (counted, once) = read.unwrap_or_else(|_| panic!("no end\n{}", walmill.log()));

    let rows = client.query("select id, country, request from visits order by id", &[]).await;
    let rows = rows.expect("the visits");
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    let expected: Vec<(i64, String, i64)> = rows
        .iter()
        .map(|row| {
            let country: String = row.get("country");
            let count = seen.entry(country.clone()).or_default();
            *count += 1;
            (row.get("id"), country, *count)
        })
        .collect();
    let got: Vec<(i64, String, i64)> =
        counted.iter().map(|r| (int(r, "id"), text(r, "country"), int(r, "visit"))).collect();
    assert!(expected.len() > KILLS * TRANSACTIONS, "{} visits", expected.len());
    assert_eq!(got, expected);

    let mut requests = BTreeSet::new();
    let firsts = rows.iter().filter(|row| requests.insert(row.get::<_, String>("request")));
    let firsts: Vec<i64> = firsts.map(|row| row.get("id")).collect();
    assert!(firsts.len() < expected.len(), "no request came twice");
    assert_eq!(once.iter().map(|record| int(record, "id")).collect::<Vec<_>>(), firsts);
    assert!(walmill.terminate().success(), "{}", walmill.log());
}
