//! Changes that reach clients of Supabase Realtime's protocol: a PostgreSQL server, walmill as a
//! process, and raw WebSocket clients that join as `supabase-js` does. Prints what was lost and how
//! long after the commit each change arrived; commits are dated to the millisecond below, so a
//! delay is at most one millisecond shorter than it is printed.
//!
//! `cargo bench --bench supabase`, or with `idle`, `one`, `ten`, `theirs`, `memory` behind `--` for
//! some of the cases.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::{Client, NoTls};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use walmill::cluster::{Cluster, Options};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long each case runs.
const TIME: Duration = Duration::from_secs(15);
/// How long a client waits for what is missing.
const PATIENCE: Duration = Duration::from_secs(10);
const SUBSCRIBERS: usize = 500;
/// Connections that are opened to see what one of them takes.
const IDLE: usize = 2_000;

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.messages"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[server.supabase]
raw = true
"#;

/// PostgreSQL and walmill, as a user has them.
struct Stand {
    cluster: Cluster,
    walmill: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.walmill.kill();
        let _ = self.walmill.wait();
    }
}

impl Stand {
    async fn start() -> Self {
        let cluster = Cluster::start(&Options::default()).expect("a throw-away PostgreSQL");
        let client = database(&cluster).await;
        let table =
            "create table messages (id bigint primary key, room int, author text, body text)";
        client.batch_execute(table).await.expect("a table");
        let folder = tempfile::tempdir().expect("a folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let config = CONFIG.replace("PORT", &port.to_string()).replace("DATABASE", &cluster.url());
        let file = folder.path().join("walmill.toml");
        std::fs::write(&file, config).expect("write the config");
        let walmill = Command::new(env!("CARGO_BIN_EXE_walmill"))
            .args(["run", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start walmill");
        let stand = Self { cluster, walmill, port, _folder: folder };
        let url = format!("http://127.0.0.1:{port}/readyz");
        while !reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
            sleep(Duration::from_millis(20)).await;
        }
        stand
    }

    async fn connect(&self) -> Socket {
        let url =
            format!("ws://127.0.0.1:{}/realtime/v1/websocket?apikey=key&vsn=2.0.0", self.port);
        tokio_tungstenite::connect_async(url).await.expect("a connection").0
    }

    /// A client that is subscribed to the table, or to the rows of a filter.
    async fn subscribe(&self, filter: &str) -> Socket {
        let mut socket = self.connect().await;
        let binding =
            json!({ "event": "*", "schema": "public", "table": "messages", "filter": filter });
        let config = json!({ "postgres_changes": [binding], "presence": { "enabled": false } });
        let join = json!(["1", "1", "realtime:bench", "phx_join", { "config": config }]);
        socket.send(Message::text(join.to_string())).await.expect("join");
        while let Some(Ok(message)) = socket.next().await {
            let frame: Value = serde_json::from_slice(&message.into_data()).expect("JSON");
            if frame[3] == "system" {
                assert_eq!(frame[4]["status"], "ok", "{frame}");
                return socket;
            }
        }
        panic!("the connection ended");
    }

    /// Kilobytes of memory that walmill has.
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.walmill.id()));
        let status = status.expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("kilobytes")
    }
}

async fn database(cluster: &Cluster) -> Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster.url(), NoTls).await.expect("connect to PostgreSQL");
    tokio::spawn(connection);
    client
}

/// How many changes a second, who hears of them, and how they are written.
struct Case {
    name: &'static str,
    per_second: usize,
    subscribers: usize,
    /// Rooms that the changes go to in turn.
    rooms: usize,
    /// Whether each client hears of one room alone.
    filtered: bool,
}

/// Runs a case and prints a line of it.
async fn run(case: &Case) {
    let Case { name, per_second, subscribers, rooms, filtered } = *case;
    let stand = Stand::start().await;
    let mut sockets = Vec::with_capacity(subscribers);
    for n in 0..subscribers {
        let filter = if filtered { format!("room=eq.{}", n % rooms) } else { String::new() };
        sockets.push(stand.subscribe(&filter).await);
    }
    let changes = per_second * TIME.as_secs() as usize;
    let each = if filtered { changes / rooms } else { changes };
    let arrived = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = sockets
        .into_iter()
        .map(|socket| tokio::spawn(listen(socket, each, Arc::clone(&arrived))))
        .collect();
    let client = database(&stand.cluster).await;
    let began = Instant::now();
    write(&client, per_second, changes, rooms).await;
    let took = began.elapsed();
    let mut delays = Vec::with_capacity(each * subscribers);
    for client in clients {
        delays.extend(client.await.expect("a client"));
    }
    delays.sort_unstable();
    let at = |part: f64| delays.get((delays.len() as f64 * part) as usize).copied().unwrap_or(0);
    println!(
        "{name}: {changes} changes in {:.1} s, {subscribers} clients, {} of {} messages arrived, \
         p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms",
        took.as_secs_f64(),
        delays.len(),
        each * subscribers,
        at(0.50) as f64 / 1000.0,
        at(0.95) as f64 / 1000.0,
        at(0.99) as f64 / 1000.0,
    );
}

/// Inserts rows one by one, each a transaction, at an even pace.
async fn write(client: &Client, per_second: usize, changes: usize, rooms: usize) {
    let insert = "insert into messages values ($1, $2, 'somebody', 'a message of a usual length')";
    let insert = client.prepare(insert).await.expect("a statement");
    let mut pace = interval(Duration::from_secs(1) / u32::try_from(per_second).expect("few"));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for id in 0..changes {
        pace.tick().await;
        let room = i32::try_from(id % rooms).expect("few");
        let id = i64::try_from(id).expect("few");
        client.execute(&insert, &[&id, &room]).await.expect("an insert");
    }
}

/// Microseconds from each change's commit until it was here; fewer if some never came.
async fn listen(mut socket: Socket, changes: usize, arrived: Arc<AtomicUsize>) -> Vec<u64> {
    let mut delays = Vec::with_capacity(changes);
    while delays.len() < changes {
        let before = arrived.load(Ordering::Relaxed);
        match timeout(PATIENCE, socket.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
                if let Some(committed) = committed(&text) {
                    let day = u64::try_from(now.as_micros() % 86_400_000_000).expect("a day");
                    delays.push(day.saturating_sub(committed));
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_)) | None) => break,
            // Nobody got anything for so long: what is missing is lost.
            Err(_) if arrived.load(Ordering::Relaxed) == before => break,
            Err(_) => {}
        }
    }
    delays
}

/// Microseconds since midnight of a change's commit.
fn committed(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once(r#""commit_timestamp":""#)?;
    let clock = rest.get(11..23)?;
    let part = |range: std::ops::Range<usize>| clock.get(range)?.parse::<u64>().ok();
    let seconds = (part(0..2)? * 60 + part(3..5)?) * 60 + part(6..8)?;
    Some(seconds * 1_000_000 + part(9..12)? * 1000)
}

/// What a connection takes that has joined a channel and hears nothing.
async fn memory() {
    let stand = Stand::start().await;
    let mut sockets = Vec::with_capacity(IDLE);
    let (mut before, mut after) = (0, 0);
    for n in 0..IDLE {
        if n == IDLE / 10 {
            before = stand.memory();
        }
        sockets.push(stand.subscribe(&format!("room=eq.{n}")).await);
        after = stand.memory();
    }
    let each = (after.saturating_sub(before)) as f64 / (IDLE - IDLE / 10) as f64;
    println!("memory: {each:.1} kB for each of {IDLE} idle connections with a filtered channel");
}

const CASES: [Case; 4] = [
    Case { name: "idle", per_second: 10, subscribers: 1, rooms: 1, filtered: true },
    Case { name: "one", per_second: 1000, subscribers: SUBSCRIBERS, rooms: 500, filtered: true },
    Case { name: "ten", per_second: 1000, subscribers: SUBSCRIBERS, rooms: 50, filtered: true },
    Case { name: "theirs", per_second: 64, subscribers: SUBSCRIBERS, rooms: 1, filtered: false },
];

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|own| own == name);
    for case in CASES.iter().filter(|case| is_wanted(case.name)) {
        run(case).await;
    }
    if is_wanted("memory") {
        memory().await;
    }
}
