//! Supabase Realtime's own clients, from the npm registry and unmodified, of every generation.

mod browser;
mod claims;
mod client;
mod frames;
mod rooms;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio_postgres::Client as Database;
use walmill::cluster::Cluster;

use crate::support::process::Walmill;
use crate::support::{cluster, connect, execute};
use client::Client;

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.*"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[server.supabase]
streams = ["all", "all.*"]

[plugins.mask]
path = "PLUGINS/reshape.wasm"
config = { tables = ["public.members"], drop = ["secret"], rename = { nick = "name" } }

[[pipeline]]
name = "all"
tables = ["public.*"]
plugins = ["mask"]
"#;

const TABLES: &str = "
    create table todos (id bigint primary key, title text, done boolean, tags text[], meta jsonb,
                        due timestamptz, price numeric(12,2), note text);
    create table whole (id bigint primary key, title text, note text);
    alter table whole replica identity full;
    alter table whole alter note set storage external;
    alter table todos alter note set storage external;
    create table members (id int primary key, nick text, secret text);
    create table other (id int primary key);
    create table notes (id int primary key, tenant text, text text, secret text);
    create table whole_notes (id int primary key, tenant text, text text, secret text);
    alter table whole_notes replica identity full;
    create table places (id int primary key, region text, email text)";

/// PostgreSQL with tables, and a walmill that streams them.
struct Stand {
    _cluster: Cluster,
    database: Database,
    walmill: Walmill,
}

impl Stand {
    async fn start() -> Self {
        Self::with(CONFIG).await
    }

    async fn with(config: &str) -> Self {
        let cluster = cluster();
        let database = connect(&cluster).await;
        execute(&database, TABLES).await;
        execute(&database, &browser::example("schema.sql")).await;
        let walmill = Walmill::start(config, &cluster.url()).await;
        Self { _cluster: cluster, database, walmill }
    }

    async fn sql(&self, sql: &str) {
        execute(&self.database, sql).await;
    }

    /// A client of the first generation on these topics, joined.
    async fn first(&self, version: &str, topics: &[&str]) -> Client {
        let mut client =
            Client::start(version, &self.walmill.url("/socket"), &json!({ "topics": topics }));
        for topic in topics {
            assert_eq!(client.next("joined").await, *topic, "{version}");
        }
        client
    }

    /// A client of the second generation with these bindings, subscribed.
    async fn second(&self, version: &str, bindings: Value) -> Client {
        self.subscribed(version, &json!({ "bindings": bindings, "presence": false })).await
    }

    async fn subscribed(&self, version: &str, spec: &Value) -> Client {
        let path = if version == "supabase-2" { "" } else { "/realtime/v1" };
        let mut client = Client::start(version, &self.walmill.url(path), spec);
        assert_eq!(client.next("status").await, "SUBSCRIBED", "{version}");
        client
    }
}

const FIRST: [&str; 8] = [
    "realtime-0.1.8",
    "realtime-0.9.0",
    "realtime-1.0.0",
    "realtime-1.0.5",
    "realtime-1.0.6",
    "realtime-1.0.7",
    "realtime-1.3.3",
    "realtime-1.7.5",
];
const SECOND: [&str; 4] = ["realtime-2.11.15", "realtime-2.15.6", "realtime-2.119.1", "supabase-2"];
const NEWEST: &str = "realtime-2.119.1";

const MILK: &str = "insert into todos values (1, 'milk', true, '{a,b}', '{\"x\": 1}',
    '2026-02-01 10:00:00.25+00', 1.10)";

/// Without the time, which differs.
fn timeless(mut change: Value) -> Value {
    let time = change["commit_timestamp"].take();
    assert!(
        time.as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')),
        "{time}"
    );
    change.as_object_mut().expect("a change").remove("commit_timestamp");
    change
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_generation_hears_every_change_in_its_own_words() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let mut clients = BTreeMap::new();
    for version in FIRST {
        clients.insert(version, stand.first(version, &["realtime:public:todos"]).await);
    }
    stand.sql(MILK).await;
    stand.sql("update todos set title = 'tea'; delete from todos; truncate todos").await;
    let column = |name: &str, kind: &str, modifier: u32, flags: Value| json!({ "name": name, "type": kind, "type_modifier": modifier, "flags": flags });
    let columns = json!([
        column("id", "int8", u32::MAX, json!(["key"])),
        column("title", "text", u32::MAX, json!([])),
        column("done", "bool", u32::MAX, json!([])),
        column("tags", "_text", u32::MAX, json!([])),
        column("meta", "jsonb", u32::MAX, json!([])),
        column("due", "timestamptz", u32::MAX, json!([])),
        column("price", "numeric", 786_438, json!([])),
        column("note", "text", u32::MAX, json!([])),
    ]);
    let record = |title: &str| {
        json!({ "id": "1", "title": title, "done": "t", "tags": "{a,b}", "meta": "{\"x\": 1}",
                "due": "2026-02-01 10:00:00.25+00", "price": "1.10", "note": null })
    };
    let head = |kind: &str| json!({ "type": kind, "schema": "public", "table": "todos" });
    let with = |kind: &str, rest: Value| {
        let mut change = head(kind);
        change
            .as_object_mut()
            .expect("an object")
            .extend(rest.as_object().expect("an object").clone());
        change
    };
    for (version, client) in &mut clients {
        let expected = [
            with("INSERT", json!({ "columns": columns, "record": record("milk") })),
            with(
                "UPDATE",
                json!({ "columns": columns, "record": record("tea"), "old_record": {} }),
            ),
            with("DELETE", json!({ "columns": [columns[0]], "old_record": { "id": "1" } })),
            head("TRUNCATE"),
        ];
        for expected in expected {
            // The classes that came with 1.0.6 read the texts by the columns' types.
            let change = timeless(client.next("change").await);
            match change["record"]["id"].is_number() || change["old_record"]["id"].is_number() {
                true => assert_eq!(change["type"], expected["type"], "{version}"),
                false => assert_eq!(change, expected, "{version}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_generation_chooses_by_topic() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    for (version, topic, heard) in [
        ("realtime-0.9.0", "realtime:*", vec!["todos", "other", "todos"]),
        ("realtime-0.1.8", "realtime:public", vec!["todos", "other", "todos"]),
        ("realtime-1.7.5", "realtime:public:other", vec!["other"]),
        ("realtime-1.7.5", "realtime:public:todos:title=eq.b:c,d=e", vec!["todos"]),
    ] {
        let mut client = stand.first(version, &[topic]).await;
        stand
            .sql(
                "insert into todos (id, title) values (1, 'a'); insert into other values (1);
                 insert into todos (id, title) values (2, 'b:c,d=e')",
            )
            .await;
        for table in heard {
            assert_eq!(client.next("change").await["table"], table, "{topic}");
        }
        stand.sql("delete from todos; delete from other").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn supabase_js_of_the_first_generation_subscribes_to_a_table() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let spec = json!({ "tables": ["todos"], "event": "INSERT" });
    let mut client = Client::start("supabase-1", &stand.walmill.url(""), &spec);
    assert_eq!(client.next("status").await, "SUBSCRIBED");
    stand.sql(MILK).await;
    let change = client.next("change").await;
    assert_eq!(change["eventType"], "INSERT");
    assert_eq!(change["new"]["id"], 1);
    assert_eq!(change["new"]["tags"], json!(["a", "b"]));
    assert_eq!(change["new"]["meta"], json!({ "x": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_generation_hears_every_change_with_json_values() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let mut clients = BTreeMap::new();
    for version in SECOND {
        let bindings = json!([{ "event": "*", "schema": "public", "table": "todos" }]);
        clients.insert(version, stand.second(version, bindings).await);
    }
    stand.sql(MILK).await;
    stand.sql("update todos set title = 'tea'; update todos set id = 2; delete from todos").await;
    let row = |id: u32, title: &str| {
        json!({ "id": id, "title": title, "done": true, "tags": ["a", "b"], "meta": { "x": 1 },
                "due": "2026-02-01T10:00:00.25+00:00", "price": 1.1, "note": null })
    };
    let change = |kind: &str, new: Value, old: Value| {
        json!({ "schema": "public", "table": "todos", "eventType": kind, "new": new, "old": old,
                "errors": null })
    };
    for (version, client) in &mut clients {
        for expected in [
            change("INSERT", row(1, "milk"), json!({})),
            change("UPDATE", row(1, "tea"), json!({ "id": 1 })),
            change("UPDATE", row(2, "tea"), json!({ "id": 1 })),
            change("DELETE", json!({}), json!({ "id": 2 })),
        ] {
            assert_eq!(timeless(client.next("change").await), expected, "{version}");
        }
        assert_eq!(client.next("system").await["message"], "Subscribed to PostgreSQL");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_choose_by_event_table_and_filter() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let on = |event: &str, name: &str, filter: &str| json!({ "as": name, "event": event, "schema": "public", "table": "todos", "filter": filter });
    let bindings = json!([
        { "as": "schema", "event": "INSERT", "schema": "public" },
        { "as": "everything", "event": "*", "schema": "*" },
        on("INSERT", "eq", "title=eq.b"),
        on("*", "neq", "title=neq.b"),
        on("*", "lt", "id=lt.2"),
        on("*", "lte", "price=lte.9.99"),
        on("*", "gt", "price=gt.9.99"),
        on("*", "gte", "due=gte.2026-02-01"),
        on("*", "in", "title=in.(b,c)"),
        on("*", "like", "title=like.%x%"),
        on("*", "ilike", "title=ilike.B%"),
        on("*", "match", "title=match.^(a|b)$"),
        on("*", "is", "done=is.true"),
        on("*", "not", "title=not.in.(b,c)"),
        on("*", "both", "id=gt.1,title=eq.b"),
        on("*", "or", "or=(title.eq.b,price.lt.10)"),
        on("*", "or-and", "id=gt.0,or=(id.eq.9,and(title.eq.b,done.is.true))"),
        on("*", "not-or", "not.or=(title.eq.b,id.eq.7)"),
        on("*", "imatch", "title=imatch.^B$"),
        on("*", "distinct", "done=isdistinct.true"),
        on("DELETE", "deleted", "id=eq.2"),
        on("DELETE", "unknown", "title=eq.b"),
    ]);
    let mut client = stand.second(NEWEST, bindings).await;
    stand
        .sql(
            "insert into todos (id, title, price, due, done) values (1, 'a', 9.99, '2026-01-31', null);
             insert into todos (id, title, price, due, done) values (2, 'b', 10, '2026-02-01', true);
             delete from todos where id = 2; insert into other values (9)",
        )
        .await;
    let mut heard = BTreeMap::<String, Vec<String>>::new();
    // The last thing that happens is heard by two.
    while heard.get("everything").is_none_or(|all| all.len() < 4) || heard["schema"].len() < 3 {
        let change = client.next("change").await;
        let row = if change["eventType"] == "DELETE" { &change["old"] } else { &change["new"] };
        let kind = &change["eventType"].as_str().expect("a type")[..1];
        let name = change["as"].as_str().expect("a name").to_owned();
        heard.entry(name).or_default().push(format!("{kind}{}", row["id"]));
    }
    let expected = [
        ("schema", "I1 I2 I9"),
        ("everything", "I1 I2 D2 I9"),
        ("eq", "I2"),
        ("neq", "I1"),
        ("lt", "I1"),
        ("lte", "I1"),
        ("gt", "I2"),
        ("gte", "I2"),
        ("in", "I2"),
        ("ilike", "I2"),
        ("match", "I1 I2"),
        ("is", "I2"),
        ("not", "I1"),
        ("both", "I2"),
        ("or", "I1 I2"),
        ("or-and", "I2"),
        ("not-or", "I1"),
        ("imatch", "I2"),
        ("distinct", "I1"),
        ("deleted", "D2"),
    ];
    let expected: BTreeMap<String, Vec<String>> = expected
        .map(|(name, all)| (name.into(), all.split(' ').map(str::to_owned).collect()))
        .into();
    assert_eq!(heard, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_none_is_told_behind_the_answer() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let binding = json!([{ "event": "*", "schema": "public", "table": "todos", "filter": "id=5" }]);
    let mut client = stand.second(NEWEST, binding).await;
    let system = client.next("system").await;
    assert_eq!(system["status"], "error");
    assert!(system["message"].as_str().is_some_and(|m| m.contains("column=operator.value")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_sees_what_the_pipeline_s_plugins_made() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let binding = json!([{ "event": "*", "schema": "public", "table": "members" }]);
    let mut client = stand.second(NEWEST, binding).await;
    stand.sql("insert into members values (1, 'ann', 'hidden')").await;
    assert_eq!(client.next("change").await["new"], json!({ "id": 1, "name": "ann" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_not_sent_again_is_taken_from_the_old_row_or_absent() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let binding = json!([{ "event": "UPDATE", "schema": "public" }]);
    let mut client = stand.second(NEWEST, binding).await;
    stand
        .sql(
            "insert into todos (id, note) values (1, repeat('x', 9000)); update todos set title = 'b';
             insert into whole values (1, 'a', repeat('x', 9000)); update whole set title = 'b'",
        )
        .await;
    let change = client.next("change").await;
    assert_eq!(change["table"], "todos");
    assert_eq!((&change["new"]["title"], change["new"].get("note")), (&json!("b"), None));
    let change = client.next("change").await;
    assert_eq!(change["new"]["note"], "x".repeat(9000));
    assert_eq!(change["old"]["title"], "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_columns_are_all_that_comes() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let binding =
        json!([{ "event": "*", "schema": "public", "table": "todos", "select": ["id", "title"] }]);
    let mut client = stand.second(NEWEST, binding).await;
    stand.sql(MILK).await;
    assert_eq!(client.next("change").await["new"], json!({ "id": 1, "title": "milk" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_of_ten_thousand_rows_arrives_whole() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let binding = json!([{ "event": "INSERT", "schema": "public", "table": "other" }]);
    let mut client = stand.second(NEWEST, binding).await;
    stand.sql("insert into other select generate_series(1, 10000)").await;
    for id in 1..=10_000 {
        assert_eq!(client.next("change").await["new"]["id"], id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_hears_no_more_and_may_come_again() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let binding = json!([{ "event": "INSERT", "schema": "public", "table": "other" }]);
    let mut leaving = stand.second(NEWEST, binding.clone()).await;
    let mut staying = stand.second(NEWEST, binding).await;
    leaving.act(&json!({ "act": "leave" })).await;
    assert_eq!(leaving.next("leave").await, "ok");
    stand.sql("insert into other values (1)").await;
    assert_eq!(staying.next("change").await["new"]["id"], 1);
    assert_eq!(leaving.heard("change"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_made_resumable_misses_nothing_while_walmill_is_away() {
    if client::skipped() {
        return;
    }
    let mut stand = Stand::start().await;
    let bindings = json!([{ "event": "INSERT", "schema": "public", "table": "other" }]);
    let spec = json!({ "bindings": bindings, "presence": false, "resumable": true });
    let mut clients = Vec::new();
    for version in [NEWEST, "supabase-2"] {
        clients.push(stand.subscribed(version, &spec).await);
    }
    stand.sql("insert into other values (1)").await;
    for client in &mut clients {
        assert_eq!(client.next("change").await["new"]["id"], 1);
    }
    stand.walmill.kill();
    stand.sql("insert into other values (2); insert into other values (3)").await;
    stand.walmill.launch();
    for client in &mut clients {
        assert_eq!(client.next("change").await["new"]["id"], 2);
        assert_eq!(client.next("change").await["new"]["id"], 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_streams_there_is_nothing_at_their_addresses() {
    let config = CONFIG.replace("streams = [\"all\", \"all.*\"]", "streams = []");
    let stand = Stand::with(&config).await;
    for path in ["/socket/websocket", "/realtime/v1/websocket"] {
        let answer = reqwest::get(stand.walmill.url(path)).await.expect("an answer");
        assert_eq!(answer.status(), 404, "{path}");
        let text = answer.text().await.expect("a body");
        assert!(text.contains("[server.supabase] streams"), "{text}");
    }
}
