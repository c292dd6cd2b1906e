//! What PostgreSQL sends beyond whole transactions of whole tables: transactions while they are
//! open, publications with columns and filters, partitions, origins.

mod prepared;
mod streamed;

use std::path::Path;

use tokio_postgres::Client;
use walmill::cluster::{Cluster, Options};
use walmill::source::{Config, Origins};

use crate::support::streaming::Streaming;
use crate::support::{connect, execute, folder, until_true as until};

/// A server that streams what is open at the first opportunity.
fn cluster() -> Cluster {
    let options = Options::default()
        .set("logical_decoding_work_mem", "64kB")
        .set("max_prepared_transactions", "10");
    Cluster::start(&options).expect("a throw-away PostgreSQL")
}

fn config(cluster: &Cluster) -> Config {
    Config::new(cluster.url().parse().expect("a URL"))
}

/// A source that streams.
async fn start(folder: &Path, config: Config) -> Streaming {
    let source = Streaming::start(folder, config);
    source.streaming().await;
    source
}

/// The first number of the server's version.
async fn version(client: &Client) -> i32 {
    let query = "select current_setting('server_version_num')::int / 10000";
    client.query_one(query, &[]).await.expect(query).get(0)
}

/// Everything up to now, without places.
async fn all(client: &Client, source: &Streaming) -> Vec<String> {
    execute(client, "select pg_logical_emit_message(true, 'end', '')").await;
    let placed = source.placed().await;
    let bare = placed.iter().filter_map(|change| change.split_once(' '));
    let rows = bare.map(|(_, change)| change).filter(|change| !change.starts_with("definition "));
    let mut bare: Vec<String> = rows.map(str::to_owned).collect();
    bare.pop();
    bare
}

#[tokio::test]
async fn a_publication_with_columns_and_a_filter_sends_what_is_inside() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "create table t (id int primary key, secret text, note text);
         create publication walmill for table t (id, note) where (id > 10)",
    )
    .await;
    let source = start(folder.path(), config(&cluster)).await;
    execute(&client, "insert into t values (1, 's', 'out'), (11, 's', 'in')").await;
    execute(&client, "update t set id = 12 where id = 1").await;
    execute(&client, "update t set id = 2 where id = 11").await;
    execute(&client, "update t set note = 'still' where id = 12").await;
    execute(&client, "delete from t where id = 2").await;
    assert_eq!(all(&client, &source).await, ["+t 11 in", "+t 12 out", "-t 11 null", "~t 12 still"]);
    let relation = &source.relations(1).await[0];
    let columns: Vec<_> = relation.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["id", "note"]);
    source.stop().await;
}

#[tokio::test]
async fn a_publication_that_changes_in_mid_stream_is_followed() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "create table a (id int primary key, note text); create table b (id int primary key);
         create schema s; create table s.c (id int primary key);
         create publication walmill for table a",
    )
    .await;
    let source = start(folder.path(), config(&cluster)).await;
    execute(&client, "insert into a values (1, 'one'); insert into b values (1)").await;
    execute(&client, "alter publication walmill add table b").await;
    execute(&client, "insert into b values (2)").await;
    execute(&client, "alter publication walmill set table a (id) where (id > 5), b").await;
    execute(&client, "insert into a values (2, 'two'), (6, 'six')").await;
    execute(&client, "alter publication walmill drop table a").await;
    execute(&client, "insert into a values (7, 'seven')").await;
    execute(&client, "alter publication walmill add tables in schema s").await;
    execute(&client, "insert into s.c values (1)").await;
    assert_eq!(all(&client, &source).await, ["+a 1 one", "+b 2", "+a 6", "+c 1"]);
    source.stop().await;
}

#[tokio::test]
async fn partitions_come_under_the_name_that_the_config_chooses() {
    for (root, names) in [(true, ["+log 1", "+log 11"]), (false, ["+log_0 1", "+log_1 11"])] {
        let (cluster, folder) = (cluster(), folder());
        let client = connect(&cluster).await;
        execute(
            &client,
            "create table log (id int primary key) partition by range (id);
             create table log_0 partition of log for values from (0) to (10);
             create table log_1 partition of log for values from (10) to (20)",
        )
        .await;
        let config = Config { publish_via_partition_root: root, ..config(&cluster) };
        let source = start(folder.path(), config).await;
        execute(&client, "insert into log values (1), (11)").await;
        assert_eq!(all(&client, &source).await, names);
        // Both also where they come in blocks.
        execute(&client, "alter table log add x text").await;
        execute(
            &client,
            "begin; truncate log; insert into log select n, repeat('x', 20000)
             from generate_series(0, 19) n; commit",
        )
        .await;
        let changes = all(&client, &source).await;
        let tables = |name: &str| changes.iter().filter(|change| change.starts_with(name)).count();
        assert_eq!((tables(names[0]) > 0, tables(names[1]) > 0), (true, true), "{changes:?}");
        source.stop().await;
    }
}

#[tokio::test]
async fn several_tables_are_truncated_at_once_with_what_hangs_on_them() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "create table a (id int generated always as identity primary key);
         create table b (id int primary key);
         create table c (id int primary key, a int references a)",
    )
    .await;
    let source = start(folder.path(), config(&cluster)).await;
    execute(&client, "truncate a, b restart identity cascade").await;
    execute(&client, "insert into b values (1)").await;
    execute(&client, "select pg_logical_emit_message(true, 'end', '')").await;
    let placed = source.placed().await;
    assert!(placed[0].ends_with("/0 0a,b,c"), "{placed:?}");
    source.stop().await;
}

#[tokio::test]
async fn what_is_not_replicated_does_not_come_and_stops_nothing() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(
        &client,
        "create table t (id serial primary key, twice int generated always as (id * 2) stored);
         create unlogged table u (id int primary key);
         create table heir (note text, primary key (id)) inherits (t)",
    )
    .await;
    let source = start(folder.path(), config(&cluster)).await;
    execute(&client, "insert into t default values; insert into u values (1)").await;
    execute(&client, "select nextval('t_id_seq'); insert into heir values (7, default, 'n')").await;
    execute(&client, "update t set id = id + 10").await;
    let changes = all(&client, &source).await;
    // Inherited by whoever is published, it comes under its own name.
    assert_eq!(changes, ["+t 1", "+heir 7 n", "~t 11", "~heir 17 n"]);
    source.stop().await;
}

#[tokio::test]
async fn a_prepared_transaction_comes_when_it_commits_unless_it_is_asked_for() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key)").await;
    let source = start(folder.path(), config(&cluster)).await;
    execute(&client, "begin; insert into t values (1); prepare transaction 'one'").await;
    execute(&client, "begin; insert into t values (2); prepare transaction 'two'").await;
    execute(&client, "insert into t values (3)").await;
    assert_eq!(all(&client, &source).await, ["+t 3"]);
    source.stop().await;
    execute(&client, "commit prepared 'one'").await;
    let source = start(folder.path(), config(&cluster)).await;
    execute(&client, "rollback prepared 'two'").await;
    execute(&client, "insert into t values (4)").await;
    assert_eq!(source.changes(4).await, ["+t 3", "!end ", "+t 1", "+t 4"]);
    source.stop().await;
}

#[tokio::test]
async fn what_came_from_another_server_can_be_left_out() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key)").await;
    let config = Config { origin: Origins::None, ..config(&cluster) };
    if version(&client).await < 16 {
        let source = Streaming::start(folder.path(), config);
        let (error, remedy) = source.trouble().await;
        assert!(error.contains("`origin = \"none\"` in [source] needs PostgreSQL 16"), "{error}");
        assert!(remedy.contains("remove it"), "{remedy}");
        source.stop().await;
        return;
    }
    let source = start(folder.path(), config).await;
    execute(&client, "select pg_replication_origin_create('elsewhere')").await;
    execute(&client, "select pg_replication_origin_session_setup('elsewhere')").await;
    execute(&client, "insert into t values (1)").await;
    execute(&client, "select pg_replication_origin_session_reset()").await;
    execute(&client, "insert into t values (2)").await;
    assert_eq!(all(&client, &source).await, ["+t 2"]);
    source.stop().await;
}

#[tokio::test]
async fn a_slot_is_kept_on_standbys_where_the_server_can() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key)").await;
    let source = Streaming::start(folder.path(), Config { failover: true, ..config(&cluster) });
    if version(&client).await < 17 {
        let (error, _) = source.trouble().await;
        assert!(error.contains("`failover = true` in [source] needs PostgreSQL 17"), "{error}");
    } else {
        source.streaming().await;
        until(&client, "select failover from pg_replication_slots").await;
    }
    source.stop().await;
}

#[tokio::test]
async fn generated_columns_come_where_the_server_can_send_them() {
    let (cluster, folder) = (cluster(), folder());
    let client = connect(&cluster).await;
    let create = "create table t (id int primary key, d int generated always as (id * 2) stored)";
    execute(&client, create).await;
    let config = Config { publish_generated_columns: true, ..config(&cluster) };
    let source = Streaming::start(folder.path(), config);
    if version(&client).await < 18 {
        let (error, _) = source.trouble().await;
        assert!(error.contains("`publish_generated_columns = true` in [source] needs"), "{error}");
    } else {
        source.streaming().await;
        execute(&client, "insert into t values (4)").await;
        assert_eq!(source.changes(1).await, ["+t 4 8"]);
    }
    source.stop().await;
}
