//! Replays: a pipeline or an output goes over what it has done again.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::process::Walmill;
use crate::support::stamp::{save, stamp, stamp_with};
use crate::support::{clients, cluster, connect, execute};
use crate::swap::{CONFIG, in_force_after};

/// Runs a command of walmill's beside the one that runs: its exit code, stdout and stderr.
fn walmill(of: &Walmill, arguments: &[&str]) -> (i32, String, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_walmill"))
        .args(arguments)
        .arg("--config")
        .arg(of.folder().join("walmill.toml"))
        .output()
        .expect("run walmill");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (ran.status.code().unwrap_or(-1), text(ran.stdout), text(ran.stderr))
}

/// Drops all events.
const DROP: &str = "(memory.fill (i32.const 2048) (i32.const 1) (i32.load (local.get 0)))";

/// A walmill whose plugin, version 1, has seen the rows 1 to 6, one transaction for each.
async fn with_six_rows(cluster: &walmill::cluster::Cluster) -> (Walmill, Vec<Value>) {
    six_rows_with(cluster, CONFIG).await
}

async fn six_rows_with(cluster: &walmill::cluster::Cluster, config: &str) -> (Walmill, Vec<Value>) {
    let database = connect(cluster).await;
    execute(&database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let mut running = Walmill::prepare(config, &cluster.url());
    save(running.folder(), &stamp(1), true);
    running.launch();
    running.ready().await;
    for row in 1..=6 {
        execute(&database, &format!("INSERT INTO ticks VALUES ({row})")).await;
    }
    let events = clients::sse(running.port(), "ticks", |events| events.len() == 6).await;
    (running, events)
}

/// What tells events apart: row, version of the plugin, whether it is replayed.
fn told(events: &[Value]) -> Vec<(i64, String, bool)> {
    let tell = |event: &Value| {
        let record = &event["data"]["record"];
        let version = record["version"].as_str().unwrap_or_default().to_owned();
        (record["id"].as_i64().unwrap_or(-1), version, event["replayed"] == true)
    };
    events.iter().map(tell).collect()
}

fn id(event: &Value) -> &str {
    event["id"].as_str().expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_rewound_after_a_bad_plugin_by_one_command() {
    let cluster = cluster();
    let (running, first) = with_six_rows(&cluster).await;
    save(running.folder(), &stamp(2), true);
    in_force_after(&running, 1).await;
    let from = first[2]["lsn"].as_str().expect("an LSN");
    let (code, out, err) = walmill(&running, &["replay", "--pipeline", "ticks", "--from", from]);
    assert!(code == 0 && out.contains("done") && out.contains("4 events"), "{out}{err}");
    let database = connect(&cluster).await;
    execute(&database, "INSERT INTO ticks VALUES (7)").await;
    let events = clients::sse(running.port(), "ticks", |events| events.len() == 11).await;
    let old = (1..=6).map(|row| (row, "v001".to_owned(), false));
    let again = (3..=6).map(|row| (row, "v002".to_owned(), true));
    let expected: Vec<_> = old.chain(again).chain([(7, "v002".to_owned(), false)]).collect();
    assert_eq!(told(&events), expected);
    for (again, before) in events[6..10].iter().zip(&first[2..]) {
        assert_eq!(id(again), id(before), "the same id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_can_begin_and_end_at_an_lsn_a_time_an_event_or_a_cursor() {
    let cluster = cluster();
    let (running, first) = with_six_rows(&cluster).await;
    let of = |row: usize, key: &str| first[row - 1][key].as_str().expect(key).to_owned();
    let page = running.json("/v1/streams/ticks/events?after=earliest&limit=3").await;
    let cursor = page["next"].as_str().expect("a cursor").to_owned();
    let mut seen = first.len();
    for (from, to, rows) in [
        (of(2, "lsn"), of(3, "lsn"), 2..=3),
        (of(2, "time"), of(4, "time"), 2..=4),
        (of(5, "id"), of(5, "id"), 5..=5),
        (cursor, of(5, "id"), 4..=5),
    ] {
        let (code, out, err) =
            walmill(&running, &["replay", "--pipeline", "ticks", "--from", &from, "--to", &to]);
        assert_eq!(code, 0, "{from} to {to}: {out}{err}");
        let more = rows.clone().count();
        let enough = seen + more;
        let events = clients::sse(running.port(), "ticks", |all| all.len() == enough).await;
        let again: Vec<i64> = told(&events[seen..]).iter().map(|(row, ..)| *row).collect();
        assert_eq!(again, rows.collect::<Vec<_>>(), "{from} to {to}");
        seen = enough;
    }
    for (from, why) in [("yesterday", "is no place"), ("latest", "nothing was done")] {
        let (code, _, err) = walmill(&running, &["replay", "--pipeline", "ticks", "--from", from]);
        assert!(code == 1 && err.contains(why), "{err}");
    }
    let (code, _, err) = walmill(&running, &["replay", "--pipeline", "tick", "--from", "earliest"]);
    assert!(code == 1 && err.contains("did you mean `ticks`?"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_a_crash_interrupts_goes_on_and_doubles_nothing() {
    let cluster = cluster();
    let (mut running, _) = with_six_rows(&cluster).await;
    let database = connect(&cluster).await;
    execute(&database, "INSERT INTO ticks SELECT generate_series(7, 20000)").await;
    let last_is = |row: i64| {
        move |events: &[Value]| {
            events.last().is_some_and(|event| event["data"]["record"]["id"] == row)
        }
    };
    clients::sse(running.port(), "ticks", last_is(20_000)).await;
    let ask = ["replay", "--pipeline", "ticks", "--from", "earliest", "--no-wait"];
    assert_eq!(walmill(&running, &ask).0, 0);
    running.kill();
    running.launch();
    running.ready().await;
    let done = |answer: &Value| answer["replays"][0]["state"] == "done";
    running.wait_for("/api/v1/replay", done).await;
    execute(&database, "INSERT INTO ticks VALUES (20001)").await;
    let events = clients::sse(running.port(), "ticks", last_is(20_001)).await;
    let replayed: Vec<i64> =
        told(&events).iter().filter(|(.., again)| *again).map(|(row, ..)| *row).collect();
    assert_eq!(replayed, (1..=20_000).collect::<Vec<_>>());
    assert_eq!(running.json("/api/v1/replay").await["replays"][0]["events"], json!(20_000));
}

/// What nobody but those who have the token may change, and everyone may read.
const GUARDED: &str = r#"
token = "secret"
[[server.auth.rules]]
streams = ["*"]
allow = ["public"]

[plugins.stamp]"#;

/// A version's digits.
fn digits(version: &[u8]) -> String {
    walmill::plugin::Version::of(version).to_string()
}

/// All that a walmill shows of what it holds: what a dry run must leave as it is.
fn held(running: &Walmill) -> Vec<String> {
    let commands: [&[&str]; 3] =
        [&["plugin", "ls", "--json"], &["replay", "ls", "--json"], &["dlq", "ls", "--json"]];
    commands.iter().map(|arguments| walmill(running, arguments).1).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_what_another_version_would_change_and_changes_nothing() {
    let cluster = cluster();
    let config = CONFIG.replace("[plugins.stamp]", GUARDED.trim_start());
    let (running, first) = six_rows_with(&cluster, &config).await;
    let before = held(&running);
    let file = |name: &str, bytes: &[u8]| {
        let file = running.folder().join(name);
        std::fs::write(&file, bytes).expect("write");
        file.to_str().expect("UTF-8").to_owned()
    };
    let (new, dropping) = (file("new.wasm", &stamp(2)), file("drop.wasm", &stamp_with(1, DROP)));
    let from = first[2]["lsn"].as_str().expect("an LSN");
    let ask = ["replay", "--pipeline", "ticks", "--from", from, "--dry-run", "--plugin"];
    let dry_run = |more: &[&str]| walmill(&running, &[&ask[..], more].concat());

    let (code, out, err) = dry_run(&[&new, "--examples", "1", "--json"]);
    let tried: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out}{err}"));
    assert_eq!((&tried["events"], &tried["differ"]), (&json!(4), &json!(4)), "{tried}");
    assert_eq!((&tried["first"], &tried["last"]), (&first[2]["id"], &first[5]["id"]));
    assert_eq!(tried["version"], digits(&stamp(2)));
    assert_eq!(tried["in_force"], digits(&stamp(1)));
    let [example] = tried["examples"].as_array().expect("examples").as_slice() else {
        panic!("{tried}")
    };
    assert_eq!(example["event"], first[2]["id"]);
    let text = |side: &str| example[side]["events"][0].as_str().expect("an event").to_owned();
    assert!(text("before").contains("v001") && text("after").contains("v002"), "{example}");

    // Up to a place, by a time, as text, with the plugin's name.
    let (to, since) = (first[3]["lsn"].as_str().expect("an LSN"), &first[1]["time"]);
    let (code, out, err) = dry_run(&[&format!("stamp={dropping}"), "--to", to]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&digits(&stamp_with(1, DROP))) && out.contains("2 of 2 events differ"));
    assert!(out.contains("0 emitted, 2 dropped") && out.contains("+ dropped"), "{out}");
    let since = since.as_str().expect("a time");
    let (_, out, err) = walmill(
        &running,
        &["replay", "--pipeline", "ticks", "--from", since, "--dry-run", "--plugin", &new],
    );
    assert!(out.contains("5 of 5 events differ"), "{out}{err}");

    // The version in force makes what it made; garbage and unknown versions make nothing.
    let same = format!("stamp@{}", digits(&stamp(1)));
    let (_, out, err) = dry_run(&[&same]);
    assert!(out.contains("0 of 4 events differ"), "{out}{err}");
    let garbage = file("garbage.wasm", b"garbage");
    for (version, why) in [
        (garbage.as_str(), "not a WebAssembly binary"),
        ("stamp@0123456789ab", "no version"),
        ("no-such.wasm", "no-such.wasm"),
    ] {
        let (code, _, err) = dry_run(&[version]);
        assert!(code != 0 && err.contains(why), "{version}: {err}");
    }
    assert_eq!(held(&running), before);
    let again = clients::sse(running.port(), "ticks", |events| events.len() >= 6).await;
    assert_eq!(again, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_the_history_is_tried_then_taken_back_and_replayed_by_one_command() {
    let cluster = cluster();
    let (running, first) = with_six_rows(&cluster).await;
    save(running.folder(), &stamp(2), true);
    in_force_after(&running, 1).await;
    let good = format!("stamp@{}", digits(&stamp(1)));
    let from = first[4]["lsn"].as_str().expect("an LSN");
    let ask = ["replay", "--pipeline", "ticks", "--from", from, "--plugin", &good];
    let (code, _, err) = walmill(&running, &ask);
    assert!(code == 2 && err.contains("walmill plugin rollback"), "only what is in force: {err}");
    let (code, out, err) = walmill(&running, &[&ask[..], &["--dry-run"]].concat());
    assert!(code == 0 && out.contains("2 of 2 events differ"), "{out}{err}");
    assert!(out.find("v002") < out.find("v001"), "what is in force comes first: {out}");
    let (code, out, err) =
        walmill(&running, &["plugin", "rollback", "stamp", "--replay-from", from]);
    assert!(code == 0 && out.contains("2 events"), "{out}{err}");
    let events = clients::sse(running.port(), "ticks", |events| events.len() == 8).await;
    let again = [(5, "v001".to_owned(), true), (6, "v001".to_owned(), true)];
    assert_eq!(told(&events)[6..], again);
    // Without a token no file is taken, and a form of another page's is not, either.
    let file = running.folder().join("stamp.wasm");
    let file = file.to_str().expect("UTF-8");
    let ask = ["replay", "--pipeline", "ticks", "--from", from, "--dry-run", "--plugin", file];
    let (code, _, err) = walmill(&running, &ask);
    assert!(code == 1 && err.contains("set server.token"), "{err}");
    let address = "/api/v1/replay/dry-run?pipeline=ticks&from=earliest&version=0123";
    let form = reqwest::Client::new().post(running.url(address)).send();
    assert_eq!(form.await.expect("an answer").status(), 415);
}
