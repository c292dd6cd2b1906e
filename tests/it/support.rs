//! What the tests share: a database, a walmill process that can be killed, and clients.

pub mod allocations;
pub mod browser;
pub mod clients;
pub mod process;
pub mod proxy;
pub mod replica;
pub mod servers;
pub mod serving;
pub mod stamp;
pub mod streaming;
pub mod turmoil;
pub mod workload;

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};
use walmill::cluster::{Cluster, Options};
use walmill::source::Config;

/// A throw-away PostgreSQL.
pub fn cluster() -> Cluster {
    Cluster::start(&Options::default()).expect("a throw-away PostgreSQL")
}

/// A connection to it.
pub async fn connect(cluster: &Cluster) -> Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster.url(), NoTls).await.expect("connect to PostgreSQL");
    tokio::spawn(connection);
    client
}

/// Runs SQL that has to succeed.
pub async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
}

/// A folder that is removed in the end.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A throw-away PostgreSQL with these settings.
pub fn cluster_with(settings: &[(&str, &str)]) -> Cluster {
    let options = settings.iter().fold(Options::default(), |o, (name, value)| o.set(name, value));
    Cluster::start(&options).expect("a throw-away PostgreSQL")
}

/// A source's config with the defaults for everything but the database.
pub fn config(url: &str) -> Config {
    Config::new(url.parse().expect("a URL"))
}

/// Waits until a query answers `t`.
pub async fn until_true(client: &Client, sql: &str) {
    let waiting = async {
        while !client.query_one(sql, &[]).await.expect(sql).get::<_, bool>(0) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(process::PATIENCE, waiting).await;
    assert!(waited.is_ok(), "it never came to this: {sql}");
}

/// Waits until this is true.
pub async fn until(what: &str, fact: impl Fn() -> bool) {
    let waiting = async {
        while !fact() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(process::PATIENCE, waiting).await;
    assert!(waited.is_ok(), "it never came to this: {what}");
}

/// Waits until a query answers `t`.
pub async fn until_asked(client: &Client, sql: &str) {
    let waiting = async {
        while !client.query_one(sql, &[]).await.expect(sql).get::<_, bool>(0) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(process::PATIENCE, waiting).await;
    assert!(waited.is_ok(), "it never came to this: {sql}");
}
