//! The config changes while walmill runs: whole, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::Value;
use tokio_postgres::Client;
use walmill::plugin::Version;

use crate::support::clients::{self, Receiver};
use crate::support::process::Walmill;
use crate::support::stamp::{save, stamp, version};
use crate::support::{cluster, connect, execute};

/// Rows that mark the end.
const END: i64 = 1_000_000_000;
const ROUNDS: u32 = 12;
const RELOAD: &str = "/api/v1/reload";

const BASE: &str = r#"
[source]
url = "DATABASE"
tables = ["public.ticks"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[plugins.stamp]
path = "stamp.wasm"

[plugins.other]
path = "other.wasm"

[[pipeline]]
name = "ticks"
tables = ["public.ticks"]
plugins = ["other", "stamp"]
"#;

const SECOND: &str = r#"
[[pipeline]]
name = "second"
tables = ["public.ticks"]
plugins = ["stamp"]
"#;

/// The version that `other` stamps: if it comes last in the chain, events bear it.
const OTHER: u32 = 900;

/// What `BASE` is on disk for this walmill, with something changed.
struct Configs {
    base: String,
}

impl Configs {
    fn of(walmill: &Walmill) -> Self {
        let file = walmill.folder().join("walmill.toml");
        Self { base: std::fs::read_to_string(file).expect("a config") }
    }

    fn write(&self, walmill: &Walmill, change: impl Fn(&str) -> String) {
        let new = walmill.folder().join("walmill.new");
        std::fs::write(&new, change(&self.base)).expect("write");
        std::fs::rename(new, walmill.folder().join("walmill.toml")).expect("rename");
    }
}

async fn start(database: &Client, url: &str) -> (Walmill, Configs) {
    execute(database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let mut walmill = Walmill::prepare(BASE, url);
    save(walmill.folder(), &stamp(0), true);
    std::fs::write(walmill.folder().join("other.wasm"), stamp(OTHER)).expect("write");
    let configs = Configs::of(&walmill);
    walmill.launch();
    walmill.ready().await;
    (walmill, configs)
}

/// Asks for a reload: the status, and what came of it.
async fn reload(walmill: &Walmill) -> (u16, Value) {
    let http = reqwest::Client::new();
    let request = http.post(walmill.url(RELOAD)).header("content-type", "application/json");
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.text().await.expect("a body");
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body}")))
}

fn id(event: &Value) -> i64 {
    event["data"]["key"]["id"].as_i64().expect("an id")
}

fn is_end(events: &[Value]) -> bool {
    events.last().is_some_and(|event| id(event) == END)
}

/// Every row once, in order, each under an id of its own.
fn check_all(events: &[Value], rows: i64) {
    let ids: Vec<i64> = events.iter().map(id).collect();
    assert_eq!(ids, (0..rows).chain([END]).collect::<Vec<_>>(), "every row once, in order");
    let mut names: Vec<&str> =
        events.iter().map(|event| event["id"].as_str().expect("an id")).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_come_go_and_change_under_load_and_nothing_is_lost_or_doubled() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    let (walmill, configs) = start(&database, &cluster.url()).await;
    let reader = tokio::spawn({
        let port = walmill.port();
        async move { clients::sse(port, "ticks", is_end).await }
    });
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut next = 0_i64;
            while !stop.load(Ordering::Relaxed) {
                let sql = format!("INSERT INTO ticks SELECT generate_series({next}, {})", next + 4);
                execute(&database, &sql).await;
                next += 5;
            }
            execute(&database, &format!("INSERT INTO ticks VALUES ({END})")).await;
            next
        }
    });
    for round in 1..=ROUNDS {
        save(walmill.folder(), &stamp(round), true);
        configs.write(&walmill, |base| match round % 4 {
            1 => format!("{base}{SECOND}"),
            2 => {
                format!("{base}{SECOND}").replace(r#"["other", "stamp"]"#, r#"["stamp", "other"]"#)
            }
            3 => base.replace(
                r#"plugins = ["other", "stamp"]"#,
                "plugins = [\"stamp\"]\non_error = \"stop\"",
            ),
            _ => base.to_owned(),
        });
        let (status, report) = reload(&walmill).await;
        assert_eq!(status, 200, "{report:#}");
        let names = |pipelines: &Value| pipelines["pipelines"].as_array().map_or(0, Vec::len);
        let wanted = if round % 4 == 1 || round % 4 == 2 { 2 } else { 1 };
        let pipelines = walmill.json("/api/v1/pipelines").await;
        assert_eq!(names(&pipelines), wanted, "{pipelines:#}");
        let emitted = |answer: &Value| answer["pipelines"][0]["emitted"].as_u64().unwrap_or(0);
        let seen = emitted(&pipelines);
        walmill.wait_for("/api/v1/pipelines", |now| emitted(now) > seen).await;
    }
    configs.write(&walmill, |base| format!("{base}{SECOND}"));
    assert_eq!(reload(&walmill).await.0, 200);
    let last = Version::of(&stamp(ROUNDS)).to_string();
    walmill.wait_for("/api/v1/plugins/stamp", |plugin| plugin["version"] == *last).await;
    stop.store(true, Ordering::Relaxed);
    let rows = writer.await.expect("the writer");
    let events = reader.await.expect("the reader");
    check_all(&events, rows);
    assert!(
        events.iter().any(|event| version(event) == OTHER),
        "the order was another for a while"
    );
    assert!(events.iter().any(|event| version(event) == ROUNDS), "the last version is in force");
    // It was away three times, and went on where it had stopped.
    check_all(&clients::sse(walmill.port(), "second", is_end).await, rows);
    let metrics = walmill.text("/metrics").await;
    assert!(metrics.contains("walmill_config_current 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_does_not_work_changes_nothing_and_says_why_everywhere() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    let (walmill, configs) = start(&database, &cluster.url()).await;
    std::fs::write(walmill.folder().join("bad.wasm"), b"garbage").expect("write");
    let before = walmill.json("/api/v1/plugins").await;
    let bad_plugin = "[plugins.bad]\npath = \"bad.wasm\"\n";
    let cases: [(&str, String); 9] = [
        ("unclosed", "[store".into()),
        ("unknown key `tabels`", SECOND.replace("tables", "tabels")),
        ("no plugin `stmap`", SECOND.replace("stamp", "stmap")),
        ("there are two pipelines `second`", SECOND.repeat(2)),
        ("not a WebAssembly binary", SECOND.replace("stamp", "bad") + bad_plugin),
        (
            "stream `ticks` belongs to the pipeline `ticks`",
            format!("{SECOND}streams = [\"ticks\"]"),
        ),
        ("[store] cannot change while walmill runs", String::new()),
        ("[server] cannot change while walmill runs", "token".into()),
        ("[server] cannot change while walmill runs", "tls".into()),
    ];
    let count = cases.len();
    for (number, (why, more)) in (1_i64..).zip(cases) {
        configs.write(&walmill, |base| match more.as_str() {
            "" => base.replace("path = \"data\"", "path = \"data\"\nmin_free = \"1MiB\""),
            "token" => base.replace("listen =", "token = \"t\"\nlisten ="),
            "tls" => base.replace(
                "[plugins.stamp]",
                "[server.tls]\ncert = \"c\"\nkey = \"k\"\n[plugins.stamp]",
            ),
            more => format!("{base}{more}"),
        });
        let (status, report) = reload(&walmill).await;
        assert_eq!((status, &report["outcome"]), (422, &"refused".into()), "{report:#}");
        let said = report["findings"].to_string();
        assert!(said.contains(why), "{why} in {said}");
        assert_eq!(walmill.json(RELOAD).await["outcome"], "refused");
        assert!(walmill.log().contains(why), "{why} in {}", walmill.log());
        execute(&database, &format!("INSERT INTO ticks VALUES ({number})")).await;
        let events = clients::sse(walmill.port(), "ticks", |e| e.len() as i64 == number).await;
        assert_eq!(events.last().map(version), Some(0), "the stream goes on");
    }
    assert_eq!(walmill.json("/api/v1/plugins").await, before);
    let pipelines = walmill.json("/api/v1/pipelines").await;
    assert_eq!(pipelines["pipelines"].as_array().map(Vec::len), Some(1), "{pipelines:#}");
    let metrics = walmill.text("/metrics").await;
    assert!(metrics.contains("walmill_config_current 0"), "{metrics}");
    let (status, said) = (reload(&walmill).await.0, walmill.text("/metrics").await);
    assert_eq!(status, 422, "it is as wrong as before");
    assert!(!said.contains(&format!("walmill_config_refusals_total {}", count - 1)), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_file_and_a_signal_reload_the_config_by_themselves() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    let (walmill, configs) = start(&database, &cluster.url()).await;
    execute(&database, "INSERT INTO ticks VALUES (1)").await;
    configs.write(&walmill, |base| format!("{base}{SECOND}"));
    let applied = |report: &Value| report["outcome"] == "applied";
    walmill.wait_for(RELOAD, |report| applied(report) && report["why"] == "file").await;
    let report = walmill.json(RELOAD).await;
    assert_eq!(report["changes"], serde_json::json!(["pipeline `second` added"]));
    let events = clients::sse(walmill.port(), "second", |events| events.len() == 1).await;
    assert_eq!(id(&events[0]), 1, "a new pipeline begins with what the journal still has");

    walmill.signal(Signal::HUP);
    walmill.wait_for(RELOAD, |report| report["outcome"] == "unchanged").await;
    assert_eq!(walmill.json(RELOAD).await["why"], "signal");
    let request = reqwest::Client::new().post(walmill.url(RELOAD));
    assert_eq!(request.send().await.expect("an answer").status(), 415, "as a form would send it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_and_a_plugin_s_config_come_and_go_with_the_config() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    let (walmill, configs) = start(&database, &cluster.url()).await;
    let (receiver, url) = Receiver::start(0).await;
    let webhook = format!(
        "\n[[output.webhook]]\nname = \"far\"\nstreams = [\"ticks\"]\nurl = \"{url}\"\n\
         allow_private = true\nunsigned = true\n"
    );
    execute(&database, "INSERT INTO ticks VALUES (1)").await;
    configs.write(&walmill, |base| format!("{base}{webhook}"));
    let (status, report) = reload(&walmill).await;
    assert_eq!((status, &report["changes"][0]), (200, &"output `far` added".into()), "{report:#}");
    let delivered = |answer: &Value| answer["outputs"][0]["delivered"].as_u64();
    walmill.wait_for("/api/v1/outputs", |answer| delivered(answer) == Some(1)).await;
    configs.write(&walmill, str::to_owned);
    assert_eq!(reload(&walmill).await.0, 200);
    assert_eq!(walmill.json("/api/v1/outputs").await["outputs"], serde_json::json!([]));
    execute(&database, "INSERT INTO ticks VALUES (2)").await;
    clients::sse(walmill.port(), "ticks", |events| events.len() == 2).await;
    assert_eq!(receiver.distinct(), 1, "nothing is delivered to what is gone");
    configs.write(&walmill, |base| format!("{base}{webhook}"));
    assert_eq!(reload(&walmill).await.0, 200);
    walmill.wait_for("/api/v1/outputs", |answer| delivered(answer) == Some(1)).await;
    assert_eq!(receiver.distinct(), 2, "it goes on behind what it had delivered");

    let limits = "[plugins.stamp]\nlimits = { deadline = \"2s\" }";
    configs.write(&walmill, |base| format!("{base}{webhook}").replace("[plugins.stamp]", limits));
    let (status, report) = reload(&walmill).await;
    assert_eq!(status, 200, "{report:#}");
    assert_eq!(report["changes"], serde_json::json!(["plugin `stamp` changed"]));
    let plugin = walmill.json("/api/v1/plugins/stamp").await;
    assert_eq!(plugin["history"][0]["why"], "reload", "{plugin:#}");
}

/// One output of each kind, to nobody; `CHANGE` is where it is told otherwise later.
const OUTPUTS: [(&str, &str, &str); 3] = [
    (
        "webhook",
        "url = \"http://127.0.0.1:9/CHANGE\"\nallow_private = true",
        "secret = \"whsec_d2FsbWlsbCB0ZXN0cyBzaWduIHdpdGggdGhpcyE=\"",
    ),
    ("nats", "url = \"nats://127.0.0.1:9\"\nsubject = \"walmill.CHANGE\"", ""),
    ("redis", "url = \"redis://127.0.0.1:9\"\nkey = \"CHANGE\"", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn outputs_of_each_kind_come_change_and_go() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    let (walmill, configs) = start(&database, &cluster.url()).await;
    let all = |change: &str| -> String {
        let kafka = ("kafka", "brokers = [\"127.0.0.1:9\"]\ntopic = \"CHANGE\"", "");
        let kinds = OUTPUTS.into_iter().chain(cfg!(feature = "kafka").then_some(kafka));
        let section = |(kind, place, more): (&str, &str, &str)| {
            let place = place.replace("CHANGE", change);
            format!(
                "\n[[output.{kind}]]\nname = \"{kind}\"\nstreams = [\"ticks\"]\n{place}\n{more}\n"
            )
        };
        kinds.map(section).collect()
    };
    let kinds = if cfg!(feature = "kafka") { 4 } else { 3 };
    for (config, word, running) in [
        (all("one"), "added", kinds),
        (all("two"), "changed", kinds),
        (String::new(), "removed", 0),
    ] {
        configs.write(&walmill, |base| format!("{base}{config}"));
        let (status, report) = reload(&walmill).await;
        assert_eq!((status, &report["outcome"]), (200, &"applied".into()), "{report:#}");
        let changes = report["changes"].as_array().expect("changes");
        assert_eq!(changes.len(), kinds, "{report:#}");
        for change in changes {
            assert!(change.as_str().is_some_and(|text| text.ends_with(word)), "{report:#}");
        }
        let outputs = walmill.json("/api/v1/outputs").await["outputs"].clone();
        assert_eq!(outputs.as_array().map(Vec::len), Some(running), "{outputs:#}");
    }
    // One alone that changes leaves the others as they are.
    configs.write(&walmill, |base| format!("{base}{}", all("one")));
    assert_eq!(reload(&walmill).await.0, 200);
    configs.write(&walmill, |base| {
        format!("{base}{}", all("one").replace("walmill.one", "walmill.two"))
    });
    let (_, report) = reload(&walmill).await;
    assert_eq!(report["changes"], serde_json::json!(["output `nats` changed"]), "{report:#}");
}
