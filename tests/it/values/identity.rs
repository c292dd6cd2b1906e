//! What a replica identity lets events say, large values that did not change, and keys that did:
//! everything that docs/replica-identity.md states.

use std::collections::HashMap;

use expect_test::expect;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::clients::{self, Receiver};
use crate::support::process::{PATIENCE, Walmill};
use crate::support::{cluster, connect, execute};

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.*"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[[pipeline]]
name = "all"
tables = ["public.*"]
"#;

async fn events(walmill: &Walmill, count: usize) -> Vec<Value> {
    let reading = clients::sse(walmill.port(), "all", |events| events.len() >= count);
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(events) => events,
        Err(_) => panic!("never {count} events\n{}", walmill.log()),
    }
}

/// The data of events on lines; a long text as its length.
fn lines(events: &[Value]) -> String {
    fn short(value: &Value) -> Value {
        match value {
            Value::String(text) if text.len() > 100 => format!("{} long", text.len()).into(),
            Value::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), short(value))).collect()
            }
            other => other.clone(),
        }
    }
    let line = |event: &Value| {
        let data = short(&event["data"]);
        let [table, op] = ["table", "op"].map(|name| data[name].as_str().expect("text"));
        let (key, record) = (&data["key"], &data["record"]);
        let (old, unchanged) = (&data["old_record"], &data["unchanged"]);
        format!("{table} {op} key {key} record {record} old {old} unchanged {unchanged}\n")
    };
    events.iter().map(line).collect()
}

async fn refused(client: &Client, sql: &str) -> SqlState {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.code().expect("an answer of the server").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_replica_identity_gives_what_is_documented() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    for table in ["by_default", "by_full", "by_index", "by_nothing"] {
        let create = format!(
            "create table {table} (id int primary key, code text not null, n int, big text);
             alter table {table} alter big set storage external;
             create unique index {table}_code on {table} (code)"
        );
        execute(&client, &create).await;
    }
    execute(
        &client,
        "alter table by_full replica identity full;
         alter table by_index replica identity using index by_index_code;
         alter table by_nothing replica identity nothing;
         create table keyless (a int, b text)",
    )
    .await;
    let walmill = Walmill::start(CONFIG, &cluster.url()).await;
    for table in ["by_default", "by_full", "by_index"] {
        for sql in [
            format!("insert into {table} values (1, 'a', 0, repeat('x', 100000))"),
            format!("update {table} set n = 1"),
            format!("update {table} set id = 2"),
            format!("update {table} set code = 'b'"),
            format!("delete from {table}"),
        ] {
            execute(&client, &sql).await;
        }
    }
    execute(&client, "insert into by_nothing values (1, 'a', 0, 'x')").await;
    execute(&client, "insert into keyless values (1, 'x')").await;
    for table in ["by_nothing", "keyless"] {
        for change in [format!("update {table} set b = 'y'"), format!("delete from {table}")] {
            let change = change.replace("by_nothing set b = 'y'", "by_nothing set n = 1");
            assert_eq!(refused(&client, &change).await.code(), "55000", "{change}");
        }
    }
    expect![[r#"
        by_default insert key {"id":1} record {"big":"100000 long","code":"a","id":1,"n":0} old null unchanged []
        by_default update key {"id":1} record {"code":"a","id":1,"n":1} old null unchanged ["big"]
        by_default update key {"id":2} record {"code":"a","id":2,"n":1} old {"id":1} unchanged ["big"]
        by_default update key {"id":2} record {"code":"b","id":2,"n":1} old null unchanged ["big"]
        by_default delete key {"id":2} record null old {"id":2} unchanged []
        by_full insert key {"id":1} record {"big":"100000 long","code":"a","id":1,"n":0} old null unchanged []
        by_full update key {"id":1} record {"big":"100000 long","code":"a","id":1,"n":1} old {"big":"100000 long","code":"a","id":1,"n":0} unchanged []
        by_full update key {"id":2} record {"big":"100000 long","code":"a","id":2,"n":1} old {"big":"100000 long","code":"a","id":1,"n":1} unchanged []
        by_full update key {"id":2} record {"big":"100000 long","code":"b","id":2,"n":1} old {"big":"100000 long","code":"a","id":2,"n":1} unchanged []
        by_full delete key {"id":2} record null old {"big":"100000 long","code":"b","id":2,"n":1} unchanged []
        by_index insert key {"code":"a"} record {"big":"100000 long","code":"a","id":1,"n":0} old null unchanged []
        by_index update key {"code":"a"} record {"code":"a","id":1,"n":1} old null unchanged ["big"]
        by_index update key {"code":"a"} record {"code":"a","id":2,"n":1} old null unchanged ["big"]
        by_index update key {"code":"b"} record {"code":"b","id":2,"n":1} old {"code":"a"} unchanged ["big"]
        by_index delete key {"code":"b"} record null old {"code":"b"} unchanged []
        by_nothing insert key {"id":1} record {"big":"x","code":"a","id":1,"n":0} old null unchanged []
        keyless insert key {"a":1,"b":"x"} record {"a":1,"b":"x"} old null unchanged []
    "#]]
    .assert_eq(&lines(&events(&walmill, 17).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_that_did_not_change_is_never_null_whatever_its_type() {
    const COLUMNS: [(&str, &str); 9] = [
        ("t", "text"),
        ("j", "json"),
        ("jb", "jsonb"),
        ("b", "bytea"),
        ("ta", "text[]"),
        ("ia", "integer[]"),
        ("ja", "jsonb[]"),
        ("x", "xml"),
        ("r", "numeric"),
    ];
    const ROW: &str = "insert into TABLE
        select 1, 0, s, to_json(s), to_jsonb(s), s::bytea, array[s, null], numbers,
               array[to_jsonb(s)], ('<a>' || s || '</a>')::xml, repeat('7', 100000)::numeric
        from (select string_agg(md5(n::text), '') as s, array_agg(n) as numbers
              from generate_series(1, 3000) n) large";
    let cluster = cluster();
    let client = connect(&cluster).await;
    let columns: Vec<String> = COLUMNS.iter().map(|(name, of)| format!("{name} {of}")).collect();
    for table in ["d", "f", "i"] {
        let columns = columns.join(", ");
        execute(&client, &format!("create table {table} (id int primary key, n int, {columns})"))
            .await;
        for (name, _) in COLUMNS {
            let external = format!("alter table {table} alter {name} set storage external");
            execute(&client, &external).await;
        }
    }
    execute(
        &client,
        "create unique index by_id on i (id);
         alter table i replica identity using index by_id; alter table f replica identity full",
    )
    .await;
    let walmill = Walmill::start(CONFIG, &cluster.url()).await;
    for table in ["d", "f", "i"] {
        execute(&client, &ROW.replace("TABLE", table)).await;
        execute(&client, &format!("update {table} set n = 1")).await;
        // One of them changes, to NULL: that is told from the others.
        execute(&client, &format!("update {table} set t = null")).await;
    }
    let events = events(&walmill, 9).await;
    let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    for (table, events) in ["d", "f", "i"].into_iter().zip(events.chunks(3)) {
        let [inserted, updated, nulled] = events else { panic!("three events") };
        let whole = inserted["data"]["record"].as_object().expect("a record");
        assert!(whole.values().all(|value| !value.is_null()), "{table}");
        let (data, nulled) = (&updated["data"], &nulled["data"]);
        assert!(nulled["record"]["t"].is_null() && nulled["record"].get("t").is_some());
        if table == "f" {
            let mut expected = whole.clone();
            expected["n"] = 1.into();
            assert_eq!(data["record"], Value::Object(expected));
            assert_eq!(data["old_record"], Value::Object(whole.clone()));
            assert_eq!(
                (&data["unchanged"], &nulled["unchanged"]),
                (&Value::Array(vec![]), &Value::Array(vec![]))
            );
            assert_eq!(nulled["record"]["ia"], whole["ia"]);
        } else {
            assert_eq!(data["record"], serde_json::json!({ "id": 1, "n": 1 }), "{table}");
            assert_eq!(data["unchanged"], serde_json::json!(names), "{table}");
            assert_eq!(nulled["unchanged"], serde_json::json!(names[1..]), "{table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_equal_rows_of_a_table_without_key_are_two_events() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (a int, b text); alter table t replica identity full").await;
    let walmill = Walmill::start(CONFIG, &cluster.url()).await;
    execute(&client, "insert into t values (1, 'x'), (1, 'x'); delete from t").await;
    let events = events(&walmill, 4).await;
    expect![[r#"
        t insert key {"a":1,"b":"x"} record {"a":1,"b":"x"} old null unchanged []
        t insert key {"a":1,"b":"x"} record {"a":1,"b":"x"} old null unchanged []
        t delete key {"a":1,"b":"x"} record null old {"a":1,"b":"x"} unchanged []
        t delete key {"a":1,"b":"x"} record null old {"a":1,"b":"x"} unchanged []
    "#]]
    .assert_eq(&lines(&events));
    assert_ne!(events[2]["id"], events[3]["id"]);
}

/// The keys that an event is about, as a receiver sees them.
fn keys(event: &Value) -> Vec<i64> {
    let data = &event["data"];
    let key = data["key"]["id"].as_i64().expect("a key");
    std::iter::once(key).chain(data["old_record"]["id"].as_i64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_moves_to_another_key_is_in_order_with_both() {
    const ROUNDS: i64 = 60;
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, round int)").await;
    let (receiver, hook) = Receiver::start(3).await;
    let output = format!(
        "[[output.webhook]]\nname = \"hook\"\nstreams = [\"all\"]\nurl = \"{hook}\"\n\
         secret = \"whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\nallow_private = true\n\
         concurrency = 16\nretry = {{ initial = \"2ms\", max = \"10ms\" }}\n"
    );
    let walmill = Walmill::start(&(CONFIG.to_owned() + &output), &cluster.url()).await;
    for round in 0..ROUNDS {
        // Every row goes to the next key, from the last on; the first key is taken again.
        let sql = format!(
            "do $$ begin for k in reverse 4..1 loop
                 update t set id = k + 1 where id = k; end loop; end $$;
             delete from t where id = 5; insert into t values (1, {round})"
        );
        execute(&client, &sql).await;
    }
    let count = 60 + 56 + (59 + 58 + 57 + 56);
    let deadline = std::time::Instant::now() + PATIENCE;
    while receiver.distinct() < count {
        assert!(std::time::Instant::now() < deadline, "{} of {count}", receiver.distinct());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let order = |events: &[Value]| -> HashMap<i64, Vec<String>> {
        let mut by_key: HashMap<i64, Vec<String>> = HashMap::new();
        for event in events {
            for key in keys(event) {
                by_key.entry(key).or_default().push(event["id"].as_str().expect("an id").into());
            }
        }
        by_key
    };
    let delivered: Vec<Value> = receiver.taken().into_iter().map(|(_, event)| event).collect();
    assert_eq!(order(&delivered), order(&events(&walmill, count).await));
    let moved = delivered.iter().find(|event| event["data"]["op"] == "update").expect("an update");
    let key = moved["data"]["key"]["id"].as_i64().expect("a key");
    assert_eq!(moved["subject"], format!("public.t/{key}"));
    assert_eq!(moved["data"]["old_record"], serde_json::json!({ "id": key - 1 }));
}
