//! A headless Chromium, driven over its DevTools protocol.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// A browser with one page, ended when this is dropped.
pub struct Browser {
    process: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Value,
    calls: u64,
    /// What the page complained of: exceptions, refused scripts, failed requests.
    pub complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one; `None` where this machine has none.
    pub async fn start() -> Option<Self> {
        let program = NAMES.into_iter().find(|name| on_path(name))?;
        let profile = tempfile::tempdir().expect("a folder");
        let process = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"])
            .args(["--remote-debugging-port=0", "--window-size=1400,900"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the browser");
        let address = debugging_address(profile.path()).await;
        let (socket, _) = tokio_tungstenite::connect_async(address).await.expect("its protocol");
        let (session, complaints) = (Value::Null, Vec::new());
        let mut browser =
            Self { process, socket, session, calls: 0, complaints, _profile: profile };
        browser.attach().await;
        Some(browser)
    }

    async fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        self.session = self.call("Target.attachToTarget", attach).await["sessionId"].take();
        for domain in ["Page", "Runtime", "Log"] {
            self.call(&format!("{domain}.enable"), json!({})).await;
        }
    }

    /// Opens a page.
    pub async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
    }

    /// The value of a script, a promise's when it is kept.
    pub async fn evaluate(&mut self, script: &str) -> Value {
        let script = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", script).await;
        assert_eq!(answer["exceptionDetails"], Value::Null);
        answer["result"]["value"].take()
    }

    /// Waits until the text of what the selector finds has all of these words in it.
    pub async fn wait_for(&mut self, selector: &str, words: &[&str]) {
        let script = format!(
            "new Promise((done) => {{
               const look = () => {{
                 const text = document.querySelector({selector})?.textContent ?? '';
                 if ({words}.every((word) => text.includes(word))) done(text);
                 else setTimeout(look, 20);
               }};
               look();
             }})",
            selector = json!(selector),
            words = json!(words),
        );
        let waiting = tokio::time::timeout(super::process::PATIENCE, self.evaluate(&script)).await;
        if waiting.is_err() {
            let page = self.evaluate("document.body.innerText").await;
            panic!("{words:?} never came in {selector}; {:?}\n{page}", self.complaints);
        }
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": parameters });
        if !self.session.is_null() {
            call["sessionId"] = self.session.clone();
        }
        self.socket.send(Message::text(call.to_string())).await.expect("send to the browser");
        loop {
            let message = self.socket.next().await.expect("an answer").expect("an answer");
            let Message::Text(text) = message else { continue };
            let mut message: Value = serde_json::from_str(&text).expect("JSON");
            if message["id"] == self.calls {
                assert_eq!(message["error"], Value::Null, "{method}");
                return message["result"].take();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(parameters["exceptionDetails"].to_string());
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.complaints.push(parameters["entry"].to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// The browser writes it into its profile once it listens.
async fn debugging_address(profile: &Path) -> String {
    let file = profile.join("DevToolsActivePort");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    super::until("the browser listens", || read().lines().count() == 2).await;
    let text = read();
    let (port, path) = text.split_once('\n').expect("two lines");
    format!("ws://127.0.0.1:{port}{path}")
}
