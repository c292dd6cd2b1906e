//! Tables as a reader of events keeps them: rows by their keys, values as the JSON that came.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::Client;

use crate::support::execute;

/// Values as they were written, so that none is changed by reading it.
type Record = BTreeMap<String, Box<RawValue>>;

/// What of an event matters here.
#[derive(Deserialize)]
struct Event {
    id: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    schema: String,
    #[serde(default)]
    table: String,
    op: Option<String>,
    /// Of a logical message.
    prefix: Option<String>,
    record: Option<Record>,
    old_record: Option<Record>,
    key: Option<Record>,
    #[serde(default)]
    unchanged: Vec<String>,
    /// What changed in a table's definition.
    changes: Option<Vec<Redefined>>,
}

#[derive(Deserialize)]
struct Redefined {
    change: String,
}

/// All tables, and what was seen.
#[derive(Default)]
pub(super) struct Replica {
    tables: BTreeMap<String, BTreeMap<String, Record>>,
    ids: HashSet<String>,
    prefixes: HashSet<String>,
}

impl Replica {
    /// How many events have come.
    pub(super) fn events(&self) -> usize {
        self.ids.len()
    }

    /// Whether a message with this prefix has come.
    pub(super) fn has_seen(&self, prefix: &str) -> bool {
        self.prefixes.contains(prefix)
    }

    /// Does what an event says.
    pub(super) fn apply(&mut self, event: &str) {
        let Event { id, data } =
            serde_json::from_str(event).unwrap_or_else(|error| panic!("{error} in {event:.1000}"));
        assert!(self.ids.insert(id), "an event came twice: {event:.1000}");
        if let Some(prefix) = data.prefix {
            self.prefixes.insert(prefix);
            return;
        }
        let rows = self.tables.entry(format!("{}.{}", data.schema, data.table)).or_default();
        if let Some(changes) = data.changes {
            // The rows say the rest, but not that a table of the same name is another one.
            if changes.iter().any(|change| change.change == "table-recreated") {
                rows.clear();
            }
            return;
        }
        match (data.op.as_deref(), data.record) {
            (Some("insert"), Some(record)) => put(rows, record),
            (Some("update"), Some(mut record)) => {
                let before = data.old_record.as_ref().or(data.key.as_ref()).expect("a key");
                let old = take(rows, before);
                for column in data.unchanged {
                    let value = old.get(&column).unwrap_or_else(|| panic!("no {column}: {event}"));
                    record.insert(column, value.clone());
                }
                put(rows, record);
            }
            (Some("delete"), None) => drop(take(rows, &data.old_record.expect("an old record"))),
            (Some("truncate"), None) => rows.clear(),
            _ => panic!("{event:.1000}"),
        }
    }

    /// Fills an empty table with the rows, and compares it with the one of this name; how many
    /// rows they have.
    pub(super) async fn compare(&self, client: &Client, table: &str) -> usize {
        let name = table.trim_matches('"').replace("\"\"", "\"");
        let rows = self.tables.get(&format!("public.{name}"));
        let rows: Vec<&Record> = rows.into_iter().flat_map(BTreeMap::values).collect();
        let copy = format!("CREATE TEMP TABLE copy (LIKE {table} INCLUDING GENERATED)");
        execute(client, &format!("DROP TABLE IF EXISTS pg_temp.copy; {copy}")).await;
        let columns = "SELECT string_agg(quote_ident(attname), ',') FROM pg_attribute \
                       WHERE attrelid = 'pg_temp.copy'::regclass AND attnum > 0 \
                       AND NOT attisdropped AND attgenerated = ''";
        let columns: String = client.query_one(columns, &[]).await.expect("columns").get(0);
        let fill = format!(
            "INSERT INTO pg_temp.copy ({columns}) \
             SELECT {columns} FROM json_populate_recordset(null::pg_temp.copy, $1::text::json)"
        );
        let json = serde_json::to_string(&rows).expect("JSON");
        client.execute(&fill, &[&json]).await.unwrap_or_else(|error| panic!("{table}: {error:?}"));
        let ours = sorted(client, "pg_temp.copy").await;
        let theirs = sorted(client, table).await;
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{table}");
        }
        assert_eq!(ours.len(), theirs.len(), "{table}");
        ours.len()
    }
}

fn put(rows: &mut BTreeMap<String, Record>, record: Record) {
    let key = key(&record);
    assert!(!rows.contains_key(&key), "a second row with key {key}");
    rows.insert(key, record);
}

fn take(rows: &mut BTreeMap<String, Record>, values: &Record) -> Record {
    let key = key(values);
    rows.remove(&key).unwrap_or_else(|| panic!("no row with key {key}"))
}

/// The column that tells a row from the others, whatever the table's replica identity.
fn key(values: &Record) -> String {
    let key = ["id", "code", "n"].iter().find_map(|name| values.get(*name));
    key.expect("a key").get().to_owned()
}

/// The rows of a table as text, in the order of their text.
async fn sorted(client: &Client, table: &str) -> Vec<String> {
    let query = format!("SELECT t::text COLLATE \"C\" FROM {table} t ORDER BY 1");
    let rows = client.query(&query, &[]).await.expect("a table's rows");
    rows.iter().map(|row| row.get(0)).collect()
}
