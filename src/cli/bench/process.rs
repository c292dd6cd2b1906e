//! The process that a case measures: this program, started as a user would start it, with a folder
//! of its own that goes with it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;

/// The hidden command that reads and throws away.
pub(in crate::cli) const READER: &str = "read-and-throw-away";
/// In its folder.
const CONFIG: &str = "walmill.toml";
const DATA: &str = "data";
/// Lines of its log that are shown when it fails.
const LAST_LINES: usize = 12;

/// A running process; it ends with this value.
pub(super) struct Process {
    folder: TempDir,
    child: Child,
}

impl Process {
    /// `walmill run` with this config.
    pub(super) fn walmill(config: &str) -> anyhow::Result<Self> {
        let (folder, config) = prepare(config)?;
        Self::start(folder, run(config)?)
    }

    /// The reader that throws away, until so many changes have come.
    pub(super) fn reader(config: &str, changes: u64) -> anyhow::Result<Self> {
        let (folder, config) = prepare(config)?;
        let mut command = program()?;
        command.arg(READER).arg(config).arg(changes.to_string()).stdout(Stdio::piped());
        Self::start(folder, command)
    }

    fn start(folder: TempDir, command: Command) -> anyhow::Result<Self> {
        let child = spawn(&folder, command)?;
        Ok(Self { folder, child })
    }

    /// `walmill run` once more, after its [`Self::end`], on what it has kept.
    pub(super) fn again(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.folder, run(self.folder.path().join(CONFIG))?)?;
        Ok(())
    }

    /// Where it keeps its data.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join(DATA)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with what the process said, when it has ended by itself.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("walmill ended early, {status}:\n{}", self.last_words()),
        }
    }

    /// Waits for the line by which the reader says that it has everything.
    pub(super) async fn line(&mut self) -> anyhow::Result<()> {
        let output = self.child.stdout.take().context("its output is read already")?;
        let read = move || BufReader::new(output).read_line(&mut String::new());
        match tokio::task::spawn_blocking(read).await?? {
            0 => bail!("the reader ended early:\n{}", self.last_words()),
            _ => Ok(()),
        }
    }

    /// Asks for the end and waits for it.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.end().await
    }

    /// The same, and what it has kept stays.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        // The reader ends with its input; walmill has none.
        drop(self.child.stdin.take());
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("its number")?, Signal::TERM).context("stop walmill")?;
        while self.child.try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(config: PathBuf) -> std::io::Result<Command> {
    let mut command = program()?;
    let drain = ["--drain", "60s", "--log-format", "text"];
    command.args(["run", "--config"]).arg(config).args(drain).stdout(Stdio::null());
    Ok(command)
}

fn spawn(folder: &TempDir, mut command: Command) -> anyhow::Result<Child> {
    let log = File::create(folder.path().join("log"))?;
    command.stdin(Stdio::piped()).stderr(log).spawn().context("start walmill")
}

fn program() -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    // What the caller set for a walmill of his own is not meant for this one.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WALMILL_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// A folder with the config, where walmill keeps its data, too.
fn prepare(config: &str) -> anyhow::Result<(TempDir, PathBuf)> {
    let folder = tempfile::Builder::new().prefix("walmill-bench-").tempdir()?;
    let path = folder.path().join(CONFIG);
    let data = folder.path().join(DATA);
    std::fs::write(&path, format!("{config}[store]\npath = '{}'\n", data.display()))?;
    Ok((folder, path))
}

/// A port that nobody listens on now.
pub(super) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Lets this process and those that it starts have as many sockets as the system allows.
pub(super) fn raise_limit_of_files() -> std::io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
