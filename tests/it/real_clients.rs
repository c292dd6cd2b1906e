//! Clients that others wrote: a browser's EventSource and WebSocket, Node.js and Python.
//! `scripts/install-clients` brings what is not there.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use walmill::server::Config;
use walmill::store;

use crate::support::browser::Browser;
use crate::support::serving::Serving;

fn row(id: u32, country: &str) -> Value {
    json!({ "op": "insert", "record": { "id": id, "country": country }, "old_record": null })
}

fn clients() -> PathBuf {
    let cache = std::env::var_os("WALMILL_CACHE").map(PathBuf::from).or_else(|| {
        let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        xdg.or_else(home).map(|cache| cache.join("walmill"))
    });
    cache.unwrap_or_default().join("clients")
}

/// A client that prints what it gets, a line each.
struct Program {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(command: &mut Command) -> Option<Self> {
        let started =
            command.stdout(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true).spawn();
        let mut child = started.ok()?;
        let stdout = child.stdout.take().expect("its output");
        Some(Self { _child: child, lines: BufReader::new(stdout).lines() })
    }

    async fn line(&mut self) -> Option<String> {
        self.lines.next_line().await.expect("a line")
    }
}

/// Subscribes twice: the second connection goes on from the first one's cursor.
const NODE: &str = r#"
const WebSocket = require(process.argv[2]);
const url = process.argv[3];
const read = (from, filter, count) => new Promise((resolve, reject) => {
  const socket = new WebSocket(url, 'walmill.v1.json', { headers: { authorization: 'Bearer s3cret' } });
  let cursor = from, left = count;
  socket.on('open', () => socket.send(JSON.stringify({ type: 'subscribe', streams: ['posts'], from, filter })));
  socket.on('message', (text) => {
    const message = JSON.parse(text);
    if (message.type === 'subscribed') return console.log('subscribed ' + socket.protocol);
    console.log(message.event.data.record.id);
    cursor = message.cursor;
    if (--left === 0) socket.close(1000);
  });
  socket.on('close', (code) => resolve(cursor));
  socket.on('error', reject);
});
(async () => {
  const cursor = await read('earliest', 'country=eq.NZ', 2);
  await read(cursor, 'country=eq.NZ', 2);
})();
"#;

const PYTHON: &str = r#"
import asyncio, json, sys
import websockets

async def read(start, count):
    async with websockets.connect(sys.argv[1], subprotocols=["walmill.v1.json"],
                                  additional_headers={"authorization": "Bearer s3cret"}) as socket:
        await socket.send(json.dumps({"type": "subscribe", "streams": ["posts"], "from": start,
                                      "filter": "country=eq.NZ"}))
        message = json.loads(await socket.recv())
        print(message["type"], socket.subprotocol, flush=True)
        for _ in range(count):
            message = json.loads(await socket.recv())
            print(message["event"]["data"]["record"]["id"], flush=True)
            start = message["cursor"]
        return start

async def main():
    cursor = await read("earliest", 2)
    await read(cursor, 2)

asyncio.run(main())
"#;

async fn reads_and_goes_on(server: &Serving, mut program: Program) {
    let expected = ["subscribed walmill.v1.json", "1", "3", "subscribed walmill.v1.json"];
    for expected in expected {
        assert_eq!(program.line().await.as_deref(), Some(expected));
    }
    server.commit_rows("posts", &[row(4, "AU"), row(5, "NZ"), row(6, "NZ")]);
    for expected in ["5", "6"] {
        assert_eq!(program.line().await.as_deref(), Some(expected));
    }
    assert_eq!(program.line().await, None, "it ends well");
}

async fn serving() -> Serving {
    let server = Serving::written("token = 's3cret'").await;
    server.commit_rows("posts", &[row(1, "NZ"), row(2, "AU"), row(3, "NZ")]);
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_client_subscribes_and_goes_on_from_its_cursor() {
    let library = clients().join("node_modules/ws");
    if !library.is_dir() {
        return eprintln!("skipped: run scripts/install-clients first");
    }
    let server = serving().await;
    let url = format!("ws://{}/v1/ws", server.address);
    let mut command = Command::new("node");
    command.args(["-e", NODE, "--"]).arg("-").arg(library).arg(url);
    let program = Program::start(&mut command).expect("start node");
    reads_and_goes_on(&server, program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_subscribes_and_goes_on_from_its_cursor() {
    let python = clients().join("python/bin/python");
    if !python.is_file() {
        return eprintln!("skipped: run scripts/install-clients first");
    }
    let server = serving().await;
    let mut command = Command::new(python);
    command.args(["-c", PYTHON]).arg(format!("ws://{}/v1/ws", server.address));
    let program = Program::start(&mut command).expect("start python");
    reads_and_goes_on(&server, program).await;
}

/// What the page does: gets tickets with its token, and reads over both.
const PAGE: &str = r#"(async () => {
  const ticket = async () => {
    const answer = await fetch('/v1/tickets',
      { method: 'POST', headers: { authorization: 'Bearer s3cret' } });
    return (await answer.json()).ticket;
  };
  document.body.innerHTML = '<p id="sse"></p><p id="ws"></p>';
  const show = (id, text) => { document.getElementById(id).textContent += text + ' '; };
  const from = `&last_event_id=earliest&filter=${encodeURIComponent('country=eq.NZ')}`;
  const source = new EventSource(`/v1/streams/posts/sse?ticket=${await ticket()}${from}`);
  source.onmessage = (event) => show('sse', JSON.parse(event.data).data.record.id);
  source.addEventListener('closing', (event) => {
    show('sse', JSON.parse(event.data).code); source.close();
  });
  const socket = new WebSocket(`ws://${location.host}/v1/ws?ticket=${await ticket()}`,
    'walmill.v1.json');
  socket.onopen = () => socket.send(JSON.stringify(
    { type: 'subscribe', streams: ['posts'], from: 'earliest', filter: 'country=neq.NZ' }));
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    show('ws', message.event ? message.event.data.record.id : message.type);
  };
  socket.onclose = (event) => show('ws', event.code);
})()"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_reads_with_tickets_over_event_source_and_websocket() {
    let Some(mut browser) = Browser::start().await else {
        return eprintln!("skipped: no Chromium on the PATH; ./test installs it");
    };
    let server = serving().await;
    browser.open(&server.url("/console")).await;
    browser.wait_for("main", &["token"]).await;
    browser.evaluate(PAGE).await;
    browser.wait_for("#sse", &["1 3 "]).await;
    browser.wait_for("#ws", &["subscribed 2 "]).await;
    server.commit_rows("posts", &[row(4, "AU"), row(5, "NZ")]);
    browser.wait_for("#sse", &["1 3 5 "]).await;
    browser.wait_for("#ws", &["subscribed 2 4 "]).await;
    server.shutdown.cancel();
    browser.wait_for("#sse", &["1 3 5 shutdown"]).await;
    browser.wait_for("#ws", &["subscribed 2 4 closing 1012"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_reads_only_where_it_is_listed() {
    let Some(mut browser) = Browser::start().await else {
        return eprintln!("skipped: no Chromium on the PATH; ./test installs it");
    };
    // The page comes from one walmill, and talks to another.
    let page = Serving::start().await;
    let origin = format!("http://{}", page.address);
    let listing: Config =
        toml::from_str(&format!("token = 's3cret'\norigins = ['{origin}']")).expect("a config");
    let listing = Serving::configured(listing, store::Config::default()).await;
    let other = Serving::written("token = 's3cret'").await;
    browser.open(&page.url("/console")).await;
    browser.wait_for("#source-state", &["source streaming"]).await;
    // The console's own page may talk to nobody else, so this one must be without its policy.
    browser.open(&page.url("/v1/streams")).await;
    browser.wait_for("body", &["posts"]).await;
    let ask = |server: &Serving| {
        format!(
            "fetch('{}', {{ method: 'POST', headers: {{ authorization: 'Bearer s3cret' }} }})
               .then((answer) => answer.status, () => 'refused')",
            server.url("/v1/tickets")
        )
    };
    assert_eq!(browser.evaluate(&ask(&listing)).await, 201);
    assert_eq!(browser.evaluate(&ask(&other)).await, "refused");
}
