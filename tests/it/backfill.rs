//! Backfills against a real PostgreSQL: rows that are there come in chunks while the stream goes
//! on, none older than what was streamed, none twice, wherever it is stopped.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use tempfile::TempDir;
use tokio::sync::oneshot;
use walmill::cluster::{Cluster, Options};
use walmill::model::backfill::{
    BackfillAction, BackfillAnswer, BackfillCommand, BackfillRequest, BackfillState, BackfillStatus,
};
use walmill::model::{ByteSize, Finding, Offset};
use walmill::source::Config;
use walmill::store::journal::Read;

use crate::support::process::{PATIENCE, Walmill};
use crate::support::replica::{Replica, Writer, table, text};
use crate::support::streaming::Streaming;
use crate::support::{cluster, connect, execute, folder};

/// Small chunks, so that there are many.
fn config(cluster: &Cluster) -> Config {
    let config = Config::new(cluster.url().parse().expect("a URL"));
    Config { backfill_chunk: ByteSize::new(16 << 10), ..config }
}

async fn streaming(cluster: &Cluster, folder: &TempDir) -> Streaming {
    let source = Streaming::start(folder.path(), config(cluster));
    source.streaming().await;
    source
}

async fn start(source: &Streaming, tables: &[&str], filter: Option<&str>) -> BackfillAnswer {
    let tables = tables.iter().map(|table| (*table).to_owned()).collect();
    let request = BackfillRequest { tables, filter: filter.map(str::to_owned) };
    let (answer, answered) = oneshot::channel();
    let command = BackfillCommand::Start(request, answer);
    source.backfills.commands.send(command).await.expect("the source runs");
    answered.await.expect("an answer")
}

async fn refused(source: &Streaming, table: &str, filter: Option<&str>) -> Finding {
    start(source, &[table], filter).await.expect_err("a refusal")
}

async fn act(source: &Streaming, id: u64, action: BackfillAction) -> BackfillAnswer {
    let (answer, answered) = oneshot::channel();
    let command = BackfillCommand::Act(id, action, answer);
    source.backfills.commands.send(command).await.expect("the source runs");
    answered.await.expect("an answer")
}

/// Waits until a backfill is as wished.
async fn seen(
    source: &Streaming,
    id: u64,
    wish: impl Fn(&BackfillStatus) -> bool,
) -> BackfillStatus {
    let mut status = source.backfills.status.clone();
    let found = |all: &Vec<BackfillStatus>| all.iter().any(|one| one.id == id && wish(one));
    let waited = tokio::time::timeout(PATIENCE, status.wait_for(found)).await;
    match waited {
        Ok(all) => all.expect("it runs").iter().find(|one| one.id == id).expect("it").clone(),
        Err(_) => {
            panic!("never: {:?} {:?}", source.backfills.status.borrow(), source.status.borrow())
        }
    }
}

async fn done(source: &Streaming, id: u64) -> BackfillStatus {
    let over = |one: &BackfillStatus| one.state.is_over() || one.state == BackfillState::Failed;
    let ended = seen(source, id, over).await;
    assert_eq!(ended.state, BackfillState::Done, "{ended:?}");
    ended
}

/// What the journal's events make of empty tables.
async fn replica(source: &Streaming, cluster: &Cluster) -> Replica {
    let client = connect(cluster).await;
    execute(&client, "select pg_logical_emit_message(false, 'end', 'end')").await;
    Replica::until(source, "end").await
}

#[tokio::test]
async fn tables_that_are_written_to_all_the_time_come_out_exactly() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    Writer::tables(&client, 25_000).await;
    execute(&client, "analyze").await;
    let mut config = config(&cluster);
    config.backfill_chunk = ByteSize::new(64 << 10);
    let source = Streaming::start(folder.path(), config);
    source.streaming().await;
    let writers = Writer::start(&cluster, 2).await;
    let started = start(&source, &["public.items", "public.words"], None).await.expect("starts");
    assert_eq!(started.len(), 2);
    assert_eq!(started[0].rows_total, 25_000);
    for backfill in &started {
        done(&source, backfill.id).await;
    }
    writers.go_on(50).await;
    writers.stop().await;
    let replica = replica(&source, &cluster).await;
    for name in ["items", "words"] {
        replica.assert_same(name, &table(&client, name).await);
    }
    assert!(replica.snapshot.len() > 20_000, "{}", replica.snapshot.len());
    assert_eq!(replica.stale, 0, "a row of the past came after its changes");
    assert!(replica.messages.iter().all(|message| message == "end"), "a watermark is no event");
    let done = source.backfills.status.borrow()[0].clone();
    assert!(done.rows_sent > 20_000 && done.rows_per_second.is_some());
    source.stop().await;
}

#[tokio::test]
async fn it_goes_on_where_it_was_after_a_restart_and_doubles_nothing() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    execute(&client, "insert into t select n, md5(n::text) from generate_series(1, 20000) n").await;
    let mut source = streaming(&cluster, &folder).await;
    let id = start(&source, &["public.t"], None).await.expect("starts")[0].id;
    for stop in 1..=4 {
        seen(&source, id, |now| now.rows_read > stop * 2_000).await;
        source.stop().await;
        source = streaming(&cluster, &folder).await;
    }
    let ended = done(&source, id).await;
    assert_eq!((ended.rows_read, ended.rows_sent), (20_000, 20_000));
    let replica = replica(&source, &cluster).await;
    assert_eq!(replica.snapshot.len(), 20_000);
    replica.assert_same("t", &table(&client, "t").await);
    source.stop().await;
}

#[tokio::test]
async fn a_server_that_is_restarted_meanwhile_costs_no_row() {
    let (mut cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    execute(&client, "insert into t select n, md5(n::text) from generate_series(1, 20000) n").await;
    let source = streaming(&cluster, &folder).await;
    let id = start(&source, &["public.t"], None).await.expect("starts")[0].id;
    seen(&source, id, |now| now.rows_read > 3_000).await;
    cluster.restart(walmill::cluster::Stop::Immediate).expect("restart");
    done(&source, id).await;
    let replica = replica(&source, &cluster).await;
    assert_eq!(replica.snapshot.len(), 20_000);
    source.stop().await;
}

#[tokio::test]
async fn it_is_paused_resumed_and_cancelled() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    execute(&client, "insert into t select n, md5(n::text) from generate_series(1, 30000) n").await;
    let source = streaming(&cluster, &folder).await;
    let id = start(&source, &["public.t"], None).await.expect("starts")[0].id;
    let again = refused(&source, "public.t", None).await;
    assert_eq!(again.code, "backfill-exists");
    seen(&source, id, |now| now.rows_read > 1_000).await;
    let paused = act(&source, id, BackfillAction::Pause).await.expect("pauses");
    assert_eq!((paused[0].state, paused[0].eta_seconds), (BackfillState::Paused, None));
    source.stop().await;
    let source = streaming(&cluster, &folder).await;
    let still = source.backfills.status.borrow()[0].clone();
    assert_eq!((still.state, still.rows_read), (BackfillState::Paused, paused[0].rows_read));
    act(&source, id, BackfillAction::Resume).await.expect("resumes");
    seen(&source, id, |now| now.rows_read > paused[0].rows_read).await;
    let cancelled = act(&source, id, BackfillAction::Cancel).await.expect("ends");
    assert_eq!(cancelled[0].state, BackfillState::Cancelled);
    assert!(cancelled[0].rows_read < 30_000);
    let over = act(&source, id, BackfillAction::Resume).await.expect_err("it is over");
    assert_eq!(over.code, "backfill-over");
    let unknown = act(&source, 99, BackfillAction::Pause).await.expect_err("no such");
    assert_eq!(unknown.code, "unknown-backfill");
    source.stop().await;
}

#[tokio::test]
async fn only_rows_of_the_condition_come_and_a_bad_one_is_refused() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text); create table u (x int)")
        .await;
    execute(&client, "insert into t select n, 'n' || n from generate_series(0, 5000) n").await;
    let source = streaming(&cluster, &folder).await;
    let filter = "id % 1000 = 0 -- of the day\n and note like 'n%'";
    let id = start(&source, &["public.t"], Some(filter)).await.expect("starts")[0].id;
    assert_eq!(done(&source, id).await.rows_sent, 6);
    assert_eq!(source.changes(6).await[1], "=t 1000 n1000");
    for bad in
        ["nonsense", "id +", "id", "true) union select 1, 'x' where (true", "true); drop table t"]
    {
        let finding = refused(&source, "public.t", Some(bad)).await;
        assert_eq!(finding.code, "bad-filter", "{bad}: {finding}");
    }
    // What only shows on rows stops it, and it can be resumed when the rows are right.
    let id =
        start(&source, &["public.t"], Some("1 / (id - 3000) = 0")).await.expect("starts")[0].id;
    let failed = seen(&source, id, |now| now.state == BackfillState::Failed).await;
    assert!(failed.note.as_ref().is_some_and(|note| note.contains("division by zero")));
    execute(&client, "delete from t where id = 3000").await;
    act(&source, id, BackfillAction::Resume).await.expect("resumes");
    done(&source, id).await;
    source.stop().await;
}

#[tokio::test]
async fn a_table_that_cannot_be_backfilled_is_refused_with_what_to_do() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "create table t (id int primary key); create table keyless (x int);
         create table parted (id int primary key) partition by range (id);
         create table part_1 partition of parted for values from (0) to (10);
         create table apart (id int primary key);
         create publication walmill for table t, keyless, parted",
    )
    .await;
    let source = streaming(&cluster, &folder).await;
    let cases = [
        ("public.keyless", "no-primary-key", "ADD PRIMARY KEY"),
        ("public.tt", "unknown-table", "did you mean `public.t`"),
        ("t", "unknown-table", "did you mean `public.t`"),
        ("public.apart", "not-published", "ADD TABLE \"public\".\"apart\""),
        ("public.parted", "not-published", "name public.part_1"),
    ];
    for (table, code, remedy) in cases {
        let finding = refused(&source, table, None).await;
        assert_eq!(finding.code, code, "{finding}");
        assert!(finding.suggestion.as_ref().is_some_and(|s| s.contains(remedy)), "{finding}");
    }
    source.stop().await;
}

#[tokio::test]
async fn filters_column_lists_and_partitions_are_those_of_the_publication() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "create table log (id int, at int, primary key (at, id)) partition by range (at);
         create table log_1 partition of log for values from (0) to (100);
         create table log_2 (id int not null, at int not null);
         alter table log attach partition log_2 for values from (100) to (200);
         create table listed (secret text, id int primary key, shown text);
         create publication walmill for table log, listed (id, shown) where (id > 5)
           with (publish_via_partition_root = true);
         insert into log select n, n from generate_series(50, 149) n;
         insert into listed select 'secret', n, 'shown' from generate_series(1, 7) n",
    )
    .await;
    let source = streaming(&cluster, &folder).await;
    for (table, rows) in [("public.log", 100), ("public.listed", 2)] {
        let id = start(&source, &[table], None).await.expect("starts")[0].id;
        assert_eq!(done(&source, id).await.rows_sent, rows);
    }
    let changes = source.changes(102).await;
    assert_eq!((changes[0].as_str(), changes[99].as_str()), ("=log 50 50", "=log 149 149"));
    assert_eq!(changes[100..], ["=listed 6 shown", "=listed 7 shown"]);
    source.stop().await;
}

#[tokio::test]
async fn chunks_of_wide_rows_stay_small() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table wide (id int primary key, large text)").await;
    execute(&client, "alter table wide alter large set storage external").await;
    execute(
        &client,
        "insert into wide select n, repeat('x', 200000) from generate_series(1, 400) n",
    )
    .await;
    let mut config = config(&cluster);
    config.backfill_chunk = ByteSize::new(1 << 20);
    let source = Streaming::start(folder.path(), config);
    source.streaming().await;
    let id = start(&source, &["public.wide"], None).await.expect("starts")[0].id;
    assert_eq!(done(&source, id).await.rows_sent, 400);
    let mut reader = source.store.journal_reader(Offset::START);
    let mut sizes = std::collections::BTreeMap::new();
    while let Read::Block(block) = reader.next().expect("read the journal") {
        *sizes.entry(block.first).or_insert(0) += block.frames.len();
    }
    assert!(sizes.len() > 30, "{} chunks", sizes.len());
    assert!(sizes.values().all(|size| *size < 3 << 20), "{sizes:?}");
    source.stop().await;
}

#[tokio::test]
async fn a_table_that_is_emptied_meanwhile_stays_empty() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    execute(&client, "insert into t select n, md5(n::text) from generate_series(1, 20000) n").await;
    let source = streaming(&cluster, &folder).await;
    let id = start(&source, &["public.t"], None).await.expect("starts")[0].id;
    seen(&source, id, |now| now.rows_read > 2_000).await;
    execute(&client, "truncate t; insert into t values (7, 'new'), (20001, 'new')").await;
    done(&source, id).await;
    let replica = replica(&source, &cluster).await;
    assert_eq!(replica.tables["t"], table(&client, "t").await);
    assert_eq!(replica.tables["t"].len(), 2);
    source.stop().await;
}

#[tokio::test]
async fn it_waits_for_transactions_that_were_open_when_it_began() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key); insert into t values (1), (2)").await;
    let source = streaming(&cluster, &folder).await;
    let open = connect(&cluster).await;
    execute(&open, "begin; delete from t where id = 1").await;
    let id = start(&source, &["public.t"], None).await.expect("starts")[0].id;
    let waits = |now: &BackfillStatus| {
        now.note.as_ref().is_some_and(|note| note.contains("transactions that were open"))
    };
    seen(&source, id, waits).await;
    execute(&open, "commit").await;
    assert_eq!(done(&source, id).await.rows_sent, 1);
    assert_eq!(source.changes(2).await, ["-t 1", "=t 2"]);
    source.stop().await;
}

#[tokio::test]
async fn a_commit_that_is_streamed_and_not_yet_seen_by_others_is_waited_for() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    execute(&client, "insert into t select n, 'old' from generate_series(1, 30000) n").await;
    let source = streaming(&cluster, &folder).await;
    let id = start(&source, &["public.t"], None).await.expect("starts")[0].id;
    seen(&source, id, |now| now.rows_read > 1_000).await;
    // From now on commits wait for a standby that does not exist.
    execute(&client, "alter system set synchronous_standby_names = 'nobody'").await;
    execute(&client, "select pg_reload_conf()").await;
    crate::support::until_asked(
        &client,
        "select current_setting('synchronous_standby_names') <> ''",
    )
    .await;
    let waiter = connect(&cluster).await;
    let update = tokio::spawn(async move {
        execute(&waiter, "update t set note = 'new' where id = 30000").await;
    });
    let waits = |now: &BackfillStatus| {
        now.note.as_ref().is_some_and(|note| note.contains("may wait for a synchronous standby"))
    };
    seen(&source, id, waits).await;
    // The stream has the change, and no query sees it.
    let changes = source.changes(1).await;
    assert!(changes.contains(&"~t 30000 new".to_owned()) || changes.len() > 1);
    assert_eq!(text(&client, "select note from t where id = 30000").await, "old");
    let stuck = source.backfills.status.borrow()[0].rows_read;
    assert!(stuck < 30_000);
    execute(&client, "set synchronous_commit = local").await;
    execute(&client, "alter system reset synchronous_standby_names").await;
    execute(&client, "select pg_reload_conf()").await;
    update.await.expect("it commits");
    done(&source, id).await;
    let replica = replica(&source, &cluster).await;
    replica.assert_same("t", &table(&client, "t").await);
    assert_eq!(replica.stale, 0);
    source.stop().await;
}

#[tokio::test]
async fn transactions_that_come_while_they_are_open_count_at_their_commit() {
    let options = Options::default().set("logical_decoding_work_mem", "64kB");
    let cluster = Cluster::start(&options).expect("a throw-away PostgreSQL");
    let folder = folder();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    execute(&client, "insert into t select n, 'old' from generate_series(1, 6000) n").await;
    let source = streaming(&cluster, &folder).await;
    let id = start(&source, &["public.t"], None).await.expect("starts")[0].id;
    let mut round = 0;
    while !source.backfills.status.borrow()[0].state.is_over() {
        round += 1;
        let sql = format!(
            "begin; update t set note = 'round {round}' where id % 7 = {round} % 7; savepoint s;
             update t set note = 'never' where id % 5 = 0; rollback to s;
             delete from t where id % 1000 = {round}; commit"
        );
        execute(&client, &sql).await;
    }
    done(&source, id).await;
    let streamed = "select stream_txns > 0 from pg_stat_replication_slots";
    crate::support::until_asked(&client, streamed).await;
    let replica = replica(&source, &cluster).await;
    replica.assert_same("t", &table(&client, "t").await);
    assert_eq!(replica.stale, 0, "a row of the past came after its changes");
    source.stop().await;
}

const PROGRAM: &str = r#"
[source]
url = "DATABASE"
backfill_chunk = "16KiB"

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"
token = "s3cret"

[[pipeline]]
name = "all"
tables = ["public.*"]
"#;

fn command(walmill: &Walmill, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walmill"));
    command.arg("backfill").args(arguments);
    command.arg("--config").arg(walmill.folder().join("walmill.toml"));
    command.output().expect("run walmill")
}

fn listed(walmill: &Walmill) -> Vec<BackfillStatus> {
    let output = command(walmill, &["ls", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    serde_json::from_value(list["backfills"].clone()).expect("backfills")
}

#[tokio::test]
async fn the_command_drives_a_walmill_that_is_killed_in_between() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    execute(&client, "insert into t select n, md5(n::text) from generate_series(1, 30000) n").await;
    let mut walmill = Walmill::prepare(PROGRAM, &cluster.url());
    let away = command(&walmill, &["ls"]);
    assert_eq!(away.status.code(), Some(3), "{away:?}");
    walmill.launch();
    walmill.ready().await;
    let refused = command(&walmill, &["start", "--table", "public.nothing"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("there is no table public.nothing"), "{said}");
    let unknown = command(&walmill, &["cancel", "99"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("there is no backfill 99"), "{said}");
    for (address, body, status) in [
        ("/api/v1/backfills?token=s3cret", "{\"table\": 1}", 400),
        ("/api/v1/backfills?token=s3cret", "{\"tables\": []}", 422),
        ("/api/v1/backfills/99/pause?token=s3cret", "", 404),
        ("/api/v1/backfills/1/explode?token=s3cret", "", 404),
        ("/api/v1/backfills", "{}", 401),
    ] {
        let client = reqwest::Client::new();
        let answer = client.post(walmill.url(address)).body(body).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{address}");
        let finding: serde_json::Value =
            serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
        assert!(finding["suggestion"].is_string() || status == 404, "{finding}");
    }
    let started = command(&walmill, &["start", "--table", "public.t"]);
    assert!(started.status.success(), "{started:?}");
    for kill in 1..=3 {
        while listed(&walmill)[0].rows_read < kill * 2_000 {}
        walmill.kill();
        walmill.launch();
        walmill.ready().await;
    }
    let paused = command(&walmill, &["pause", "1"]);
    assert!(String::from_utf8_lossy(&paused.stdout).contains("paused"), "{paused:?}");
    let resumed = command(&walmill, &["resume", "1"]);
    assert!(String::from_utf8_lossy(&resumed.stdout).contains("running"), "{resumed:?}");
    while listed(&walmill)[0].state != BackfillState::Done {}
    let other =
        command(&walmill, &["start", "--table", "public.t", "--where", "id < 3", "--watch"]);
    assert!(other.status.success(), "{other:?}");
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("2 sent"), "{said}");
    let mut ids = Vec::new();
    let mut after = "earliest".to_owned();
    while ids.len() < 30_002 {
        let page = format!("/v1/streams/all/events?after={after}&limit=1000&wait=5s&token=s3cret");
        let page = walmill.json(&page).await;
        for event in page["events"].as_array().unwrap_or_else(|| panic!("{page}")) {
            assert_eq!(event["type"], "walmill.row.snapshot");
            ids.push(event["data"]["record"]["id"].as_i64().expect("an id"));
        }
        after = page["next"].as_str().expect("a cursor").to_owned();
    }
    assert_eq!(ids[30_000..], [1, 2]);
    let once: BTreeSet<i64> = ids[..30_000].iter().copied().collect();
    assert!(once.into_iter().eq(1..=30_000), "every row once");
}
