//! The program as a user runs it: a process with a folder, killed and started again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Nothing in a test takes as long as this, so what has not happened by then never will.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A walmill process and its folder.
pub struct Walmill {
    folder: TempDir,
    child: Option<Child>,
    port: u16,
}

impl Walmill {
    /// A folder with this config, not started. `PORT`, `DATABASE` and `PLUGINS` in it are put in.
    pub fn prepare(config: &str, database: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let config = config
            .replace("PORT", &port.to_string())
            .replace("DATABASE", database)
            .replace("PLUGINS", built_plugins().to_str().expect("a UTF-8 path"));
        std::fs::write(folder.path().join("walmill.toml"), config).expect("write the config");
        Self { folder, child: None, port }
    }

    /// The same, started and ready.
    pub async fn start(config: &str, database: &str) -> Self {
        let mut walmill = Self::prepare(config, database);
        walmill.launch();
        walmill.ready().await;
        walmill
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An address of its server.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Starts the process.
    pub fn launch(&mut self) {
        self.launch_in(&[]);
    }

    /// Starts the process with variables of the environment.
    pub fn launch_in(&mut self, variables: &[(&str, &str)]) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = self.command();
        self.child = Some(command.envs(variables.iter().copied()).spawn().expect("start walmill"));
    }

    /// Runs it until it ends by itself: its exit code and what it said.
    pub fn run_to_end(&self) -> (i32, String) {
        let status = self.command().status().expect("run walmill");
        (status.code().unwrap_or(-1), self.log())
    }

    fn command(&self) -> Command {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder().join("log"))
            .expect("open the log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_walmill"));
        command.args(["run", "--config"]).arg(self.folder().join("walmill.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// Waits until it is ready; fails when it ends instead.
    pub async fn ready(&mut self) {
        let url = self.url("/readyz");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success());
            if ready {
                return;
            }
            let ended = self.ended();
            assert!(ended.is_none(), "walmill ended: {ended:?}\n{}", self.log());
            assert!(Instant::now() < deadline, "walmill is not ready\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it answers at all.
    pub async fn alive(&self) {
        let deadline = Instant::now() + PATIENCE;
        while reqwest::get(self.url("/livez")).await.is_err() {
            assert!(Instant::now() < deadline, "walmill does not answer\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("kill walmill");
        child.wait().expect("wait for walmill");
    }

    /// How it ended, if it did so by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let ended = self.child.as_mut()?.try_wait().expect("wait for walmill")?;
        self.child = None;
        Some(ended)
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
        child.wait().expect("wait for walmill")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    /// An answer of its API, as JSON.
    pub async fn json(&self, path: &str) -> serde_json::Value {
        let text = self.text(path).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// An answer, as text.
    pub async fn text(&self, path: &str) -> String {
        let answer = reqwest::get(self.url(path)).await.expect("an answer");
        answer.text().await.expect("a body")
    }

    /// Waits until an answer of the API is as wished.
    pub async fn wait_for(&self, path: &str, wish: impl Fn(&serde_json::Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.json(path).await;
            if wish(&answer) {
                return;
            }
            assert!(Instant::now() < deadline, "still {answer:#}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Walmill {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("walmill's log:\n{}", self.log());
        }
    }
}

/// The folder into which `scripts/build-plugins` puts the sample plugins.
pub fn built_plugins() -> PathBuf {
    // The program lies in target/release, the plugins in target/plugins.
    let program = Path::new(env!("CARGO_BIN_EXE_walmill"));
    let target = program.parent().and_then(Path::parent).expect("a target folder");
    let plugins = target.join("plugins");
    assert!(plugins.join("filter.wasm").is_file(), "run scripts/build-plugins first");
    plugins
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}
