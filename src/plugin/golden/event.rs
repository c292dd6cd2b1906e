//! One event that a plugin is asked about: in the form of a golden case's change, or as it stands
//! in a stream.

use serde::Deserialize;
use toml::{Table, Value};

use super::table::column;
use super::{Change, File, Relation, UNCHANGED, json};

/// A change, and its table as far as the event says.
#[derive(Debug, Clone)]
pub struct Given {
    /// The change.
    pub change: Change,
    /// Its id, where the event says.
    pub(super) id: Option<String>,
    /// Whether its table has full old rows, where the event says.
    full_old_rows: Option<bool>,
    /// The event says how its table is.
    told: bool,
    /// `schema.table`, where the event says.
    table: Option<String>,
    /// The table as the event says, or as its values look.
    relation: Relation,
}

/// The data of an event as walmill writes it.
#[derive(Deserialize)]
struct Data {
    schema: String,
    table: String,
    op: String,
    key: Option<Value>,
    record: Option<Value>,
    old_record: Option<Value>,
    #[serde(default)]
    unchanged: Vec<String>,
}

impl Given {
    /// Reads an event: `{ "insert": { … } }` as in a golden case, perhaps with its `relation`; or
    /// an event of a stream, whole or its `data`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut value = json::parse(text)?;
        let table = value.as_table_mut().ok_or("an event is a JSON object")?;
        match table.remove("data") {
            Some(data) => Self::of_data(data),
            None if table.contains_key("op") => Self::of_data(value),
            None => Self::of_case(table),
        }
    }

    fn of_case(table: &mut Table) -> Result<Self, String> {
        let wrong = |error: toml::de::Error| error.to_string();
        let relation = table.remove("relation").map(Value::try_into).transpose();
        let relation: Option<Relation> = relation.map_err(wrong)?;
        let (id, full) = (table.remove("id"), table.remove("full_old_rows"));
        let id = id.and_then(|id| id.as_str().map(str::to_owned));
        let full_old_rows = full.and_then(|full| full.as_bool());
        let change: Change = Value::Table(std::mem::take(table)).try_into().map_err(wrong)?;
        let (_, row) = change.op()?;
        let name = relation.as_ref().map(|relation| relation.table.clone());
        let told = relation.is_some();
        let relation = relation.unwrap_or_else(|| seen("public.unnamed", row, None));
        Ok(Self { change, id, full_old_rows, told, table: name, relation })
    }

    fn of_data(data: Value) -> Result<Self, String> {
        let data: Data = data.try_into().map_err(|error: toml::de::Error| error.to_string())?;
        let row = |value: Option<Value>| match value {
            Some(Value::Table(row)) => Some(row),
            _ => None,
        };
        let (mut record, old) = (row(data.record), row(data.old_record));
        for name in data.unchanged {
            record.get_or_insert_default().insert(name, UNCHANGED.into());
        }
        let name = format!("{}.{}", data.schema, data.table);
        let relation = seen(&name, record.as_ref().or(old.as_ref()), row(data.key).as_ref());
        let none = Change::default();
        let change = match data.op.as_str() {
            "insert" => Change { insert: record, ..none },
            "update" => Change { update: record, old, ..none },
            "delete" => Change { delete: old, ..none },
            "snapshot" => Change { snapshot: record, ..none },
            "truncate" => Change { truncate: Some(true), ..none },
            other => return Err(format!("an event of `{other}` is none that plugins see")),
        };
        change.op()?;
        let (id, full_old_rows, told, table) = (None, None, false, Some(name));
        Ok(Self { change, id, full_old_rows, told, table, relation })
    }

    /// Whether its old row has more than a key.
    #[must_use]
    pub fn has_full_old_row(&self) -> bool {
        if let Some(told) = self.full_old_rows {
            return told;
        }
        let old = self.change.old.as_ref().or(self.change.delete.as_ref());
        old.is_some_and(|old| self.relation.columns.len() == old.len())
    }

    /// Its table: as the event tells, else as `cases` know it, else as the event shows it.
    #[must_use]
    pub fn relation<'a>(&'a self, cases: impl IntoIterator<Item = &'a File>) -> &'a Relation {
        let cases = cases.into_iter().filter(|_| !self.told);
        let mut known = cases.map(|file| &file.relation);
        let known = known.find(|known| self.table.as_ref().is_none_or(|name| *name == known.table));
        known.unwrap_or(&self.relation)
    }
}

impl File {
    /// The config of the first case that a plugin is said to take.
    #[must_use]
    pub fn config(&self) -> Option<&Table> {
        self.cases.iter().find(|case| case.refused.is_none()).map(|case| &case.config)
    }

    /// The table that it is about.
    #[must_use]
    pub fn relation(&self) -> &Relation {
        &self.relation
    }
}

/// A table as a row's values look; JSON doesn't tell the types apart that it writes alike.
fn seen(name: &str, row: Option<&Table>, key: Option<&Table>) -> Relation {
    let columns = row.into_iter().flatten().map(|(name, value)| {
        let type_name = match value {
            Value::Boolean(_) => "bool",
            Value::Integer(_) => "int8",
            Value::Float(_) => "float8",
            Value::Datetime(_) => "timestamptz",
            Value::Array(_) | Value::Table(_) => "jsonb",
            Value::String(_) => "text",
        };
        column(name, type_name, key.is_some_and(|key| key.contains_key(name)))
    });
    Relation { table: name.into(), columns: columns.collect() }
}
