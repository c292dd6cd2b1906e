//! Who sends: walmill behind a PostgreSQL, and nats-server.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};
use walmill::cluster::{Cluster, Options};

use super::load::To;

const SCHEMA: &str = "CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer integer NOT NULL,
    country text NOT NULL, status text NOT NULL, total numeric(12,2) NOT NULL, note text NOT NULL,
    created timestamptz NOT NULL);
    CREATE TABLE unread (n integer);
    CREATE PUBLICATION walmill FOR TABLE events;";
const CONFIG: &str = r#"
[source]
url = "DATABASE"

[server]
listen = "127.0.0.1:PORT"
max_clients = 20000

[[pipeline]]
name = "events"
tables = ["public.events"]
streams = ["events"]
"#;
/// Rows of one transaction; customers are those whom a subscriber waits for.
const INSERT: &str = "INSERT INTO events (customer, country, status, total, note, created)
    SELECT floor(random() * $2::integer)::integer, 'NZ', 'paid', 129.90, 'leave it at the door, please', now()
    FROM generate_series(1, $1::integer) i";
/// Nothing takes as long to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server and what makes it send.
pub struct Server {
    child: Child,
    /// Where subscribers connect.
    pub port: u16,
    /// How the threads that serve subscribers are called.
    pub serving: &'static str,
    pub name: &'static str,
    pub source: Source,
    _folder: TempDir,
}

/// Where events come from.
pub enum Source {
    /// A table; the address of its database, too.
    Table(Box<Client>, Cluster),
    /// A publisher of NATS, and what it publishes.
    Publisher(TcpStream, Vec<u8>),
}

impl Server {
    /// The built walmill, or another, with a database of its own.
    pub async fn walmill() -> anyhow::Result<Self> {
        let cluster = Cluster::start(&Options::default())?;
        let client = connect(&cluster).await?;
        client.batch_execute(SCHEMA).await?;
        let (folder, port) = (tempfile::tempdir()?, free_port()?);
        let config = CONFIG.replace("DATABASE", &cluster.url()).replace("PORT", &port.to_string());
        std::fs::write(folder.path().join("walmill.toml"), config)?;
        let program = std::env::var_os("WALMILL_PROGRAM");
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_walmill").into());
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(folder.path().join("walmill.toml"));
        let child = spawn(&mut command, &folder)?;
        let source = Source::Table(Box::new(client), cluster);
        let (serving, name) = ("tokio-rt-worker", "walmill");
        let server = Self { child, port, serving, name, source, _folder: folder };
        server.ready().await?;
        Ok(server)
    }

    /// Debian's, with its WebSocket listener; `None` where there is none.
    pub async fn nats(event: &str) -> anyhow::Result<Option<Self>> {
        let (folder, port, clients) = (tempfile::tempdir()?, free_port()?, free_port()?);
        let config = format!(
            "listen: \"127.0.0.1:{clients}\"\nmax_connections: 100000\nping_interval: \"10m\"\n\
             websocket {{ listen: \"127.0.0.1:{port}\", no_tls: true }}\n"
        );
        let path = folder.path().join("nats.conf");
        std::fs::write(&path, config)?;
        let Ok(child) = spawn(Command::new("nats-server").arg("-c").arg(path), &folder) else {
            return Ok(None);
        };
        let publisher = until_it_listens(clients)?;
        until_it_listens(port)?;
        let mut listening = publisher.try_clone()?;
        (&publisher).write_all(b"CONNECT {\"verbose\":false}\r\n")?;
        // It is told things that it need not know.
        std::thread::spawn(
            move || while listening.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {},
        );
        let message = format!("PUB events {}\r\n{event}\r\n", event.len()).into_bytes();
        let source = Source::Publisher(publisher, message);
        let (serving, name) = ("nats-server", "nats-server");
        Ok(Some(Self { child, port, serving, name, source, _folder: folder }))
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// What a subscriber of all events subscribes to.
    pub fn everything(&self) -> To {
        match self.source {
            Source::Table(..) => To::Stream,
            Source::Publisher(..) => To::Subject,
        }
    }

    /// Makes it send so many events together.
    pub async fn send(&mut self, events: u32, customers: usize) -> anyhow::Result<()> {
        match &mut self.source {
            Source::Table(client, _) => {
                let (events, customers) = (i32::try_from(events)?, i32::try_from(customers)?);
                client.execute(INSERT, &[&events, &customers]).await?;
            }
            Source::Publisher(publisher, message) => {
                publisher.write_all(&message.repeat(events as usize))?;
            }
        }
        Ok(())
    }

    /// The text of one event, as a subscriber gets it.
    pub async fn one_text(&mut self) -> anyhow::Result<String> {
        let url = format!("ws://127.0.0.1:{}/v1/ws?streams=events", self.port);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await?;
        socket.next().await.context("subscribed")??;
        self.send(1, 1).await?;
        Ok(socket.next().await.context("an event")??.into_text()?.to_string())
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        let deadline = Instant::now() + PATIENCE;
        while !reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
            if Instant::now() > deadline {
                bail!("walmill is not ready");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to the database.
pub async fn connect(cluster: &Cluster) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(&cluster.url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn spawn(command: &mut Command, folder: &TempDir) -> std::io::Result<Child> {
    let log = std::fs::File::create(folder.path().join("log"))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn until_it_listens(port: u16) -> anyhow::Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => return Err(error).context("nats-server"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
