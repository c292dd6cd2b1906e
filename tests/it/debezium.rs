//! The Debezium format beside Debezium: the same changes through its embedded engine and through
//! walmill, compared field by field. It runs where `scripts/install-python-tools` has put the
//! engine.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use expect_test::expect;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use walmill::cluster::Cluster;

use crate::brokers::server;
use crate::support::process::{PATIENCE, Walmill};
use crate::support::python::tool;
use crate::support::{cluster, connect, execute, folder, until_true};

/// What is the same whatever the settings are: values, and rows of both replica identities.
const TABLES: &str = "
create table t (id int primary key, big text, i8 int8, f float8, b bool, txt text, u uuid, a int[],
    n numeric(10,2), ts timestamp, tz timestamptz, d date, tm time, j jsonb, by bytea, iv interval);
alter table t alter big set storage external;
create table whole (id int primary key, v text, big text);
alter table whole replica identity full;
create publication debezium for table t, whole;";

const CHANGES: &[&str] = &[
    "insert into t values (1, repeat('x', 3000), 9007199254740993, 1.5, true, 'é \"', \
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{1,2}', 12.50, '2026-01-02 03:04:05.678', \
     '2026-01-02 03:04:05.678+00', '2026-01-02', '03:04:05', '{\"a\": 1}', '\\xdeadbeef', '1 day')",
    "update t set txt = null where id = 1",
    "update t set id = 2 where id = 1",
    "delete from t where id = 2",
    "insert into whole values (1, 'a', null)",
    "update whole set v = 'b'",
    "update whole set id = 5",
    "begin; delete from whole; insert into whole values (7, 'c', 'd'); commit",
    "truncate whole",
    "select pg_logical_emit_message(true, 'p', '{\"hi\": 1}')",
];

/// Messages of these changes; a tombstone follows each of the four deletes.
const MESSAGES: usize = 13;
const TOMBSTONES: usize = 4;

/// Columns whose values read as everywhere in walmill: docs/outputs.md has the list.
const OWN_VALUES: [&str; 8] = ["n", "ts", "tz", "d", "tm", "j", "by", "iv"];

struct Engine(Child);

impl Engine {
    fn start(python: &Path, cluster: &Cluster, offsets: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/debezium/embedded.py");
        let url: tokio_postgres::Config = cluster.url().parse().expect("a URL");
        let password = String::from_utf8(url.get_password().expect("a password").to_vec());
        let child = Command::new(python)
            .arg(script)
            .args(["127.0.0.1", &cluster.port().to_string()])
            .args([url.get_user().expect("a user"), url.get_dbname().expect("a database")])
            .arg(offsets)
            .env("PGPASSWORD", password.expect("UTF-8"))
            // It writes a log beside it.
            .current_dir(offsets)
            .arg((MESSAGES + TOMBSTONES).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("start Debezium"))
    }

    /// Everything that it emits until it ends, but for tombstones.
    fn messages(&mut self) -> Vec<Message> {
        let output = BufReader::new(self.0.stdout.take().expect("its output"));
        let lines = output.lines().map_while(Result::ok);
        let messages: Vec<Value> =
            lines.filter_map(|line| serde_json::from_str(&line).ok()).collect();
        let tombstones = messages.iter().filter(|message| message["value"].is_null()).count();
        assert_eq!(tombstones, TOMBSTONES);
        let rows = messages.into_iter().filter(|message| !message["value"].is_null());
        rows.map(|message| Message { key: message["key"].clone(), value: message["value"].clone() })
            .collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Message {
    key: Value,
    value: Value,
}

/// What walmill adds to Redis in this format.
async fn walmills(connection: &mut MultiplexedConnection) -> Vec<Message> {
    type Entry = (String, std::collections::HashMap<String, String>);
    let waiting = async {
        loop {
            let mut range = redis::cmd("XRANGE");
            let entries: Vec<Entry> = range
                .arg("walmill:all")
                .arg("-")
                .arg("+")
                .query_async(connection)
                .await
                .expect("a stream");
            if entries.len() >= MESSAGES {
                return entries;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let entries = tokio::time::timeout(PATIENCE, waiting).await.expect("all messages");
    let json = |text: &str| serde_json::from_str(text).expect("JSON");
    entries
        .iter()
        .map(|(_, fields)| Message { key: json(&fields["key"]), value: json(&fields["value"]) })
        .collect()
}

const CONFIG: &str = r#"
[source]
url = "DATABASE"
slot = "walmill"
publication = "walmill"
tables = ["public.*"]
[store]
path = "data"
[server]
listen = "127.0.0.1:PORT"
[[pipeline]]
name = "all"
tables = ["public.*"]
messages = ["*"]
[[output.redis]]
name = "debezium"
streams = ["all"]
format = "debezium"
ordering = "strict"
url = "redis://127.0.0.1:REDIS"
"#;

fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

/// The members of a row that are to be the same, and no nulls: a column that PostgreSQL did not
/// send is null there and left out here.
fn row(row: &Value) -> Option<Vec<(String, Value)>> {
    let members = row.as_object()?.iter();
    let same =
        members.filter(|(name, value)| !OWN_VALUES.contains(&name.as_str()) && !value.is_null());
    let mut same: Vec<_> = same.map(|(name, value)| (name.clone(), value.clone())).collect();
    same.sort_by(|a, b| a.0.cmp(&b.0));
    Some(same)
}

fn compare(at: usize, own: &Message, theirs: &Message) {
    assert_eq!(own.key, theirs.key, "key of message {at}");
    let (own, theirs) = (&own.value, &theirs.value);
    // `ts_us` and `ts_ns` are missing from Debezium's logical messages.
    let missing: Vec<_> = names(theirs).difference(&names(own)).copied().collect();
    assert_eq!(missing, Vec::<&str>::new(), "message {at} lacks members");
    assert_eq!(names(&own["source"]), names(&theirs["source"]), "source of message {at}");
    for member in ["op", "transaction", "message"] {
        assert_eq!(own[member], theirs[member], "{member} of message {at}");
    }
    for member in ["before", "after"] {
        assert_eq!(row(&own[member]), row(&theirs[member]), "{member} of message {at}");
    }
    for member in [
        "connector",
        "name",
        "snapshot",
        "db",
        "schema",
        "table",
        "txId",
        "ts_ms",
        "ts_us",
        "ts_ns",
        "xmin",
        "origin",
        "origin_lsn",
    ] {
        assert_eq!(own["source"][member], theirs["source"][member], "{member} of message {at}");
    }
    // That of the change there, that of its transaction's commit here.
    let lsn = |message: &Value| message["source"]["lsn"].as_u64().expect("a number");
    assert!(lsn(own) >= lsn(theirs), "message {at}");
}

#[tokio::test]
async fn the_debezium_format_says_what_debezium_says_of_the_same_changes() {
    let Some(engine) = tool("debezium") else { return };
    let Some(redis) = server::redis().map(|server| server.with(&[])) else { return };
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, TABLES).await;
    let offsets = folder();
    let mut engine = Engine::start(&engine.join("bin/python"), &cluster, offsets.path());
    let config = CONFIG.replace("REDIS", &redis.port.to_string());
    let _walmill = Walmill::start(&config, &cluster.url()).await;
    let both = "select count(*) = 2 from pg_replication_slots where active";
    until_true(&client, both).await;
    for change in CHANGES {
        execute(&client, change).await;
    }
    let theirs = tokio::task::spawn_blocking(move || engine.messages()).await.expect("messages");
    let server = redis::Client::open(format!("redis://127.0.0.1:{}", redis.port)).expect("a URL");
    let mut connection = server.get_multiplexed_async_connection().await.expect("a connection");
    let own = walmills(&mut connection).await;
    assert_eq!((own.len(), theirs.len()), (MESSAGES, MESSAGES));
    for (at, (own, theirs)) in own.iter().zip(&theirs).enumerate() {
        compare(at, own, theirs);
    }
    let differ = OWN_VALUES.map(|column| {
        let value = |message: &Message| message.value["after"][column].to_string();
        format!("{column}: {} there, {} here", value(&theirs[0]), value(&own[0]))
    });
    expect![[r#"
        n: "12.50" there, 12.50 here
        ts: "2026-01-02T03:04:05.678Z" there, "2026-01-02T03:04:05.678" here
        tz: "2026-01-02T03:04:05.678000Z" there, "2026-01-02T03:04:05.678Z" here
        d: "2026-01-02Z" there, "2026-01-02" here
        tm: "03:04:05Z" there, "03:04:05" here
        j: "{\"a\": 1}" there, {"a":1} here
        by: "3q2+7w==" there, "\\xdeadbeef" here
        iv: "P0Y0M1DT0H0M0S" there, "1 day" here"#]]
    .assert_eq(&differ.join("\n"));
}
