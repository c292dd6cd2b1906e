//! A slot that was lost is made anew, and readers are told what they will never get.

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;
use walmill::cluster::Cluster;
use walmill::model::Offset;
use walmill::model::status::SourceState;
use walmill::source::Config;
use walmill::store::journal::Read;
use walmill::store::renewal::Renewal;

use crate::support::process::Walmill;
use crate::support::streaming::{Streaming, messages};
use crate::support::{cluster, connect, execute};

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.t"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"
token = "let me in, please, it is only a test"

[[pipeline]]
name = "t"
tables = ["public.t"]
"#;
const LOSE: &str = "select pg_drop_replication_slot('walmill')";

async fn table() -> (Cluster, Client) {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key)").await;
    (cluster, client)
}

fn slot(walmill: &Walmill, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_walmill"))
        .arg("slot")
        .args(arguments)
        .arg("--config")
        .arg(walmill.folder().join("walmill.toml"))
        .output()
        .expect("run walmill slot")
}

#[track_caller]
fn fine(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The stream so far: type and id of each row, or the data of what is no row.
async fn events(walmill: &Walmill, count: usize) -> Vec<String> {
    let path = "/v1/streams/t/events?after=earliest&token=let+me+in,+please,+it+is+only+a+test";
    let mut shown = Vec::new();
    walmill
        .wait_for(path, |page| page["events"].as_array().is_some_and(|e| e.len() >= count))
        .await;
    for event in walmill.json(path).await["events"].as_array().expect("events") {
        let kind = event["type"].as_str().expect("a type");
        shown.push(match &event["data"]["record"]["id"] {
            Value::Null => format!("{kind} snapshot={}", event["data"]["snapshot"]),
            id => format!("{kind} {id}"),
        });
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_made_anew_with_what_the_tables_hold_behind_a_gap() {
    let (cluster, client) = table().await;
    let mut walmill = Walmill::start(CONFIG, &cluster.url()).await;
    let refused = slot(&walmill, &["recreate", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("has not halted because of its slot"),
        "{refused:?}"
    );
    execute(&client, "insert into t values (1)").await;
    events(&walmill, 1).await;
    walmill.terminate();
    execute(&client, LOSE).await;
    execute(&client, "insert into t values (2); delete from t where id = 1").await;
    walmill.launch();
    walmill.alive().await;
    walmill
        .wait_for("/readyz", |ready| ready.to_string().contains("walmill slot recreate --snapshot"))
        .await;
    fine(&slot(&walmill, &["recreate", "--snapshot", "--yes"]));
    walmill.ready().await;
    execute(&client, "insert into t values (3)").await;
    assert_eq!(
        events(&walmill, 4).await,
        [
            "walmill.row.insert 1",
            "walmill.gap snapshot=true",
            "walmill.row.snapshot 2",
            "walmill.row.insert 3",
        ]
    );
    // It is done once.
    walmill.terminate();
    walmill.launch();
    walmill.ready().await;
    execute(&client, "insert into t values (4)").await;
    assert_eq!(events(&walmill, 5).await[4], "walmill.row.insert 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_walmill_is_stopped_the_order_waits_for_its_start() {
    let (cluster, client) = table().await;
    let mut walmill = Walmill::start(CONFIG, &cluster.url()).await;
    execute(&client, "insert into t values (1)").await;
    events(&walmill, 1).await;
    walmill.terminate();
    execute(&client, LOSE).await;
    execute(&client, "insert into t values (2)").await;
    let unasked = slot(&walmill, &["recreate"]);
    assert_eq!(unasked.status.code(), Some(2), "{unasked:?}");
    assert!(fine(&slot(&walmill, &["recreate", "--yes"])).contains("when it starts"));
    walmill.launch();
    walmill.ready().await;
    execute(&client, "insert into t values (3)").await;
    assert_eq!(
        events(&walmill, 3).await,
        ["walmill.row.insert 1", "walmill.gap snapshot=false", "walmill.row.insert 3"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_can_be_made_before_walmill_runs_and_holds_everything_from_then_on() {
    let (cluster, client) = table().await;
    let mut walmill = Walmill::prepare(CONFIG, &cluster.url());
    fine(&slot(&walmill, &["create"]));
    execute(&client, "insert into t values (1)").await;
    let listed: Value =
        serde_json::from_str(&fine(&slot(&walmill, &["ls", "--json"]))).expect("JSON");
    assert_eq!(listed[0]["name"], "walmill");
    assert_eq!((&listed[0]["plugin"], &listed[0]["active"]), (&"pgoutput".into(), &false.into()));
    walmill.launch();
    walmill.ready().await;
    assert_eq!(events(&walmill, 1).await, ["walmill.row.insert 1"]);
    assert!(fine(&slot(&walmill, &["ls"])).contains("yes"));
    walmill.terminate();
    assert!(fine(&slot(&walmill, &["drop", "--yes"])).contains("dropped"));
    assert!(fine(&slot(&walmill, &["drop", "--yes"])).contains("there is no slot"));
}

/// The frames of the journal that are no transaction's ends: gaps as `gap`, others as shown.
fn journal(source: &Streaming) -> (usize, usize) {
    let mut reader = source.store.journal_reader(Offset::START);
    let (mut gaps, mut rows) = (0, 0);
    while let Read::Block(block) = reader.next().expect("read the journal") {
        for message in messages(&block.frames) {
            gaps += usize::from(message[0] == b'g');
            rows += usize::from(message[0] == b's');
        }
    }
    (gaps, rows)
}

#[tokio::test]
async fn wherever_a_renewal_is_cut_off_the_next_start_ends_it() {
    let (cluster, client) = table().await;
    execute(&client, "insert into t values (1), (2), (3)").await;
    for survive in 0..3 {
        let folder: TempDir = tempfile::tempdir().expect("a folder");
        let mut config = Config::new(cluster.url().parse().expect("a URL"));
        config.slot = format!("cut_{survive}").try_into().expect("a slot name");
        let source = Streaming::start(folder.path(), config.clone());
        source.streaming().await;
        execute(&client, &format!("insert into t values (1{survive})")).await;
        source.changes(1).await;
        source.stop().await;
        execute(&client, &LOSE.replace("walmill", config.slot.as_str())).await;
        // Only so many blocks reach the journal: as if walmill were killed there.
        let (source, is_cut) = Streaming::cut_after(folder.path(), config.clone(), survive);
        let halted = |state: &SourceState| matches!(state, SourceState::Halted { .. });
        source.state("halted", halted).await;
        source.store.ask_renewal(Renewal { snapshot: true, lost: true, point: None }).expect("ask");
        is_cut.await.expect("the journal's end is watched");
        source.stop().await;
        let source = Streaming::start(folder.path(), config);
        source.streaming().await;
        let (gaps, rows) = journal(&source);
        // One that was told of and led nowhere is told of again.
        assert_eq!((gaps, rows), (1 + usize::from(survive > 0), 4 + survive), "{survive}");
        assert_eq!(source.store.renewal().expect("read"), None);
        source.stop().await;
    }
}

#[tokio::test]
async fn an_order_that_is_done_or_needless_leaves_a_slot_that_works_alone() {
    let (cluster, client) = table().await;
    let folder: TempDir = tempfile::tempdir().expect("a folder");
    let config = Config::new(cluster.url().parse().expect("a URL"));
    let source = Streaming::start(folder.path(), config.clone());
    source.streaming().await;
    execute(&client, "insert into t values (1)").await;
    source.changes(1).await;
    let point = source.stop().await;
    for (id, lost, point) in [(2, true, Some(point)), (3, false, None)] {
        let source = Streaming::start(folder.path(), config.clone());
        source.streaming().await;
        // A kill may leave this behind, or a person may ask for it without need.
        let order = Renewal { snapshot: true, lost, point };
        source.store.note_renewal(order).expect("write");
        source.stop().await;
        execute(&client, &format!("insert into t values ({id})")).await;
        let source = Streaming::start(folder.path(), config.clone());
        let changes = source.changes(id).await;
        assert_eq!(changes, (1..=id).map(|id| format!("+t {id}")).collect::<Vec<_>>());
        assert_eq!(journal(&source), (0, 0));
        assert_eq!(source.store.renewal().expect("read"), None);
        source.stop().await;
    }
}
