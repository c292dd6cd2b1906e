//! What only PostgreSQL 18 does.

use tempfile::TempDir;
use walmill::cluster::{Cluster, Options};
use walmill::source::Config;

use crate::support::servers::postgres_18;
use crate::support::streaming::Streaming;
use crate::support::{connect, execute};

fn start(options: &Options) -> (Cluster, TempDir, Config) {
    let cluster = Cluster::start(options).expect("a throw-away PostgreSQL 18");
    let config = Config::new(cluster.url().parse().expect("a URL"));
    (cluster, TempDir::new().expect("a folder"), config)
}

#[tokio::test]
async fn stored_generated_columns_come_where_the_publication_has_them() {
    let Some(options) = postgres_18() else { return };
    let (cluster, folder, config) = start(&options);
    let client = connect(&cluster).await;
    execute(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED,
             thrice int GENERATED ALWAYS AS (id * 3) VIRTUAL);
         CREATE PUBLICATION walmill FOR TABLE t WITH (publish_generated_columns = stored)",
    )
    .await;
    let source = Streaming::start(folder.path(), config);
    source.streaming().await;
    execute(&client, "INSERT INTO t VALUES (21)").await;
    assert_eq!(source.changes(1).await, ["+t 21 42"]);
    source.stop().await;
}

#[tokio::test]
async fn the_abort_of_a_transaction_that_was_never_sent_is_no_trouble() {
    let Some(options) = postgres_18() else { return };
    // So little that the server would stream the transaction to whoever asked for it.
    let (cluster, folder, mut config) = start(&options.set("logical_decoding_work_mem", "64kB"));
    config.streaming = false;
    let client = connect(&cluster).await;
    execute(&client, "CREATE TABLE t (id int PRIMARY KEY, note text)").await;
    let source = Streaming::start(folder.path(), config);
    source.streaming().await;
    let many = "INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series";
    execute(&client, &format!("BEGIN; {many}(1, 5000) n; ROLLBACK")).await;
    execute(&client, &format!("BEGIN; SAVEPOINT s; {many}(1, 5000) n; ROLLBACK TO s; COMMIT"))
        .await;
    execute(&client, "INSERT INTO t VALUES (1, 'kept')").await;
    assert_eq!(source.changes(1).await, ["+t 1 kept"]);
    assert_eq!(source.status.borrow().connections, 1);
    source.stop().await;
}

#[tokio::test]
async fn a_slot_that_was_idle_for_too_long_halts() {
    let Some(options) = postgres_18() else { return };
    let (cluster, folder, config) = start(&options.set("idle_replication_slot_timeout", "1s"));
    let client = connect(&cluster).await;
    execute(&client, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let source = Streaming::start(folder.path(), config.clone());
    source.streaming().await;
    execute(&client, "INSERT INTO t VALUES (1)").await;
    source.changes(1).await;
    source.stop().await;
    invalidated(&client).await;
    let source = Streaming::start(folder.path(), config);
    let (error, remedy) = source.trouble().await;
    assert!(error.contains("slot `walmill` was invalidated (idle_timeout)"), "{error}");
    assert!(error.starts_with("halted: ") && !remedy.is_empty(), "{error}: {remedy}");
    source.stop().await;
}

/// Waits until the server has given up on the slot, which it does at a checkpoint.
async fn invalidated(client: &tokio_postgres::Client) {
    let waiting = async {
        loop {
            execute(client, "CHECKPOINT").await;
            let query = "SELECT invalidation_reason = 'idle_timeout' FROM pg_replication_slots";
            let row = client.query_one(query, &[]).await.expect("the slot");
            if row.get::<_, Option<bool>>(0) == Some(true) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(crate::support::process::PATIENCE, waiting).await;
    assert!(waited.is_ok(), "the slot stays valid");
}
