//! Every kind of value, from a real table through the source, the journal, a pipeline and a stream
//! into an event's JSON and back into SQL; and docs/values.md, which says what they look like.

pub mod echo;
mod encodings;
mod identity;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::Client;
use walmill::metrics::Metrics;
use walmill::model::{Kind, RelationId};
use walmill::store::{self, Store};

use crate::support::process::{PATIENCE, Walmill};
use crate::support::{cluster, connect, execute};

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.v*"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[plugins.filter]
path = "PLUGINS/filter.wasm"
config = { where = "value is null or not (value is null)" }

[plugins.echo]
path = "echo.wasm"
limits = { memory = "256MiB" }

[[pipeline]]
name = "plain"
tables = ["public.v*"]

[[pipeline]]
name = "filtered"
tables = ["public.v*"]
plugins = ["filter"]

[[pipeline]]
name = "echoed"
tables = ["public.v*"]
plugins = ["echo"]
"#;

/// Settings that a role or a database may have, and that must not matter.
const HOSTILE: &str = "
    alter role postgres set datestyle = 'German, DMY';
    alter role postgres set extra_float_digits = 0;
    alter role postgres set bytea_output = 'escape';
    alter role postgres set intervalstyle = 'sql_standard';
    alter role postgres set client_encoding = 'LATIN1';
    alter role postgres set statement_timeout = '1ms';
    alter role postgres set lock_timeout = '1ms';
    alter role postgres set default_transaction_read_only = on;
    alter role postgres set quote_all_identifiers = on;
    alter role postgres set array_nulls = off;
    alter role postgres set xmloption = 'content';
    alter role postgres set standard_conforming_strings = off;
    alter database postgres set search_path = 'nowhere', 'public';
    alter database postgres set timezone = 'Asia/Tokyo';
    alter database postgres set default_text_search_config = 'simple'";

/// What the documentation's examples leave out, as SQL.
const FURTHER: &[&str] = &[
    "(-32768)::smallint",
    "(-9223372036854775808)::bigint",
    "9223372036854775807::bigint",
    "'-0'::float8",
    "'5e-324'::float8",
    "'1.7976931348623157e308'::float8",
    "'NaN'::float8",
    "'Infinity'::float8",
    "1e-7::float4",
    "16777217::float8",
    "1e-100::numeric",
    "('1' || repeat('0', 500) || '.' || repeat('0', 499) || '7')::numeric",
    "100::numeric(5,-2)",
    "'-Infinity'::numeric",
    "(-92233720368547758.08)::money",
    "''::text",
    "'NULL'::text",
    "'\\N'::text",
    "E'\\x01\\x02\\b\\f\\n\\r\\t\\x1b\\x7f'::text",
    "U&'\\2028\\2029\\FEFF\\+10FFFF\\0065\\0301'::text",
    "repeat('0123456789abcdé ', 65536)::text",
    "'  x '::varchar(10)",
    "''::\"char\"",
    "repeat('n', 63)::name",
    "''::bytea",
    "'\\x00'::bytea",
    "decode(repeat('00ff5c22', 25000), 'hex')",
    "'-infinity'::date",
    "'infinity'::date",
    "'4713-11-24 BC'::date",
    "'5874897-12-31'::date",
    "'00:00:00.000001'::time",
    "'24:00:00-15:59:59'::timetz",
    "'4714-11-24 00:00:00 BC'::timestamp",
    "'1999-12-31 23:59:59.999999+14'::timestamptz",
    "'-infinity'::timestamp",
    "'0001-01-01 00:00:00+00'::timestamptz",
    "'-178000000 years 11 mons 0.000001 secs'::interval",
    "'00:00:00'::interval",
    "'\"\\ud83d\\ude00\"'::json",
    "E'{\\n  \"a\" :\\r\\n [ 1 , 2 ]\\t}'::json",
    "'null'::jsonb",
    "('[' || repeat('[', 500) || repeat(']', 500) || ']')::json",
    "'1e400'::json",
    "'{\"n\": 0.1234567890123456789012345678901234567890}'::jsonb",
    "'::ffff:1.2.3.0/120'::inet",
    "'10.0.0.0/8'::cidr",
    "'08:00:2b:01:02:03'::macaddr",
    "b'1'::varbit",
    "''::varbit",
    "'<?xml version=\"1.0\"?><a/>'::xml",
    "''::tsvector",
    "'''a b'':1,2'::tsvector",
    "'{1,2,3}'::line",
    "'[(0,0),(1,1)]'::lseg",
    "'((0,0),(Infinity,1))'::path",
    "'((0,0),(1,1),(2,0))'::polygon",
    "'<(0,0),1e-300>'::circle",
    "'empty'::int4range",
    "'(,)'::numrange",
    "'[\"a,b\",\"c\\\"d\")'::text_range",
    "'{}'::datemultirange",
    "'0/0'::pg_lsn",
    "'10:20:'::txid_snapshot",
    "'public.w_0'::regclass",
    "'regclass'::regtype",
    "'{}'::integer[]",
    "'{}'::text[]",
    "'[-2:-1][3:4]={{1,2},{NULL,4}}'::integer[]",
    "array[array['a','b'], array['c\\d','e\"f']]",
    "array[e'\\x01', U&'\\2028', ' ', 'null', 'NULL', 'ü']",
    "array['\\x00ff'::bytea, '']",
    "'{NaN,Infinity,-0,1e-05}'::float8[]",
    "'{1,2}'::oid[]",
    "'{18446744073709551615}'::xid8[]",
    "array['{\"a\": \"\\\\u0000, }\"}'::json, '[]']",
    "array['[1,2)'::int4range, 'empty', null]",
    "array['{[1,2)}'::int4multirange]",
    "array['1 day'::interval, '-1 mon']",
    "array['24:00:00'::time]",
    "array['A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid]",
    "array['(1,2)'::point]",
    "array['1 2'::int2vector]",
    "array['ab'::char(4)]",
    "array['x'::\"char\"]",
    "array['<a/>'::xml]",
    "array[1::money]",
    "array['2001:db8::1'::inet]",
    "array[b'01']",
    "array['infinity'::timestamp, '0044-03-15 00:00:00 BC']",
    "row(null, '')::pair",
    "array[row(null, null)::pair, null]",
    "'{}'::mood[]",
    "array[array['ok'::mood], array['so, so'::mood]]",
    "'[1,9223372036854775807)'::int8range",
    "'[2026-01-01 10:00,infinity]'::tsrange",
    "'(2026-01-01 10:00+05:30,)'::tstzrange",
    "'{[1,2)}'::int8multirange",
    "'{[0.10,NaN]}'::nummultirange",
    "'{[2026-01-01,2026-01-02)}'::tsmultirange",
    "'{[2026-01-01,2026-01-02)}'::tstzmultirange",
    "'735'::xid",
    "'7'::cid",
    "'1 2'::oidvector",
    "'postgres=r/postgres'::aclitem",
    "'portal'::refcursor",
    "'pg_catalog.now'::regproc",
    "'pg_catalog.abs(integer)'::regprocedure",
    "'pg_catalog.||/'::regoper",
    "'pg_catalog.+(integer,integer)'::regoperator",
    "'public.mood'::regtype",
    "'english'::regconfig",
    "'simple'::regdictionary",
    "'pg_catalog'::regnamespace",
    "'postgres'::regrole",
    "'\"C\"'::regcollation",
    "true",
    "1::integer",
    "1::oid",
    "''::short",
    "'2026-02-01'::day",
];

/// Microseconds since 1970 that 64 bits do not hold: to a plugin they are text, which is not what
/// it may hand back as a timestamp.
const LATE: &[&str] = &[
    "'294276-12-31 23:59:59.999999'::timestamp",
    "'294276-12-31 23:59:59.999999+00'::timestamptz",
];

const FURTHER_TYPES: &str = "
    create type text_range as range (subtype = text);
    create domain short as varchar(3);
    create domain day as date";

/// A row of the table in the documentation.
struct Documented {
    line: usize,
    tag: String,
    sql: String,
    json: String,
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/values.md")
}

/// The SQL that the examples stand on, and the examples.
fn documented() -> (String, Vec<Documented>) {
    let text = std::fs::read_to_string(path()).expect("docs/values.md");
    let types = text.split("```sql").nth(1).and_then(|rest| rest.split("```").next());
    let example = |(line, text): (usize, &str)| {
        let cells: Vec<&str> = text.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
        let [_, _, tag, _, example] = cells[..] else { return None };
        let (sql, json) = example.trim().split_once("` → `")?;
        let (sql, json) = (sql.strip_prefix('`')?.into(), json.strip_suffix('`')?.into());
        let tag = tag.trim().into();
        Some(Documented { line, tag, sql, json })
    };
    let examples: Vec<Documented> = text.lines().enumerate().filter_map(example).collect();
    assert!(examples.len() > 60, "only {} examples read", examples.len());
    (types.expect("the types").into(), examples)
}

/// `UPDATE_EXPECT=1`: the documentation says what came out.
fn update(examples: &[Documented], came: &BTreeMap<usize, String>) {
    let text = std::fs::read_to_string(path()).expect("docs/values.md");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (at, example) in examples.iter().enumerate() {
        let (head, _) = lines[example.line].rsplit_once("` → `").expect("an example");
        if let Some(json) = came.get(&at) {
            lines[example.line] = format!("{head}` → `{json}` |");
        }
    }
    std::fs::write(path(), lines.join("\n") + "\n").expect("write docs/values.md");
}

/// An event, as far as a test looks into it; values stay the text that they are.
#[derive(Debug, Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Debug, Deserialize)]
struct Data<'a> {
    table: &'a str,
    #[serde(borrow)]
    record: Record<'a>,
}

#[derive(Debug, Deserialize)]
struct Record<'a> {
    id: u32,
    #[serde(borrow)]
    value: &'a RawValue,
}

#[derive(Debug, Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    events: Vec<Event<'a>>,
    next: String,
}

/// The values in a stream, by table and row, once there are so many.
async fn values(walmill: &Walmill, stream: &str, count: usize) -> BTreeMap<(String, u32), String> {
    let mut found = BTreeMap::new();
    let mut after = "earliest".to_owned();
    let deadline = std::time::Instant::now() + PATIENCE;
    while found.len() < count {
        assert!(
            std::time::Instant::now() < deadline,
            "{} of {count} in {stream}\n{}\n{}",
            found.len(),
            walmill.log(),
            walmill.text("/api/v1/dlq?limit=3").await
        );
        let text =
            walmill.text(&format!("/v1/streams/{stream}/events?after={after}&wait=1s")).await;
        let page: Page<'_> = serde_json::from_str(&text).expect("a page of events with values");
        for Event { data: Data { table, record } } in page.events {
            found.insert((table.to_owned(), record.id), record.value.get().to_owned());
        }
        after = page.next;
    }
    found
}

/// A JSON value as PostgreSQL would read it; `None` for null.
fn as_sql(json: &str, kind: Kind) -> Option<String> {
    match kind {
        Kind::Json => Some(json.to_owned()),
        Kind::Array(element) => Some(as_array(json, element)),
        _ => as_scalar(json),
    }
}

fn as_scalar(json: &str) -> Option<String> {
    match json.as_bytes() {
        b"null" => None,
        [b'"', ..] => Some(serde_json::from_str(json).expect("a string")),
        _ => Some(json.to_owned()),
    }
}

fn as_array(json: &str, element: walmill::model::relation::Element) -> String {
    use walmill::model::relation::Element;
    let items: Vec<&RawValue> = serde_json::from_str(json).expect("an array");
    let delimiter = match element {
        Element::Delimited(delimiter) => char::from(delimiter),
        _ => ',',
    };
    let mut text = String::from("{");
    for (at, item) in items.iter().map(|item| item.get()).enumerate() {
        if at > 0 {
            text.push(delimiter);
        }
        // Only arrays of one dimension are made of JSON here.
        let plain = match element {
            Element::Json if item == "null" => None,
            Element::Json => Some(item.to_owned()),
            _ if item.starts_with('[') => {
                text.push_str(&as_array(item, element));
                continue;
            }
            _ => as_scalar(item),
        };
        match plain {
            None => text.push_str("NULL"),
            Some(plain) => {
                let quoted = plain.replace('\\', "\\\\").replace('"', "\\\"");
                write!(text, "\"{quoted}\"").expect("memory");
            }
        }
    }
    text + "}"
}

/// The type of the column `value`.
async fn type_of(client: &Client, table: &str) -> String {
    let query = "select format_type(atttypid, atttypmod) from pg_attribute
                 where attrelid = $1::text::regclass and attname = 'value'";
    client.query_one(query, &[&table]).await.expect(query).get(0)
}

/// Whether a value, cast to the column's type, is what stands in the database. Bounds of arrays and
/// line breaks of JSON are the two things that events leave out.
async fn is_the_same(client: &Client, table: &str, sql: &Option<String>) -> bool {
    let of = type_of(client, table).await;
    // What the type's output function says, which a cast to text does not always.
    let plain = |value: &str| {
        let text = format!("format('%s', {value})");
        let unbound = format!("regexp_replace({text}, '^(\\[[-0-9]+:[-0-9]+\\])+=', '')");
        match of.starts_with("json") {
            true => format!("translate({text}, E'\\n\\r', '  ')"),
            false => unbound,
        }
    };
    let query = format!(
        "select {} is not distinct from {} from {table} where id = 1",
        plain(&format!("$1::text::{of}")),
        plain("value"),
    );
    match client.query_one(&query, &[sql]).await {
        Ok(row) => row.get(0),
        Err(error) => panic!("{table} {of} {sql:?}: {error:?}"),
    }
}

fn tag(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "boolean",
        Kind::Int => "integer",
        Kind::Float => "float",
        Kind::Timestamp | Kind::TimestampTz => "timestamp",
        Kind::Date => "date",
        Kind::Time => "time",
        Kind::Text => "text",
        Kind::Numeric => "numeric",
        Kind::Json => "json",
        Kind::Bytea => "bytea",
        Kind::Uuid => "uuid",
        Kind::Array(_) => "array",
    }
}

/// The kind of the column `value` in each table, as the journal knows it.
fn kinds(walmill: &Walmill) -> BTreeMap<String, Kind> {
    let config = store::Config { path: walmill.folder().join("data"), ..Default::default() };
    let store = Store::open(&config, Arc::new(Metrics::new())).expect("open the store");
    let relations = (1..).map_while(|id| store.relation(RelationId(id)).expect("read"));
    let kinds = relations.map(|relation| (relation.table.clone(), relation.columns[1].kind));
    let kinds = kinds.collect();
    store.close().expect("close the store");
    kinds
}

/// A type that PostgreSQL has and the examples do not is told by its name. Left out are those of
/// which there is no value but the server's own.
async fn every_builtin_type_is_there(client: &Client) {
    let query = "select coalesce(string_agg(t.oid::regtype::text, ', '), '') from pg_type t
        where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype in ('b', 'r', 'm')
        and not exists (select from pg_type e where e.typarray = t.oid)
        and t.typname not in ('unknown', 'gtsvector', 'pg_node_tree', 'pg_ndistinct',
            'pg_dependencies', 'pg_mcv_list', 'pg_brin_bloom_summary',
            'pg_brin_minmax_multi_summary')
        and not exists (select from pg_attribute a join pg_class c on c.oid = a.attrelid
            where c.relname like 'v\\_%' and a.attname = 'value' and a.atttypid in (t.oid, t.typarray))";
    let missing: String = client.query_one(query, &[]).await.expect(query).get(0);
    assert_eq!(missing, "", "of these types there is no example");
}

/// The extension that an example needs, where it is not installed.
async fn missing_extension(client: &Client, sql: &str) -> bool {
    for extension in ["hstore", "citext", "ltree"] {
        if !sql.ends_with(&format!("::{extension}")) {
            continue;
        }
        let create = format!("create extension if not exists {extension}");
        if client.batch_execute(&create).await.is_err() {
            eprintln!("skipped: the extension {extension} is not installed here");
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_comes_out_as_documented_and_goes_back_in_as_it_was() {
    let (types, examples) = documented();
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, &types).await;
    execute(&client, FURTHER_TYPES).await;
    let further = FURTHER.iter().chain(LATE).map(|sql| (*sql).to_owned());
    let all: Vec<String> = examples.iter().map(|e| e.sql.clone()).chain(further).collect();
    let mut made = Vec::new();
    for (at, sql) in all.iter().enumerate() {
        if missing_extension(&client, sql).await {
            continue;
        }
        execute(&client, &format!("create table w_{at} as select {sql} as value")).await;
        let create = format!(
            "create table v_{at} (id integer primary key, value {})",
            type_of(&client, &format!("w_{at}")).await
        );
        execute(&client, &create).await;
        made.push(at);
    }
    every_builtin_type_is_there(&client).await;
    execute(&client, HOSTILE).await;
    let mut walmill = Walmill::prepare(CONFIG, &cluster.url());
    std::fs::write(walmill.folder().join("echo.wasm"), echo::plugin()).expect("write");
    walmill.launch();
    walmill.ready().await;
    for at in &made {
        execute(
            &client,
            &format!(
                "insert into v_{at} select 1, value from w_{at}; insert into v_{at} values (2)"
            ),
        )
        .await;
    }
    let plain = values(&walmill, "plain", 2 * made.len()).await;
    let filtered = values(&walmill, "filtered", 2 * made.len()).await;
    let mut echoed = values(&walmill, "echoed", 2 * made.len() - LATE.len()).await;
    assert_eq!(filtered, plain);
    walmill.terminate();
    let kinds = kinds(&walmill);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let came = |at: &usize| (*at, plain[&(format!("v_{at}"), 1)].clone());
        update(&examples, &made.iter().map(came).collect());
    }
    let mut faults = Vec::new();
    for &at in &made {
        let (table, sql) = (format!("v_{at}"), &all[at]);
        let (json, kind) = (&plain[&(table.clone(), 1)], kinds[&table]);
        if LATE.contains(&sql.as_str()) {
            assert_eq!(echoed.insert((table.clone(), 1), json.clone()), None);
        }
        if let Some(example) = examples.get(at) {
            if *json != example.json {
                faults.push(format!("{sql}: {json}, documented as {}", example.json));
            }
            let documented = example.tag.as_str();
            if documented != tag(kind) && documented != "as the type below it" {
                faults.push(format!("{sql}: tag {}, documented as {documented}", tag(kind)));
            }
        }
        if plain[&(table.clone(), 2)] != "null" || echoed[&(table.clone(), 2)] != "null" {
            faults.push(format!("{sql}: NULL is not null"));
        }
        for (way, json) in [("straight", json), ("echoed", &echoed[&(table.clone(), 1)])] {
            if !is_the_same(&client, &table, &as_sql(json, kind)).await {
                let json: String = json.chars().take(200).collect();
                faults.push(format!("{sql}: {json} is another value ({way})"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
