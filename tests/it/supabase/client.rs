//! A client from the npm registry, in a process of its own.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::process::PATIENCE;

/// Where `scripts/install-supabase-clients` put them.
pub fn modules() -> Option<PathBuf> {
    std::env::var_os("WALMILL_SUPABASE_CLIENTS").map(PathBuf::from)
}

/// A file of theirs.
pub fn module(path: &str) -> String {
    let file = modules().expect("the clients").join("node_modules").join(path);
    std::fs::read_to_string(file).expect("a file of a client")
}

/// Whether they are not here, said once more in the test's output.
pub fn skipped() -> bool {
    let missing = modules().is_none();
    if missing {
        eprintln!(
            "skipped: no clients; set WALMILL_SUPABASE_CLIENTS=$(scripts/install-supabase-clients)"
        );
    }
    missing
}

/// One client.
pub struct Client {
    _process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// What was printed and not asked for yet.
    waiting: VecDeque<(String, Value)>,
}

impl Client {
    /// Starts it; what it does is said by the spec (tests/it/supabase/client.cjs).
    pub fn start(version: &str, url: &str, spec: &Value) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/supabase/client.cjs");
        let mut process = Command::new("node")
            .arg(script)
            .arg(modules().expect("the clients"))
            .args([version, url, &spec.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("start node");
        let input = process.stdin.take().expect("its stdin");
        let lines = BufReader::new(process.stdout.take().expect("its stdout")).lines();
        Self { _process: process, input, lines, waiting: VecDeque::new() }
    }

    /// Tells it to do something.
    pub async fn act(&mut self, command: &Value) {
        self.input.write_all(format!("{command}\n").as_bytes()).await.expect("a command");
    }

    /// The next thing of this kind that it says.
    pub async fn next(&mut self, kind: &str) -> Value {
        if let Some(at) = self.waiting.iter().position(|(said, _)| said == kind) {
            return self.waiting.remove(at).expect("it is there").1;
        }
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("never said `{kind}`: {:?}", self.waiting));
            let line = line
                .expect("a line")
                .unwrap_or_else(|| panic!("it ended before it said `{kind}`: {:?}", self.waiting));
            let Ok(Value::Object(said)) = serde_json::from_str(&line) else { continue };
            for (said, value) in said {
                if said == kind {
                    return value;
                }
                self.waiting.push_back((said, value));
            }
        }
    }

    /// Takes what it says in a moment, if anything.
    pub async fn listen(&mut self) {
        let moment = std::time::Duration::from_millis(50);
        let Ok(line) = tokio::time::timeout(moment, self.lines.next_line()).await else { return };
        let line = line.expect("a line").expect("it goes on");
        if let Ok(Value::Object(said)) = serde_json::from_str(&line) {
            self.waiting.extend(said);
        }
    }

    /// How much of this kind it has said that was not asked for.
    pub fn heard(&self, kind: &str) -> usize {
        self.waiting.iter().filter(|(said, _)| said == kind).count()
    }
}
