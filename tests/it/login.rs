//! Getting in: every way to log in and to secure the way, at real servers and at rogue ones.

mod environment;
pub mod hosts;
mod rogue;
pub mod tls;

use std::path::Path;

use tempfile::TempDir;
use walmill::cluster::{Cluster, Options};
use walmill::model::status::{SourceState, SourceStatus};
use walmill::source::Config;

use crate::support::streaming::Streaming;
use crate::support::{connect, execute};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn config(url: &str) -> Config {
    Config::new(url.parse().expect("a URL"))
}

/// A server with these lines in front of its `pg_hba.conf`, and a table.
async fn cluster(options: Options) -> Cluster {
    let cluster = Cluster::start(&options).expect("a throw-away PostgreSQL");
    execute(&within(&cluster).await, "create table t (id int primary key)").await;
    cluster
}

/// A connection by the socket that is open to everybody on this machine, whatever the test's rules
/// for others are.
async fn within(cluster: &Cluster) -> tokio_postgres::Client {
    match cluster.folder().join(format!(".s.PGSQL.{}", cluster.port())).exists() {
        true => {
            let folder = shown(cluster.folder());
            connect_to(&format!("host={folder} port={} user=postgres", cluster.port())).await
        }
        false => connect(cluster).await,
    }
}

async fn connect_to(address: &str) -> tokio_postgres::Client {
    let connected = tokio_postgres::connect(address, tokio_postgres::NoTls).await;
    let (client, connection) = connected.expect("connect to PostgreSQL");
    tokio::spawn(connection);
    client
}

fn with_access(lines: &[&str]) -> Options {
    Options { access: lines.iter().map(|line| (*line).into()).collect(), ..Options::default() }
}

/// Gets in, streams, leaves, and lets go of the slot.
async fn enters(cluster: &Cluster, url: &str) {
    let folder = folder();
    let source = Streaming::start(folder.path(), config(url));
    source.streaming().await;
    source.stop().await;
    execute(&within(cluster).await, "select pg_drop_replication_slot('walmill')").await;
}

/// Does not get in, and says this, without a secret.
async fn complains(url: &str, of_error: &str, of_remedy: &str) {
    let folder = folder();
    let source = Streaming::start(folder.path(), config(url));
    let (error, remedy) = source.trouble().await;
    source.stop().await;
    assert!(error.contains(of_error), "{url}: {error}");
    assert!(remedy.contains(of_remedy), "{url}: {remedy}");
    assert!(!error.contains("s3cret") && !remedy.contains("s3cret"), "{error}; {remedy}");
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn every_way_to_log_in_works() {
    let cluster = cluster(with_access(&[
        "host all by_md5 127.0.0.1/32 md5",
        "host all by_password 127.0.0.1/32 password",
        "host all by_scram 127.0.0.1/32 scram-sha-256",
    ]))
    .await;
    let client = connect(&cluster).await;
    let port = cluster.port();
    for (way, encryption, others) in [
        ("by_md5", "md5", "scram-sha-256,password"),
        ("by_password", "scram-sha-256", "!password"),
        ("by_scram", "scram-sha-256", "md5,none"),
    ] {
        let role = format!(
            "set password_encryption = '{encryption}';
             create role {way} superuser login password 's3cret \"'"
        );
        execute(&client, &role).await;
        let url = format!("postgres://{way}:s3cret%20%22@127.0.0.1:{port}/postgres");
        enters(&cluster, &url).await;
        let refused = format!("{url}?require_auth={others}");
        complains(&refused, "`require_auth` does not allow", "pg_hba.conf").await;
        let wrong = format!("postgres://{way}:wrong-s3cret@127.0.0.1:{port}/postgres");
        let remedy = format!("check the password of `{way}` in `source.url`");
        complains(&wrong, "password authentication failed", &remedy).await;
    }
    let trusted = format!("host={} port={port} user=postgres", shown(cluster.folder()));
    enters(&cluster, &trusted).await;
    let refused = format!("{trusted} require_auth=scram-sha-256");
    complains(&refused, "`require_auth` does not allow", "pg_hba.conf").await;
}

#[tokio::test]
async fn a_password_file_is_used_and_names_the_line_that_is_wrong() {
    let cluster = cluster(Options::default()).await;
    let (files, port) = (folder(), cluster.port());
    let file = files.path().join("pass");
    let client = connect(&cluster).await;
    execute(&client, r"create role r superuser login password 'a:s3cret\'").await;
    let write = |text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(&file, text).expect("write");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    let url = format!("postgres://r@127.0.0.1:{port}/postgres?passfile={}", shown(&file));
    let right = format!("# mine\nlocalhost:*:*:r:no\n127.0.0.1:{port}:postgres:r:a\\:s3cret\\\\\n");
    write(&right, 0o600);
    enters(&cluster, &url).await;
    // A new password takes no restart.
    let folder = folder();
    let mut source = Streaming::start(folder.path(), config(&url));
    source.streaming().await;
    write(&right.replace("a\\:s3cret\\\\", "new-s3cret"), 0o600);
    execute(
        &client,
        "alter role r password 'new-s3cret';
         select pg_terminate_backend(active_pid) from pg_replication_slots",
    )
    .await;
    let again =
        |status: &SourceStatus| status.connections == 2 && status.state == SourceState::Streaming;
    source.status.wait_for(again).await.expect("the source runs");
    source.stop().await;
    execute(&client, "select pg_drop_replication_slot('walmill')").await;
    write("*:*:*:r:s3cret", 0o600);
    let remedy = format!("in line 1 of {}", shown(&file));
    complains(&url, "password authentication failed", &remedy).await;
    write(&right, 0o640);
    complains(&url, "asks for a password", "~/.pgpass").await;
}

#[tokio::test]
async fn a_socket_in_the_abstract_namespace_is_found_and_its_peer_is_looked_at() {
    let name = format!("walmill-{:08x}", rand::random::<u32>());
    let abstract_socket = Options::default().set("unix_socket_directories", &format!("@{name}"));
    let cluster = cluster(abstract_socket).await;
    let url = format!("host=@{name} port={} user=postgres", cluster.port());
    enters(&cluster, &url).await;
    let escaped = format!("postgres://postgres@%40{name}:{}/postgres", cluster.port());
    enters(&cluster, &escaped).await;
    let stranger = format!("{url} requirepeer=daemon");
    complains(&stranger, "does not run as `daemon`", "who listens").await;
}

#[tokio::test]
async fn a_pooler_in_between_is_named_as_such() {
    let Some(bouncer) = hosts::Bouncer::start(cluster(Options::default()).await) else {
        eprintln!("skipped: there is no pgbouncer here");
        return;
    };
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", bouncer.port);
    complains(&url, "startup parameter", "a connection pooler does not pass replication on").await;
}
