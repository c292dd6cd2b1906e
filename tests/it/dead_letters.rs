//! Dead letters, as a person deals with them: by the command line, and across a crash.

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

fn json_of(of: &Walmill, arguments: &[&str]) -> Value {
    let (_, out, err) = walmill(of, arguments);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
}

/// A walmill whose plugin has failed on three rows.
async fn with_three_letters(cluster: &walmill::cluster::Cluster) -> Walmill {
    let database = connect(cluster).await;
    execute(&database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let mut running = Walmill::prepare(CONFIG, &cluster.url());
    save(running.folder(), &stamp_with(0, "(unreachable)"), true);
    running.launch();
    running.ready().await;
    execute(&database, "INSERT INTO ticks VALUES (1), (2), (3)").await;
    let letters = |answer: &Value| answer["dead_letters"].as_array().map_or(0, Vec::len) == 3;
    running.wait_for("/api/v1/dlq", letters).await;
    running
}

async fn mend(running: &Walmill) {
    save(running.folder(), &stamp(7), true);
    in_force_after(running, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_exported_tried_again_and_dropped() {
    let cluster = cluster();
    let running = with_three_letters(&cluster).await;
    let (code, out, _) = walmill(&running, &["dlq", "ls"]);
    assert_eq!((code, out.lines().count()), (0, 3), "{out}");
    assert!(out.lines().all(|line| line.contains("plugin stamp")), "{out}");
    let letter = json_of(&running, &["dlq", "show", "1", "--json"]);
    assert_eq!(letter["payload"]["record"], json!({ "id": 1 }));
    assert_eq!((&letter["by"]["plugin"], &letter["attempts"]), (&json!("stamp"), &json!(1)));
    let (_, exported, _) = walmill(&running, &["dlq", "export", "--pipeline", "ticks"]);
    assert_eq!(exported.lines().count(), 3);
    let metrics = running.text("/metrics").await;
    assert!(metrics.contains("walmill_dead_letters_kept 3"), "{metrics}");
    let age = metrics
        .lines()
        .find_map(|line| line.strip_prefix("walmill_dead_letters_oldest_age_seconds "));
    let age: f64 = age.expect("an age").parse().expect("a number");
    assert!(age > 0.0, "{metrics}");

    // The plugin is as it was: one that is tried again fails again.
    let (code, out, err) = walmill(&running, &["dlq", "retry", "1"]);
    assert!(code == 1 && out.contains("1 failed again"), "{out}{err}");
    assert_eq!(json_of(&running, &["dlq", "show", "1", "--json"])["attempts"], 2);

    mend(&running).await;
    let (code, out, err) = walmill(&running, &["dlq", "retry", "2"]);
    assert!(code == 0 && out.contains("1 gone through"), "{out}{err}");
    let (code, out, _) = walmill(&running, &["dlq", "drop", "3"]);
    assert_eq!((code, out.as_str()), (0, "1 dead letter dropped\n"));
    let done = json_of(&running, &["dlq", "retry", "--plugin", "stamp", "--json"]);
    assert_eq!(done, json!({ "done": 1, "failed": 0, "waiting": 0 }));
    let (_, out, _) = walmill(&running, &["dlq", "ls"]);
    assert_eq!(out, "there is no dead letter\n");
    let events = clients::sse(running.port(), "ticks", |events| events.len() == 2).await;
    let rows: Vec<_> = events.iter().map(|event| event["data"]["record"]["id"].clone()).collect();
    assert_eq!(rows, [2, 1]);
    assert!(events.iter().all(|event| event["replayed"] == true), "{events:?}");
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap_or("")).collect();
    assert!(ids[0].ends_with("/1") && ids[1].ends_with("/0"), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_drops_or_retries_everything_by_saying_nothing() {
    let cluster = cluster();
    let running = with_three_letters(&cluster).await;
    for what in ["drop", "retry"] {
        let (code, _, err) = walmill(&running, &["dlq", what]);
        assert!(code == 2 && err.contains("--all"), "{err}");
    }
    let (code, _, err) = walmill(&running, &["dlq", "show", "99"]);
    assert!(code == 1 && err.contains("there is no dead letter 99"), "{err}");
    let left = running.json("/api/v1/dlq").await;
    assert_eq!(left["dead_letters"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_neither_loses_nor_doubles_what_is_tried_again() {
    let cluster = cluster();
    let mut running = with_three_letters(&cluster).await;
    mend(&running).await;
    let (code, _, err) = walmill(&running, &["dlq", "retry", "--all", "--wait", "0"]);
    assert_eq!(code, 0, "{err}");
    running.kill();
    running.launch();
    running.ready().await;
    let none = |answer: &Value| answer["dead_letters"] == json!([]);
    running.wait_for("/api/v1/dlq", none).await;
    let database = connect(&cluster).await;
    execute(&database, "INSERT INTO ticks VALUES (4)").await;
    let last =
        |events: &[Value]| events.last().is_some_and(|event| event["data"]["record"]["id"] == 4);
    let events = clients::sse(running.port(), "ticks", last).await;
    let mut rows: Vec<i64> =
        events.iter().filter_map(|event| event["data"]["record"]["id"].as_i64()).collect();
    rows.sort_unstable();
    assert_eq!(rows, [1, 2, 3, 4]);
}
