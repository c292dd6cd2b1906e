//! `walmill bench --latency`: from a row's commit to a WebSocket client, beside LISTEN/NOTIFY. Both
//! hear of the same commits: a trigger notifies, and each row says when it was written. Each of the
//! two has a thread of this process to itself, and they read the same clock.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{interval, sleep};
use tokio_postgres::{AsyncMessage, Client, NoTls};
use tungstenite::{Message, WebSocket};

use super::process::{Process, free_port};
use super::receiver::{EVENT, hear, subscribe};
use super::{GLANCE, PATIENCE, slot, source};
use crate::cluster::{Cluster, Options};

const SCHEMA: &str = "
    CREATE TABLE ticks (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_notify('walmill_bench', NEW.at::text); RETURN NULL; END $$;
    CREATE TRIGGER tell AFTER INSERT ON ticks FOR EACH ROW EXECUTE FUNCTION tell();
    CREATE PUBLICATION walmill_bench FOR TABLE ticks;";
const INSERT: &str = "INSERT INTO ticks DEFAULT VALUES";
/// Rows per second, each a transaction of its own; and whether plugins are swapped meanwhile.
const PHASES: [(u64, bool); 4] = [(100, false), (1_000, false), (10_000, false), (1_000, true)];
/// Between two swaps.
const SWAP: Duration = Duration::from_secs(1);
/// Rows before the first phase, that nobody counts.
const WARM_UP: u64 = 200;
/// The column in an event.
const AT: &str = r#""at":"#;

/// What a phase brought, in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    rows_per_second: u64,
    /// Versions of a plugin that came into force meanwhile.
    swaps: u64,
    changes: usize,
    websocket: Percentiles,
    listen_notify: Percentiles,
    /// The one's p99 in those of the other.
    p99_ratio: f64,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    p50: u64,
    p99: u64,
    p99_9: u64,
}

impl Percentiles {
    fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |part: f64| {
            let place = (times.len() as f64 * part) as usize;
            times.get(place.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        Self { p50: at(0.5), p99: at(0.99), p99_9: at(0.999) }
    }
}

/// How long each row took that has come.
#[derive(Debug, Clone, Default)]
struct Times(Arc<Mutex<Vec<u64>>>);

impl Times {
    /// A row that says when it was written has come now.
    fn came(&self, at: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.lock().push(now.saturating_sub(at));
    }

    fn count(&self) -> usize {
        self.lock().len()
    }

    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each phase takes so many seconds.
pub(super) async fn measure(plugins: &Path, seconds: u64) -> anyhow::Result<Vec<Latency>> {
    let filter = plugins.join("filter.wasm");
    let filter = std::fs::read(&filter).with_context(|| format!("read {}", filter.display()))?;
    eprintln!("Starting a throw-away PostgreSQL …");
    let cluster = Cluster::start(&Options::default().set("autovacuum", "off"))?;
    let (database, connection) = tokio_postgres::connect(&cluster.url(), NoTls).await?;
    tokio::spawn(connection);
    database.batch_execute(SCHEMA).await?;
    slot::make(&database, slot::COPY).await?;

    let folder = tempfile::tempdir()?;
    let plugin = Plugin { path: folder.path().join("filter.wasm"), bytes: filter, versions: 0 };
    std::fs::write(&plugin.path, &plugin.bytes)?;
    let port = free_port()?;
    let mut process = Process::walmill(&config(&cluster.url(), port, &plugin.path))?;
    let (client, listener) = (Times::default(), Times::default());
    listen(cluster.url(), listener.clone()).await?;
    let socket = connect(&mut process, port).await?;
    let times = client.clone();
    let reading = spawn_blocking(move || read(socket, &times));

    let mut phases = Phases { database, process, plugin, port, client, listener };
    phases.write(WARM_UP, 1_000).await?;
    let mut latencies = Vec::new();
    for (rate, swaps) in PHASES {
        let swapping = if swaps { ", plugins swapped" } else { "" };
        eprintln!("{rate} rows/s{swapping} …");
        latencies.push(phases.phase(rate, rate * seconds, swaps).await?);
    }
    phases.process.stop().await?;
    reading.await??;
    Ok(latencies)
}

fn config(url: &str, port: u16, plugin: &Path) -> String {
    format!(
        "{}[plugins.filter]\npath = '{}'\nconfig = {{ where = 'id > 0' }}\n\
         [[pipeline]]\nname = 'ticks'\ntables = ['public.ticks']\nplugins = ['filter']\n",
        source(url, port),
        plugin.display()
    )
}

/// A client, as soon as walmill listens.
async fn connect(process: &mut Process, port: u16) -> anyhow::Result<WebSocket<TcpStream>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match spawn_blocking(move || subscribe(port, &["ticks"])).await? {
            Ok(socket) => return Ok(socket),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => process.check()?,
        }
        sleep(GLANCE).await;
    }
}

fn read(mut socket: WebSocket<TcpStream>, times: &Times) -> anyhow::Result<()> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) if text.starts_with(EVENT) => {
                times.came(written(&text).context("an event without its time")?);
            }
            Ok(Message::Text(text)) => hear(&mut socket, &text)?,
            Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error).context("read a WebSocket"),
        }
    }
}

/// When the row of an event was written.
fn written(event: &str) -> Option<u64> {
    let (_, value) = event.split_once(AT)?;
    let end = value.find(|c: char| !c.is_ascii_digit())?;
    value[..end].parse().ok()
}

/// Listens on a thread of its own, as the client has one, until the server goes away.
async fn listen(url: String, times: Times) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (listens, listening) = oneshot::channel();
    thread::Builder::new().name("listener".into()).spawn(move || {
        // Whoever waits hears of a failure; what comes later is missed in the count.
        let _ = runtime.block_on(hear_all(&url, &times, listens));
    })?;
    listening.await.context("LISTEN failed")
}

async fn hear_all(url: &str, times: &Times, listens: oneshot::Sender<()>) -> anyhow::Result<()> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let mut listens = Some(listens);
    let mut listen = pin!(client.batch_execute("LISTEN walmill_bench"));
    loop {
        tokio::select! {
            listened = &mut listen, if listens.is_some() => {
                listened?;
                let _ = listens.take().map(|listens| listens.send(()));
            }
            message = poll_fn(|context| connection.poll_message(context)) => {
                let Some(message) = message.transpose()? else { return Ok(()) };
                if let AsyncMessage::Notification(notification) = message {
                    times.came(notification.payload().parse()?);
                }
            }
        }
    }
}

/// A plugin whose file is replaced while it runs.
struct Plugin {
    path: PathBuf,
    bytes: Vec<u8>,
    versions: u8,
}

impl Plugin {
    /// The same code in a file that is another: a custom section more.
    fn replace(&mut self) -> std::io::Result<()> {
        self.versions = self.versions.wrapping_add(1);
        let mut bytes = self.bytes.clone();
        bytes.extend([0, 6, 4]);
        bytes.extend_from_slice(b"swap");
        bytes.push(self.versions);
        let draft = self.path.with_extension("new");
        std::fs::write(&draft, bytes)?;
        std::fs::rename(draft, &self.path)
    }
}

struct Phases {
    database: Client,
    process: Process,
    plugin: Plugin,
    port: u16,
    client: Times,
    listener: Times,
}

impl Phases {
    async fn phase(&mut self, rate: u64, rows: u64, swaps: bool) -> anyhow::Result<Latency> {
        let before = self.generation().await?;
        let (websocket, listen_notify) = match swaps {
            true => self.write_and_swap(rows, rate).await?,
            false => self.write(rows, rate).await?,
        };
        let swaps = self.generation().await? - before;
        let changes = websocket.len();
        let (websocket, listen_notify) =
            (Percentiles::of(websocket), Percentiles::of(listen_notify));
        let p99_ratio = websocket.p99 as f64 / listen_notify.p99.max(1) as f64;
        Ok(Latency { rows_per_second: rate, swaps, changes, websocket, listen_notify, p99_ratio })
    }

    /// Writes rows, and gives what each of them took once all have come.
    async fn write(&mut self, rows: u64, rate: u64) -> anyhow::Result<(Vec<u64>, Vec<u64>)> {
        pace(&self.database, rows, rate).await?;
        self.all(rows).await
    }

    async fn write_and_swap(
        &mut self,
        rows: u64,
        rate: u64,
    ) -> anyhow::Result<(Vec<u64>, Vec<u64>)> {
        {
            let mut writing = pin!(pace(&self.database, rows, rate));
            let mut swaps = interval(SWAP);
            loop {
                tokio::select! {
                    written = &mut writing => break written?,
                    _ = swaps.tick() => self.plugin.replace()?,
                }
            }
        }
        self.all(rows).await
    }

    async fn all(&mut self, rows: u64) -> anyhow::Result<(Vec<u64>, Vec<u64>)> {
        let (rows, deadline) = (usize::try_from(rows)?, Instant::now() + PATIENCE);
        while self.client.count() < rows || self.listener.count() < rows {
            self.process.check()?;
            if Instant::now() > deadline {
                bail!("{} of {rows} rows have come", self.client.count());
            }
            sleep(GLANCE).await;
        }
        Ok((self.client.take(), self.listener.take()))
    }

    /// How often plugins came into force.
    async fn generation(&self) -> anyhow::Result<u64> {
        let url = format!("http://127.0.0.1:{}/metrics", self.port);
        let metrics = reqwest::get(url).await?.error_for_status()?.text().await?;
        let name = "walmill_plugin_generation ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.context("no such metric")?.parse()?)
    }
}

/// Inserts rows one by one at a rate: those of one tick are sent without waiting for each other.
async fn pace(database: &Client, rows: u64, rate: u64) -> anyhow::Result<()> {
    let insert = database.prepare(INSERT).await?;
    let at_once = (rate / 1_000).max(1);
    let mut ticks = interval(Duration::from_micros(1_000_000 * at_once / rate));
    let mut left = rows;
    while left > 0 {
        ticks.tick().await;
        let now = at_once.min(left);
        try_join_all((0..now).map(|_| database.execute(&insert, &[]))).await?;
        left -= now;
    }
    Ok(())
}

/// For people.
pub(super) fn table(latencies: &[Latency]) -> String {
    let mut text = format!(
        "{:>8}{:>7}{:>9}   {:>29}   {:>29}   {:>7}\n\
         {:>27}{:>11}{:>10}{:>11}{:>11}{:>10}{:>11}{:>7}\n",
        "rows/s",
        "swaps",
        "rows",
        "to a client, ms",
        "LISTEN/NOTIFY, ms",
        "p99",
        "",
        "p50",
        "p99",
        "p99.9",
        "p50",
        "p99",
        "p99.9",
        "ratio"
    );
    for latency in latencies {
        let Latency { rows_per_second, swaps, changes, websocket, listen_notify, p99_ratio } =
            latency;
        // Writing to a string does not fail.
        let _ = write!(text, "{rows_per_second:>8}{swaps:>7}{changes:>9}   ");
        for Percentiles { p50, p99, p99_9 } in [websocket, listen_notify] {
            let [p50, p99, p99_9] = [p50, p99, p99_9].map(|micros| *micros as f64 / 1e3);
            let _ = write!(text, "{p50:>11.2}{p99:>10.2}{p99_9:>11.2}");
        }
        let _ = writeln!(text, "{p99_ratio:>7.2}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_when_its_row_was_written() {
        let event =
            r#"{"type":"event","event":{"data":{"record":{"id":1,"at":1764000000000001}}}}"#;
        assert_eq!(written(event), Some(1_764_000_000_000_001));
        assert_eq!(written("{}"), None);
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let Percentiles { p50, p99, p99_9 } = Percentiles::of((0..1_000).rev().collect());
        assert_eq!((p50, p99, p99_9), (500, 990, 999));
        assert_eq!(Percentiles::of(Vec::new()).p99, 0);
    }
}
