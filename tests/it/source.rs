//! The source against a real PostgreSQL: what comes, what never comes, what moves the slot, and
//! what it says when something is wrong.

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_postgres::Client;
use walmill::cluster::{Cluster, Stop};
use walmill::model::status::SourceState;
use walmill::model::{Kind, Lsn};
use walmill::source::Config;

use crate::support::streaming::Streaming;
use crate::support::{
    cluster_with as cluster, config, connect, execute, folder, until_true as until,
};

/// A table `t`, with a source that streams it.
async fn streaming(cluster: &Cluster, folder: &TempDir) -> (Client, Streaming) {
    let client = connect(cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    source.streaming().await;
    (client, source)
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{error:?} in {sql}")).get(0)
}

#[tokio::test]
async fn only_what_was_committed_comes_and_in_the_order_of_commits() {
    let (cluster, folder) = (cluster(&[]), folder());
    let (one, source) = streaming(&cluster, &folder).await;
    let two = connect(&cluster).await;
    execute(&one, "begin; insert into t values (1, 'long')").await;
    execute(&two, "insert into t values (2, 'short')").await;
    execute(&one, "commit").await;
    execute(&one, "begin; insert into t values (3, 'never'); rollback").await;
    execute(
        &one,
        "begin; insert into t values (4, 'kept'); savepoint s; insert into t values (5, 'never'); \
         rollback to s; insert into t values (6, 'kept'); commit",
    )
    .await;
    execute(&one, "begin; select pg_logical_emit_message(false, 'p', 'stays'); rollback").await;
    execute(&one, "begin; select pg_logical_emit_message(true, 'p', 'goes'); rollback").await;
    execute(&one, "begin; select pg_logical_emit_message(true, 'p', 'in'); commit").await;
    execute(&one, "update t set note = 'new' where id = 4").await;
    execute(&one, "delete from t where id = 6").await;
    execute(&one, "truncate t").await;
    assert_eq!(
        source.changes(9).await,
        [
            "+t 2 short",
            "+t 1 long",
            "+t 4 kept",
            "+t 6 kept",
            "!p stays",
            "!p in",
            "~t 4 new",
            "-t 6 null",
            "0t",
        ]
    );
    source.stop().await;
}

#[tokio::test]
async fn a_large_transaction_comes_in_parts_and_is_seen_whole() {
    let (cluster, folder) = (cluster(&[]), folder());
    let (client, source) = streaming(&cluster, &folder).await;
    let sql = "insert into t select n, repeat('x', 1000) from generate_series(1, 20000) n";
    execute(&client, sql).await;
    execute(&client, "insert into t values (0, 'small')").await;
    let changes = source.changes(20_001).await;
    let expected = (1..=20_000).map(|n| format!("+t {n} 1000 bytes"));
    assert!(changes.into_iter().eq(expected.chain(["+t 0 small".into()])));
    source.stop().await;
}

#[tokio::test]
async fn a_quiet_publication_moves_the_slot_also_where_the_server_never_asks() {
    for limit in ["0", "3s"] {
        let (cluster, folder) = (cluster(&[("wal_sender_timeout", limit)]), folder());
        let (client, source) = streaming(&cluster, &folder).await;
        execute(&client, "create schema other; create table other.t (x text)").await;
        let fill =
            "insert into other.t select repeat(md5(n::text), 40) from generate_series(1, 9000) n";
        execute(&client, fill).await;
        let end = text(&client, "select pg_current_wal_insert_lsn()::text").await;
        let moved = format!(
            "select confirmed_flush_lsn >= '{end}' from pg_replication_slots \
             where slot_name = 'walmill'"
        );
        until(&client, &moved).await;
        source.stop().await;
    }
}

#[tokio::test]
async fn the_server_hears_from_us_while_the_journal_takes_nothing() {
    let (cluster, folder) = (cluster(&[("wal_sender_timeout", "1s")]), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    // The journal's end of this channel is held, and nothing is ever taken from it.
    let (blocked, held) = mpsc::channel(1);
    let source = Streaming::through(folder.path(), config(&cluster.url()), |_| blocked);
    source.streaming().await;
    let sql = "insert into t select n, repeat('x', 1000) from generate_series(1, 50000) n";
    execute(&client, sql).await;
    // Five times the time after which the server gives up on a silent reader.
    until(
        &client,
        "select count(*) = 1 from pg_stat_replication where reply_time - backend_start > '5s'",
    )
    .await;
    assert_eq!(source.status.borrow().connections, 1);
    drop(held);
    source.stop().await;
}

#[tokio::test]
async fn only_what_is_on_disk_is_confirmed_and_a_shutdown_confirms_the_last_of_it() {
    let (cluster, folder) = (cluster(&[]), folder());
    let (client, source) = streaming(&cluster, &folder).await;
    execute(&client, "insert into t values (1, 'a')").await;
    source.changes(1).await;
    let durable = source.stop().await;
    let confirmed =
        text(&client, "select confirmed_flush_lsn::text from pg_replication_slots").await;
    assert_eq!(confirmed.parse(), Ok(durable));
    assert!(durable > Lsn::ZERO);
}

#[tokio::test]
async fn wherever_it_is_cut_off_every_change_comes_once_after_a_restart() {
    let cluster = cluster(&[]);
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    for survive in 0..5 {
        let folder = folder();
        let mut config = config(&cluster.url());
        config.slot = format!("cut_{survive}").try_into().expect("a slot name");
        // Only so much reaches the journal: as if walmill were killed there.
        let (source, _) = Streaming::cut_after(folder.path(), config.clone(), survive);
        source.streaming().await;
        for n in 0..4 {
            let (id, next) = (10 * survive + 2 * n, 10 * survive + 2 * n + 1);
            let sql = format!("insert into t values ({id}), ({next})");
            execute(&client, &sql).await;
        }
        source.changes(2 * survive.min(4)).await;
        source.stop().await;
        let again = Streaming::start(folder.path(), config);
        let expected: Vec<String> =
            (0..8).map(|n| format!("+t {} null", 10 * survive + n)).collect();
        assert_eq!(again.changes(8).await, expected);
        execute(&client, &format!("insert into t values ({})", 10 * survive + 8)).await;
        assert_eq!(again.changes(9).await.len(), 9);
        again.stop().await;
    }
}

#[tokio::test]
async fn a_restarted_server_costs_no_change() {
    let (mut cluster, folder) = (cluster(&[]), folder());
    let (_, mut source) = streaming(&cluster, &folder).await;
    for (n, how) in [Stop::Fast, Stop::Immediate, Stop::Kill].into_iter().enumerate() {
        let client = connect(&cluster).await;
        execute(&client, &format!("insert into t values ({n})")).await;
        cluster.restart(how).expect("restart");
        source
            .status
            .wait_for(|status| {
                status.state == SourceState::Streaming && status.connections == n as u64 + 2
            })
            .await
            .expect("the source runs");
    }
    let client = connect(&cluster).await;
    execute(&client, "insert into t values (3)").await;
    assert_eq!(source.changes(4).await, ["+t 0 null", "+t 1 null", "+t 2 null", "+t 3 null"]);
    source.stop().await;
}

#[tokio::test]
async fn settings_of_a_role_or_database_do_not_change_values() {
    let (cluster, folder) = (cluster(&[]), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "alter role postgres set datestyle = 'German, DMY';
         alter role postgres set extra_float_digits = 0;
         alter role postgres set bytea_output = 'escape';
         alter role postgres set intervalstyle = 'iso_8601';
         alter role postgres set client_encoding = 'LATIN1';
         alter role postgres set statement_timeout = '1ms';
         alter role postgres set default_transaction_read_only = on;
         alter database postgres set timezone = 'Asia/Tokyo'",
    )
    .await;
    execute(
        &client,
        "set default_transaction_read_only = off; set statement_timeout = 0;
         create table v (id int primary key, d date, f float8, b bytea, i interval,
         z timestamptz, e text)",
    )
    .await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    source.streaming().await;
    execute(
        &client,
        "set default_transaction_read_only = off; set statement_timeout = 0;
         insert into v values (1, '2026-02-01', 0.30000000000000004, '\\x00ff', '1 day 2 hours',
         '2026-02-01 10:00:00+00', 'é')",
    )
    .await;
    assert_eq!(
        source.changes(1).await,
        ["+v 1 2026-02-01 0.30000000000000004 \\x00ff 1 day 02:00:00 2026-02-01 10:00:00+00 é"]
    );
    source.stop().await;
}

#[tokio::test]
async fn keys_and_types_are_those_of_the_table() {
    let (cluster, folder) = (cluster(&[]), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "create type mood as enum ('sad', 'ok'); create domain cents as bigint;
         create table a (id int primary key, m mood, c cents, n numeric(12,2), v varchar(20)[]);
         alter table a replica identity full;
         create table b (x int, y text); alter table b replica identity full",
    )
    .await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    source.streaming().await;
    execute(&client, "insert into a values (1, 'ok', 7, 1.50, '{x}')").await;
    execute(&client, "insert into b values (1, 'y')").await;
    execute(&client, "begin; alter table b add z int; insert into b values (2, 'y', 3); commit")
        .await;
    assert_eq!(source.changes(3).await, ["+a 1 ok 7 1.50 {x}", "+b 1 y", "+b 2 y 3"]);
    let relations = source.relations(3).await;
    let columns = |index: usize| -> Vec<(&str, bool)> {
        relations[index].columns.iter().map(|c| (c.type_name.as_str(), c.key)).collect()
    };
    assert_eq!(
        columns(0),
        [
            ("int4", true),
            ("public.mood", false),
            ("int8", false),
            ("numeric(12,2)", false),
            ("varchar(20)[]", false),
        ]
    );
    assert_eq!(relations[0].columns[2].kind, Kind::Int);
    assert_eq!(columns(1), [("int4", true), ("text", true)]);
    assert_eq!(columns(2).len(), 3);
    source.stop().await;
}

#[tokio::test]
async fn a_partitioned_table_comes_under_its_own_name() {
    let (cluster, folder) = (cluster(&[]), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "create table log (id int primary key) partition by range (id);
         create table log_1 partition of log for values from (0) to (10)",
    )
    .await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    source.streaming().await;
    execute(&client, "insert into log values (1)").await;
    assert_eq!(source.changes(1).await, ["+log 1"]);
    source.stop().await;
}

#[tokio::test]
async fn a_publication_of_ours_gets_the_tables_that_are_new() {
    let (cluster, folder) = (cluster(&[]), folder());
    let (client, source) = streaming(&cluster, &folder).await;
    source.stop().await;
    execute(&client, "create table \"Später \"\" x\" (id int primary key)").await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    source.streaming().await;
    execute(&client, "insert into \"Später \"\" x\" values (1)").await;
    assert_eq!(source.changes(1).await, ["+Später \" x 1"]);
    source.stop().await;
}

#[tokio::test]
async fn odd_names_of_publications_are_quoted() {
    let (cluster, folder) = (cluster(&[]), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key)").await;
    let mut config = config(&cluster.url());
    config.publication = "a\"b', c; drop".to_owned().try_into().expect("a name");
    let source = Streaming::start(folder.path(), config);
    source.streaming().await;
    execute(&client, "insert into t values (1)").await;
    assert_eq!(source.changes(1).await, ["+t 1"]);
    source.stop().await;
}

/// Starts a source on a fresh folder, and returns what it complains of.
async fn complaint(config: Config) -> (String, String) {
    let folder = folder();
    let source = Streaming::start(folder.path(), config);
    let trouble = source.trouble().await;
    source.stop().await;
    trouble
}

#[track_caller]
fn says((error, remedy): &(String, String), of_error: &str, of_remedy: &str) {
    assert!(error.contains(of_error), "{error}");
    assert!(remedy.contains(of_remedy), "{remedy}");
    assert!(!error.contains("s3cret") && !remedy.contains("s3cret"));
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_said_with_its_remedy() {
    let cluster = cluster(&[]);
    let client = connect(&cluster).await;
    execute(
        &client,
        "create table t (id int primary key); create role plain login password 's3cret'",
    )
    .await;
    let at = |user: &str, database: &str| {
        config(&format!("postgres://{user}@127.0.0.1:{}/{database}", cluster.port()))
    };
    let wrong_password = complaint(at("postgres:s3cret", "postgres")).await;
    says(&wrong_password, "password authentication failed", "check the password of `postgres`");
    says(&complaint(at("postgres", "postgres")).await, "password", "source.url");

    let nowhere = cluster.database_url("nowhere");
    says(&complaint(config(&nowhere)).await, "\"nowhere\" does not exist", "create the database");

    let refused = complaint(at("plain:s3cret", "postgres")).await;
    says(&refused, "", "ALTER ROLE \"plain\" REPLICATION");

    let mut unknown = config(&cluster.url());
    unknown.tables = vec!["public.nothing".parse().expect("a pattern")];
    says(&complaint(unknown).await, "`public.nothing`", "create the table");

    let mut by_hand = config(&cluster.url());
    by_hand.create_publication = false;
    let missing = complaint(by_hand).await;
    says(
        &missing,
        "publication `walmill` is missing",
        "CREATE PUBLICATION \"walmill\" FOR TABLE ONLY",
    );

    let mut by_hand = config(&cluster.url());
    by_hand.create_slot = false;
    let missing = complaint(by_hand).await;
    says(&missing, "slot `walmill` is missing", "pg_create_logical_replication_slot('walmill'");

    execute(&client, "select pg_create_logical_replication_slot('walmill', 'test_decoding')").await;
    says(&complaint(config(&cluster.url())).await, "another plugin (test_decoding)", "source.slot");

    let port = cluster.port();
    drop(cluster);
    let gone = config(&format!("postgres://postgres@127.0.0.1:{port}/postgres"));
    says(&complaint(gone).await, "connect to 127.0.0.1", "start PostgreSQL");
}

#[tokio::test]
async fn a_server_without_logical_wal_is_named_as_such() {
    let cluster = cluster(&[("wal_level", "replica")]);
    let trouble = complaint(config(&cluster.url())).await;
    says(&trouble, "wal_level is `replica`", "ALTER SYSTEM SET wal_level = logical");
}

#[tokio::test]
async fn a_slot_that_is_gone_or_was_moved_halts() {
    let moved = "select pg_replication_slot_advance('walmill', pg_current_wal_lsn())";
    let dropped = "select pg_drop_replication_slot('walmill')";
    let unpublished = "drop publication walmill";
    for (sql, error) in [
        (moved, "halted: slot `walmill` is at"),
        (dropped, "halted: slot `walmill` is gone"),
        (unpublished, "halted: publication `walmill` is gone"),
    ] {
        let (cluster, folder) = (cluster(&[]), folder());
        let (client, source) = streaming(&cluster, &folder).await;
        execute(&client, "insert into t values (1)").await;
        source.changes(1).await;
        source.stop().await;
        execute(&client, "insert into t values (2)").await;
        execute(&client, sql).await;
        let source = Streaming::start(folder.path(), config(&cluster.url()));
        says(&source.trouble().await, error, "walmill slot recreate --snapshot");
        source.stop().await;
    }
}

#[tokio::test]
async fn another_server_halts() {
    let (one, two, folder) = (cluster(&[]), cluster(&[]), folder());
    let (client, source) = streaming(&one, &folder).await;
    execute(&client, "insert into t values (1)").await;
    source.changes(1).await;
    source.stop().await;
    execute(&connect(&two).await, "create table t (id int primary key)").await;
    let source = Streaming::start(folder.path(), config(&two.url()));
    // Both came from one template; what tells them apart then is the slot.
    says(&source.trouble().await, "halted: ", "store.path");
    source.stop().await;
}

#[tokio::test]
async fn a_commit_right_behind_a_message_is_not_taken_for_it() {
    let (cluster, folder) = (cluster(&[]), folder());
    let (client, source) = streaming(&cluster, &folder).await;
    let other = connect(&cluster).await;
    execute(&client, "begin; insert into t values (1, 'kept')").await;
    // The next record in the log is the commit, which begins where the message ends.
    execute(&other, "select pg_logical_emit_message(false, 'p', 'first')").await;
    execute(&client, "commit").await;
    execute(&client, "insert into t values (2, 'kept')").await;
    assert_eq!(source.changes(3).await, ["!p first", "+t 1 kept", "+t 2 kept"]);
    source.stop().await;
}
