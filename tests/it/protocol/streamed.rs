//! Transactions that come in blocks while they are open.

use std::fs;
use std::path::Path;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use walmill::cluster::Cluster;
use walmill::source::Config;

use super::{all, cluster, config, folder, start, until};
use crate::support::process::{PATIENCE, Walmill};
use crate::support::streaming::Streaming;
use crate::support::{connect, execute};

/// Enough of rows to be sent at once.
const MUCH: &str = "select n, repeat(md5(n::text), 10) from generate_series";
const TABLE: &str = "create table t (id int primary key, note text)";

/// What a server sent with a slot's open transactions.
pub(super) fn streamed(slot: &str) -> String {
    format!(
        "select coalesce(sum(stream_txns), 0) > 0 from pg_stat_replication_slots \
         where slot_name = '{slot}'"
    )
}

/// Bytes in files of open transactions.
fn spilled(folder: &Path) -> u64 {
    let files = fs::read_dir(folder.join("spill")).expect("the folder of open transactions");
    files.map(|file| file.expect("a file").metadata().map_or(0, |file| file.len())).sum()
}

async fn until_spilled(folder: &Path, bytes: u64) {
    crate::support::until("so much is spilled", || spilled(folder) >= bytes).await;
}

/// Runs a scenario with two sources, one that takes open transactions and one that does not, and
/// gives what both of them have in the end: the same changes at the same places.
async fn both(tables: &str, scenario: impl AsyncFnOnce(&Cluster)) -> Vec<String> {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, tables).await;
    let folders = [folder(), folder()];
    let whole = Config {
        slot: "whole".to_owned().try_into().expect("a slot name"),
        streaming: false,
        ..config(&cluster)
    };
    let in_blocks = start(folders[0].path(), config(&cluster)).await;
    let whole = start(folders[1].path(), whole).await;
    scenario(&cluster).await;
    execute(&client, "select pg_logical_emit_message(true, 'end', '')").await;
    let (changes, expected) = (in_blocks.placed().await, whole.placed().await);
    assert_eq!(changes, expected);
    until(&client, &streamed("walmill")).await;
    let never = streamed("whole").replace("> 0", "= 0");
    until(&client, &never).await;
    assert_eq!(spilled(folders[0].path()), 0, "what has committed is gone");
    in_blocks.stop().await;
    whole.stop().await;
    changes
}

#[tokio::test]
async fn a_savepoint_that_is_rolled_back_takes_its_own_rows_only() {
    let changes = both(TABLE, async |cluster| {
        let client = connect(cluster).await;
        execute(&client, &format!("begin; insert into t {MUCH}(1, 500) n; savepoint s")).await;
        execute(&client, &format!("insert into t {MUCH}(1001, 1500) n; rollback to s")).await;
        execute(&client, &format!("insert into t {MUCH}(2001, 2005) n; commit")).await;
    })
    .await;
    assert_eq!(changes.len(), 505 + 1);
}

#[tokio::test]
async fn nested_savepoints_are_dropped_and_kept_one_by_one() {
    let changes = both(TABLE, async |cluster| {
        let client = connect(cluster).await;
        let insert = |from: u32| format!("insert into t {MUCH}({from}, {}) n;", from + 299);
        let sql = [
            format!("begin; {} savepoint a; {}", insert(0), insert(1000)),
            format!("savepoint b; {} savepoint c; {}", insert(2000), insert(3000)),
            format!("rollback to c; {} release b; {}", insert(4000), insert(5000)),
            format!("savepoint d; {} rollback to a; {}", insert(6000), insert(7000)),
            format!("savepoint e; {} release e; commit", insert(8000)),
        ];
        for sql in sql {
            execute(&client, &sql).await;
        }
    })
    .await;
    assert_eq!(changes.len(), 3 * 300 + 1);
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_as_a_whole_leaves_nothing() {
    let changes = both(TABLE, async |cluster| {
        let client = connect(cluster).await;
        execute(&client, &format!("begin; insert into t {MUCH}(1, 500) n; savepoint s")).await;
        execute(&client, &format!("insert into t {MUCH}(501, 900) n; rollback")).await;
        execute(&client, &format!("insert into t {MUCH}(1, 300) n")).await;
    })
    .await;
    assert_eq!(changes.len(), 300 + 1);
}

#[tokio::test]
async fn open_transactions_beside_each_other_come_in_the_order_of_their_commits() {
    let tables = "create table t (id int primary key, note text);
                  create table u (id int primary key, note text, more int)";
    let changes = both(tables, async |cluster| {
        let (one, two, short) =
            (connect(cluster).await, connect(cluster).await, connect(cluster).await);
        execute(&one, &format!("begin; insert into t {MUCH}(1, 300) n")).await;
        execute(&two, &format!("begin; insert into u {MUCH}(1, 300) n; savepoint s")).await;
        execute(&short, "insert into t values (1000, 'first')").await;
        execute(&one, &format!("insert into u {MUCH}(301, 600) n")).await;
        execute(&two, &format!("insert into t {MUCH}(301, 600) n; rollback to s")).await;
        execute(&two, &format!("update u set more = 1; insert into t {MUCH}(601, 900) n")).await;
        execute(&two, "delete from u where id > 290; commit").await;
        execute(&short, "insert into t values (1001, 'third')").await;
        execute(&one, "commit").await;
    })
    .await;
    let position = |what: &str| {
        changes.iter().position(|change| change.contains(what)).expect("a change of this")
    };
    let order = ["+t 1000 first", "+u 1 ", "+t 1001 third", "+t 1 "].map(position);
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(changes.len(), 1 + (300 + 300 + 300 + 10) + 1 + 600 + 1);
}

#[tokio::test]
async fn columns_are_those_of_their_time_also_where_a_savepoint_takes_them_back() {
    let changes = both(TABLE, async |cluster| {
        let (client, other) = (connect(cluster).await, connect(cluster).await);
        let insert = |from: u32| format!("insert into t {MUCH}({from}, {}) n;", from + 299);
        execute(&client, &format!("begin; {} alter table t add a int default 7", insert(0))).await;
        execute(&client, &format!("{} savepoint s; alter table t drop note", insert(1000))).await;
        execute(&client, "insert into t select n, n from generate_series(2000, 3999) n").await;
        execute(&client, &format!("rollback to s; {} savepoint r", insert(4000))).await;
        execute(&client, "alter table t rename to renamed").await;
        execute(&client, &insert(5000).replace(" t ", " renamed ")).await;
        execute(&client, &format!("rollback to r; {}", insert(6000))).await;
        execute(&other, "select pg_logical_emit_message(true, 'meanwhile', '')").await;
        execute(&client, "commit").await;
        execute(&other, "insert into t values (9000, 'after')").await;
    })
    .await;
    let found = |what: &str| changes.iter().filter(|change| change.contains(what)).count();
    assert_eq!((found("+t "), found("+renamed ")), (4 * 300 + 1, 0));
    assert_eq!(changes.iter().filter(|change| change.ends_with(" 7")).count(), 3 * 300 + 1);
}

#[tokio::test]
async fn definitions_of_a_transaction_that_is_rolled_back_hold_for_nobody_else() {
    let changes = both(TABLE, async |cluster| {
        let (client, other) = (connect(cluster).await, connect(cluster).await);
        execute(&client, "begin; alter table t add a int default 7").await;
        execute(&client, &format!("insert into t {MUCH}(1, 300) n")).await;
        execute(&client, "rollback").await;
        execute(&other, "insert into t values (1000, 'narrow')").await;
        execute(&client, &format!("insert into t {MUCH}(1, 300) n")).await;
    })
    .await;
    assert!(changes[0].ends_with("+t 1000 narrow"), "{}", changes[0]);
    assert_eq!(changes.len(), 1 + 300 + 1);
}

/// The next statement of a session that works on a table of its own.
fn statement(random: &mut StdRng, session: usize, depth: &mut usize, next: &mut usize) -> String {
    let table = format!("t{session}");
    let rows = random.random_range(1..400);
    let first = *next;
    *next += rows;
    match random.random_range(0..12) {
        0..5 => format!(
            "insert into {table} (id, note) select n, repeat(md5(n::text), 8) \
             from generate_series({first}, {}) n",
            first + rows - 1
        ),
        5 => format!("update {table} set note = note || '!' where id % 3 = {}", rows % 3),
        6 => format!("delete from {table} where id % 7 = {}", rows % 7),
        7 => format!("alter table {table} add c{first} int default {first}"),
        8 if *depth > 0 => {
            *depth -= 1;
            "rollback to s; release s".into()
        }
        9 if *depth > 0 => {
            *depth -= 1;
            "release s".into()
        }
        10 => format!("truncate {table}"),
        _ => {
            *depth += 1;
            "savepoint s".into()
        }
    }
}

#[tokio::test]
async fn whatever_sessions_do_beside_each_other_comes_in_blocks_as_it_comes_whole() {
    let seed = crate::support::workload::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let tables = "create table t0 (id int primary key, note text);
                  create table t1 (id int primary key, note text);
                  create table t2 (id int primary key, note text)";
    let changes = both(tables, async |cluster| {
        let sessions = [connect(cluster).await, connect(cluster).await, connect(cluster).await];
        let (mut open, mut depths, mut next) = ([false; 3], [0; 3], 1);
        for step in 0..150 {
            let session = random.random_range(0..3);
            let sql = match (open[session], random.random_range(0..12)) {
                (false, _) => "begin".to_owned(),
                (true, 0) => "commit".to_owned(),
                (true, 1) if step % 3 == 0 => "rollback".to_owned(),
                (true, _) => statement(&mut random, session, &mut depths[session], &mut next),
            };
            execute(&sessions[session], &sql).await;
            match sql.as_str() {
                "begin" => open[session] = true,
                "commit" | "rollback" => (open[session], depths[session]) = (false, 0),
                _ => {}
            }
        }
        for session in &sessions {
            execute(session, "commit").await;
        }
        let much = format!("insert into t0 (id, note) {MUCH}(1000000, 1000500) n");
        execute(&sessions[0], &much).await;
    })
    .await;
    assert!(changes.len() > 500);
}

#[tokio::test]
async fn truncates_and_messages_come_in_their_places() {
    let tables = "create table t (id int primary key, note text);
                  create table a (id int primary key);
                  create table b (id int primary key, a int references a)";
    let changes = both(tables, async |cluster| {
        let client = connect(cluster).await;
        execute(&client, &format!("begin; insert into t {MUCH}(1, 300) n")).await;
        execute(&client, "truncate a, b restart identity cascade; truncate t cascade").await;
        execute(&client, "select pg_logical_emit_message(true, 'in', 'the middle')").await;
        execute(&client, "select pg_logical_emit_message(false, 'beside', 'it')").await;
        execute(&client, &format!("insert into t {MUCH}(1, 300) n; insert into a values (1)"))
            .await;
        execute(&client, "insert into b values (1, 1); commit").await;
    })
    .await;
    assert!(changes[0].ends_with("!beside it"), "{}", changes[0]);
    let transaction: Vec<_> = changes[1..].iter().filter(|change| !change.contains("+t")).collect();
    let (places, texts): (Vec<_>, Vec<_>) =
        transaction.iter().filter_map(|change| change.split_once(' ')).unzip();
    assert_eq!(texts, ["0a,b", "0t", "!in the middle", "+a 1", "+b 1 1", "!end "]);
    let ordinals: Vec<_> = places.iter().filter_map(|place| place.rsplit('/').next()).collect();
    assert_eq!(ordinals, ["300", "302", "303", "604", "605", "0"]);
}

#[tokio::test]
async fn a_message_of_a_savepoint_that_is_rolled_back_is_never_seen() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let source = start(folder.path(), config(&cluster)).await;
    execute(&client, "begin; select pg_logical_emit_message(true, 'kept', '')").await;
    execute(&client, "savepoint s; select pg_logical_emit_message(true, 'gone', '')").await;
    execute(&client, &format!("insert into t {MUCH}(1, 500) n")).await;
    until_spilled(folder.path(), 1).await;
    execute(&client, &format!("rollback to s; insert into t {MUCH}(501, 1000) n; commit")).await;
    let changes = all(&client, &source).await;
    assert_eq!((changes.len(), changes[0].as_str()), (1 + 500, "!kept "));
    assert_eq!(source.status.borrow().connections, 2, "it came again, whole");
    source.stop().await;
}

#[tokio::test]
async fn where_the_server_stumbles_over_an_open_transaction_it_comes_whole() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let source = start(folder.path(), config(&cluster)).await;
    // PostgreSQL 15 then looks for what the savepoint had made of the table, and finds nothing.
    execute(&client, "begin; truncate t; savepoint s; truncate t").await;
    execute(&client, &format!("insert into t {MUCH}(1, 400) n; rollback to s")).await;
    execute(&client, &format!("insert into t {MUCH}(1001, 1400) n")).await;
    execute(&client, "alter table t add c int default 1").await;
    execute(&client, &format!("insert into t {MUCH}(2001, 2400) n; commit")).await;
    let changes = all(&client, &source).await;
    assert_eq!((changes.len(), changes[0].as_str()), (1 + 800, "0t"));
    source.stop().await;
}

/// A transaction that is open, and of which something has come.
async fn half(cluster: &Cluster, folder: &Path, source: &Streaming) -> tokio_postgres::Client {
    assert_eq!(source.status.borrow().connections, 1);
    let client = connect(cluster).await;
    execute(&client, &format!("begin; insert into t {MUCH}(1, 500) n; savepoint s")).await;
    execute(&client, &format!("insert into t {MUCH}(501, 1000) n; rollback to s")).await;
    execute(&client, &format!("insert into t {MUCH}(1001, 1500) n")).await;
    until_spilled(folder, 100_000).await;
    client
}

#[tokio::test]
async fn an_open_transaction_survives_a_restart_and_a_lost_connection() {
    let (cluster, folder) = (cluster(), folder());
    let other = connect(&cluster).await;
    execute(&other, TABLE).await;
    let source = start(folder.path(), config(&cluster)).await;
    let open = half(&cluster, folder.path(), &source).await;
    execute(&other, "insert into t values (5000, 'beside')").await;
    source.changes(1).await;
    source.stop().await;

    let mut source = start(folder.path(), config(&cluster)).await;
    execute(&open, &format!("insert into t {MUCH}(1501, 2000) n")).await;
    until_spilled(folder.path(), 100_000).await;
    let kill = "select pg_terminate_backend(active_pid) from pg_replication_slots";
    execute(&other, kill).await;
    let again = source.status.wait_for(|status| status.connections == 2).await;
    drop(again.expect("the source runs"));
    execute(&open, "alter table t add more int; insert into t values (2001, 'last', 1)").await;
    execute(&open, "commit").await;
    let changes = all(&other, &source).await;
    assert_eq!(changes.len(), 1 + 3 * 500 + 1);
    assert_eq!(changes.last().map(String::as_str), Some("+t 2001 last 1"));
    source.stop().await;
}

#[tokio::test]
async fn an_open_transaction_survives_every_kill() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let config = r#"
[source]
url = "DATABASE"
tables = ["public.t"]
[store]
path = "data"
[server]
listen = "127.0.0.1:PORT"
[[pipeline]]
name = "t"
tables = ["public.t"]
"#;
    let mut walmill = Walmill::start(config, &cluster.url()).await;
    let data = walmill.folder().join("data");
    let mut expected = Vec::new();
    for round in 0..4 {
        let first = 1000 * round;
        let sql = format!("begin; insert into t {MUCH}({first}, {}) n; savepoint s;", first + 299);
        execute(&client, &sql).await;
        let gone = format!("insert into t {MUCH}({}, {}) n", first + 300, first + 599);
        execute(&client, &gone).await;
        until_spilled(&data, 50_000).await;
        walmill.kill();
        walmill.launch();
        until_spilled(&data, 50_000).await;
        let rest =
            format!("rollback to s; insert into t {MUCH}({}, {}) n;", first + 600, first + 899);
        execute(&client, &rest).await;
        // It is killed with the commit on its way, or before.
        if round % 2 == 0 {
            execute(&client, "commit").await;
            walmill.kill();
        } else {
            walmill.kill();
            execute(&client, "commit").await;
        }
        walmill.launch();
        walmill.ready().await;
        expected.extend((first..first + 300).chain(first + 600..first + 900));
        assert_eq!(keys(&walmill, expected.len()).await, expected);
    }
}

/// The keys of a stream's events, in order, once there are so many.
async fn keys(walmill: &Walmill, count: usize) -> Vec<i64> {
    let (mut keys, mut after) = (Vec::new(), "earliest".to_owned());
    let deadline = Instant::now() + PATIENCE;
    while keys.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count}: {}", keys.len(), walmill.log());
        let path = format!("/v1/streams/t/events?limit=500&wait=1s&after={after}");
        let page = walmill.json(&path).await;
        let events = page["events"].as_array().expect("events");
        keys.extend(events.iter().filter_map(|event| event["data"]["key"]["id"].as_i64()));
        after = page["next"].as_str().expect("a cursor").to_owned();
    }
    keys
}

#[tokio::test]
async fn a_commit_that_reached_the_journal_in_part_comes_once() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    // Only two blocks reach the journal: as if walmill were killed in the middle of a replay.
    let source = Streaming::through(folder.path(), config(&cluster), |journal| {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut blocks = 0;
            while let Some(append) = receiver.recv().await {
                blocks += usize::from(matches!(append, walmill::store::journal::Append::Block(_)));
                if blocks > 2 || journal.send(append).await.is_err() {
                    break;
                }
            }
            drop(journal);
            while receiver.recv().await.is_some() {}
        });
        sender
    });
    source.streaming().await;
    execute(&client, &format!("insert into t {MUCH}(1, 20000) n")).await;
    crate::support::until("the transaction was handed on", || spilled(folder.path()) == 0).await;
    source.stop().await;
    let source = start(folder.path(), config(&cluster)).await;
    let changes = all(&client, &source).await;
    assert_eq!(changes.len(), 20_000);
    source.stop().await;
}

#[tokio::test]
async fn where_open_transactions_cannot_be_kept_nothing_is_lost() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let source = start(folder.path(), config(&cluster)).await;
    let (spill, away) = (folder.path().join("spill"), folder.path().join("away"));
    fs::rename(&spill, &away).expect("rename the folder");
    execute(&client, &format!("begin; insert into t {MUCH}(1, 500) n")).await;
    let (error, remedy) = source.trouble().await;
    assert!(error.contains("keep an open transaction: "), "{error}");
    assert!(remedy.contains("see the disk"), "{remedy}");
    fs::rename(&away, &spill).expect("rename it back");
    source.streaming().await;
    execute(&client, &format!("insert into t {MUCH}(501, 1000) n; commit")).await;
    assert_eq!(all(&client, &source).await.len(), 1000);
    source.stop().await;
}

#[tokio::test]
async fn a_large_open_transaction_goes_to_the_disk_and_not_to_memory() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let source = start(folder.path(), config(&cluster)).await;
    execute(&client, "begin").await;
    for from in [1, 100_001, 200_001] {
        let insert = format!("insert into t {MUCH}({from}, {}) n", from + 99_999);
        execute(&client, &insert).await;
    }
    execute(&client, "savepoint s; insert into t values (0); rollback to s").await;
    // All of it but what the server still holds back.
    until_spilled(folder.path(), 300_000 * 330).await;
    execute(&client, "commit").await;
    let changes = all(&client, &source).await;
    assert_eq!(changes.len(), 300_000);
    let text = |n: u32| format!("+t {n} 320 bytes");
    assert!((1..=300_000).map(text).eq(changes));
    source.stop().await;
}

#[tokio::test]
async fn savepoints_and_tables_by_the_thousand_are_kept_apart() {
    let tables = "do $$ begin for n in 0..499 loop
                  execute format('create table t%s (id int primary key, note text)', n);
                  end loop; end $$";
    let changes = both(tables, async |cluster| {
        let client = connect(cluster).await;
        let sql = "do $$ begin for n in 0..4999 loop begin
                   execute format('insert into t%s values (%s, repeat(''x'', 100))', n % 500, n);
                   if n % 3 = 0 then raise 'no'; end if;
                   exception when raise_exception then null; end; end loop; end $$";
        execute(&client, sql).await;
    })
    .await;
    assert_eq!(changes.len(), 3333 + 1);
}

#[tokio::test]
async fn a_definition_that_changed_right_behind_a_reconnect_is_known() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, TABLE).await;
    let mut source = start(folder.path(), config(&cluster)).await;
    for (round, connections) in [(0, 2), (1, 3)] {
        execute(&client, "select pg_terminate_backend(active_pid) from pg_replication_slots").await;
        execute(
            &client,
            &format!(
                "begin; alter table t add c{round} int default {round};
                 insert into t (id) select n from generate_series({round}000, {round}999) n; commit"
            ),
        )
        .await;
        let again = source.status.wait_for(|status| status.connections == connections).await;
        drop(again.expect("the source runs"));
    }
    let changes = all(&client, &source).await;
    assert_eq!(changes.len(), 2000);
    assert_eq!((changes[0].as_str(), changes[1000].as_str()), ("+t 0 null 0", "+t 1000 null 0 1"));
    source.stop().await;
}
