//! The tables, as they are at first and as DDL makes them.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::values;

/// What the tables need.
pub(super) const BEFORE: &str =
    "CREATE SEQUENCE keys; CREATE TYPE mood AS ENUM ('sad', 'it''s', 'so so');
    CREATE TYPE pair AS (n int, t text);";

/// Names of the tables.
pub const TABLES: [&str; 7] =
    ["wide", "whole", "indexed", "kept", "large", "parts", "\"Odd \"\"1\""];

/// How each is made.
pub(super) const SCHEMA: [&str; 7] = [
    "CREATE TABLE wide (id int8 PRIMARY KEY, c_bool bool, c_int2 int2, c_int4 int4, c_int8 int8,
        c_float4 float4, c_float8 float8, c_numeric numeric, c_text text, c_varchar varchar,
        c_char bpchar(5), c_bytea bytea, c_date date, c_time time, c_timetz timetz,
        c_stamp timestamp, c_stamptz timestamptz, c_interval interval, c_uuid uuid, c_json json,
        c_jsonb jsonb, c_inet inet, c_bit bit(4), c_varbit varbit, c_money money, c_mood mood,
        c_pair pair, c_range int4range, c_point point, c_vector tsvector, c_ints int4[],
        c_texts text[], c_stamps timestamptz[]);",
    "CREATE TABLE whole (n int8, a text, b text, c numeric);
        ALTER TABLE whole REPLICA IDENTITY FULL; ALTER TABLE whole ALTER b SET STORAGE EXTERNAL;",
    "CREATE TABLE indexed (a text, code int8 NOT NULL, b int4,
        twice int8 GENERATED ALWAYS AS (code * 2) STORED);
        CREATE UNIQUE INDEX ON indexed (code);
        ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code_idx;",
    "CREATE TABLE kept (id int8 PRIMARY KEY, a jsonb, b bool);
        ALTER TABLE kept REPLICA IDENTITY NOTHING;",
    "CREATE TABLE large (id int8 PRIMARY KEY, a text, b text, n int4);
        ALTER TABLE large ALTER a SET STORAGE EXTERNAL;",
    "CREATE TABLE parts (id int8 PRIMARY KEY, a text) PARTITION BY RANGE (id);
        CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (MINVALUE) TO (2000);
        CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (2000) TO (MAXVALUE);",
    "CREATE TABLE \"Odd \"\"1\" (id int8 PRIMARY KEY, \"A b\" text, \"select\" float8);",
];

/// Columns at first, by table: the key, and what else takes values.
const COLUMNS: [(&str, &[(&str, &str)]); 7] = [
    (
        "id",
        &[
            ("c_bool", "bool"),
            ("c_int2", "int2"),
            ("c_int4", "int4"),
            ("c_int8", "int8"),
            ("c_float4", "float4"),
            ("c_float8", "float8"),
            ("c_numeric", "numeric"),
            ("c_text", "text"),
            ("c_varchar", "varchar"),
            ("c_char", "bpchar(5)"),
            ("c_bytea", "bytea"),
            ("c_date", "date"),
            ("c_time", "time"),
            ("c_timetz", "timetz"),
            ("c_stamp", "timestamp"),
            ("c_stamptz", "timestamptz"),
            ("c_interval", "interval"),
            ("c_uuid", "uuid"),
            ("c_json", "json"),
            ("c_jsonb", "jsonb"),
            ("c_inet", "inet"),
            ("c_bit", "bit(4)"),
            ("c_varbit", "varbit"),
            ("c_money", "money"),
            ("c_mood", "mood"),
            ("c_pair", "pair"),
            ("c_range", "int4range"),
            ("c_point", "point"),
            ("c_vector", "tsvector"),
            ("c_ints", "int4[]"),
            ("c_texts", "text[]"),
            ("c_stamps", "timestamptz[]"),
        ],
    ),
    ("n", &[("a", "text"), ("b", LARGE), ("c", "numeric")]),
    ("code", &[("a", "text"), ("b", "int4")]),
    ("id", &[("a", "jsonb"), ("b", "bool")]),
    ("id", &[("a", LARGE), ("b", "text"), ("n", "int4")]),
    ("id", &[("a", "text")]),
    ("id", &[("\"A b\"", "text"), ("\"select\"", "float8")]),
];

/// Text that is stored out of line.
const LARGE: &str = "large";
/// The partitioned table: its columns stay.
const PARTS: usize = 5;
/// The table whose rows are never changed, since PostgreSQL refuses that.
const KEPT: usize = 3;

/// A table as it is now.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) key: &'static str,
    /// Whether its rows can be updated and deleted.
    pub(super) changeable: bool,
    alterable: bool,
    columns: Vec<(String, String)>,
}

/// A change of a table's columns, in two forms.
pub(super) struct Alter {
    /// With what it does to rows left to the server.
    pub(super) silent: String,
    /// With an update of every row behind it where it changed rows.
    pub(super) told: String,
}

pub(super) fn all() -> Vec<Table> {
    (0..TABLES.len()).map(Table::original).collect()
}

impl Table {
    pub(super) fn original(index: usize) -> Self {
        let (key, columns) = COLUMNS[index];
        let columns = columns.iter().map(|(name, kind)| ((*name).into(), (*kind).into()));
        Self {
            name: TABLES[index],
            key,
            changeable: index != KEPT,
            alterable: index != PARTS,
            columns: columns.collect(),
        }
    }

    /// Names and literals of a new row.
    pub(super) fn row(&self, random: &mut StdRng, id: i64) -> (String, String) {
        let names = self.columns.iter().map(|(name, _)| name.as_str());
        let names: Vec<&str> = std::iter::once(self.key).chain(names).collect();
        let values = self.columns.iter().map(|(_, kind)| value(random, kind));
        let values: Vec<String> = std::iter::once(id.to_string()).chain(values).collect();
        (names.join(","), values.join(","))
    }

    /// Assignments to one to three columns.
    pub(super) fn change(&self, random: &mut StdRng) -> String {
        let count = random.random_range(1..=3);
        let chosen: Vec<_> = self.columns.sample(random, count).collect();
        let set = chosen.iter().map(|(name, kind)| format!("{name} = {}", value(random, kind)));
        let set: Vec<String> = set.collect();
        match set.is_empty() {
            true => format!("{0} = {0}", self.key),
            false => set.join(","),
        }
    }

    /// Adds, drops, renames or retypes a column.
    pub(super) fn alter(&mut self, random: &mut StdRng, number: i64) -> Alter {
        let Self { name, key, .. } = *self;
        let nothing = Alter { silent: String::new(), told: String::new() };
        if !self.alterable {
            return nothing;
        }
        let touch =
            if self.changeable { format!("UPDATE {name} SET {key} = {key};") } else { "".into() };
        // Large values would not be told again.
        let small: Vec<usize> =
            (0..self.columns.len()).filter(|&at| self.columns[at].1 != LARGE).collect();
        let chosen = small.choose(random).copied();
        match (random.random_range(0..4), chosen) {
            (0, _) | (_, None) => {
                let (column, kind) =
                    (format!("added_{number}"), *values::LATER.choose(random).expect("some"));
                self.columns.push((column.clone(), kind.into()));
                let add = format!("ALTER TABLE {name} ADD {column} {kind}");
                let value = values::literal(random, kind);
                let silent = format!("{add} DEFAULT {value};");
                Alter { silent, told: format!("{add};") }
            }
            (1, Some(at)) => {
                let (column, _) = self.columns.remove(at);
                let drop = format!("ALTER TABLE {name} DROP {column};");
                Alter { silent: drop.clone(), told: drop }
            }
            // What a rename does to old rows is told by an update of all of them.
            (2, Some(at)) if self.changeable => {
                let to = format!("named_{number}");
                let from = std::mem::replace(&mut self.columns[at].0, to.clone());
                let silent = format!("ALTER TABLE {name} RENAME {from} TO {to};");
                Alter { told: format!("{silent}{touch}"), silent }
            }
            (_, Some(at)) if self.changeable => {
                let (column, kind) = &mut self.columns[at];
                "text".clone_into(kind);
                let silent = format!("ALTER TABLE {name} ALTER {column} TYPE text;");
                Alter { told: format!("{silent}{touch}"), silent }
            }
            _ => nothing,
        }
    }
}

fn value(random: &mut StdRng, kind: &str) -> String {
    if kind == LARGE { values::large(random) } else { values::literal(random, kind) }
}
