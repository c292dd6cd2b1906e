//! A pipeline's input over HTTP, and a plugin that is asked about it outside of any stream.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::process::Walmill;
use crate::support::{clients, cluster, connect, execute};
use crate::values::echo;

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.*"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[plugins.echo]
path = "it/it.wasm"

[[pipeline]]
name = "values"
tables = ["public.*"]
plugins = ["echo"]
"#;

/// Types, and values of each as SQL.
const VALUES: &[(&str, &[&str])] = &[
    ("bool", &["true", "false", "null"]),
    ("int2", &["-32768"]),
    ("int8", &["9223372036854775807", "9007199254740993"]),
    ("float8", &["0.1", "'NaN'", "'-Infinity'", "5e-324"]),
    ("numeric", &["1.50", "123456789012345678901234567890.123456789", "'NaN'"]),
    ("text", &["''", "'NULL'", "E'a\\n\"b\" \\u00e9'"]),
    ("varchar(20)", &["'x'"]),
    ("date", &["'2026-02-28'", "'infinity'", "'4713-01-01 BC'"]),
    ("time", &["'24:00:00'", "'09:30:00.25'"]),
    ("timestamp", &["'2026-11-25 09:30:00.123456'", "'9999-12-31 23:59:59.999999'"]),
    ("timestamptz", &["'2026-11-25 09:30:00+13'", "'-infinity'"]),
    ("jsonb", &["'{\"a\": [1, 2.50, null]}'", "'\"text\"'", "'123456789012345678901234567890'"]),
    ("bytea", &["'\\x00ff'", "''"]),
    ("uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    ("int4[]", &["'{1,null,3}'", "'{}'"]),
    ("text[]", &["'{\"a,b\",null}'"]),
    ("inet", &["'10.0.0.0/8'"]),
];

/// Runs a command in the folder of a walmill.
fn walmill(folder: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walmill"));
    command.args(arguments).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run walmill");
    let mut stdin = child.stdin.take().expect("its input");
    // A command that does not read may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let ran = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (ran.status.code().unwrap_or(-1), text(ran.stdout), text(ran.stderr))
}

async fn start(config: &str, url: &str) -> Walmill {
    let mut walmill = Walmill::prepare(config, url);
    let project = walmill.folder().join("it");
    std::fs::create_dir(&project).expect("a folder");
    std::fs::write(project.join("it.wasm"), echo::plugin()).expect("write");
    let about = "[plugin]\nname = 'echo'\noutput = 'it.wasm'\ntests = '*.json'\n";
    std::fs::write(project.join("plugin.toml"), about).expect("write");
    walmill.launch();
    walmill.ready().await;
    walmill
}

/// A table for each type, and one for values that are too long to come again.
async fn tables(database: &Client) {
    for (number, (type_name, _)) in VALUES.iter().enumerate() {
        let columns = format!("(id bigint PRIMARY KEY, value {type_name})");
        execute(database, &format!("CREATE TABLE t{number} {columns}")).await;
        if number % 2 == 0 {
            execute(database, &format!("ALTER TABLE t{number} REPLICA IDENTITY FULL")).await;
        }
    }
    execute(database, "CREATE TABLE long (id bigint PRIMARY KEY, value text)").await;
    execute(database, "ALTER TABLE long ALTER value SET STORAGE EXTERNAL").await;
}

/// What happens to their rows: how many changes that makes.
async fn fill(database: &Client) -> usize {
    let mut changes = 0;
    for (number, (_, values)) in VALUES.iter().enumerate() {
        let table = format!("t{number}");
        for (id, value) in values.iter().enumerate() {
            execute(database, &format!("INSERT INTO {table} VALUES ({id}, {value})")).await;
        }
        execute(database, &format!("UPDATE {table} SET id = 77 WHERE id = 0")).await;
        execute(database, &format!("DELETE FROM {table} WHERE id = 77")).await;
        changes += values.len() + 2;
    }
    execute(database, "INSERT INTO long VALUES (1, repeat('x', 5000))").await;
    execute(database, "UPDATE long SET id = 2").await;
    changes + 2
}

/// Whether a value in an event is what a plugin handed back: exact numbers and JSON are text to a
/// plugin, and stand in an event as they are.
fn is_same(event: &Value, answer: &Value) -> bool {
    let text = answer.as_str().unwrap_or_default();
    event == answer || serde_json::from_str::<Value>(text).is_ok_and(|answer| answer == *event)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_asked_about_a_change_of_a_pipeline_answers_as_it_does_in_the_pipeline() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    tables(&database).await;
    let running = start(CONFIG, &cluster.url()).await;
    let count = fill(&database).await;
    let is_last =
        |event: &Value| event["data"]["table"] == "long" && event["data"]["key"]["id"] == 2;
    let through = |events: &[Value]| events.last().is_some_and(is_last);
    let events = clients::sse(running.port(), "values", through).await;
    let page = running.json("/api/v1/pipelines/values/changes?from=earliest&limit=1000").await;
    let changes = page["changes"].as_array().expect("changes");
    assert_eq!((changes.len(), &page["more"], &page["gap"]), (count, &json!(false), &json!(null)));
    for change in changes {
        let event = events.iter().find(|event| event["id"] == change["id"]);
        let event = event.unwrap_or_else(|| panic!("{change} has no event"));
        let ask = ["plugin", "call", "it/it.wasm", "--json"];
        let (code, out, err) = walmill(running.folder(), &ask, &change.to_string());
        assert_eq!(code, 0, "{change}: {err}");
        let answer: Value = serde_json::from_str(&out).expect("JSON");
        let data = &event["data"];
        let row = if data["record"].is_null() { &data["old_record"] } else { &data["record"] };
        let (told, given) = (&row["value"], &answer["out"]["value"]);
        let is_left_out = matches!(given.as_str(), Some("<null>" | "<absent>" | "<unchanged>"));
        assert!(
            is_left_out == told.is_null() || is_same(told, given),
            "{change}\n{told}\n{answer}"
        );
        if given == "<unchanged>" {
            assert_eq!(data["unchanged"], json!(["value"]), "{event}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_change_is_waited_for_and_kept_as_a_golden_case() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE people (id bigint PRIMARY KEY, value numeric)").await;
    let running = start(CONFIG, &cluster.url()).await;
    let folder = running.folder().to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let next = ["plugin", "call", "it", "--next", "values", "--json", "--save", "it/next.json"];
        walmill(&folder, &next, "")
    });
    // It asks for what comes next; when it has begun to is not to be seen.
    let mut id = 0;
    while !asked.is_finished() {
        id += 1;
        execute(&database, &format!("INSERT INTO people VALUES ({id}, 10.50)")).await;
    }
    let (code, out, err) = asked.await.expect("a thread");
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&answer["verdict"], &answer["out"]["value"]), (&json!("emit"), &json!("10.50")));
    let (code, out, err) = walmill(running.folder(), &["plugin", "test", "it"], "");
    assert!(code == 0 && out.contains("1 cases, all as expected"), "{out}{err}");
    // A file that is there already is left alone, and a place begins there.
    let again = [
        "plugin",
        "call",
        "it",
        "--next",
        "values",
        "--from",
        "earliest",
        "--save",
        "it/next.json",
    ];
    let (code, _, err) = walmill(running.folder(), &again, "");
    assert!(code == 1 && err.contains("next.json"), "{err}");
    let (code, out, err) = walmill(running.folder(), &again[..7], "");
    assert!(code == 0 && out.contains("10.50") && out.contains("id = 1"), "{out}{err}");
    let (code, _, err) =
        walmill(running.folder(), &["plugin", "call", "it", "--next", "value"], "");
    assert!(code == 1 && err.contains("did you mean `values`?"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_s_input_is_read_page_by_page_by_those_who_may_look() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE people (id bigint PRIMARY KEY, value text)").await;
    execute(&database, "CREATE TABLE other (id bigint PRIMARY KEY, value text)").await;
    let config =
        CONFIG.replace("tables = [\"public.*\"]\nplugins", "tables = [\"public.people\"]\nplugins");
    let config = config.replace("[plugins.echo]", "token = \"secret\"\n[plugins.echo]");
    let running = start(&config, &cluster.url()).await;
    for row in 1..=5 {
        execute(&database, &format!("INSERT INTO people VALUES ({row}, 'a')")).await;
        execute(&database, &format!("INSERT INTO other VALUES ({row}, 'b')")).await;
    }
    let get = async |query: &str| -> (u16, Value) {
        let address = running.url(&format!("/api/v1/pipelines/values/changes?{query}"));
        let answer = reqwest::Client::new().get(address).bearer_auth("secret").send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON"))
    };
    let (mut from, mut seen) = ("earliest".to_owned(), Vec::new());
    while seen.len() < 5 {
        let (status, page) = get(&format!("from={from}&limit=2&wait=10s")).await;
        assert_eq!(status, 200, "{page}");
        let changes = page["changes"].as_array().expect("changes");
        assert!(changes.len() <= 2, "{page}");
        seen.extend(changes.iter().map(|change| change["insert"]["id"].as_i64().expect("an id")));
        from = page["next"].as_str().expect("a cursor").to_owned();
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    let (status, page) = get("from=yesterday").await;
    assert_eq!((status, &page["path"]), (400, &json!("from")));
    let (status, page) = get("limit=0").await;
    assert_eq!((status, &page["code"]), (400, &json!("bad-limit")));
    execute(&database, "TRUNCATE people").await;
    let (_, page) = get(&format!("from={from}&wait=30s")).await;
    assert_eq!(page["changes"][0]["truncate"], json!(true), "{page}");
    let nobody = reqwest::get(running.url("/api/v1/pipelines/values/changes")).await;
    assert_eq!(nobody.expect("an answer").status(), 401);
}
