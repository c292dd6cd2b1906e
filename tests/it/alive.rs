//! The source stays alive: whatever happens to the connection, the server or the slot, every change
//! comes once, or it is said which do not.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_postgres::Client;
use walmill::cluster::{Cluster, Options, Stop};
use walmill::model::status::SourceState;
use walmill::model::{ByteSize, Lsn};
use walmill::source::Config;

use crate::support::process::Walmill;
use crate::support::proxy::{Mode, Proxy};
use crate::support::servers;
use crate::support::streaming::Streaming;
use crate::support::{
    cluster_with as cluster, config, connect, execute, folder, until_true as until,
};

/// Through a port of our own instead of the server's.
fn through(cluster: &Cluster, proxy: &Proxy) -> Config {
    config(&cluster.url().replace(&cluster.port().to_string(), &proxy.port().to_string()))
}

async fn table(cluster: &Cluster) -> Client {
    let client = connect(cluster).await;
    execute(&client, "create table t (id int primary key, note text)").await;
    client
}

async fn streaming(cluster: &Cluster, folder: &TempDir) -> (Client, Streaming) {
    let client = table(cluster).await;
    let source = Streaming::start(folder.path(), config(&cluster.url()));
    source.streaming().await;
    (client, source)
}

async fn connected(source: &Streaming, times: u64) {
    let mut status = source.status.clone();
    let waiting =
        status.wait_for(|now| now.state == SourceState::Streaming && now.connections >= times);
    let waited = tokio::time::timeout(Duration::from_secs(90), waiting).await;
    assert!(waited.is_ok(), "{:?}", source.status.borrow());
}

async fn halted(source: &Streaming) -> (String, String) {
    let state = source.state("halted", |state| matches!(state, SourceState::Halted { .. })).await;
    match state {
        SourceState::Halted { error, remedy, .. } => (error, remedy),
        other => panic!("{other:?}"),
    }
}

fn rows(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("+t {n} null")).collect()
}

/// Writes so much of the log that several of its files are full, outside every publication.
async fn fill_log(client: &Client) {
    execute(
        client,
        "create schema if not exists other; create table if not exists other.t (x text)",
    )
    .await;
    for _ in 0..5 {
        let sql = "insert into other.t select repeat('x', 1000) from generate_series(1, 1000);
                   select pg_switch_wal(); checkpoint";
        execute(client, sql).await;
    }
}

#[tokio::test]
async fn a_walsender_that_is_killed_costs_no_change() {
    let (cluster, folder) = (cluster(&[]), folder());
    let (client, source) = streaming(&cluster, &folder).await;
    for n in 0..5_u32 {
        execute(&client, &format!("insert into t values ({n})")).await;
        execute(&client, "select pg_terminate_backend(pid) from pg_stat_replication").await;
        connected(&source, u64::from(n) + 2).await;
    }
    assert_eq!(source.changes(5).await, rows(0..5));
    source.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_cut_in_mid_message_costs_no_change() {
    let (cluster, folder) = (cluster(&[]), folder());
    let client = table(&cluster).await;
    let proxy = Proxy::start(cluster.port()).await;
    let source = Streaming::start(folder.path(), through(&cluster, &proxy));
    source.streaming().await;
    let mut connections = 1;
    for n in 0..3_u32 {
        // A login and what is asked then take a few thousand bytes, the rows of one transaction
        // 20,000.
        proxy.set(Mode::CutAfter(9_000 + u64::from(n) * 4_321));
        let (first, last) = (n * 20, n * 20 + 19);
        let sql = format!(
            "select pg_terminate_backend(pid) from pg_stat_replication;
             insert into t select n, repeat('x', 1000) from generate_series({first}, {last}) n"
        );
        execute(&client, &sql).await;
        // It came again, and was cut again.
        let mut status = source.status.clone();
        let again = status.wait_for(|now| now.connections > connections);
        tokio::time::timeout(Duration::from_secs(60), again).await.expect("a try").expect("alive");
        proxy.set(Mode::Open);
        execute(&client, "select pg_terminate_backend(pid) from pg_stat_replication").await;
        source.changes((last + 1) as usize).await;
        connections = source.status.borrow().connections;
    }
    let expected: Vec<String> = (0..60).map(|n| format!("+t {n} 1000 bytes")).collect();
    assert_eq!(source.changes(60).await, expected);
    source.stop().await;
}

#[tokio::test]
async fn a_network_that_goes_silent_is_noticed_and_costs_no_change() {
    let (cluster, folder) = (cluster(&[("wal_sender_timeout", "2s")]), folder());
    let client = table(&cluster).await;
    let proxy = Proxy::start(cluster.port()).await;
    let source = Streaming::start(folder.path(), through(&cluster, &proxy));
    source.streaming().await;
    execute(&client, "insert into t values (0)").await;
    source.changes(1).await;
    proxy.set(Mode::BlackHole);
    execute(&client, "insert into t values (1)").await;
    let (error, _) = source.trouble().await;
    assert!(error.contains("no answer within"), "{error}");
    proxy.set(Mode::Open);
    connected(&source, 2).await;
    assert_eq!(source.changes(2).await, rows(0..2));
    source.stop().await;
}

#[tokio::test]
async fn a_value_of_a_hundred_megabytes_comes_as_it_is() {
    let (cluster, folder) = (cluster(&[]), folder());
    let (client, source) = streaming(&cluster, &folder).await;
    execute(&client, "insert into t values (1, repeat('x', 100000000)), (2, 'small')").await;
    assert_eq!(source.changes(2).await, ["+t 1 100000000 bytes", "+t 2 small"]);
    source.stop().await;
}

/// The most memory that the process has had at a time, in MiB.
fn peak_memory(walmill: &Walmill) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", walmill.pid()));
    let status = status.expect("the state of the process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_hundreds_of_megabytes_takes_no_more_memory_than_any_other() {
    let cluster = cluster(&[("fsync", "off"), ("max_wal_size", "4GB")]);
    let client = table(&cluster).await;
    let walmill = Walmill::start(RUN, &cluster.url()).await;
    let rows = "select n, repeat(md5(n::text), 100) from generate_series(1, 200000) n";
    execute(&client, &format!("insert into t {rows}")).await;
    walmill.wait_for("/api/v1/status", |status| status["pipelines"][0]["emitted"] == 200_000).await;
    let peak = peak_memory(&walmill);
    assert!(peak < 220, "{peak} MiB for 600 MB of rows");
}

#[tokio::test]
async fn a_standby_waits_for_the_slot_and_takes_over_when_it_is_freed() {
    let (cluster, first, second) = (cluster(&[]), folder(), folder());
    let (client, source) = streaming(&cluster, &first).await;
    let standby = Streaming::start(second.path(), config(&cluster.url()));
    let waits = |state: &SourceState| matches!(state, SourceState::Standby { .. });
    let SourceState::Standby { error, remedy } = standby.state("a standby", waits).await else {
        panic!("it was one just now");
    };
    let sql = "select active_pid::text from pg_replication_slots";
    let pid: String = client.query_one(sql, &[]).await.expect(sql).get(0);
    assert!(error.contains(&format!("is active for PID {pid}")), "{error}");
    assert!(remedy.contains("takes over"), "{remedy}");
    execute(&client, "insert into t values (0)").await;
    source.changes(1).await;
    source.stop().await;
    standby.streaming().await;
    execute(&client, "insert into t values (1)").await;
    // What the first one had, it keeps: the slot hands each change on once.
    assert_eq!(standby.changes(1).await, rows(1..2));
    standby.stop().await;
}

const RUN: &str = r#"
[source]
url = "DATABASE"
tables = ["public.t"]
start_timeout = "1s"
wal_budget = "16MiB"

[store]
path = "data"
min_free = "1MiB"

[server]
listen = "127.0.0.1:PORT"

[[pipeline]]
name = "t"
tables = ["public.t"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_waits_longer_than_a_start_may_take_and_says_that_it_is_not_ready() {
    let (cluster, first) = (cluster(&[]), folder());
    let (client, source) = streaming(&cluster, &first).await;
    let mut standby = Walmill::prepare(RUN, &cluster.url());
    standby.launch();
    standby.alive().await;
    // Longer than `start_timeout`: by then it looked at the slot again and again.
    let log = || standby.log();
    crate::support::until("a standby", || log().contains("standby: ")).await;
    standby
        .wait_for("/readyz", |ready| ready["checks"][0]["message"].to_string().contains("standby"))
        .await;
    until(&client, "select now() - pg_postmaster_start_time() > '3s'").await;
    source.stop().await;
    standby.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_keeps_more_than_its_budget_is_warned_of_and_not_ready() {
    let cluster = cluster(&[]);
    let client = table(&cluster).await;
    let mut walmill = Walmill::start(RUN, &cluster.url()).await;
    let check = |ready: &serde_json::Value| {
        let checks = ready["checks"].as_array().expect("checks").iter();
        checks.filter(|check| check["name"] == "wal budget").all(|check| check["ok"] == true)
    };
    walmill.wait_for("/readyz", check).await;
    // An open transaction keeps the slot where it is.
    let other = connect(&cluster).await;
    execute(&other, "begin; insert into t values (1)").await;
    walmill.terminate();
    fill_log(&client).await;
    walmill.launch();
    walmill.alive().await;
    walmill.wait_for("/readyz", |ready| ready["status"] == "not ready" && !check(ready)).await;
    let metrics = walmill.text("/metrics").await;
    assert!(metrics.contains("walmill_source_over_budget 1"), "{metrics}");
    assert!(metrics.contains("walmill_source_safe_bytes -1"), "{metrics}");
    assert!(walmill.log().contains("`source.wal_budget`"), "{}", walmill.log());
    execute(&other, "commit").await;
    // A checkpoint logs which transactions run, and with that PostgreSQL moves a slot on.
    for n in 2..5 {
        execute(&client, "checkpoint").await;
        execute(&client, &format!("insert into t values ({n})")).await;
    }
    walmill.wait_for("/readyz", |ready| ready["status"] == "ready").await;
}

#[tokio::test]
async fn an_invalidated_slot_halts_and_says_what_is_lost() {
    let limits = [("max_slot_wal_keep_size", "1MB"), ("max_wal_size", "32MB")];
    for is_streaming in [false, true] {
        let (cluster, folder) = (cluster(&limits), folder());
        let client = table(&cluster).await;
        // The journal's end of this channel is held, and nothing is taken from it any more.
        let (blocked, held) = mpsc::channel(1);
        let source = match is_streaming {
            true => Streaming::through(folder.path(), config(&cluster.url()), |_| blocked),
            false => {
                let source = Streaming::start(folder.path(), config(&cluster.url()));
                source.streaming().await;
                execute(&client, "insert into t values (1)").await;
                source.changes(1).await;
                source.stop().await;
                fill_log(&client).await;
                Streaming::start(folder.path(), config(&cluster.url()))
            }
        };
        if is_streaming {
            source.streaming().await;
            execute(&client, "insert into t select generate_series(1, 100000)").await;
            fill_log(&client).await;
        }
        let (error, remedy) = halted(&source).await;
        let from = source.durable.borrow().lsn();
        assert!(error.contains("invalidated (wal_removed)"), "{error}");
        if from > Lsn::ZERO {
            assert!(error.contains(&format!("from {from} on is lost")), "{error}");
        }
        assert!(remedy.contains("max_slot_wal_keep_size"), "{remedy}");
        drop(held);
        source.stop().await;
    }
}

#[tokio::test]
async fn a_promoted_standby_without_the_slot_halts_and_says_what_is_lost() {
    let options = Options {
        access: vec!["host replication all 127.0.0.1/32 scram-sha-256".into()],
        ..Options::default()
    };
    let mut primary = Cluster::start(&options).expect("a throw-away PostgreSQL");
    let folder = folder();
    let (client, source) = streaming(&primary, &folder).await;
    execute(&client, "insert into t values (0)").await;
    source.changes(1).await;
    let durable = source.stop().await;
    let standby = primary.standby(&[]).expect("a standby");
    execute(&client, "insert into t values (1)").await;
    let end: String = client
        .query_one("select pg_current_wal_flush_lsn()::text", &[])
        .await
        .expect("an LSN")
        .get(0);
    let follower = connect(&standby).await;
    until(&follower, &format!("select pg_last_wal_replay_lsn() >= '{end}'")).await;
    primary.stop(Stop::Kill).expect("stop the primary");
    execute(&follower, "select pg_promote()").await;
    until(&follower, "select not pg_is_in_recovery()").await;
    let source = Streaming::start(folder.path(), config(&standby.url()));
    let (error, _) = halted(&source).await;
    assert!(error.contains("slot `walmill` is gone"), "{error}");
    assert!(error.contains(&format!("from {durable} on is lost")), "{error}");
    source.stop().await;
}

#[tokio::test]
async fn a_failover_slot_goes_on_at_the_promoted_standby() {
    let Some(options) = servers::postgres_18() else { return };
    let options = Options {
        access: vec!["host replication all 127.0.0.1/32 scram-sha-256".into()],
        ..options
    };
    let mut primary = Cluster::start(&options).expect("a throw-away PostgreSQL");
    let client = table(&primary).await;
    execute(&client, "select pg_create_physical_replication_slot('standby')").await;
    let follows = [
        ("primary_slot_name", "standby"),
        ("hot_standby_feedback", "on"),
        ("sync_replication_slots", "on"),
    ];
    let standby = primary.standby(&follows).expect("a standby");
    // What walmill gets, the standby has.
    execute(&client, "alter system set synchronized_standby_slots = 'standby'").await;
    execute(&client, "select pg_reload_conf()").await;
    let (from, to) = (primary.port(), standby.port());
    let both = format!("127.0.0.1:{from},127.0.0.1:{to}");
    let url = primary.url().replace(&format!("127.0.0.1:{from}"), &both);
    let (folder, config) = (folder(), Config { failover: true, ..config(&url) });
    let source = Streaming::start(folder.path(), config);
    source.streaming().await;
    let follower = connect(&standby).await;
    let mut written = 0_u32;
    let synced = "select exists (select from pg_replication_slots where slot_name = 'walmill' \
                  and synced and not temporary)";
    // The standby takes the slot over once the primary's moves on.
    while !follower.query_one(synced, &[]).await.expect(synced).get::<_, bool>(0) {
        execute(&client, &format!("insert into t values ({written})")).await;
        // With nothing under way, a checkpoint lets the primary's slot forget old catalogs, too.
        execute(&client, "checkpoint").await;
        written += 1;
        source.changes(written as usize).await;
        assert!(written < 5_000, "{}", standby.log());
    }
    primary.stop(Stop::Kill).expect("stop the primary");
    execute(&follower, "select pg_promote()").await;
    until(&follower, "select not pg_is_in_recovery()").await;
    execute(&follower, &format!("insert into t values ({written})")).await;
    connected(&source, 2).await;
    let changes = source.changes(written as usize + 1).await;
    assert_eq!(changes, rows(0..written + 1));
    source.stop().await;
}

/// The end of a webhook that takes requests and never answers.
async fn silent_receiver() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_never_answers_holds_up_neither_the_slot_nor_the_keepalives() {
    let cluster = cluster(&[("wal_sender_timeout", "1s")]);
    let client = table(&cluster).await;
    let hook = format!("http://127.0.0.1:{}/", silent_receiver().await);
    let run = RUN.replace(
        "min_free = \"1MiB\"",
        "min_free = \"1MiB\"\nretention = { size = \"8MiB\" }\nwhen_full = \"drop-oldest\"",
    );
    let run = format!(
        "{run}\n[[output.webhook]]\nname = \"hook\"\nstreams = [\"t\"]\nurl = \"{hook}\"\n\
         secret = \"whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\nallow_private = true\n"
    );
    let walmill = Walmill::start(&run, &cluster.url()).await;
    for round in 0..40 {
        let (first, last) = (round * 1000, round * 1000 + 999);
        let sql = format!(
            "insert into t select n, repeat('x', 1000) from generate_series({first}, {last}) n"
        );
        execute(&client, &sql).await;
    }
    let end = "select pg_current_wal_flush_lsn()::text";
    let end: String = client.query_one(end, &[]).await.expect(end).get(0);
    // Everything is confirmed, five times the journal's size and five times the server's patience.
    let sql = format!(
        "select confirmed_flush_lsn >= '{end}' and now() - backend_start > '5s' \
         from pg_replication_slots join pg_stat_replication on active_pid = pid"
    );
    until(&client, &sql).await;
    let status = walmill.json("/api/v1/status").await;
    assert_eq!(status["source"]["connections"], 1);
    assert_eq!(status["outputs"][0]["delivered"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_sleeps_through_the_servers_patience_goes_on() {
    let cluster = cluster(&[("wal_sender_timeout", "1s")]);
    let client = table(&cluster).await;
    let walmill = Walmill::start(RUN, &cluster.url()).await;
    walmill.signal(rustix::process::Signal::STOP);
    execute(&client, "insert into t values (0)").await;
    until(&client, "select not exists (select from pg_stat_replication)").await;
    execute(&client, "insert into t values (1)").await;
    walmill.signal(rustix::process::Signal::CONT);
    walmill
        .wait_for("/v1/streams/t/events?after=earliest", |page| {
            page["events"].as_array().is_some_and(|events| events.len() == 2)
        })
        .await;
}

/// A file system of so many megabytes, where this machine lets us have one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = folder();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_holds_the_stream_back_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount(400) else {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    };
    let cluster = cluster(&[("wal_sender_timeout", "2s")]);
    let client = table(&cluster).await;
    let data = disk.0.path().join("data");
    let run = RUN.replace("\"data\"", &format!("{:?}", data.display()));
    // Less than this free, and the journal takes nothing more.
    let run = run.replace("min_free = \"1MiB\"", "min_free = \"100MiB\"");
    let walmill = Walmill::start(&run, &cluster.url()).await;
    let ballast = disk.0.path().join("ballast");
    let free = rustix::fs::statvfs(disk.0.path()).expect("statvfs");
    let size = free.f_bavail * free.f_frsize - (90 << 20);
    let file = std::fs::File::create(&ballast).expect("a file");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).expect("space");
    execute(&client, "insert into t select n, repeat('x', 1000) from generate_series(0, 9999) n")
        .await;
    walmill.wait_for("/api/v1/status", |_| walmill.log().contains("takes nothing more")).await;
    // Longer than the server's patience: it still hears from us.
    until(
        &client,
        "select count(*) = 1 from pg_stat_replication where now() - backend_start > '5s'",
    )
    .await;
    drop(file);
    std::fs::remove_file(&ballast).expect("make room");
    walmill.wait_for("/api/v1/status", |status| status["pipelines"][0]["emitted"] == 10_000).await;
    assert_eq!(walmill.json("/api/v1/status").await["source"]["connections"], 1);
}

#[tokio::test]
async fn a_budget_is_a_size() {
    let text = "url = 'postgres://u@h/d'\nwal_budget = '10GiB'";
    let config: Config = toml::from_str(text).expect("a config");
    assert_eq!(config.wal_budget, Some(ByteSize::new(10 << 30)));
    assert!(toml::from_str::<Config>(&text.replace("10GiB", "much")).is_err());
}
