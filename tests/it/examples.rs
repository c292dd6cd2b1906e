//! The examples as a user runs them: the config, the SQL and the programs of the folder.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use walmill::cluster::Cluster;

use crate::brokers::server::{self, Server};
use crate::support::process::{Walmill, built_plugins, free_port};
use crate::support::python::tool;
use crate::support::{cluster, connect, execute, until};

const EVENTS: &str = "300";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/event-sourcing")
}

struct Example {
    python: PathBuf,
    cluster: Cluster,
    variables: Vec<(&'static str, String)>,
    broker: &'static str,
    walmill: Walmill,
}

impl Example {
    async fn start(broker: &'static str, variable: (&'static str, String)) -> Option<Self> {
        let python = tool("example-clients")?.join("bin/python");
        let cluster = cluster();
        let read = |file: String| std::fs::read_to_string(folder().join(file)).expect("a file");
        execute(&connect(&cluster).await, &read("schema.sql".into())).await;
        let mut walmill = Walmill::prepare(&read(format!("{broker}.toml")), "DATABASE");
        let data = walmill.folder().join("data").display().to_string();
        let variables = vec![
            ("DATABASE_URL", cluster.url()),
            ("WALMILL_DATA", data),
            ("WALMILL_LISTEN", format!("127.0.0.1:{}", walmill.port())),
            variable,
        ];
        let borrowed: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
        walmill.launch_in(&borrowed);
        walmill.ready().await;
        Some(Self { python, cluster, variables, broker, walmill })
    }

    /// What a program of the folder prints.
    async fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.python);
        command.args(arguments).current_dir(folder());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
        let output = output.expect("run Python");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}\n{}", self.walmill.log());
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    async fn accounting(&self, books: &Path, events: &str) -> BTreeMap<String, i64> {
        let books = books.to_str().expect("UTF-8");
        let shown = self.run(&["accounting.py", self.broker, books, events]).await;
        serde_json::from_str(&shown).expect("balances")
    }

    /// What the order service's own database says.
    async fn balances(&self) -> BTreeMap<String, i64> {
        let sum = "select customer, coalesce(sum(case kind when 'paid' then cents when 'refunded' \
                   then -cents else 0 end), 0)::int8 from order_events group by 1";
        let rows = connect(&self.cluster).await.query(sum, &[]).await.expect("balances");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Half of the events before the accounting service first runs and half after; then its books
    /// are lost.
    async fn the_books_are_right(self) {
        let books = self.walmill.folder().join("books.db");
        self.run(&["orders.py", EVENTS]).await;
        assert_eq!(self.accounting(&books, EVENTS).await, self.balances().await);
        self.run(&["orders.py", EVENTS]).await;
        let all = (2 * EVENTS.parse::<u32>().expect("a number")).to_string();
        let right = self.balances().await;
        assert_eq!(self.accounting(&books, &all).await, right);
        std::fs::remove_file(&books).expect("lose the books");
        assert_eq!(self.accounting(&books, &all).await, right);
    }
}

fn started(server: Option<Server>) -> Option<Server> {
    server.map(|server| server.with(&[]))
}

#[tokio::test]
async fn accounting_is_right_and_is_rebuilt_from_the_stream_through_redis() {
    let Some(redis) = started(server::redis()) else { return };
    let url = ("REDIS_URL", format!("redis://127.0.0.1:{}", redis.port));
    let Some(example) = Example::start("redis", url).await else { return };
    example.the_books_are_right().await;
}

#[tokio::test]
async fn accounting_is_right_and_is_rebuilt_from_the_stream_through_nats() {
    let Some(nats) = started(server::nats()) else { return };
    let url = ("NATS_URL", format!("nats://127.0.0.1:{}", nats.port));
    let Some(example) = Example::start("nats", url).await else { return };
    example.the_books_are_right().await;
}

#[cfg(feature = "kafka")]
#[tokio::test(flavor = "multi_thread")]
async fn accounting_is_right_and_is_rebuilt_from_the_stream_through_kafka() {
    let cluster = rdkafka::mocking::MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("orders.events", 3, 1).expect("a topic");
    let brokers = ("KAFKA_BROKERS", cluster.bootstrap_servers());
    let Some(example) = Example::start("kafka", brokers).await else { return };
    example.the_books_are_right().await;
}

/// A receiver of examples/webhook-receiver, and what it prints.
struct Receiver {
    child: Child,
    printed: Arc<Mutex<Vec<String>>>,
    url: String,
}

impl Receiver {
    fn start(secret: &str) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"));
        let port = free_port();
        let child = Command::new("node")
            .arg(script.join("examples/webhook-receiver/receiver.mjs"))
            .arg(port.to_string())
            .env("WEBHOOK_SECRET", secret)
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            println!("skipped: there is no node here");
            return None;
        };
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let (printed, url) = (Arc::default(), format!("http://127.0.0.1:{port}/"));
        let receiver = Self { child, printed: Arc::clone(&printed), url };
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                printed.lock().expect("no panic").push(line);
            }
        });
        Some(receiver)
    }

    fn orders(&self) -> Vec<String> {
        let printed = self.printed.lock().expect("no panic");
        printed.iter().filter(|line| line.starts_with("walmill.")).cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn each_customer_gets_webhooks_about_its_own_orders() {
    let secret = |byte: u8| format!("whsec_{}", STANDARD.encode([byte; 32]));
    let (Some(acme), Some(globex)) = (Receiver::start(&secret(1)), Receiver::start(&secret(2)))
    else {
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/customer-webhooks");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).expect("a file");
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, &read("schema.sql")).await;
    let mut walmill = Walmill::prepare(&read("walmill.toml"), "DATABASE");
    let data = walmill.folder().join("data").display().to_string();
    walmill.launch_in(&[
        ("DATABASE_URL", &cluster.url()),
        ("WALMILL_DATA", &data),
        ("WALMILL_LISTEN", &format!("127.0.0.1:{}", walmill.port())),
        ("ROUTE_WASM", built_plugins().join("route.wasm").to_str().expect("UTF-8")),
        ("ACME_SECRET", &secret(1)),
        ("GLOBEX_SECRET", &secret(2)),
        ("ACME_URL", &acme.url),
        ("GLOBEX_URL", &globex.url),
    ]);
    walmill.ready().await;
    let orders = "insert into orders (customer, cents) values ('acme', 1200), ('globex', 900), \
                  ('initech', 7); update orders set status = 'paid' where customer = 'acme'; \
                  delete from orders where customer = 'globex'";
    execute(&client, orders).await;
    let types = |receiver: &Receiver| -> Vec<String> {
        let first = |line: &String| line.split(' ').next().expect("a word").to_owned();
        receiver.orders().iter().map(first).collect()
    };
    until("each has its two", || acme.orders().len() == 2 && globex.orders().len() == 2).await;
    assert_eq!(types(&acme), ["walmill.row.insert", "walmill.row.update"]);
    assert_eq!(types(&globex), ["walmill.row.insert", "walmill.row.delete"]);
    assert!(acme.orders().iter().all(|order| order.contains(r#""customer":"acme""#)));
}
