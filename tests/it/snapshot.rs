//! The first snapshot against a real PostgreSQL: every row that was there comes once, before the
//! stream, whatever is written meanwhile and wherever it is cut off.

use std::collections::BTreeMap;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_postgres::Client;
use walmill::cluster::{Cluster, Options};
use walmill::model::status::SourceState;
use walmill::source::{Config, Snapshot};
use walmill::store::journal::Append;

use crate::support::replica::Replica;
use crate::support::streaming::Streaming;
use crate::support::{cluster, connect, execute};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn config(url: &str) -> Config {
    let config = Config::new(url.parse().expect("a URL"));
    Config { snapshot: Snapshot::Initial, ..config }
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{error:?} in {sql}")).get(0)
}

/// The whole of a table, as the server shows it.
async fn table(client: &Client, name: &str) -> BTreeMap<String, Vec<Option<String>>> {
    crate::support::replica::table(client, name).await
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
    assert_eq!(
        changes,
        ["=t 1 one", "=t 2 null", "=t 3 tab\tand\nline \\N", "+t 4 four"]
    );
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
    execute(&client, "create publication walmill").await;
    let mut config = config(&cluster.url());
    config.tables = vec!["none.*".parse().expect("a pattern"), "public.*".parse().expect("one")];
    execute(&client, "create table t (id int primary key)").await;
    let source = Streaming::start(folder.path(), config);
    source.streaming().await;
    execute(&client, "alter publication walmill add table t; insert into t values (1)").await;
    assert_eq!(source.changes(1).await, ["+t 1"]);
    source.stop().await;
}
