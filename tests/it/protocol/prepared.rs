//! Prepared transactions, kept by walmill from their PREPARE to their end.

use std::path::Path;

use serde_json::Value;
use walmill::cluster::Cluster;
use walmill::source::Config;

use super::streamed::streamed;
use super::{all, cluster, config, folder, start, until};
use crate::support::process::Walmill;
use crate::support::streaming::Streaming;
use crate::support::{connect, execute};

const TABLE: &str = "create table t (id int primary key, note text)";
/// Enough of rows to be sent while they are open.
const MUCH: &str = "select n, repeat(md5(n::text), 10) from generate_series";

fn asked_for(cluster: &Cluster) -> Config {
    Config { two_phase: true, ..config(cluster) }
}

/// Prepared transactions whose files are on disk.
fn sealed(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder.join("spill")).expect("the folder");
    let names = files.map(|file| file.expect("a file").file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".sealed")).count()
}

/// Files of transactions that are not decided yet.
fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("spill")).expect("the folder").count()
}

/// Waits until everything up to now is confirmed.
async fn until_confirmed(client: &tokio_postgres::Client) {
    let row = client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await;
    let end: String = row.expect("the log's end").get(0);
    let confirmed =
        format!("select bool_and(confirmed_flush_lsn >= '{end}') from pg_replication_slots");
    until(client, &confirmed).await;
}

#[tokio::test]
async fn a_prepared_transaction_is_here_before_it_commits_and_seen_when_it_has() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let source = start(folder.path(), asked_for(&cluster)).await;
    execute(&client, "begin; insert into t values (1, 'a'); prepare transaction 'one'").await;
    execute(&client, "begin; insert into t values (2, 'b'); prepare transaction 'two'").await;
    execute(&client, "insert into t values (3, 'c')").await;
    assert_eq!(all(&client, &source).await, ["+t 3 c"]);
    assert_eq!(sealed(folder.path()), 2);
    until_confirmed(&client).await;
    source.stop().await;

    // PostgreSQL sends nothing of it any more but its end.
    let source = start(folder.path(), asked_for(&cluster)).await;
    assert_eq!(sealed(folder.path()), 2);
    execute(&client, "rollback prepared 'two'").await;
    execute(&client, "commit prepared 'one'").await;
    assert_eq!(source.changes(3).await, ["+t 3 c", "!end ", "+t 1 a"]);
    until_confirmed(&client).await;
    execute(&client, "insert into t values (4, 'd')").await;
    assert_eq!(source.changes(4).await[3], "+t 4 d");
    crate::support::until("both files are gone", || sealed(folder.path()) == 0).await;
    source.stop().await;
}

#[tokio::test]
async fn prepared_transactions_are_the_same_whether_they_are_asked_for_or_not() {
    let (cluster, folders) = (cluster(), [folder(), folder(), folder()]);
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    execute(&client, "create table u (id int primary key)").await;
    let slot = |name: &str| name.to_owned().try_into().expect("a slot name");
    let without = Config { slot: slot("without"), ..config(&cluster) };
    let whole = Config { slot: slot("whole"), streaming: false, ..asked_for(&cluster) };
    let asked = start(folders[0].path(), asked_for(&cluster)).await;
    let without = start(folders[1].path(), without).await;
    let whole = start(folders[2].path(), whole).await;
    execute(&client, "begin; insert into t values (1, 'a'); prepare transaction 'small'").await;
    execute(&client, &format!("begin; insert into t {MUCH}(10, 400) n; savepoint s")).await;
    execute(&client, &format!("insert into t {MUCH}(1000, 1400) n; rollback to s")).await;
    execute(&client, "insert into t values (2, 'b'); prepare transaction 'large'").await;
    execute(&client, "insert into t values (3, 'c')").await;
    execute(&client, "commit prepared 'large'").await;
    execute(&client, "begin; select txid_current(); prepare transaction 'empty'").await;
    execute(&client, "commit prepared 'small'").await;
    execute(&client, "commit prepared 'empty'").await;
    for (end, column) in [("rollback", "never"), ("commit", "x")] {
        execute(&client, &format!("begin; alter table u add {column} int default 7")).await;
        execute(&client, "insert into u values (1); prepare transaction 'columns'").await;
        execute(&client, &format!("{end} prepared 'columns'")).await;
        execute(&client, &format!("insert into u values ({})", 2 + column.len())).await;
    }
    execute(&client, "select pg_logical_emit_message(true, 'end', '')").await;
    let expected = without.placed().await;
    // The last but one is the changed definition of `u`.
    assert_eq!(expected.len(), 1 + 391 + 1 + 1 + 3 + 1 + 1);
    let texts: Vec<_> = expected.iter().filter_map(|change| change.split_once("+u ")).collect();
    let texts: Vec<_> = texts.iter().map(|(_, text)| *text).collect();
    assert_eq!(texts, ["7", "1 7", "3 7"]);
    assert_eq!(asked.placed().await, expected);
    assert_eq!(whole.placed().await, expected);
    for source in [asked, without, whole] {
        source.stop().await;
    }
}

#[tokio::test]
async fn whether_it_is_asked_for_may_change_while_transactions_wait() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let prepare = async |n: u32| {
        let sql = format!("begin; insert into t values ({n}, 'x'); prepare transaction 'g{n}'");
        execute(&client, &sql).await;
    };
    let commit = async |n: u32| execute(&client, &format!("commit prepared 'g{n}'")).await;
    let source = start(folder.path(), config(&cluster)).await;
    prepare(1).await;
    until_confirmed(&client).await;
    source.stop().await;

    let source = start(folder.path(), asked_for(&cluster)).await;
    prepare(2).await;
    prepare(3).await;
    commit(2).await;
    crate::support::until("the last is sealed", || sealed(folder.path()) == 1).await;
    until_confirmed(&client).await;
    source.stop().await;

    let source = start(folder.path(), config(&cluster)).await;
    for n in [1, 3] {
        commit(n).await;
    }
    prepare(4).await;
    commit(4).await;
    assert_eq!(all(&client, &source).await, ["+t 2 x", "+t 1 x", "+t 3 x", "+t 4 x"]);
    until_confirmed(&client).await;
    execute(&client, "insert into t values (5, 'x')").await;
    crate::support::until("all files are gone", || sealed(folder.path()) == 0).await;
    source.stop().await;
}

#[tokio::test]
async fn a_prepared_transaction_survives_every_kill() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let config = r#"
[source]
url = "DATABASE"
tables = ["public.t"]
two_phase = true
[store]
path = "data"
[server]
listen = "127.0.0.1:PORT"
[[pipeline]]
name = "t"
tables = ["public.t"]
"#;
    let mut walmill = Walmill::start(config, &cluster.url()).await;
    for round in 0..6 {
        let data = walmill.folder().join("data");
        let (first, second) = (2 * round, 2 * round + 1);
        execute(&client, &format!("begin; insert into t values ({first}), ({second})")).await;
        execute(&client, &format!("prepare transaction 'g{round}'")).await;
        crate::support::until("it is sealed", || sealed(&data) == 1).await;
        if round % 2 == 0 {
            until_confirmed(&client).await;
        }
        walmill.kill();
        if round % 3 == 0 {
            walmill.launch();
            walmill.ready().await;
        }
        execute(&client, &format!("commit prepared 'g{round}'")).await;
        if round % 3 == 1 {
            walmill.launch();
            walmill.ready().await;
            walmill.kill();
        }
        if round % 3 > 0 {
            walmill.launch();
            walmill.ready().await;
        }
        let count = second + 1;
        let path = "/v1/streams/t/events?limit=100&after=earliest";
        let is_there = |page: &Value| page["events"].as_array().is_some_and(|e| e.len() >= count);
        walmill.wait_for(path, is_there).await;
        let page = walmill.json(path).await;
        let events = page["events"].as_array().expect("events");
        let ids: Vec<i64> = events.iter().filter_map(|e| e["data"]["key"]["id"].as_i64()).collect();
        assert_eq!(ids, (0..count as i64).collect::<Vec<_>>());
        execute(&client, "select pg_logical_emit_message(false, 'on', '')").await;
        crate::support::until("its file is gone", || sealed(&data) == 0).await;
    }
}

/// A transaction of 110 rows, all below 64 kB: it comes as a whole, and is confirmed.
async fn prepare_and_confirm(client: &tokio_postgres::Client, folder: &Path) {
    let rows = "select n, repeat('x', 300) from generate_series(1, 110) n";
    execute(client, &format!("begin; insert into t {rows}; prepare transaction 'one'")).await;
    crate::support::until("it is sealed", || sealed(folder) == 1).await;
    until_confirmed(client).await;
    until(client, &streamed("walmill").replace("> 0", "= 0")).await;
}

/// On a new connection PostgreSQL has the prepared transaction in memory again, and another one
/// fills that up: the largest one goes out, in blocks.
async fn make_it_come_again(client: &tokio_postgres::Client) {
    let rows = "select n, repeat('y', 100) from generate_series(1001, 1200) n";
    execute(client, &format!("insert into t {rows}")).await;
    until(client, &streamed("walmill")).await;
}

/// Everything up to now: that of the other transaction, then that of the prepared one.
async fn assert_both_are_here(client: &tokio_postgres::Client, source: &Streaming) {
    let changes = all(client, source).await;
    let keys = changes.iter().filter_map(|change| change.split(' ').nth(1)?.parse().ok());
    let expected = (1001..=1200).chain(1..=110).collect::<Vec<u32>>();
    assert_eq!(keys.collect::<Vec<u32>>(), expected);
}

#[tokio::test]
async fn one_that_comes_again_in_blocks_after_its_prepare_was_confirmed_is_still_there() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let source = start(folder.path(), asked_for(&cluster)).await;
    prepare_and_confirm(&client, folder.path()).await;
    source.stop().await;
    let source = start(folder.path(), asked_for(&cluster)).await;
    make_it_come_again(&client).await;
    assert_eq!(sealed(folder.path()), 1);
    source.stop().await;
    // What came of it then is of no use to the next connection.
    let source = start(folder.path(), asked_for(&cluster)).await;
    execute(&client, "commit prepared 'one'").await;
    assert_both_are_here(&client, &source).await;
    until_confirmed(&client).await;
    execute(&client, "select pg_logical_emit_message(false, 'on', '')").await;
    crate::support::until("its files are gone", || files(folder.path()) == 0).await;
    source.stop().await;
}

#[tokio::test]
async fn one_that_comes_again_in_blocks_on_a_second_connection_is_still_there() {
    for end in ["commit", "rollback"] {
        let (cluster, folder) = (cluster(), folder());
        let client = connect(&cluster).await;
        execute(&client, TABLE).await;
        let source = start(folder.path(), asked_for(&cluster)).await;
        prepare_and_confirm(&client, folder.path()).await;
        let walsender = "select active_pid from pg_replication_slots";
        let first: i32 = client.query_one(walsender, &[]).await.expect("a walsender").get(0);
        execute(&client, &format!("select pg_terminate_backend({first})")).await;
        until(&client, &format!("select coalesce(({walsender}) <> {first}, false)")).await;
        make_it_come_again(&client).await;
        execute(&client, &format!("{end} prepared 'one'")).await;
        match end {
            "commit" => assert_both_are_here(&client, &source).await,
            _ => assert_eq!(all(&client, &source).await.len(), 200),
        }
        until_confirmed(&client).await;
        execute(&client, "select pg_logical_emit_message(false, 'on', '')").await;
        crate::support::until("its files are gone", || files(folder.path()) == 0).await;
        source.stop().await;
    }
}

#[tokio::test]
async fn a_commit_whose_changes_went_to_another_folder_halts() {
    let (cluster, folders) = (cluster(), [folder(), folder()]);
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let source = start(folders[0].path(), asked_for(&cluster)).await;
    execute(&client, "begin; insert into t values (1, 'a'); prepare transaction 'one'").await;
    crate::support::until("it is sealed", || sealed(folders[0].path()) == 1).await;
    until_confirmed(&client).await;
    source.stop().await;
    let source = start(folders[1].path(), asked_for(&cluster)).await;
    execute(&client, "commit prepared 'one'").await;
    let (error, remedy) = source.trouble().await;
    assert!(error.contains("halted: prepared transaction `one` has committed"), "{error}");
    assert!(remedy.contains("store.path"), "{remedy}");
    source.stop().await;
}
