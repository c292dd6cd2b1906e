//! The first snapshot against a real PostgreSQL: every row that was there comes once, before the
//! stream, whatever is written meanwhile and wherever it is cut off.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;
use walmill::cluster::Stop;
use walmill::model::Offset;
use walmill::model::status::SourceState;
use walmill::pgoutput::{self, Message};
use walmill::source::{Config, Snapshot};
use walmill::store::journal::{Append, Read};

use crate::support::process::Walmill;
use crate::support::replica::{Replica, Writer, table, text};
use crate::support::streaming::{Streaming, messages};
use crate::support::{cluster, connect, execute, folder};

fn config(url: &str) -> Config {
    let config = Config::new(url.parse().expect("a URL"));
    Config { snapshot: Snapshot::Initial, ..config }
}

/// The numbers of the definitions that each table's rows and changes refer to.
fn definitions(source: &Streaming) -> BTreeMap<String, BTreeSet<u32>> {
    let mut reader = source.store.journal_reader(Offset::START);
    let mut definitions: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    while let Read::Block(block) = reader.next().expect("read the journal") {
        for message in messages(&block.frames) {
            let (Message::Row { relation, .. } | Message::Insert { relation, .. }) =
                pgoutput::decode(message).expect("a valid message")
            else {
                continue;
            };
            let id = walmill::model::RelationId(relation);
            let table = source.store.relation(id).expect("read").expect("interned").table.clone();
            definitions.entry(table).or_default().insert(relation);
        }
    }
    definitions
}

#[tokio::test]
async fn the_rows_that_were_there_come_before_the_stream() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "create table t (id int primary key, note text); create table empty (id int primary key);
         insert into t values (1, 'one'), (2, null), (3, E'tab\\tand\\nline \\\\N')",
    )
    .await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    source.streaming().await;
    execute(&client, "insert into t values (4, 'four')").await;
    let changes = source.changes(4).await;
    assert_eq!(changes, ["=t 1 one", "=t 2 null", "=t 3 tab\tand\nline \\N", "+t 4 four"]);
    source.stop().await;
    let again = Streaming::start(folder.path(), config(&cluster.url()));
    again.streaming().await;
    execute(&client, "insert into t values (5, 'five')").await;
    assert_eq!(again.changes(5).await[3..], ["+t 4 four", "+t 5 five"]);
    again.stop().await;
}

#[tokio::test]
async fn a_database_without_rows_or_tables_starts_to_stream() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create publication walmill; create table t (id int primary key)").await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    source.streaming().await;
    execute(&client, "alter publication walmill add table t; insert into t values (1)").await;
    assert_eq!(source.changes(1).await, ["+t 1"]);
    source.stop().await;
}

#[tokio::test]
async fn a_row_that_was_there_has_the_definition_that_the_stream_gives_it() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "create type mood as enum ('sad', 'ok'); create domain cents as bigint;
         create domain small_cents as cents; create type pair as (a int, b text);
         create type span as range (subtype = float8);
         create table by_default (id int primary key, m mood, c cents, s small_cents, p pair,
           n numeric(12,2), v varchar(20)[], ms mood[], r span, t timestamptz(3), b bit(8),
           d int generated always as (id * 2) stored);
         create table by_all (id int primary key, note text); alter table by_all replica identity full;
         create table by_index (a int not null, b text not null, c int primary key);
         create unique index other on by_index (b, a);
         alter table by_index replica identity using index other;
         create table by_nothing (id int primary key, note text);
         alter table by_nothing replica identity nothing;
         create table keyless (x int, y text);
         create table keyless_all (x int, y text); alter table keyless_all replica identity full;
         create table including (id int, note text, primary key (id) include (note));
         create table log (id int, at int, m mood, primary key (id, at)) partition by range (at);
         create table log_1 (m mood, at int not null, id int not null);
         alter table log attach partition log_1 for values from (0) to (10);
         create table listed (id int primary key, secret text, shown text);
         create publication walmill for table by_default, by_all, by_index, by_nothing, keyless,
           keyless_all, including, log, listed (id, shown) where (id > 1)
           with (publish_via_partition_root = true)",
    )
    .await;
    let rows = "insert into by_default values
           (#, 'ok', 7, 8, '(1,\"x y\")', 1.50, '{a,NULL}', '{sad}', '[1,2)', now(), b'10101010');
         insert into by_all values (#, 'x'); insert into by_index values (#, 'b', #);
         insert into by_nothing values (#, 'x'); insert into keyless values (#, null);
         insert into keyless_all values (#, 'y'); insert into including values (#, 'x');
         insert into log values (#, #, 'sad'); insert into listed values (#, 'secret', 'shown')";
    execute(&client, &rows.replace("#", "1")).await;
    execute(&client, &rows.replace("#", "2")).await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    source.streaming().await;
    execute(&client, &rows.replace("#", "3")).await;
    // Eight tables of two rows, one of which the filter takes one; and then one row each.
    let changes = source.changes(17 + 9).await;
    let definitions = definitions(&source);
    assert_eq!(definitions.len(), 9);
    for (table, ids) in definitions {
        assert_eq!(ids.len(), 1, "{table} has definitions {ids:?}");
    }
    let shown = |wanted: &str| changes.iter().filter(|c| c.starts_with(wanted)).count();
    assert_eq!((shown("=log "), shown("=log_1 ")), (2, 0));
    let listed: Vec<_> = changes.iter().filter(|c| c[1..].starts_with("listed ")).collect();
    assert_eq!(listed, ["=listed 2 shown", "+listed 3 shown"]);
    // The same values, but for the time and the number, are written in the same way.
    let by_default = |sign: &str| {
        let row = changes.iter().rfind(|c| c.starts_with(sign) && c.contains("by_default"));
        row.expect("a row")[1..].split(" 20").next().expect("a part").replace("3 ok", "2 ok")
    };
    assert_eq!(by_default("="), by_default("+"));
    source.stop().await;
}

#[tokio::test]
async fn a_table_that_is_written_to_all_the_time_comes_out_exactly() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    Writer::tables(&client, 20_000).await;
    // Several ranges of blocks, so that connections share the table.
    execute(&client, "create table big (id int primary key, filler text not null)").await;
    execute(&client, "alter table big alter filler set storage plain").await;
    let fill = "insert into big select n, repeat('x', 1500) from generate_series(1, 40000) n";
    execute(&client, fill).await;
    let writers = Writer::start(&cluster, 2).await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    source.streaming().await;
    writers.go_on(500).await;
    writers.stop().await;
    execute(&client, "select pg_logical_emit_message(false, 'end', 'end')").await;
    let replica = Replica::until(&source, "end").await;
    for name in ["items", "words", "big"] {
        replica.assert_same(name, &table(&client, name).await);
    }
    let keys: BTreeSet<_> = replica.snapshot.iter().map(|(name, key, _)| (name, key)).collect();
    assert_eq!(keys.len(), replica.snapshot.len(), "a row came twice");
    assert!(keys.len() >= 40_000);
    source.stop().await;
}

#[tokio::test]
async fn wherever_it_is_cut_off_a_snapshot_begins_anew_and_nobody_saw_the_first() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    Writer::tables(&client, 20_000).await;
    for survive in [0, 1, 3] {
        let folder = folder();
        let initial = config(&cluster.url());
        let (source, _) = Streaming::cut_after(folder.path(), initial, survive);
        let all_read = |state: &SourceState| {
            matches!(state, SourceState::Snapshotting(p) if p.tables_done == p.tables_total
                && p.tables_total > 0)
        };
        source.state("through", all_read).await;
        let seen = source.store.journal_reader(Offset::START).next().expect("read the journal");
        assert!(matches!(seen, Read::End));
        source.stop().await;
        execute(&client, "delete from words where id like '1%'").await;
        let again = Streaming::start(folder.path(), config(&cluster.url()));
        again.streaming().await;
        execute(&client, "select pg_logical_emit_message(false, 'end', 'end')").await;
        let replica = Replica::until(&again, "end").await;
        for name in ["items", "words"] {
            replica.assert_same(name, &table(&client, name).await);
        }
        let rows: usize = replica.tables.values().map(BTreeMap::len).sum();
        assert_eq!(replica.snapshot.len(), rows);
        again.stop().await;
        execute(&client, "select pg_drop_replication_slot('walmill')").await;
    }
}

#[tokio::test]
async fn a_server_that_is_restarted_meanwhile_costs_a_new_beginning_and_no_row() {
    let (mut cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    Writer::tables(&client, 60_000).await;
    let (gate, mut held) = mpsc::channel::<Append>(1);
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let source = Streaming::through(folder.path(), config(&cluster.url()), |journal| {
        tokio::spawn(async move {
            // The second part waits, so that the snapshot is not read to its end.
            let first = held.recv().await.expect("a part");
            journal.send(first).await.expect("the journal runs");
            released.await.expect("a release");
            while let Some(append) = held.recv().await {
                journal.send(append).await.expect("the journal runs");
            }
        });
        gate
    });
    let reading = |state: &SourceState| matches!(state, SourceState::Snapshotting(progress) if progress.rows_done > 0);
    source.state("reading", reading).await;
    cluster.restart(Stop::Immediate).expect("restart");
    release.send(()).expect("it waits");
    source.streaming().await;
    let client = connect(&cluster).await;
    execute(&client, "select pg_logical_emit_message(false, 'end', 'end')").await;
    let replica = Replica::until(&source, "end").await;
    for name in ["items", "words"] {
        replica.assert_same(name, &table(&client, name).await);
    }
    let rows: usize = replica.tables.values().map(BTreeMap::len).sum();
    assert_eq!(replica.snapshot.len(), rows);
    source.stop().await;
}

#[tokio::test]
async fn a_slot_that_is_there_already_is_left_alone() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key)").await;
    execute(&client, "select pg_create_logical_replication_slot('walmill', 'pgoutput')").await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    let (error, remedy) = source.trouble().await;
    assert!(error.contains("slot `walmill` is there already"), "{error}");
    assert!(remedy.contains("pg_drop_replication_slot('walmill')"), "{remedy}");
    source.stop().await;
    assert_eq!(text(&client, "select count(*)::text from pg_replication_slots").await, "1");
}

#[tokio::test]
async fn rows_that_may_not_be_read_are_no_reason_to_leave_them_out() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "create role reader login replication password 'r'; grant create on database postgres to reader;
         create table t (id int primary key); insert into t values (1), (2);
         create publication walmill for table t",
    )
    .await;
    let url = format!("postgres://reader:r@127.0.0.1:{}/postgres", cluster.port());
    let source = Streaming::start(folder.path(), config(&url));
    let (error, remedy) = source.trouble().await;
    assert!(error.contains("permission denied for table t"), "{error}");
    assert!(remedy.contains("GRANT SELECT"), "{remedy}");
    source.stop().await;
    execute(
        &client,
        "grant select on t to reader; alter table t enable row level security;
         create policy one on t using (id = 1)",
    )
    .await;
    let source = Streaming::start(folder.path(), config(&url));
    let (error, remedy) = source.trouble().await;
    assert!(error.contains("row-level security"), "{error}");
    assert!(remedy.contains("BYPASSRLS"), "{remedy}");
    source.stop().await;
}

const PIPELINE: &str = r#"
[source]
url = "DATABASE"
snapshot = "initial"

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[plugins.placed]
path = "PLUGINS/filter.wasm"
config = { where = "id <> 2" }

[[pipeline]]
name = "all"
tables = ["public.*"]
plugins = ["placed"]
"#;

#[tokio::test]
async fn snapshot_rows_go_through_plugins_to_streams() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    execute(&client, "insert into t values (1, 'a'), (2, 'b'), (3, null)").await;
    let walmill = Walmill::start(PIPELINE, &cluster.url()).await;
    execute(&client, "insert into t values (4, 'd')").await;
    let page = "/v1/streams/all/events?after=earliest&limit=10";
    walmill.wait_for(page, |page| page["events"].as_array().is_some_and(|e| e.len() == 3)).await;
    let page = walmill.json(page).await;
    let events = page["events"].as_array().expect("events");
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().expect("text")).collect();
    assert_eq!(types, ["walmill.row.snapshot", "walmill.row.snapshot", "walmill.row.insert"]);
    assert_eq!(events[0]["subject"], "public.t/1");
    assert_eq!(events[0]["data"]["op"], "snapshot");
    assert_eq!(events[1]["data"]["record"]["note"], serde_json::Value::Null);
    assert_eq!(walmill.json("/readyz").await["checks"][0]["message"], "streaming");
}

#[tokio::test]
async fn a_killed_walmill_takes_its_snapshot_anew() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    let fill = "insert into t select n, repeat(md5(n::text), 30) from generate_series(1, 150000) n";
    execute(&client, fill).await;
    let mut walmill = Walmill::prepare(PIPELINE, &cluster.url());
    walmill.launch();
    crate::support::until("it listens", || {
        std::net::TcpStream::connect(("127.0.0.1", walmill.port())).is_ok()
    })
    .await;
    walmill
        .wait_for("/api/v1/status", |status| {
            status["source"]["state"]["rows_done"].as_u64().is_some_and(|rows| rows > 0)
        })
        .await;
    walmill.kill();
    let slots = "select count(*)::text from pg_replication_slots";
    assert_eq!(text(&client, slots).await, "1", "the kill left the slot");
    execute(&client, "delete from t where id % 2 = 0").await;
    walmill.launch();
    walmill.ready().await;
    execute(&client, "insert into t values (0, 'end')").await;
    let mut after = "earliest".to_owned();
    let (mut snapshot, mut others) = (BTreeSet::new(), Vec::new());
    while others.is_empty() {
        let page = format!("/v1/streams/all/events?after={after}&limit=1000&wait=5s");
        let page = walmill.json(&page).await;
        for event in page["events"].as_array().unwrap_or_else(|| panic!("{page}")) {
            let id = event["data"]["record"]["id"].as_i64().expect("an id");
            match event["type"].as_str() {
                Some("walmill.row.snapshot") => assert!(snapshot.insert(id), "{id} twice"),
                _ => others.push(id),
            }
        }
        after = page["next"].as_str().expect("a cursor").to_owned();
    }
    assert_eq!(others, [0]);
    assert!(snapshot.into_iter().eq((1..=150_000).step_by(2)));
}

#[tokio::test]
async fn a_shutdown_in_the_middle_leaves_no_slot_behind_that_holds_the_log() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    Writer::tables(&client, 20_000).await;
    // Nothing is ever taken from the journal's end of this channel.
    let (blocked, held) = mpsc::channel(1);
    let source = Streaming::through(folder.path(), config(&cluster.url()), |_| blocked);
    let begun =
        |state: &SourceState| matches!(state, SourceState::Snapshotting(p) if p.tables_total > 0);
    source.state("begun", begun).await;
    assert_eq!(text(&client, "select count(*)::text from pg_replication_slots").await, "1");
    source.stop().await;
    assert_eq!(text(&client, "select count(*)::text from pg_replication_slots").await, "0");
    drop(held);
}

#[tokio::test]
async fn a_shutdown_while_the_last_of_it_is_on_its_way_loses_nothing() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table items (id int primary key)").await;
    execute(&client, "insert into items select generate_series(1, 100)").await;
    let (held, is_held) = tokio::sync::oneshot::channel();
    let config = config(&cluster.url());
    // The journal gets the end of the snapshot once the source has ended.
    let source = Streaming::through(folder.path(), config.clone(), |journal| {
        let (sender, mut receiver) = mpsc::channel::<Append>(4);
        tokio::spawn(async move {
            let (mut last, mut held) = (None, Some(held));
            while let Some(append) = receiver.recv().await {
                match append {
                    Append::Block(block) if block.complete => {
                        last = Some(Append::Block(block));
                        held.take().map(|held| held.send(()));
                    }
                    append => journal.send(append).await.expect("the journal runs"),
                }
            }
            journal.send(last.expect("the end")).await.expect("the journal runs");
        });
        sender
    });
    is_held.await.expect("the end comes");
    source.stop().await;
    execute(&client, "insert into items values (101)").await;
    let again = Streaming::start(folder.path(), config);
    let changes = again.changes(101).await;
    assert_eq!(changes.iter().filter(|change| change.starts_with("=items")).count(), 100);
    assert_eq!(changes.last().map(String::as_str), Some("+items 101"));
    again.stop().await;
}

#[tokio::test]
async fn a_slot_that_the_server_refused_to_make_is_nobodys_to_drop() {
    let settings = [("max_replication_slots", "1")];
    let (cluster, folder) = (crate::support::cluster_with(&settings), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table items (id int primary key)").await;
    let make = |name| format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')");
    execute(&client, &make("other")).await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    let (error, _) = source.trouble().await;
    assert!(error.contains("all replication slots are in use"), "{error}");
    source.stop().await;
    execute(&client, "select pg_drop_replication_slot('other')").await;
    execute(&client, &make("walmill")).await;
    execute(&client, "insert into items values (1)").await;
    let config = Config { snapshot: Snapshot::Never, ..config(&cluster.url()) };
    let source = Streaming::start(folder.path(), config);
    assert_eq!(source.changes(1).await, ["+items 1"]);
    source.stop().await;
}
