//! Several hosts: which one is taken, and what is between us and them.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use walmill::cluster::{Cluster, Options};

use super::{cluster, complains, config, connect_to, enters, folder};
use crate::support::process::free_port;
use crate::support::streaming::Streaming;
use crate::support::{connect, execute};

/// Lets a copy follow.
pub const REPLICATION: &str = "host replication all 127.0.0.1/32 scram-sha-256";

/// An address with several ports of this machine.
fn at(cluster: &Cluster, ports: &[u16], options: &str) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let url = cluster.url().replace(&format!("127.0.0.1:{}", cluster.port()), &hosts.join(","));
    format!("{url}?{options}")
}

#[tokio::test]
async fn each_host_is_asked_until_one_lets_us_in() {
    let cluster = cluster(Options::default()).await;
    let (gone, here) = (free_port(), cluster.port());
    for ports in [[gone, here], [here, gone]] {
        enters(&cluster, &at(&cluster, &ports, "")).await;
        enters(&cluster, &at(&cluster, &ports, "load_balance_hosts=random")).await;
    }
    let nobody = at(&cluster, &[gone, gone], "");
    complains(&nobody, &format!("127.0.0.1:{gone}: Connection refused"), "start PostgreSQL").await;
    // A name with two addresses, of which one has a server.
    let both = cluster.url().replace("127.0.0.1", "localhost");
    enters(&cluster, &both).await;
    let unknown = cluster.url().replace("127.0.0.1", "no-such-host.invalid");
    complains(&format!("{unknown}?sslmode=disable"), "no-such-host.invalid", "host's name").await;
}

#[tokio::test]
async fn the_server_that_is_what_we_want_is_found() {
    let primary = cluster(super::with_access(&[REPLICATION])).await;
    let Some(standby) = Standby::of(&primary) else {
        eprintln!("skipped: there is no pg_basebackup of this version here");
        return;
    };
    let ports = [standby.port, primary.port()];
    for options in ["", "target_session_attrs=read-write", "target_session_attrs=primary"] {
        enters(&primary, &at(&primary, &ports, options)).await;
    }
    let alone = at(&primary, &[standby.port], "target_session_attrs=primary");
    complains(&alone, "is a standby, and a primary is wanted", "failover").await;
    let alone = at(&primary, &[primary.port()], "target_session_attrs=standby");
    complains(&alone, "is a primary, and a standby is wanted", "failover").await;
    let preferred = "target_session_attrs=prefer-standby";
    enters(&primary, &at(&primary, &[primary.port()], preferred)).await;
    // In version 15 a standby decodes nothing, so this is where it went.
    let any = at(&primary, &ports, "target_session_attrs=any");
    complains(&any, "recovery", "").await;
    complains(&at(&primary, &ports, preferred), "recovery", "").await;
}

#[tokio::test]
async fn after_a_failover_the_new_primary_is_found() {
    let one = cluster(super::with_access(&[REPLICATION])).await;
    let (copy, folder) = (Standby::of(&one), folder());
    let Some(copy) = copy else {
        eprintln!("skipped: there is no pg_basebackup of this version here");
        return;
    };
    let both = at(&one, &[one.port(), copy.port], "");
    let source = Streaming::start(folder.path(), config(&both));
    source.streaming().await;
    execute(&connect(&one).await, "insert into t values (1)").await;
    source.changes(1).await;
    let address = format!("{} dbname=postgres", copy.address());
    let standby = connect_to(&address).await;
    drop(one);
    execute(&standby, "select pg_promote()").await;
    // The slot was not copied, as it never is before version 17: it says so, of the new primary.
    let halted = |state: &walmill::model::status::SourceState| {
        format!("{state:?}").contains("slot `walmill` is gone")
    };
    source.state("at the new primary", halted).await;
    source.stop().await;
}

/// A copy of a server that follows it.
pub struct Standby {
    folder: TempDir,
    server: Child,
    pub port: u16,
}

impl Standby {
    pub fn of(primary: &Cluster) -> Option<Self> {
        let folder = folder();
        let data = folder.path().join("data");
        let bin = bin()?;
        let copied = Command::new(bin.join("pg_basebackup"))
            .args(["-R", "-X", "stream", "-c", "fast", "-d", &primary.url(), "-D"])
            .arg(&data)
            .output()
            .ok()?;
        let said = copied.stderr.escape_ascii().to_string();
        if said.contains("incompatible server version") {
            return None;
        }
        assert!(copied.status.success(), "{said}");
        let port = free_port();
        let given = Command::new("chown").args(["-R", "postgres"]).arg(folder.path()).status();
        given.ok().filter(std::process::ExitStatus::success)?;
        let socket = format!("unix_socket_directories={}", folder.path().display());
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
        let server = command
            .arg(bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", &socket])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).ok()?)
            .spawn()
            .ok()?;
        let standby = Self { folder, server, port };
        let deadline = std::time::Instant::now() + crate::support::process::PATIENCE;
        let log = || std::fs::read_to_string(standby.folder.path().join("log"));
        while !log().unwrap_or_default().contains("ready to accept read-only connections") {
            assert!(std::time::Instant::now() < deadline, "{log:?}", log = log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Some(standby)
    }

    fn address(&self) -> String {
        format!("host={} port={} user=postgres", self.folder.path().display(), self.port)
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.server);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.server.wait();
    }
}

/// Where PostgreSQL's programs are.
fn bin() -> Option<std::path::PathBuf> {
    let found = Command::new("pg_config").arg("--bindir").output().ok();
    let named = found.map(|found| String::from_utf8_lossy(&found.stdout).trim().to_owned());
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let installed = installed.map(|version| version.path().join("bin"));
    named
        .map(Into::into)
        .into_iter()
        .chain(installed)
        .find(|bin| bin.join("pg_basebackup").is_file())
}

/// PgBouncer in front of a server.
pub struct Bouncer {
    pub port: u16,
    bouncer: Child,
    _folder: TempDir,
    _cluster: Cluster,
}

impl Bouncer {
    pub fn start(cluster: Cluster) -> Option<Self> {
        let (folder, port) = (folder(), free_port());
        let file = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n",
            cluster.port()
        );
        std::fs::write(&file, text.replace("* = ", "* = user=postgres ")).expect("write");
        let given = Command::new("chown").args(["-R", "postgres"]).arg(folder.path()).status();
        given.ok().filter(std::process::ExitStatus::success)?;
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
        let there = Command::new("pgbouncer").arg("--version").output().ok()?;
        let bouncer = command
            .args(there.status.success().then_some("pgbouncer"))
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let deadline = std::time::Instant::now() + crate::support::process::PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "pgbouncer never listened");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Some(Self { port, bouncer, _folder: folder, _cluster: cluster })
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.bouncer.kill();
        let _ = self.bouncer.wait();
    }
}
