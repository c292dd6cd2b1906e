//! Fixed work on the way of a row, from the socket's bytes to the reader's place: each piece is
//! what the running program does, through the doors that tests use, on the thread that calls.
//!
//! Two benchmarks share it: `rows` times it, `instructions` counts its instructions.

pub mod subscribers;

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use walmill::metrics::Metrics;
use walmill::model::{Column, Kind, Relation, ReplicaIdentity};
use walmill::pipeline::boundary::Boundary;
use walmill::pipeline::fuzz;
use walmill::plugin::golden::CaseTable;
use walmill::plugin::registry::load_alone;
use walmill::plugin::{Config, Engine};
use walmill::source::fuzz::receive;
use walmill::store::{self, Store};

/// Rows in one round of every workload.
pub const ROWS: usize = 10_000;
const ROWS_IN_TRANSACTION: usize = 100;
/// The table of `walmill bench`: a column as a golden case names it, its type's OID and kind.
const COLUMNS: [(&str, u32, Kind); 10] = [
    ("id int8 key", 20, Kind::Int),
    ("age int4", 23, Kind::Int),
    ("balance numeric(12,2)", 1700, Kind::Numeric),
    ("name text", 25, Kind::Text),
    ("email text", 25, Kind::Text),
    ("country text", 25, Kind::Text),
    ("note text", 25, Kind::Text),
    ("active bool", 16, Kind::Bool),
    ("created_at timestamptz", 1184, Kind::TimestampTz),
    ("profile jsonb", 3802, Kind::Json),
];

/// A piece of work: one call is one round, over [`ROWS`] rows.
pub type Round = Box<dyn FnMut()>;

/// A piece of work's name and how it is made ready; `None` where something is missing.
pub type Workload = (&'static str, fn() -> Option<Round>);

/// All of them.
pub const WORKLOADS: [Workload; 4] =
    [("decode", decode), ("encode", encode), ("plugin", plugin), ("index", index)];

/// From the replication connection's bytes to the journal's blocks.
fn decode() -> Option<Round> {
    let (bytes, folder) = (stream(), folder());
    Some(Box::new(move || {
        let blocks = receive(&bytes, folder.path()).expect("a stream");
        assert!(!blocks.is_empty());
    }))
}

/// From the journal's blocks to events in JSON.
fn encode() -> Option<Round> {
    let (folder, store) = open_store();
    // The blocks know the table by the number of its definition, and so must the store.
    store.intern_relation(&relation()).expect("a relation");
    let spills = folder.path().join("spills");
    let blocks = receive(&stream(), &spills).expect("a stream");
    Some(Box::new(move || {
        let _kept = &folder;
        let events = blocks.iter().map(|block| {
            let events = fuzz::events(&store, block.clone()).expect("a block of this journal");
            events.count as usize
        });
        assert_eq!(events.sum::<usize>(), ROWS);
    }))
}

/// Through a plugin that masks a column and drops one, in calls of 256.
fn plugin() -> Option<Round> {
    let path = std::env::var_os("WALMILL_PLUGINS").map_or("target/plugins".into(), PathBuf::from);
    let path = path.join("reshape.wasm");
    if !path.is_file() {
        eprintln!("skipped: {} is not there; scripts/build-plugins makes it", path.display());
        return None;
    }
    let text = format!(
        "path = '{}'\nconfig = {{ mask = {{ email = 'email' }}, drop = ['profile'] }}",
        path.display()
    );
    let config: Config = toml::from_str(&text).expect("a plugin's config");
    let engine = Engine::new(None).expect("an engine");
    let plugin = load_alone(&engine, "guest", config).expect("a plugin");
    let (folder, store) = open_store();
    let columns = COLUMNS.map(|(column, ..)| column.to_owned()).to_vec();
    let table = CaseTable { table: "public.people".into(), columns };
    let relation = table.bind(false).expect("a table");
    let value = |row, column| Some(value(row, column));
    let mut rows = Boundary::new(plugin, store, &relation, ROWS, value);
    Some(Box::new(move || {
        let _kept = &folder;
        let counts = rows.run(256).expect("an answer");
        assert_eq!(counts.emitted, ROWS as u64);
    }))
}

/// Each event finds ten of 100,000 subscribers.
fn index() -> Option<Round> {
    let (mut index, event, mut found) = (subscribers::many(), subscribers::event(), Vec::new());
    Some(Box::new(move || {
        for _ in 0..ROWS {
            assert_eq!(index.find(&event, &mut found).map(<[usize]>::len), Some(10));
        }
    }))
}

/// A value as PostgreSQL writes it.
fn value(row: usize, column: usize) -> Vec<u8> {
    let text = match column {
        0 => row.to_string(),
        1 => (row % 90).to_string(),
        2 => format!("{}.50", row % 1000),
        3 => format!("Name {row}"),
        4 => format!("user{row}@example.com"),
        5 => ["NZ", "DE", "US", "JP"][row % 4].into(),
        6 => "note ".repeat(8),
        7 => "t".into(),
        8 => "2026-11-24 03:07:13.25+00".into(),
        _ => format!("{{\"a\": {row}, \"b\": \"{}\"}}", "x".repeat(80)),
    };
    text.into_bytes()
}

/// What a server sends of [`ROWS`] inserts.
fn stream() -> Vec<u8> {
    let mut table = [&b"R"[..], &7_u32.to_be_bytes(), b"public\0people\0d\0\x0a"].concat();
    for (column, oid, _) in COLUMNS {
        let (name, key) = (name(column), u8::from(column.ends_with(" key")));
        table.extend([&[key], name.as_bytes(), &[0], &oid.to_be_bytes(), &[0xff; 4]].concat());
    }
    let mut bytes = sent(&table);
    for (number, first) in (1_u64..).zip((0..ROWS).step_by(ROWS_IN_TRANSACTION)) {
        let (lsn, time) = ((number * 1000).to_be_bytes(), [0; 8]);
        bytes.extend(sent(&[&b"B"[..], &lsn, &time, &[0, 0, 0, 9]].concat()));
        (first..first + ROWS_IN_TRANSACTION).for_each(|row| bytes.extend(sent(&insert(row))));
        bytes.extend(sent(&[&b"C\0"[..], &lsn, &lsn, &time].concat()));
    }
    bytes
}

fn insert(row: usize) -> Vec<u8> {
    let mut message = [&b"I"[..], &7_u32.to_be_bytes(), b"N\0\x0a"].concat();
    for column in 0..COLUMNS.len() {
        let value = value(row, column);
        let len = u32::try_from(value.len()).expect("a short value");
        message.extend([&b"t"[..], &len.to_be_bytes(), &value].concat());
    }
    message
}

/// A message of a replication stream as a server sends it.
fn sent(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(4 + 25 + message.len()).expect("a short message");
    [&b"d"[..], &len.to_be_bytes(), b"w", &[0; 24], message].concat()
}

fn name(column: &str) -> &str {
    column.split(' ').next().unwrap_or_default()
}

fn relation() -> Relation {
    let column = |(column, type_oid, kind): (&str, u32, Kind)| Column {
        name: name(column).into(),
        type_oid,
        type_mod: -1,
        type_name: column.split(' ').nth(1).unwrap_or_default().into(),
        kind,
        key: column.ends_with(" key"),
    };
    Relation {
        oid: 7,
        schema: "public".into(),
        table: "people".into(),
        identity: ReplicaIdentity::Default,
        columns: COLUMNS.map(column).into(),
    }
}

/// An empty store.
pub fn open_store() -> (TempDir, Store) {
    let folder = folder();
    let config = store::Config { path: folder.path().join("data"), ..store::Config::default() };
    let store = Store::open(&config, Arc::new(Metrics::new())).expect("a store");
    (folder, store)
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}
