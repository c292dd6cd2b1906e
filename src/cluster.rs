//! A throw-away PostgreSQL from the binaries of this machine, for the demo, benchmarks and tests.
//!
//! It lives in a folder of its own, listens on a free port of the loopback interface and on a
//! socket in that folder, and leaves nothing behind: dropping it removes it, and a watchdog does so
//! if this process is killed.

mod binaries;
mod files;
mod standby;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use files::RunAs;

/// How long a server may take to start or to stop. A recovery of much WAL takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tries to start on another port, or after the remains of a killed server are gone.
const TRIES: u32 = 20;
/// Between two looks at a starting or stopping server.
const GLANCE: Duration = Duration::from_millis(10);
/// The only user, a superuser.
const USER: &str = "postgres";

/// What a cluster should be like.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The folder of the server programs; without it `WALMILL_PG_BIN`, or what is installed.
    pub programs: Option<PathBuf>,
    /// Whether commits survive a crash of the machine; slower. A kill of the server they survive
    /// either way.
    pub fsync: bool,
    /// Further settings, as in `postgresql.conf`.
    pub settings: Vec<(String, String)>,
    /// Lines before the others in `pg_hba.conf`.
    pub access: Vec<String>,
    /// Files put into the data folder, such as a certificate.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Options {
    /// With one more setting.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Clients are told, the end is clean.
    Fast,
    /// At once, with a recovery at the next start.
    Immediate,
    /// `kill -9`.
    Kill,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The server programs are not installed.
    #[error(
        "no PostgreSQL server programs (initdb, postgres) found; install them with `{install}`, \
         or set WALMILL_PG_BIN to their folder"
    )]
    Missing {
        /// What installs them.
        install: &'static str,
    },
    /// The folder that the user named is not the right one.
    #[error("there is no initdb and postgres in {0}, which WALMILL_PG_BIN or the caller named")]
    BadFolder(PathBuf),
    /// `initdb` refused.
    #[error("initdb failed: {0}")]
    Initdb(String),
    /// The server ended, or did not become ready.
    #[error("PostgreSQL did not start; the end of its log:\n{0}")]
    Start(String),
    /// It did not stop.
    #[error("PostgreSQL did not stop within {} s", PATIENCE.as_secs())]
    Stop,
    /// Its files or processes could not be handled.
    #[error("throw-away PostgreSQL")]
    Io(#[from] io::Error),
}

/// A running PostgreSQL of our own.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    user: Option<RunAs>,
    password: String,
    port: u16,
    server: Option<Server>,
}

/// The server's process and the one that cleans up after us.
#[derive(Debug)]
struct Server {
    postgres: Child,
    watchdog: Child,
}

impl Cluster {
    /// Makes a cluster and waits until it accepts connections. Blocks for about a second.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn start(options: &Options) -> Result<Self, ClusterError> {
        let bin = binaries::find(options.programs.as_deref())?;
        let user = RunAs::needed()?;
        let name = format!("walmill-pg-{:08x}", rand::random::<u32>());
        let folder = std::env::temp_dir().join(name);
        files::make_private(&folder)?;
        let (password, port, server) = (String::new(), 0, None);
        // From here on, dropping it removes the folder.
        let mut cluster = Self { folder, bin, user, password, port, server };
        files::give(&cluster.folder, user)?;
        cluster.password = cluster.make_data()?;
        cluster.configure(options)?;
        cluster.launch()?;
        Ok(cluster)
    }

    /// A connection string for the superuser and the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.database_url("postgres")
    }

    /// A connection string for the superuser and another database.
    #[must_use]
    pub fn database_url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The TCP port; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds the Unix socket and everything else.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Stops the server and starts it again, on the same port.
    ///
    /// # Errors
    /// [`ClusterError::Stop`] or [`ClusterError::Start`].
    pub fn restart(&mut self, how: Stop) -> Result<(), ClusterError> {
        self.stop(how)?;
        self.launch()
    }

    /// Kills the server's first process, as the kernel does when memory runs out.
    ///
    /// # Errors
    /// None that is known: the process is our child.
    pub fn kill9(&mut self) -> Result<(), ClusterError> {
        self.stop(Stop::Kill)
    }

    /// Stops the server; [`Cluster::launch`] starts it again.
    ///
    /// # Errors
    /// [`ClusterError::Stop`] if it does not end.
    pub fn stop(&mut self, how: Stop) -> Result<(), ClusterError> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        // First: a watchdog must not outlive the process that it watches, whose number may be
        // given to another.
        server.watchdog.kill()?;
        server.watchdog.wait()?;
        signal(&server.postgres, how)?;
        let ended = wait_until(PATIENCE, || Ok(server.postgres.try_wait()?.is_some()))?;
        if ended { Ok(()) } else { Err(ClusterError::Stop) }
    }

    /// Starts the server after [`Cluster::stop`], and waits until it accepts connections.
    ///
    /// # Errors
    /// [`ClusterError::Start`], with the end of the server's log.
    pub fn launch(&mut self) -> Result<(), ClusterError> {
        for _ in 0..TRIES {
            if self.port == 0 {
                self.port = free_port()?;
            }
            let log_start = self.log().len();
            if self.try_launch()? {
                return Ok(());
            }
            let log = self.log();
            match obstacle(&log[log_start.min(log.len())..]) {
                Obstacle::Port => self.port = 0,
                Obstacle::Remains => thread::sleep(GLANCE * 10),
                Obstacle::Other => break,
            }
        }
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        Err(ClusterError::Start(lines[lines.len().saturating_sub(12)..].join("\n")))
    }

    /// Whether it became ready.
    fn try_launch(&mut self) -> Result<bool, ClusterError> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut postgres = self
            .program("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let watchdog = watchdog(postgres.id(), &self.folder)?;
        let mut ended = false;
        let ready = wait_until(PATIENCE, || {
            ended = postgres.try_wait()?.is_some();
            Ok(ended || self.is_ready(postgres.id()))
        })?;
        self.server = Some(Server { postgres, watchdog });
        if ended || !ready {
            self.stop(Stop::Immediate)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// The eighth line of `postmaster.pid` is the state, as `pg_ctl` reads it.
    fn is_ready(&self, pid: u32) -> bool {
        let state = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = state.lines();
        let of_this_start = lines.next() == Some(pid.to_string().as_str());
        of_this_start && lines.nth(6).is_some_and(|state| state.trim_end() == "ready")
    }

    /// Puts a fresh data folder in place, copied from the cache where there is one, and gives the
    /// superuser's password.
    fn make_data(&self) -> Result<String, ClusterError> {
        let Some(template) = self.template() else {
            let password = new_password();
            self.initdb(&self.folder.join("data"), &password)?;
            return Ok(password);
        };
        if !template.is_dir() {
            self.make_template(&template)?;
        }
        files::copy(&template.join("data"), &self.data(), self.user)?;
        Ok(fs::read_to_string(template.join("password"))?)
    }

    /// Where a fresh data folder of this version is, or would be, cached.
    fn template(&self) -> Option<PathBuf> {
        let output = Command::new(self.bin.join("postgres")).arg("--version").output().ok()?;
        let version = String::from_utf8(output.stdout).ok()?;
        let version: String =
            version.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        Some(files::cache()?.join(format!("initdb-{}", version.trim_matches('-'))))
    }

    fn make_template(&self, template: &Path) -> Result<(), ClusterError> {
        let (password, made) = (new_password(), self.folder.join("initdb"));
        self.initdb(&made, &password)?;
        let draft = template.with_extension(format!("{:08x}", rand::random::<u32>()));
        files::make_private(&draft)?;
        files::copy(&made, &draft.join("data"), None)?;
        files::write_private(&draft.join("password"), password.as_bytes(), None)?;
        fs::remove_dir_all(made)?;
        // Another process may have been quicker; then its template is as good as ours.
        if fs::rename(&draft, template).is_err() {
            fs::remove_dir_all(&draft)?;
        }
        Ok(())
    }

    fn initdb(&self, data: &Path, password: &str) -> Result<(), ClusterError> {
        let password_file = self.folder.join("password");
        files::write_private(&password_file, password.as_bytes(), self.user)?;
        let output = self
            .program("initdb")
            .arg("-D")
            .arg(data)
            .arg("--pwfile")
            .arg(&password_file)
            .args(["-U", USER, "-E", "UTF8", "--locale=C", "-A", "scram-sha-256", "--no-sync"])
            .output()?;
        fs::remove_file(password_file)?;
        match output.status.success() {
            true => Ok(()),
            false => Err(ClusterError::Initdb(String::from_utf8_lossy(&output.stderr).into())),
        }
    }

    fn configure(&self, options: &Options) -> Result<(), ClusterError> {
        let on = |value: bool| if value { "on" } else { "off" }.to_string();
        let own = [
            ("listen_addresses", "127.0.0.1".to_string()),
            ("unix_socket_directories", self.folder.display().to_string()),
            ("wal_level", "logical".to_string()),
            ("fsync", on(options.fsync)),
            ("full_page_writes", on(options.fsync)),
            ("shared_buffers", "32MB".to_string()),
        ];
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        let further = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.add_settings(&own.chain(further).collect::<Vec<_>>())?;
        let mut access = options.access.join("\n");
        access.push_str("\nlocal all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n");
        files::write_private(&self.data().join("pg_hba.conf"), access.as_bytes(), self.user)?;
        for (name, content) in &options.files {
            files::write_private(&self.data().join(name), content, self.user)?;
        }
        Ok(())
    }

    /// Settings for the next start; the last one of a name counts.
    fn add_settings(&self, settings: &[(&str, &str)]) -> io::Result<()> {
        let mut config =
            OpenOptions::new().append(true).open(self.data().join("postgresql.conf"))?;
        for (name, value) in settings {
            writeln!(config, "{name} = '{}'", value.replace('\'', "''"))?;
        }
        Ok(())
    }

    /// One of the server programs, as the server's user, deaf to the terminal's Ctrl-C: we stop it
    /// when we are done with it.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        // The user may not be allowed to be where we are, which PostgreSQL would not take.
        command.current_dir("/").process_group(0).stdin(Stdio::null());
        if let Some(RunAs { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Stop::Immediate) {
            tracing::warn!("stop throw-away PostgreSQL: {error}");
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            let folder = self.folder.display();
            tracing::warn!(%folder, "remove throw-away PostgreSQL: {error}");
        }
    }
}

/// What kept a server from starting, and can pass.
enum Obstacle {
    /// Someone else took the port between our choice and the server's start.
    Port,
    /// Processes of a killed server have not noticed yet.
    Remains,
    Other,
}

fn obstacle(log: &str) -> Obstacle {
    if log.contains("Address already in use") || log.contains("could not create any TCP/IP") {
        Obstacle::Port
    } else if log.contains("shared memory block") || log.contains("lock file") {
        Obstacle::Remains
    } else {
        Obstacle::Other
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn new_password() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn signal(process: &Child, how: Stop) -> io::Result<()> {
    let signal = match how {
        Stop::Fast => Signal::INT,
        Stop::Immediate => Signal::QUIT,
        Stop::Kill => Signal::KILL,
    };
    match i32::try_from(process.id()).ok().and_then(Pid::from_raw).map(|p| kill_process(p, signal))
    {
        Some(Err(error)) if error != rustix::io::Errno::SRCH => Err(error.into()),
        _ => Ok(()),
    }
}

/// Waits for something to come true; whether it did within the time.
fn wait_until(
    limit: Duration,
    mut done: impl FnMut() -> io::Result<bool>,
) -> Result<bool, ClusterError> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > limit {
            return Ok(false);
        }
        thread::sleep(GLANCE);
    }
    Ok(true)
}

/// A process whose input ends when we end, however that comes about; then it stops the server and
/// removes its folder.
fn watchdog(pid: u32, folder: &Path) -> io::Result<Child> {
    let script = "trap '' INT TERM HUP; read _; kill -QUIT $1; \
                  n=0; while kill -0 $1 2>/dev/null && [ $n -lt 100 ]; \
                  do n=$((n+1)); sleep 0.1; done; \
                  rm -rf \"$2\"";
    Command::new("/bin/sh")
        .args(["-c", script, "sh", &pid.to_string()])
        .arg(folder)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first column of the last row.
    async fn ask(cluster: &Cluster, sql: &str) -> Option<String> {
        let (client, connection) =
            tokio_postgres::connect(&cluster.url(), tokio_postgres::NoTls).await.expect("connect");
        let connection = tokio::spawn(connection);
        let answers = client.simple_query(sql).await.expect(sql);
        drop(client);
        connection.await.expect("no panic").expect("clean end");
        answers.iter().rev().find_map(|answer| match answer {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(Into::into),
            _ => None,
        })
    }

    #[tokio::test]
    async fn a_cluster_starts_restarts_and_leaves_nothing_behind() {
        let options = Options::default().set("work_mem", "3MB");
        let mut cluster = Cluster::start(&options).expect("start");
        assert_eq!(ask(&cluster, "show wal_level").await.as_deref(), Some("logical"));
        assert_eq!(ask(&cluster, "show work_mem").await.as_deref(), Some("3MB"));
        ask(&cluster, "create table t as select 1 as n").await;
        for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
            cluster.restart(how).expect("restart");
            assert_eq!(ask(&cluster, "select n from t").await.as_deref(), Some("1"));
        }
        let folder = cluster.folder().to_owned();
        assert!(folder.exists());
        drop(cluster);
        assert!(!folder.exists());
    }

    #[test]
    fn a_server_that_refuses_its_settings_says_why() {
        let options = Options::default().set("work_mem", "much");
        let error = Cluster::start(&options).expect_err("no such work_mem");
        assert!(error.to_string().contains("work_mem"), "{error}");
    }
}
