//! Versions of a plugin: how they come, how they are taken back, and what is known of them.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tokio_postgres::Client;

use crate::support::clients;
use crate::support::process::Walmill;
use crate::support::stamp::{save, stamp, stamp_with, version};
use crate::support::{cluster, connect, execute};

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.ticks"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[plugins.stamp]
path = "stamp.wasm"
EXTRA

[[pipeline]]
name = "ticks"
tables = ["public.ticks"]
plugins = ["stamp"]
"#;

const TRAP: &str = "unreachable";
/// Waits as long as it may.
const LOOP: &str = "(loop $on (br $on))";
/// Drops all events.
const DROP: &str = "(memory.fill (i32.const 2048) (i32.const 1) (i32.load (local.get 0)))";

/// A walmill with `stamp(0)` in force, and its database with an empty table.
async fn start(database: &Client, url: &str, extra: &str) -> Walmill {
    execute(database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let mut walmill = Walmill::prepare(&CONFIG.replace("EXTRA", extra), url);
    save(walmill.folder(), &stamp(0), true);
    walmill.launch();
    walmill.ready().await;
    walmill
}

async fn insert(database: &Client, first: i64, last: i64) {
    let sql = format!("INSERT INTO ticks SELECT generate_series({first}, {last})");
    execute(database, &sql).await;
}

/// The versions that the first so many events have seen.
async fn seen(walmill: &Walmill, count: usize) -> Vec<u32> {
    let events = clients::sse(walmill.port(), "ticks", |events| events.len() == count).await;
    events.iter().map(version).collect()
}

/// Runs `walmill plugin …` with the config of a walmill that runs: its exit code and what it says.
fn plugin(walmill: &Walmill, arguments: &[&str]) -> (i32, String) {
    let config = walmill.folder().join("walmill.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_walmill"))
        .args(["plugin"])
        .args(arguments)
        .arg("--config")
        .arg(config)
        .output()
        .expect("run walmill");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(said).expect("UTF-8"))
}

async fn status(walmill: &Walmill) -> Value {
    walmill.json("/api/v1/plugins/stamp").await
}

/// The version that a file's bytes are.
fn digits(bytes: &[u8]) -> String {
    walmill::plugin::Version::of(bytes).to_string()
}

/// Waits until something was decided about this version; the entry.
async fn decided(walmill: &Walmill, bytes: &[u8]) -> Value {
    let digits = digits(bytes);
    let entry = |status: &Value| {
        let history = status["history"].as_array().cloned().unwrap_or_default();
        history.into_iter().find(|entry| entry["version"] == digits.as_str())
    };
    walmill.wait_for("/api/v1/plugins/stamp", |status| entry(status).is_some()).await;
    entry(&status(walmill).await).expect("it was there")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_taken_back_to_stays_through_restarts_until_the_file_changes() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    let mut walmill = start(&database, &cluster.url(), "").await;
    insert(&database, 1, 1).await;
    assert_eq!(seen(&walmill, 1).await, [0]);
    save(walmill.folder(), &stamp(1), true);
    assert_eq!(decided(&walmill, &stamp(1)).await["outcome"], "in-force");
    insert(&database, 2, 2).await;
    assert_eq!(seen(&walmill, 2).await, [0, 1]);

    let (code, said) = plugin(&walmill, &["rollback", "stamp"]);
    assert_eq!((code, said.contains(&digits(&stamp(0)))), (0, true), "{said}");
    insert(&database, 3, 3).await;
    assert_eq!(seen(&walmill, 3).await, [0, 1, 0]);
    let (code, said) = plugin(&walmill, &["rollback", "stamp"]);
    assert_eq!(code, 1, "there is no other good version: {said}");
    assert!(said.contains("no earlier version of `stamp` was in force and good"), "{said}");

    walmill.kill();
    walmill.launch();
    walmill.ready().await;
    insert(&database, 4, 4).await;
    assert_eq!(seen(&walmill, 4).await, [0, 1, 0, 0], "the file still holds version 1");
    let shown = status(&walmill).await;
    let note = shown["note"].as_str().expect("a note");
    assert!(note.contains(&digits(&stamp(1))) && note.contains("not in force"), "{note}");
    let whys: Vec<_> = shown["history"].as_array().expect("a list").iter().rev().collect();
    let whys: Vec<_> = whys.iter().map(|entry| entry["why"].as_str().expect("text")).collect();
    assert_eq!(whys, ["start", "file", "roll-back"]);

    let (code, said) = plugin(&walmill, &["rollback", "stamp", &digits(&stamp(1))[..6]]);
    assert_eq!(code, 0, "a version can be named: {said}");
    save(walmill.folder(), &stamp(2), true);
    assert_eq!(decided(&walmill, &stamp(2)).await["outcome"], "in-force");
    insert(&database, 5, 5).await;
    assert_eq!(seen(&walmill, 5).await, [0, 1, 0, 0, 2]);
    let metrics = walmill.text("/metrics").await;
    let asked = "walmill_plugin_rollbacks_total{name=\"stamp\",outcome=\"asked\"} 1";
    assert!(metrics.contains(asked), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_pushed_with_a_token_and_pulled_again_and_nothing_else_is_taken() {
    const TOKEN: &str = "a-token-of-the-test";
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let config = CONFIG.replace("EXTRA", "limits = { file = \"10kB\" }");
    let open = Walmill::prepare(&config, &cluster.url());
    let listen = "listen = \"127.0.0.1:";
    let guarded = config.replace(listen, &format!("token = \"{TOKEN}\"\n{listen}"));
    let mut walmill = Walmill::prepare(&guarded, &cluster.url());
    save(walmill.folder(), &stamp(0), true);
    walmill.launch();
    walmill.ready().await;

    let file = walmill.folder().join("next.wasm");
    let name = file.to_str().expect("a UTF-8 path");
    std::fs::write(&file, stamp(1)).expect("write");
    let (code, said) = plugin(&walmill, &["push", "stamp", name]);
    assert_eq!((code, said.contains("is in force")), (0, true), "{said}");
    insert(&database, 1, 1).await;
    let (code, said) = plugin(&walmill, &["ls", "stamp"]);
    assert_eq!(code, 0);
    assert!(said.contains(&digits(&stamp(1))) && said.contains("uploaded: in force"), "{said}");
    let (code, said) = plugin(&walmill, &["pull", "stamp", &digits(&stamp(0)), "-o", name]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(std::fs::read(&file).expect("a file"), stamp(0));

    std::fs::write(&file, b"garbage").expect("write");
    let (code, said) = plugin(&walmill, &["push", "stamp", name]);
    assert_eq!((code, said.contains("not a WebAssembly binary")), (1, true), "{said}");
    std::fs::write(&file, vec![0; 10_001]).expect("write");
    let (code, said) = plugin(&walmill, &["push", "stamp", name]);
    assert_eq!((code, said.contains("limits.file")), (1, true), "{said}");

    let http = reqwest::Client::new();
    let put = |token: &str, content: &str| {
        let request = http.put(walmill.url("/api/v1/plugins/stamp")).bearer_auth(token);
        request.header("content-type", content.to_owned()).body(stamp(2)).send()
    };
    assert_eq!(put("another", "application/wasm").await.expect("an answer").status(), 401);
    assert_eq!(put(TOKEN, "text/plain").await.expect("an answer").status(), 415);
    let roll_back = http.post(walmill.url("/api/v1/plugins/stamp/rollback")).bearer_auth(TOKEN);
    assert_eq!(roll_back.send().await.expect("an answer").status(), 415, "as a form would send it");
    drop(walmill);

    let mut walmill = open;
    save(walmill.folder(), &stamp(0), true);
    std::fs::write(walmill.folder().join("next.wasm"), stamp(1)).expect("write");
    walmill.launch();
    walmill.alive().await;
    let file = walmill.folder().join("next.wasm");
    let (code, said) = plugin(&walmill, &["push", "stamp", file.to_str().expect("UTF-8")]);
    assert_eq!((code, said.contains("set server.token")), (1, true), "{said}");
    assert_eq!(status(&walmill).await["version"], digits(&stamp(0)).as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_pushed_with_an_admins_key_where_there_is_no_token() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let key = |name: &str, role: &str| {
        let made = Command::new(env!("CARGO_BIN_EXE_walmill"))
            .args(["secret", "new", "--for", "api-key", "--json"])
            .output()
            .expect("run walmill");
        let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
        let (key, hash) = (made["secret"].as_str().expect("a key"), &made["hash"]);
        let config =
            format!("[[server.auth.keys]]\nname = '{name}'\nhash = {hash}\nrole = '{role}'\n");
        (key.to_owned(), config)
    };
    let ((admin, of_admin), (operator, of_operator)) =
        (key("ann", "admin"), key("otto", "operate"));
    let config = CONFIG.replace("EXTRA", "") + &of_admin + &of_operator;
    let mut walmill = Walmill::prepare(&config, &cluster.url());
    save(walmill.folder(), &stamp(0), true);
    let file = walmill.folder().join("next.wasm");
    std::fs::write(&file, stamp(1)).expect("write");
    walmill.launch();
    walmill.alive().await;
    let push = |key: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_walmill"))
            .args(["plugin", "push", "stamp"])
            .arg(&file)
            .arg("--config")
            .arg(walmill.folder().join("walmill.toml"))
            .env("WALMILL_TOKEN", key)
            .output()
            .expect("run walmill");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("UTF-8"))
    };
    let (code, said) = push(&operator);
    assert!(code == Some(1) && said.contains("the role `admin`"), "{said}");
    let (code, said) = push("");
    assert!(code == Some(1) && said.contains("asks for a token"), "{said}");
    let (code, said) = push(&admin);
    assert!(code == Some(0) && said.contains("is in force"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_that_was_saved_while_walmill_was_down_is_refused_and_the_stream_goes_on() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    let mut walmill = start(&database, &cluster.url(), "").await;
    insert(&database, 1, 1).await;
    assert_eq!(seen(&walmill, 1).await, [0]);
    walmill.kill();
    save(walmill.folder(), b"garbage", true);
    walmill.launch();
    walmill.ready().await;
    insert(&database, 2, 2).await;
    assert_eq!(seen(&walmill, 2).await, [0, 0]);
    let status = status(&walmill).await;
    assert_eq!(status["version"], digits(&stamp(0)).as_str());
    let entry = &status["history"][0];
    assert_eq!(
        (&entry["version"], &entry["outcome"]),
        (&digits(b"garbage").into(), &"refused".into())
    );
    let (code, said) = plugin(&walmill, &["ls"]);
    assert!(code == 0 && said.contains("was refused: "), "{said}");
    let log = walmill.log();
    assert!(log.contains("the version in force stays: ") && log.contains("ERROR"), "{log}");
    let metrics = walmill.text("/metrics").await;
    let refused = "walmill_plugin_reloads_total{name=\"stamp\",outcome=\"refused\"} 1";
    assert!(metrics.contains(refused), "{metrics}");
    save(walmill.folder(), &stamp(1), true);
    decided(&walmill, &stamp(1)).await;
    insert(&database, 3, 3).await;
    assert_eq!(seen(&walmill, 3).await, [0, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_runs_beside_the_old_one_and_waits_for_a_person_where_that_is_wished() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    let extra = "promote = \"manual\"\nshadow = { events = 30 }";
    let mut walmill = start(&database, &cluster.url(), extra).await;
    insert(&database, 1, 50).await;
    assert_eq!(seen(&walmill, 50).await, [0; 50]);
    save(walmill.folder(), &stamp(1), true);
    let entry = decided(&walmill, &stamp(1)).await;
    assert_eq!(entry["outcome"], "waiting");
    let compared = &entry["shadow"]["pipelines"][0];
    assert_eq!((&compared["events"], &compared["differ"]), (&30.into(), &30.into()), "{entry:#}");
    assert_eq!(compared["examples"].as_array().map(Vec::len), Some(5));
    let event = |side: &str| compared["examples"][0][side]["events"][0].to_string();
    assert!(event("before").contains("v000") && event("after").contains("v001"), "{entry:#}");
    assert!(compared["before"]["nanos_per_event"].as_u64().is_some_and(|nanos| nanos > 0));
    assert!(walmill.log().contains("30 of 30 events differ"), "{}", walmill.log());
    let (_, said) = plugin(&walmill, &["ls"]);
    assert!(said.contains("walmill plugin promote stamp"), "{said}");
    let metrics = walmill.text("/metrics").await;
    for line in [
        "walmill_plugin_waiting{name=\"stamp\"} 1",
        "walmill_plugin_shadow_events_total{name=\"stamp\",outcome=\"different\"} 30",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }

    insert(&database, 51, 51).await;
    assert_eq!(seen(&walmill, 51).await[50], 0, "it is not in force");
    walmill.kill();
    walmill.launch();
    walmill.ready().await;
    let (code, said) = plugin(&walmill, &["promote", "stamp"]);
    assert_eq!(code, 0, "it waits through a restart: {said}");
    insert(&database, 52, 52).await;
    assert_eq!(seen(&walmill, 52).await[50..], [0, 1]);
    let (code, said) = plugin(&walmill, &["promote", "stamp"]);
    assert_eq!((code, said.contains("no version of `stamp` waits")), (1, true), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_the_same_goes_live_and_one_that_does_not_waits() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    let walmill = start(&database, &cluster.url(), "promote = \"if-same\"").await;
    insert(&database, 1, 20).await;
    assert_eq!(seen(&walmill, 20).await, [0; 20]);
    let same = stamp_with(0, "(nop)");
    save(walmill.folder(), &same, true);
    let entry = decided(&walmill, &same).await;
    assert_eq!(entry["outcome"], "in-force", "{entry:#}");
    assert_eq!(entry["shadow"]["pipelines"][0]["events"], 20, "{entry:#}");
    save(walmill.folder(), &stamp(1), true);
    let entry = decided(&walmill, &stamp(1)).await;
    assert_eq!(entry["outcome"], "waiting", "{entry:#}");
    assert!(entry["reason"].as_str().is_some_and(|why| why.contains("20 of 20")), "{entry:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_breaks_in_its_shadow_run_never_goes_live_and_the_stream_goes_on() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    let extra = "limits = { deadline = \"50ms\" }";
    let walmill = start(&database, &cluster.url(), extra).await;
    insert(&database, 1, 100).await;
    assert_eq!(seen(&walmill, 100).await, [0; 100]);
    let cases = [(TRAP, "unreachable"), (LOOP, "limits.deadline")];
    for (next, (broken, why)) in (101..).zip(cases) {
        let bytes = stamp_with(1, broken);
        save(walmill.folder(), &bytes, true);
        insert(&database, next, next).await;
        assert_eq!(seen(&walmill, next as usize).await.last(), Some(&0), "events go on meanwhile");
        let entry = decided(&walmill, &bytes).await;
        assert_eq!(entry["outcome"], "refused", "{entry:#}");
        let error = entry["error"].as_str().expect("why");
        assert!(error.contains(why) && error.contains("shadow run"), "{error}");
    }
    let dropping = stamp_with(1, DROP);
    save(walmill.folder(), &dropping, true);
    let entry = decided(&walmill, &dropping).await;
    assert_eq!(entry["outcome"], "in-force", "what it does else is its own business: {entry:#}");
    assert_eq!(walmill.json("/api/v1/dlq").await["dead_letters"].as_array().map(Vec::len), Some(0));
    walmill.signal(Signal::TERM);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_in_its_first_minutes_is_taken_back_by_itself() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    let extra = "shadow = { events = 0 }\nrollback = { failures = \"10%\", least = 5 }";
    let mut walmill = start(&database, &cluster.url(), extra).await;
    insert(&database, 1, 1).await;
    assert_eq!(seen(&walmill, 1).await, [0]);
    let bad = stamp_with(1, TRAP);
    save(walmill.folder(), &bad, true);
    assert_eq!(decided(&walmill, &bad).await["outcome"], "in-force");
    insert(&database, 2, 5).await;
    let dead = |answer: &Value| answer["dead_letters"].as_array().map_or(0, Vec::len);
    walmill.wait_for("/api/v1/dlq", |answer| dead(answer) == 4).await;
    assert_eq!(status(&walmill).await["version"], digits(&bad).as_str(), "4 events say little yet");
    insert(&database, 6, 6).await;
    walmill
        .wait_for("/api/v1/plugins/stamp", |status| status["version"] == digits(&stamp(0)).as_str())
        .await;
    insert(&database, 7, 7).await;
    assert_eq!(seen(&walmill, 2).await, [0, 0]);

    let shown = status(&walmill).await;
    let entry = &shown["history"][0];
    assert_eq!(
        (&entry["why"], &entry["replaced"]),
        (&"automatic".into(), &shown["history"][1]["digest"])
    );
    let reason = entry["reason"].as_str().expect("a reason");
    assert!(reason.contains("5 of 5 events") && reason.contains("is 10%"), "{reason}");
    assert!(walmill.log().contains("rolled back"), "{}", walmill.log());
    let metrics = walmill.text("/metrics").await;
    let counted = "walmill_plugin_rollbacks_total{name=\"stamp\",outcome=\"automatic\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    let letters = walmill.json("/api/v1/dlq").await;
    let by = |letter: &Value| letter["by"]["version"] == digits(&bad).as_str();
    assert_eq!(dead(&letters), 5);
    assert!(letters["dead_letters"].as_array().expect("a list").iter().all(by), "{letters:#}");

    walmill.kill();
    walmill.launch();
    walmill.ready().await;
    insert(&database, 8, 8).await;
    assert_eq!(seen(&walmill, 3).await, [0, 0, 0], "the bad file does not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_stops_a_pipeline_is_taken_back_at_once_and_no_event_is_lost() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let config = CONFIG.replace("EXTRA", "shadow = { events = 0 }");
    let mut walmill = Walmill::prepare(&format!("{config}on_error = \"stop\"\n"), &cluster.url());
    save(walmill.folder(), &stamp(0), true);
    walmill.launch();
    walmill.ready().await;
    let bad = stamp_with(1, TRAP);
    save(walmill.folder(), &bad, true);
    assert_eq!(decided(&walmill, &bad).await["outcome"], "in-force");
    insert(&database, 1, 1).await;
    assert_eq!(seen(&walmill, 1).await, [0]);
    let shown = status(&walmill).await;
    let reason = shown["history"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("1 of 1 events and stopped a pipeline"), "{reason}");
    assert_eq!(walmill.json("/api/v1/dlq").await["dead_letters"].as_array().map(Vec::len), Some(0));
}
