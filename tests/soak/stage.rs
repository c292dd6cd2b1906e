//! Everything that takes part: PostgreSQL, walmill, the ways between them, and all outputs at once;
//! and what can go wrong with each.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::{JoinHandle, block_in_place};
use walmill::cluster::{Cluster, Options};

use crate::ledger::{Bodies, Book, Kind, View};
use crate::plan::{Broker, Fault, Link, random};
use crate::readers::{self, Place};
use crate::receiver::Receiver;
use crate::server::{self, Server};
use crate::sinks;
use crate::support::process::Walmill;
use crate::support::proxy::{Mode, Proxy};
use crate::support::stamp::{save, stamp};
use crate::workload::{SCHEMA, connect};
use crate::world::World;

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.items", "public.notes", "public.parts"]

[store]
path = "FOLDER/data"
min_free = "32MiB"
sync_interval = "SYNC"
retention = { size = "96MiB" }

[server]
listen = "127.0.0.1:PORT"

[plugins.stamp]
path = "stamp.wasm"

[[pipeline]]
name = "main"
tables = ["public.items", "public.notes", "public.parts"]

[[pipeline]]
name = "stamped"
tables = ["public.items"]
plugins = ["stamp"]

[[output.webhook]]
name = "webhook"
streams = ["main"]
url = "http://127.0.0.1:WEBHOOK/hook"
secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
allow_private = true
timeout = "1s"
retry = { initial = "20ms", max = "300ms" }
concurrency = 4
"#;

const NATS: &str = r#"
[[output.nats]]
name = "nats"
streams = ["main"]
url = "nats://127.0.0.1:NATS"
stream = "MAIN"
create_stream = true
timeout = "1s"
retry = { initial = "20ms", max = "300ms" }
"#;

const REDIS: &str = r#"
[[output.redis]]
name = "redis"
streams = ["main"]
url = "redis://127.0.0.1:REDIS"
timeout = "1s"
retry = { initial = "20ms", max = "300ms" }
"#;

/// A mock broker keeps 5 MB of each partition, so it gets the stream of small events.
#[cfg(feature = "kafka")]
const KAFKA: &str = r#"
[[output.kafka]]
name = "kafka"
streams = ["stamped"]
brokers = ["KAFKA"]
timeout = "2s"
properties.'topic.metadata.propagation.max.ms' = '200'
properties.'reconnect.backoff.max.ms' = '200'
retry = { initial = "20ms", max = "300ms" }
"#;

/// What a reload changes, besides nothing.
const CHANGES: [(&str, &str); 3] = [
    ("concurrency = 4", "concurrency = 2"),
    ("max = \"300ms\"", "max = \"200ms\""),
    ("plugins = [\"stamp\"]", "plugins = [\"stamp\"]\non_error = \"stop\""),
];

/// The size of the disk that walmill's data is on.
const DISK: u32 = 512;

/// Everything that takes part.
pub struct Stage {
    pub cluster: Cluster,
    pub walmill: Walmill,
    pub world: Option<World>,
    pub books: Vec<Book>,
    /// Of each stream.
    bodies: [Arc<Mutex<Bodies>>; 2],
    /// The environment of walmill, besides its world.
    variables: Vec<(&'static str, String)>,
    config: String,
    links: BTreeMap<Link, Proxy>,
    receiver: Receiver,
    bad: Arc<AtomicBool>,
    nats: Option<Server>,
    redis: Option<Server>,
    #[cfg(feature = "kafka")]
    kafka: crate::kafka::Mock,
    tasks: Vec<JoinHandle<()>>,
    random: StdRng,
    disk: Disk,
    /// Whether the plugin's file is none.
    plugin_is_bad: bool,
}

impl Stage {
    /// Everything started, walmill too, with these variables in its environment.
    pub async fn set(seed: u64, sync: &str, variables: Vec<(&'static str, String)>) -> Self {
        let options = [
            // Open transactions are sent, and what is silent is given up soon.
            ("logical_decoding_work_mem", "64kB"),
            ("wal_sender_timeout", "3s"),
            ("statement_timeout", "20s"),
            ("deadlock_timeout", "50ms"),
        ];
        let options = options.iter().fold(Options::default(), |o, (name, v)| o.set(name, v));
        let cluster = Cluster::start(&options).expect("a throw-away PostgreSQL");
        let client = connect(&cluster.url()).await;
        client.batch_execute(SCHEMA).await.expect("the schema");
        let nats = server::nats().map(|server| server.with(&[]));
        let redis = server::redis().map(|server| server.with(&[]));
        #[cfg(feature = "kafka")]
        let kafka = crate::kafka::start();
        let (bodies, stamped) = (Arc::<Mutex<Bodies>>::default(), Arc::default());
        let bad = Arc::<AtomicBool>::default();
        let book = |name: &str, view| Book::new(name, Kind::Pushed, view, &bodies);
        let hook = book("webhook", View::Whole);
        let receiver = sinks::webhook(hook.clone(), Arc::clone(&bad), random(seed, 0, 1)).await;
        let mut books = vec![hook];

        let mut links = BTreeMap::new();
        links.insert(Link::Postgres, Proxy::start(cluster.port()).await);
        links.insert(Link::Webhook, Proxy::start(receiver.port).await);
        let mut config = CONFIG.replace("WEBHOOK", &links[&Link::Webhook].port().to_string());
        let mut tasks = Vec::new();
        if let Some(server) = &nats {
            let proxy = Proxy::start(server.port).await;
            config += &NATS.replace("127.0.0.1:NATS", &format!("127.0.0.1:{}", proxy.port()));
            links.insert(Link::Nats, proxy);
            books.push(book("nats", View::Whole));
            tasks.push(tokio::spawn(sinks::nats(server.port, books[books.len() - 1].clone())));
        }
        if let Some(server) = &redis {
            let proxy = Proxy::start(server.port).await;
            config += &REDIS.replace("REDIS", &proxy.port().to_string());
            links.insert(Link::Redis, proxy);
            books.push(book("redis", View::Whole));
            tasks.push(tokio::spawn(sinks::redis(server.port, books[books.len() - 1].clone())));
        }
        #[cfg(feature = "kafka")]
        {
            config += &KAFKA.replace("KAFKA", &crate::kafka::brokers(&kafka));
            books.push(Book::new("kafka", Kind::Pushed, View::ItemsApart, &stamped));
            crate::kafka::consume(&kafka, books[books.len() - 1].clone());
        }
        let disk = Disk::mount();
        let config = config.replace("SYNC", sync);
        let config = config.replace("FOLDER", disk.path().to_str().expect("a UTF-8 path"));
        let to = links[&Link::Postgres].port().to_string();
        let url = cluster.url().replace(&cluster.port().to_string(), &to);
        let walmill = Walmill::prepare(&config, &url);
        save(walmill.folder(), &stamp(0), true);
        let path = walmill.folder().join("walmill.toml");
        let config = std::fs::read_to_string(path).expect("the config");

        let proxy = Proxy::start(walmill.port()).await;
        let reader = |name: &str, stream| Place {
            port: proxy.port(),
            stream,
            book: Book::new(name, Kind::Reader, View::Whole, &bodies),
        };
        let places = [reader("websocket", "main"), reader("sse", "main"), reader("pull", "main")];
        let stamped_reader = Place {
            port: proxy.port(),
            stream: "stamped",
            book: Book::new("stamped", Kind::Reader, View::Items, &stamped),
        };
        books.extend(places.iter().map(|place| place.book.clone()));
        books.push(stamped_reader.book.clone());
        let [websocket, sse, pull] = places;
        tasks.push(tokio::spawn(readers::websocket(websocket)));
        tasks.push(tokio::spawn(readers::sse(sse)));
        tasks.push(tokio::spawn(readers::pull(pull)));
        tasks.push(tokio::spawn(readers::sse(stamped_reader)));
        links.insert(Link::Readers, proxy);
        let world = World::make(&disk.path().join("data"));
        let mut stage = Self {
            cluster,
            walmill,
            world,
            books,
            bodies: [bodies, stamped],
            variables,
            config,
            links,
            receiver,
            bad,
            nats,
            redis,
            #[cfg(feature = "kafka")]
            kafka,
            tasks,
            random: random(seed, 0, 2),
            disk,
            plugin_is_bad: false,
        };
        stage.launch();
        stage.walmill.ready().await;
        stage
    }

    /// Starts walmill.
    pub fn launch(&mut self) {
        let world = self.world.as_ref().map(World::variables).into_iter().flatten();
        let variables: Vec<_> = self.variables.iter().cloned().chain(world).collect();
        let variables: Vec<_> = variables.iter().map(|(name, v)| (*name, v.as_str())).collect();
        self.walmill.launch_in(&variables);
    }

    /// SIGTERM, and the end.
    pub fn terminate(&mut self) -> ExitStatus {
        // One that stands still hears nothing.
        self.walmill.signal(Signal::CONT);
        block_in_place(|| self.walmill.terminate())
    }

    /// Begins a fault. What it came to, where that is worth a word.
    pub fn begin(&mut self, fault: Fault) -> Option<String> {
        match fault {
            Fault::Kill => {
                self.walmill.kill();
                self.launch();
            }
            Fault::PowerCut => {
                let world = self.world.as_ref()?;
                self.walmill.kill();
                let lost = world.cut_power(&mut self.random);
                self.launch();
                return Some(format!("{lost} bytes lost"));
            }
            Fault::Terminate => {
                let ended = self.terminate();
                self.launch();
                return Some(ended.to_string());
            }
            Fault::Freeze => self.walmill.signal(Signal::STOP),
            Fault::Postgres(how) => {
                let restarted = block_in_place(|| self.cluster.restart(how));
                restarted.expect("restart PostgreSQL");
            }
            Fault::Cut(link, bytes) => {
                self.links.get(&link)?.set(Mode::CutAfter(bytes));
            }
            Fault::Silence => self.links[&Link::Postgres].set(Mode::BlackHole),
            Fault::Receiver => self.bad.store(true, Ordering::Relaxed),
            Fault::Broker(Broker::Nats) => self.nats.as_mut()?.kill(),
            Fault::Broker(Broker::Redis) => self.redis.as_mut()?.kill(),
            #[cfg(feature = "kafka")]
            Fault::Broker(Broker::Kafka) => crate::kafka::stop(&self.kafka),
            Fault::Disk(left) => return Some(self.disk.fill(left)),
            Fault::Clock(seconds) => self.world.as_ref()?.set_clock(seconds),
            Fault::Swap { version, careful } => {
                save(self.walmill.folder(), &stamp(version), careful);
                self.plugin_is_bad = false;
            }
            Fault::BadSwap => {
                save(self.walmill.folder(), b"no plugin", true);
                self.plugin_is_bad = true;
            }
            Fault::Reload(variant) => {
                let change = CHANGES.get(variant as usize);
                let config = change.map_or_else(
                    || self.config.clone(),
                    |(from, to)| self.config.replacen(from, to, 1),
                );
                std::fs::write(self.walmill.folder().join("walmill.toml"), config).expect("write");
            }
        }
        None
    }

    /// Ends a fault that lasts.
    pub fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Freeze => self.walmill.signal(Signal::CONT),
            Fault::Cut(link, _) => {
                if let Some(link) = self.links.get(&link) {
                    link.set(Mode::Open);
                }
            }
            Fault::Silence => self.links[&Link::Postgres].set(Mode::Open),
            Fault::Receiver => self.bad.store(false, Ordering::Relaxed),
            Fault::Broker(Broker::Nats) => restart(&mut self.nats),
            Fault::Broker(Broker::Redis) => restart(&mut self.redis),
            #[cfg(feature = "kafka")]
            Fault::Broker(Broker::Kafka) => crate::kafka::go_on(&self.kafka),
            Fault::Disk(_) => self.disk.free(),
            _ => {}
        }
    }

    /// Whether the plugin's file is none at the moment.
    pub fn is_plugin_bad(&self) -> bool {
        self.plugin_is_bad
    }

    /// The most memory that this walmill process has had at a time, in MiB.
    pub fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.walmill.pid());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak.unwrap_or(0) >> 10
    }

    /// An answer of walmill's API, or none.
    pub async fn ask(&self, path: &str) -> Option<String> {
        let answer = reqwest::get(self.walmill.url(path)).await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }

    /// The status, or none.
    pub async fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.ask("/api/v1/status").await?).ok()
    }

    /// Forgets what has arrived so far.
    pub fn settle(&self) {
        self.books.iter().for_each(Book::settle);
        for bodies in &self.bodies {
            bodies.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        self.receiver.forget();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A server that was killed. Faults may meet: it may run again.
fn restart(server: &mut Option<Server>) {
    if let Some(server) = server {
        server.kill();
        block_in_place(|| server.start());
    }
}

/// A small file system where this machine lets us have one, a folder otherwise.
struct Disk {
    folder: TempDir,
    small: bool,
}

impl Disk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK}m"), "tmpfs"])
            .arg(folder.path())
            .output();
        let small = mounted.is_ok_and(|output| output.status.success());
        if !small {
            println!("without full disks: this user may not mount a small file system");
        }
        Self { folder, small }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    /// Leaves so many bytes.
    fn fill(&self, left: u64) -> String {
        if !self.small {
            return "left out".into();
        }
        self.free();
        let about = rustix::fs::statvfs(self.path()).expect("statvfs");
        let free = about.f_bavail * about.f_frsize;
        let size = free.saturating_sub(left);
        if size > 0 {
            let file = File::create(self.ballast()).expect("a file");
            // Somebody else may have taken the last of it meanwhile.
            let none = rustix::fs::FallocateFlags::empty();
            let _ = rustix::fs::fallocate(&file, none, 0, size);
        }
        format!("{} MiB were free", free >> 20)
    }

    fn free(&self) {
        let _ = std::fs::remove_file(self.ballast());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.small {
            let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        }
    }
}

/// Whether a fault goes on until it is ended.
pub fn lasts(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Freeze
            | Fault::Cut(..)
            | Fault::Silence
            | Fault::Receiver
            | Fault::Broker(_)
            | Fault::Disk(_)
    )
}
