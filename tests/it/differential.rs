//! What a reader of events can rebuild: after a random workload with DDL, replaying what `walmill
//! run` served into empty tables gives the source's tables, row by row.

mod replica;

use serde::Deserialize;
use serde_json::value::RawValue;
use walmill::cluster::Cluster;

use crate::support::process::{PATIENCE, Walmill};
use crate::support::turmoil::{Ddl, TABLES, Turmoil, seed};
use crate::support::{connect, execute};
use replica::Replica;

const CONFIG: &str = r#"
[source]
url = "DATABASE"

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[[pipeline]]
name = "everything"
tables = ["public.*"]
messages = ["*"]
"#;

/// One answer of `GET /v1/streams/{stream}/events`.
#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    next: String,
    gap: Option<Box<RawValue>>,
}

/// A reader that pulls, and goes on from its cursor whatever becomes of the server.
struct Reader {
    client: reqwest::Client,
    url: String,
    cursor: String,
}

impl Reader {
    fn new(walmill: &Walmill) -> Self {
        let url = walmill.url("/v1/streams/everything/events");
        Self { client: reqwest::Client::new(), url, cursor: "earliest".into() }
    }

    /// Applies everything up to the message that says it is the end.
    async fn replay(mut self, until: &str) -> Replica {
        let mut replica = Replica::default();
        while !replica.has_seen(until) {
            // The server is away for a moment after each kill.
            let Ok(page) = self.page().await else {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                continue;
            };
            assert!(page.gap.is_none(), "{:?}", page.gap);
            page.events.iter().for_each(|event| replica.apply(event.get()));
            self.cursor = page.next;
        }
        replica
    }

    async fn page(&self) -> Result<Page, reqwest::Error> {
        let url = format!("{}?after={}&limit=1000&wait=10s", self.url, self.cursor);
        let answer = self.client.get(url).send().await?.error_for_status()?;
        let text = answer.text().await?;
        Ok(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:.1000}")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_readers_rebuild_from_events_is_the_source_through_ddl_and_kills() {
    let cluster = Cluster::start(&Turmoil::options()).expect("a throw-away PostgreSQL");
    let client = connect(&cluster).await;
    execute(&client, &Turmoil::schema()).await;
    execute(
        &client,
        "CREATE PUBLICATION walmill FOR ALL TABLES WITH (publish_via_partition_root = true)",
    )
    .await;
    let mut walmill = Walmill::start(CONFIG, &cluster.url()).await;
    let reading = tokio::spawn(Reader::new(&walmill).replay("the end"));
    let writers = Turmoil::writers(&cluster).await;
    let mut turmoil = Turmoil::new(seed(), Ddl::Told);
    for _ in 0..10 {
        turmoil.rounds(&writers, 8).await;
        walmill.kill();
        walmill.launch();
    }
    execute(&client, &turmoil.last_words()).await;
    execute(&client, "SELECT pg_logical_emit_message(true, 'the end', '')").await;

    let replica = tokio::time::timeout(PATIENCE, reading).await;
    let replica =
        replica.unwrap_or_else(|_| panic!("no end\n{}", walmill.log())).expect("a reader");
    assert!(replica.events() > 1000, "only {} events", replica.events());
    let mut rows = 0;
    for table in TABLES {
        rows += replica.compare(&client, table).await;
    }
    println!("{} events, {rows} rows", replica.events());
    assert!(rows > 100, "only {rows} rows");
    assert!(walmill.terminate().success(), "{}", walmill.log());
}
