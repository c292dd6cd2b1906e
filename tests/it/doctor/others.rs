//! Faults that need a server, a slot or a folder of their own.

use std::path::Path;

use walmill::cluster::{Cluster, Options};
use walmill::source::Config;

use super::{CONFIG, Patient, doctor, findings, text};
use crate::login::hosts::REPLICATION;
use crate::support::streaming::Streaming;
use crate::support::{connect, execute};

/// What the superuser is told of such a server, beside that it is one.
fn told(url: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let config = CONFIG.replace("DATABASE", url);
    let findings = findings(&doctor(folder.path(), &config, &["--json"]));
    let codes = findings.iter().map(|finding| text(finding, "code"));
    codes.filter(|code| code != "role-superuser").collect()
}

fn server(settings: &[(&str, &str)]) -> Cluster {
    let options = Options::default().set("max_slot_wal_keep_size", "10GB");
    let options = settings.iter().fold(options, |options, (name, value)| options.set(name, value));
    Cluster::start(&options).expect("a throw-away PostgreSQL")
}

#[tokio::test]
async fn settings_that_leave_no_room_are_found() {
    let tables = "create table a (id int primary key); create publication walmill for table a";
    for (settings, codes) in [
        (&[("wal_level", "replica")][..], &["wal-level", "slot-missing"][..]),
        (&[("max_replication_slots", "0")], &["max-replication-slots", "slot-missing"]),
        (&[("max_wal_senders", "0")], &["max-wal-senders", "slot-missing"]),
        (&[("max_wal_senders", "1")], &["max-wal-senders", "slot-missing"]),
    ] {
        let cluster = server(settings);
        execute(&connect(&cluster).await, tables).await;
        assert_eq!(told(&cluster.url()), codes, "{settings:?}");
    }
}

#[tokio::test]
async fn commits_that_would_wait_for_walmill_are_foreseen() {
    let patient = Patient::healthy().await;
    // Or this test's own would wait.
    patient.run("ALTER SYSTEM SET synchronous_commit = local; select pg_reload_conf()").await;
    for names in ["*", "ANY 1 (a, walmill)"] {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        patient.run(&format!("{set}; select pg_reload_conf()")).await;
        assert_eq!(patient.codes(), ["synchronous-standby"]);
    }
}

#[tokio::test]
async fn a_database_without_an_encoding_is_found() {
    let cluster = server(&[]);
    let sql = "create database old encoding 'SQL_ASCII' template template0 lc_collate 'C' \
               lc_ctype 'C'";
    execute(&connect(&cluster).await, sql).await;
    let codes = told(&cluster.database_url("old"));
    assert!(codes.contains(&"sql-ascii".into()), "{codes:?}");
}

#[tokio::test]
async fn a_standby_is_found() {
    let options = Options { access: vec![REPLICATION.into()], ..Options::default() };
    let cluster = Cluster::start(&options).expect("a throw-away PostgreSQL");
    let standby = cluster.standby(&[]).expect("a standby");
    assert!(told(&standby.url()).contains(&"standby".into()));
}

#[tokio::test]
async fn a_slot_that_is_not_ours_is_found() {
    let patient = Patient::healthy().await;
    patient.run("select pg_drop_replication_slot('walmill')").await;
    patient.run("select pg_create_logical_replication_slot('walmill', 'test_decoding')").await;
    let finding = patient.finding("slot-plugin");
    patient.run(&text(&finding, "suggestion")).await;
    assert_eq!(patient.codes(), ["slot-missing"]);
    patient.run("create database other").await;
    let other = patient.cluster.database_url("other");
    let (other, connection) =
        tokio_postgres::connect(&other, tokio_postgres::NoTls).await.expect("connect");
    tokio::spawn(connection);
    let make = "select pg_create_logical_replication_slot('walmill', 'pgoutput')";
    execute(&other, make).await;
    assert_eq!(patient.codes(), ["slot-database"]);
    execute(&other, "select pg_drop_replication_slot('walmill')").await;

    patient.run(make).await;
    let elsewhere = tempfile::tempdir().expect("a folder");
    let config = Config::new(patient.cluster.url().parse().expect("a URL"));
    let source = Streaming::start(elsewhere.path(), config);
    source.streaming().await;
    assert_eq!(patient.codes(), ["slot-active"]);
    source.stop().await;
    assert_eq!(patient.codes(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_snapshot_or_an_option_needs_and_has_not_is_found() {
    let mut patient = Patient::healthy().await;
    let healthy = patient.config.clone();
    patient.config = healthy.replace("create_slot = false", "snapshot = \"initial\"");
    assert_eq!(patient.codes(), ["slot-found"]);
    patient.run("select pg_drop_replication_slot('walmill')").await;
    assert_eq!(patient.codes(), Vec::<String>::new());
    patient.run("revoke select on b from walmill").await;
    let finding = patient.finding("role-select");
    patient.run(&text(&finding, "suggestion")).await;
    assert_eq!(patient.codes(), Vec::<String>::new());
    if patient.version().await < 17 {
        patient.config = healthy.replace("create_slot = false", "failover = true");
        assert_eq!(patient.codes(), ["server-version"]);
    }
}

#[tokio::test]
async fn a_running_walmill_is_no_finding() {
    let patient = Patient::healthy().await;
    let config = Config::new(patient.cluster.url().parse().expect("a URL"));
    let source = Streaming::start(&patient.folder.path().join("data"), config);
    source.streaming().await;
    assert_eq!(patient.codes(), Vec::<String>::new());
    source.stop().await;
}

/// Writes the log on, a segment at a time, until this is found.
async fn write_until(patient: &Patient, code: &str) {
    for _ in 0..6 {
        patient.run("select pg_logical_emit_message(false, '', 'x')").await;
        patient.run("select pg_switch_wal()").await;
        if patient.codes().contains(&code.into()) {
            return;
        }
    }
    panic!("never {code}: {:?}", patient.codes());
}

#[tokio::test]
async fn a_slot_that_falls_behind_is_told_before_it_is_lost_and_after() {
    let options = Options::default().set("max_wal_size", "32MB").set("min_wal_size", "32MB");
    let patient = Patient::with(options).await;
    let keep = |size: &str| {
        format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{size}'; select pg_reload_conf()")
    };
    patient.run(&keep("64MB")).await;
    write_until(&patient, "slot-behind").await;
    patient.run(&keep("16MB")).await;
    let finding = patient.finding("slot-unreserved");
    patient.run(&text(&finding, "suggestion")).await;
    assert_eq!(patient.codes(), Vec::<String>::new());
    patient.run(&keep("16MB")).await;
    // The checkpointer reads the setting when it gets to it.
    for _ in 0..100 {
        patient.run("checkpoint").await;
        if patient.codes().contains(&"slot-lost".into()) {
            break;
        }
    }
    let finding = patient.finding("slot-lost");
    patient.run(&text(&finding, "suggestion")).await;
    let codes = patient.codes();
    assert!(!codes.contains(&"slot-lost".into()), "{codes:?}");
}

#[tokio::test]
async fn a_data_folder_of_another_stream_is_found() {
    let patient = Patient::healthy().await;
    let data = patient.folder.path().join("data");
    let config = Config::new(patient.cluster.url().parse().expect("a URL"));
    let source = Streaming::start(&data, config);
    source.streaming().await;
    patient.run("insert into a values (1)").await;
    source.changes(1).await;
    source.stop().await;
    assert_eq!(patient.codes(), Vec::<String>::new());
    patient.run("insert into a values (2)").await;
    patient.run("select pg_replication_slot_advance('walmill', pg_current_wal_lsn())").await;
    assert_eq!(patient.codes(), ["slot-ahead"]);
    patient.run("select pg_drop_replication_slot('walmill')").await;
    assert_eq!(patient.codes(), ["slot-missing"]);

    let mut other = Patient::healthy().await;
    other.config = other.config.replace("\"data\"", &format!("{:?}", data.display()));
    other.config = other.config.replace("create_slot", "slot = \"other\"\ncreate_slot");
    other.run("select pg_create_logical_replication_slot('other', 'pgoutput')").await;
    let codes = other.codes();
    assert!(codes.contains(&"origin".into()), "{codes:?}");
}

#[tokio::test]
async fn a_folder_or_disk_that_does_not_do_is_found() {
    let mut patient = Patient::healthy().await;
    let healthy = patient.config.clone();
    std::fs::write(patient.folder.path().join("file"), "").expect("write");
    for (from, to, code) in [
        ("path = \"data\"", "path = \"file/below\"", "data-folder"),
        ("path = \"data\"", "path = \"file\"", "data-folder"),
        ("min_free = \"1MiB\"", "min_free = \"900000GiB\"", "disk-full"),
        ("size = \"1MiB\"", "size = \"900000GiB\"", "disk-small"),
    ] {
        patient.config = healthy.replace(from, to);
        assert_eq!(patient.codes(), [code], "{to}");
    }
}

#[tokio::test]
async fn a_replication_connection_that_is_refused_is_found() {
    let patient = Patient::with(Options::default().set("max_wal_senders", "1")).await;
    let config = Config::new(patient.cluster.url().parse().expect("a URL"));
    let source = Streaming::start(&patient.folder.path().join("data"), config);
    source.streaming().await;
    let finding = patient.finding("no-replication");
    assert!(text(&finding, "message").contains("max_wal_senders"), "{finding}");
    source.stop().await;
}

/// An address of this machine that others could reach, too.
fn address() -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing: only the way there is looked up.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

#[tokio::test]
async fn a_way_across_the_network_that_is_not_secured_is_found() {
    let Some(address) = address() else {
        eprintln!("skipped: this machine has no address but its own");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -keyout server.key -out server.crt \
                  -days 2 -subj /CN=server";
    let made = std::process::Command::new("sh").args(["-c", script]).current_dir(&folder).output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("skipped: there is no openssl here");
        return;
    }
    let file = |name: &str| std::fs::read(Path::new(folder.path()).join(name)).expect(name);
    let options = Options {
        access: vec!["host all all all scram-sha-256".into()],
        files: ["server.key", "server.crt"].map(|name| (name.into(), file(name))).into(),
        ..Options::default()
    };
    let options = options.set("listen_addresses", "*").set("ssl", "on");
    let mut patient = Patient::with(options).await;
    let healthy = patient.config.replace("127.0.0.1", &address);
    for (mode, code) in [("disable", "tls-off"), ("require", "tls-unverified")] {
        let with = format!("/postgres?sslmode={mode}\"");
        patient.config = healthy.replace("/postgres\"", &with);
        assert_eq!(patient.codes(), [code]);
    }
}
