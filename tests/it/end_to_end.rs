//! The whole way, with everything real: what ten thousand random changes must produce is what a
//! WebSocket client, an SSE client and a webhook receiver get.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use walmill::cluster::Stop;

use crate::support::clients::{self, Received, Receiver};
use crate::support::process::{PATIENCE, Walmill};
use crate::support::workload::{self, Expected, STREAMS, Workload, ended, reduce, seed};
use crate::support::{cluster, connect, execute};

const CHANGES: usize = 10_000;

fn config(hook: &str) -> String {
    format!(
        r#"
[source]
url = "DATABASE"
slot = "walmill"
publication = "walmill"
tables = ["public.orders"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"
{}
[[output.webhook]]
name = "hook"
streams = ["orders.*"]
url = "{hook}"
secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
allow_private = true
retry = {{ initial = "5ms", max = "100ms" }}
"#,
        workload::PIPELINE
    )
}

/// What each of the three readers got.
struct Got {
    websocket: Received,
    sse: BTreeMap<String, Vec<Value>>,
}

async fn read_everything(port: u16) -> Got {
    let all_ended = |received: &Received| {
        STREAMS.iter().all(|stream| received.get(*stream).is_some_and(|events| ended(events)))
    };
    let sse = async {
        let [a, b, c] = STREAMS.map(|stream| clients::sse(port, stream, ended));
        let (a, b, c) = tokio::join!(a, b, c);
        STREAMS.map(str::to_owned).into_iter().zip([a, b, c]).collect()
    };
    let (websocket, sse) = tokio::join!(clients::websocket(port, &STREAMS, all_ended), sse);
    Got { websocket, sse }
}

/// In order, all of it, and nothing twice.
fn assert_exact(got: &BTreeMap<String, Vec<Value>>, expected: &Expected, who: &str) {
    for stream in STREAMS {
        let got: Vec<Value> = got[stream].iter().map(reduce).collect();
        let expected = &expected[stream];
        let same = got.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
        assert_eq!(
            (got.get(same), got.len()),
            (expected.get(same), expected.len()),
            "{who}: {stream} differs at event {same}"
        );
    }
}

/// All of it; each event under one id; and each key's events in order, duplicates aside.
async fn assert_delivered(receiver: &Receiver, got: &Got, expected: &Expected) {
    let total = expected.values().map(Vec::len).sum::<usize>();
    let deadline = Instant::now() + PATIENCE;
    while receiver.distinct() < total {
        assert!(Instant::now() < deadline, "{} of {total} delivered", receiver.distinct());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut seen = HashSet::new();
    let mut by_key = HashMap::<String, Vec<Value>>::new();
    for (id, event) in receiver.taken() {
        assert_eq!(event["id"], id.as_str());
        if seen.insert(id) {
            let key = format!("{} {}", event["stream"], event["partitionkey"]);
            by_key.entry(key).or_default().push(event);
        }
    }
    let mut expected_by_key = HashMap::<String, Vec<Value>>::new();
    for event in got.websocket.values().flatten() {
        let key = format!("{} {}", event["stream"], event["partitionkey"]);
        expected_by_key.entry(key).or_default().push(event.clone());
    }
    assert_eq!(by_key, expected_by_key);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_gets_what_ten_thousand_random_changes_must_produce() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, workload::SCHEMA).await;
    let (receiver, hook) = Receiver::start(50).await;
    let walmill = Walmill::start(&config(&hook), &cluster.url()).await;
    let readers = tokio::spawn(read_everything(walmill.port()));
    let mut workload = Workload::new(seed());
    while workload.changes() < CHANGES {
        execute(&database, &workload.transaction()).await;
    }
    execute(&database, &workload.end()).await;
    let got = readers.await.expect("readers");
    assert_exact(&got.websocket, workload.expected(), "websocket");
    assert_exact(&got.sse, workload.expected(), "sse");
    assert_delivered(&receiver, &got, workload.expected()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_invented_through_kills_and_a_database_restart() {
    let seed = seed();
    let mut cluster = cluster();
    let mut database = connect(&cluster).await;
    execute(&database, workload::SCHEMA).await;
    let (receiver, hook) = Receiver::start(50).await;
    let mut walmill = Walmill::start(&config(&hook), &cluster.url()).await;
    let readers = tokio::spawn(read_everything(walmill.port()));
    let mut random = StdRng::seed_from_u64(seed);
    let kills: Vec<usize> = (0..5).map(|_| random.random_range(0..CHANGES)).collect();
    let restart = random.random_range(0..CHANGES);
    let how = if random.random_bool(0.5) { Stop::Fast } else { Stop::Immediate };
    let mut workload = Workload::new(seed);
    while workload.changes() < CHANGES {
        let before = workload.changes();
        execute(&database, &workload.transaction()).await;
        let passed = before..workload.changes();
        for _ in kills.iter().filter(|kill| passed.contains(*kill)) {
            walmill.kill();
            walmill.launch();
        }
        if passed.contains(&restart) {
            cluster.restart(how).expect("restart PostgreSQL");
            database = connect(&cluster).await;
        }
    }
    execute(&database, &workload.end()).await;
    let got = readers.await.expect("readers");
    assert_exact(&got.websocket, workload.expected(), "websocket");
    assert_exact(&got.sse, workload.expected(), "sse");
    assert_delivered(&receiver, &got, workload.expected()).await;
    assert!(walmill.terminate().success(), "{}", walmill.log());
}
