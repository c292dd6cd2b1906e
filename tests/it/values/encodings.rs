//! Databases that are not in UTF-8.

use serde_json::Value;

use crate::support::clients;
use crate::support::process::{PATIENCE, Walmill};
use crate::support::{cluster, connect, execute};

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.t"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[plugins.filter]
path = "PLUGINS/filter.wasm"
config = { where = "note is not null" }

[[pipeline]]
name = "all"
tables = ["public.t"]
plugins = ["filter"]
"#;

/// What comes of rows in a database of that encoding.
async fn records(encoding: &str, rows: &str, count: usize) -> Vec<Value> {
    let cluster = cluster();
    let create = format!(
        "create database other encoding '{encoding}' lc_collate 'C' lc_ctype 'C' template template0"
    );
    execute(&connect(&cluster).await, &create).await;
    let url = cluster.database_url("other");
    let (client, connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connect");
    tokio::spawn(connection);
    execute(&client, "create table t (id int primary key, note text, list text[], j json)").await;
    execute(&client, "alter table t replica identity full").await;
    let walmill = Walmill::start(CONFIG, &url).await;
    execute(&client, rows).await;
    let reading = clients::sse(walmill.port(), "all", |events| events.len() >= count);
    let events = tokio::time::timeout(PATIENCE, reading).await.expect("events");
    assert_eq!(walmill.json("/api/v1/dlq").await["dead_letters"], serde_json::json!([]));
    events.into_iter().map(|mut event| event["data"]["record"].take()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latin1_database_comes_in_utf8() {
    let rows = "insert into t values (1, 'café Ünïcode', array['é'], '{\"é\": \"ÿ\"}')";
    let record = records("LATIN1", rows, 1).await.remove(0);
    let expected =
        serde_json::json!({ "id": 1, "note": "café Ünïcode", "list": ["é"], "j": { "é": "ÿ" } });
    assert_eq!(record, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_sql_ascii_database_are_shown_and_never_replaced() {
    // Bytes that are UTF-8 are shown as that; others so that they can be told.
    let rows = "insert into t values (1, 'caf' || chr(92) || convert_from('\\xe9', 'SQL_ASCII'),
                    array[convert_from('\\xff', 'SQL_ASCII')],
                    ('{\"a\": \"' || convert_from('\\xe9', 'SQL_ASCII') || '\"}')::json);
                insert into t values (2, 'é ' || chr(92), null, null)";
    let records = records("SQL_ASCII", rows, 2).await;
    let expected = serde_json::json!([
        { "id": 1, "note": "caf\\\\\\xe9", "list": ["\\xff"], "j": { "a": "\\xe9" } },
        { "id": 2, "note": "é \\", "list": null, "j": null },
    ]);
    assert_eq!(Value::Array(records), expected);
}
