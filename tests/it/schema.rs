//! Tables that are defined otherwise in mid-stream: what events say before, at and behind the
//! change, and that none of it depends on where walmill was cut off.

mod policies;

use expect_test::{Expect, expect};
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;
use walmill::cluster::{Cluster, Options};
use walmill::model::{Offset, RelationId};
use walmill::pgoutput::{self, Message, frame};
use walmill::source::Config;
use walmill::store::Store;
use walmill::store::journal::Read;

use crate::support::clients;
use crate::support::process::Walmill;
use crate::support::streaming::{Streaming, messages};
use crate::support::{cluster, connect, execute};

const SOURCE: &str = r#"
[source]
url = "DATABASE"
tables = ["public.*"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"
"#;

fn pipeline(name: &str, rest: &str) -> String {
    format!("\n[[pipeline]]\nname = \"{name}\"\ntables = [\"public.*\"]\n{rest}\n")
}

/// An event on a line: what the table is now, or what happened to a row.
fn shown(event: &Value) -> String {
    let data = &event["data"];
    if event["type"] != "walmill.schema.changed" {
        let row = if data["record"].is_null() { &data["old_record"] } else { &data["record"] };
        let table = data["table"].as_str().expect("a table");
        return format!("{table} {} {row}", data["op"].as_str().expect("an op"));
    }
    assert_eq!(event["subject"], event["partitionkey"]);
    let changes = data["changes"].as_array().expect("changes").iter().map(|change| {
        let column = change["column"].as_str().map(|name| format!(" {name}")).unwrap_or_default();
        let sides = match change["change"] == "table-recreated" {
            true => String::new(),
            false => format!(" {} → {}", change["before"], change["after"]),
        };
        format!("{}{column}{sides}", change["change"].as_str().expect("a word"))
    });
    let changes: Vec<String> = changes.collect();
    format!("{}: {}", event["subject"].as_str().expect("a subject"), changes.join(", "))
}

/// The stream's first events.
async fn events(walmill: &Walmill, stream: &str, count: usize) -> Vec<Value> {
    let reading = clients::sse(walmill.port(), stream, |events| events.len() >= count);
    match tokio::time::timeout(crate::support::process::PATIENCE, reading).await {
        Ok(events) => events,
        Err(_) => panic!("{stream} never had {count} events\n{}", walmill.log()),
    }
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| shown(event) + "\n").collect()
}

/// What comes of these statements, the last of which makes the last event.
async fn check(prepare: &str, statements: &[&str], count: usize, expected: Expect) {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, prepare).await;
    // Tables that are made later are published, too.
    execute(&client, "create publication walmill for all tables").await;
    let walmill = Walmill::start(&(SOURCE.to_owned() + &pipeline("all", "")), &cluster.url()).await;
    for statement in statements {
        execute(&client, statement).await;
    }
    expected.assert_eq(&lines(&events(&walmill, "all", count).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_come_go_and_change_are_told_between_the_rows_before_and_behind() {
    check(
        "create table t (id int primary key, note text)",
        &[
            "insert into t values (1, 'a')",
            "alter table t add extra numeric(12,2) default 7",
            "insert into t values (2, 'b', 1.50)",
            "begin; insert into t values (3, 'c', 2); alter table t drop note;
             insert into t values (4, 3); alter table t rename extra to price;
             insert into t values (5, 4); commit",
            "alter table t alter price type text",
            "update t set price = 'five' where id = 5",
            // A column of the same name is another column.
            "alter table t add more int; alter table t add last int",
            "insert into t values (6, 'x', 1, 2)",
            "alter table t drop more; alter table t add more int",
            "insert into t values (7, 'y', 2, 1)",
            "alter table t alter price type varchar(20)",
            "delete from t where id = 1",
        ],
        16,
        expect![[r#"
            t insert {"id":1,"note":"a"}
            public.t: column-added extra null → "numeric(12,2)"
            t insert {"extra":1.50,"id":2,"note":"b"}
            t insert {"extra":2.00,"id":3,"note":"c"}
            public.t: column-dropped note "text" → null
            t insert {"extra":3.00,"id":4}
            public.t: column-dropped extra "numeric(12,2)" → null, column-added price null → "numeric(12,2)"
            t insert {"id":5,"price":4.00}
            public.t: type-changed price "numeric(12,2)" → "text"
            t update {"id":5,"price":"five"}
            public.t: column-added more null → "int4", column-added last null → "int4"
            t insert {"id":6,"last":2,"more":1,"price":"x"}
            public.t: column-dropped more "int4" → null, column-added more null → "int4"
            t insert {"id":7,"last":2,"more":1,"price":"y"}
            public.t: type-changed price "text" → "varchar(20)"
            t delete {"id":1}
        "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_and_another_replica_identity_are_told() {
    check(
        "create table t (id int primary key, note text not null)",
        &[
            "insert into t values (1, 'a')",
            "begin; alter table t drop constraint t_pkey; alter table t add primary key (note);
             update t set id = 2; commit",
            "alter table t replica identity full",
            "update t set id = 3",
            "create unique index by_id on t (id); alter table t alter id set not null;
             alter table t replica identity using index by_id",
            "update t set note = 'b'",
            "alter table t replica identity nothing",
            "insert into t values (4, 'c')",
            "alter table t replica identity default",
            "delete from t where id = 4",
        ],
        11,
        expect![[r#"
            t insert {"id":1,"note":"a"}
            public.t: key-changed ["id"] → ["note"]
            t update {"id":2,"note":"a"}
            public.t: replica-identity-changed "default" → "full"
            t update {"id":3,"note":"a"}
            public.t: replica-identity-changed "full" → "index", key-changed ["note"] → ["id"]
            t update {"id":3,"note":"b"}
            public.t: replica-identity-changed "index" → "nothing", key-changed ["id"] → ["note"]
            t insert {"id":4,"note":"c"}
            public.t: replica-identity-changed "nothing" → "default"
            t delete {"note":"c"}
        "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_renamed_or_made_anew_are_told_and_new_ones_just_come() {
    check(
        "create table a (id int primary key); create table b (id int primary key)",
        &[
            "insert into a values (1)",
            "insert into b values (1)",
            "begin; alter table a rename to c; insert into c values (2); commit",
            "begin; drop table b; create table b (id int primary key, note text);
             insert into b values (2, 'x'); commit",
            "create table a (id int primary key)",
            "insert into a values (3)",
            "create schema other; alter table a set schema other; alter table other.a set schema public;
             alter table a rename to d; alter table d rename to a",
            "truncate a, b, c",
            "drop table a; alter table c rename to a",
            "insert into a values (9)",
        ],
        12,
        expect![[r#"
            a insert {"id":1}
            b insert {"id":1}
            public.c: table-renamed "public.a" → "public.c"
            c insert {"id":2}
            public.b: table-recreated, column-added note null → "text"
            b insert {"id":2,"note":"x"}
            a insert {"id":3}
            a truncate null
            b truncate null
            c truncate null
            public.a: table-renamed "public.c" → "public.a"
            a insert {"id":9}
        "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_joins_the_publication_is_no_change_and_a_column_that_leaves_it_is() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    execute(&client, "create publication walmill for table t").await;
    let walmill = Walmill::start(&(SOURCE.to_owned() + &pipeline("all", "")), &cluster.url()).await;
    execute(&client, "insert into t values (1, 'a')").await;
    execute(&client, "create table u (id int primary key); alter publication walmill add table u")
        .await;
    execute(&client, "insert into u values (1)").await;
    execute(&client, "alter publication walmill set table u, t (id)").await;
    execute(&client, "insert into t values (2, 'b')").await;
    expect![[r#"
        t insert {"id":1,"note":"a"}
        u insert {"id":1}
        public.t: column-dropped note "text" → null
        t insert {"id":2}
    "#]]
    .assert_eq(&lines(&events(&walmill, "all", 4).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_says_all_of_the_definition_before_and_behind() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key)").await;
    let walmill = Walmill::start(&(SOURCE.to_owned() + &pipeline("all", "")), &cluster.url()).await;
    execute(&client, "insert into t values (1); alter table t add note varchar(9)").await;
    execute(&client, "insert into t values (2, 'x')").await;
    let mut event = events(&walmill, "all", 3).await.swap_remove(1);
    let id = event["id"].as_str().expect("an id").to_owned();
    assert!(id.ends_with("/0"), "{id}: it takes the place of the transaction's first change");
    for definition in ["before", "after"] {
        assert!(event["data"][definition]["oid"].take().is_u64());
    }
    assert_eq!(
        (&event["type"], &event["subject"]),
        (&"walmill.schema.changed".into(), &"public.t".into())
    );
    expect![[r#"
        {
          "after": {
            "columns": [
              {
                "key": true,
                "name": "id",
                "type": "int4"
              },
              {
                "key": false,
                "name": "note",
                "type": "varchar(9)"
              }
            ],
            "oid": null,
            "replica_identity": "default",
            "schema": "public",
            "table": "t"
          },
          "before": {
            "columns": [
              {
                "key": true,
                "name": "id",
                "type": "int4"
              }
            ],
            "oid": null,
            "replica_identity": "default",
            "schema": "public",
            "table": "t"
          },
          "changes": [
            {
              "after": "varchar(9)",
              "before": null,
              "change": "column-added",
              "column": "note"
            }
          ],
          "schema": "public",
          "table": "t"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&event["data"]).expect("JSON"));
}

#[tokio::test(flavor = "multi_thread")]
async fn right_behind_a_lost_connection_a_change_is_told_as_well() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key)").await;
    let walmill = Walmill::start(&(SOURCE.to_owned() + &pipeline("all", "")), &cluster.url()).await;
    execute(&client, "insert into t values (0)").await;
    events(&walmill, "all", 1).await;
    for round in 1..=3 {
        execute(&client, "select pg_terminate_backend(active_pid) from pg_replication_slots").await;
        let statements = format!(
            "begin; alter table t add c{round} int default {round};
             insert into t (id) values ({round}); commit"
        );
        execute(&client, &statements).await;
    }
    expect![[r#"
        t insert {"id":0}
        public.t: column-added c1 null → "int4"
        t insert {"c1":1,"id":1}
        public.t: column-added c2 null → "int4"
        t insert {"c1":1,"c2":2,"id":2}
        public.t: column-added c3 null → "int4"
        t insert {"c1":1,"c2":2,"c3":3,"id":3}
    "#]]
    .assert_eq(&lines(&events(&walmill, "all", 7).await));
}

/// Everything in the journal, each frame with the place that its event's id is made of.
fn journal(store: &Store, count: usize) -> Option<Vec<String>> {
    let mut reader = store.journal_reader(Offset::START);
    let mut frames = Vec::new();
    let definition = |id: u32| {
        let relation = store.relation(RelationId(id)).expect("a read").expect("a relation");
        let columns: Vec<&str> =
            relation.columns.iter().map(|column| column.name.as_str()).collect();
        format!("{relation}({})", columns.join(" "))
    };
    while let Read::Block(block) = reader.next().expect("a read") {
        let (mut commit, mut ordinal) = (block.first, block.ordinal);
        for message in messages(&block.frames) {
            let what = match frame::read_redefined(message) {
                Some((before, after)) => format!("{} → {}", definition(before), definition(after)),
                None => match pgoutput::decode(message).expect("a message") {
                    Message::Begin { final_lsn, .. } => {
                        ordinal = if final_lsn == block.first { block.ordinal } else { 0 };
                        commit = final_lsn;
                        continue;
                    }
                    Message::Insert { relation, .. } => format!("+{}", definition(relation)),
                    Message::Commit { .. } => continue,
                    other => panic!("{other:?}"),
                },
            };
            frames.push(format!("{commit}/{ordinal} {what}"));
            ordinal += 1;
        }
    }
    (frames.len() >= count).then_some(frames)
}

/// Transactions with a change of a definition before, in and behind them; each large enough to be a
/// block of its own, and one of several blocks.
async fn redefine(client: &Client) -> usize {
    let row = |columns: &str, size: usize| {
        format!("insert into t (id, {columns}) values (nextval('n'), repeat('x', {size}));")
    };
    let transactions = [
        row("note", 70_000),
        format!("{} alter table t add a int; {}", row("note", 70_000), row("note", 70_000)),
        "alter table t drop a;".into(),
        format!(
            "{} {} {} alter table t rename note to text; {} {} {} {}",
            row("note", 400_000),
            row("note", 400_000),
            row("note", 400_000),
            row("text", 400_000),
            row("text", 400_000),
            row("text", 400_000),
            row("text", 400_000),
        ),
        format!(
            "drop table t; create table t (id int primary key, text text); {}",
            row("text", 70_000)
        ),
        "alter table t rename text to note;".into(),
        row("note", 70_000),
    ];
    for transaction in &transactions {
        execute(client, &format!("begin; {transaction} commit")).await;
    }
    // Eleven rows, and a frame each time that the definition is another.
    12 + 5
}

fn source_of(cluster: &Cluster, slot: &str) -> Config {
    let mut config = Config::new(cluster.url().parse().expect("a URL"));
    config.slot = slot.to_owned().try_into().expect("a slot name");
    config
}

async fn whole_journal(source: &Streaming, count: usize) -> Vec<String> {
    let mut found = None;
    crate::support::until("the whole journal", || journal(&source.store, count).is_some()).await;
    found.get_or_insert_with(|| journal(&source.store, count).expect("it was there")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_it_is_cut_off_a_change_is_told_once_and_at_the_same_place() {
    cut_everywhere(Options::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_where_transactions_come_while_they_are_open() {
    cut_everywhere(Options::default().set("logical_decoding_work_mem", "64kB")).await;
}

async fn cut_everywhere(options: Options) {
    const CUTS: usize = 9;
    let cluster = Cluster::start(&options).expect("a throw-away PostgreSQL");
    let client = connect(&cluster).await;
    execute(
        &client,
        "create table t (id int primary key, note text); create sequence n;
         alter table t alter note set storage external;
         create publication walmill for all tables",
    )
    .await;
    for cut in 0..=CUTS {
        let slot = format!("select pg_create_logical_replication_slot('cut_{cut}', 'pgoutput')");
        execute(&client, &slot).await;
    }
    let count = redefine(&client).await;
    let folders: Vec<TempDir> =
        (0..=CUTS).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let uncut = Streaming::start(folders[CUTS].path(), source_of(&cluster, &format!("cut_{CUTS}")));
    let expected = whole_journal(&uncut, count).await;
    uncut.stop().await;
    let changes = expected.iter().filter(|line| line.contains(" → ")).count();
    assert_eq!((expected.len(), changes), (count, 5), "{expected:#?}");
    for (cut, folder) in folders.iter().enumerate().take(CUTS) {
        let (folder, slot) = (folder.path(), format!("cut_{cut}"));
        let (source, _) = Streaming::cut_after(folder, source_of(&cluster, &slot), cut);
        source.streaming().await;
        source.stop().await;
        let again = Streaming::start(folder, source_of(&cluster, &slot));
        assert_eq!(whole_journal(&again, count).await, expected, "cut after {cut} blocks");
        again.stop().await;
    }
}
