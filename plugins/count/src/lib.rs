//! A running count per key, put into each event: see README.md.

use serde::Deserialize;
use walmill_plugin::{
    Batch, Cell, Config, Event, Finding, Needs, Op, PerRelation, Plan, Relation, Shape, Tables,
    Transform, Verdicts, column, kv, tag, text,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    tables: Tables,
    /// The columns whose values are counted together.
    by: Vec<String>,
    /// The column that the count is put into.
    #[serde(rename = "as", default = "count")]
    name: String,
}

fn count() -> String {
    "count".into()
}

struct Count {
    settings: Settings,
    tables: PerRelation<Table>,
}

/// A table's name, and which of its columns are zoned.
struct Table {
    name: String,
    zoned: Vec<bool>,
}

walmill_plugin::export!(Count);

impl Transform for Count {
    const WANTS: &[&str] = &["kv"];

    fn new(config: Config) -> Result<Self, Vec<Finding>> {
        let settings: Settings = config.parse()?;
        if settings.by.is_empty() {
            let message = "name at least one column, as in by = [\"country\"]".into();
            return Err(vec![Finding { path: "by".into(), message }]);
        }
        Ok(Self { settings, tables: PerRelation::new() })
    }

    fn on_relation(&mut self, relation: &Relation) -> Result<Plan, String> {
        if !self.settings.tables.contains(relation) {
            return Ok(Plan::pass());
        }
        let name = &self.settings.name;
        if relation.index_of(name).is_some() {
            return Err(format!("{} has a column `{name}` already; set `as`", relation.name()));
        }
        let mut needs = Needs::default();
        for column in &self.settings.by {
            needs.add(relation.require(column)?);
        }
        let zoned = needs.iter().map(|index| text::is_zoned(relation.column(index))).collect();
        self.tables.insert(relation.id, Table { name: relation.name(), zoned });
        let mut shape = Shape::of(relation);
        shape.columns.push(column::computed(name, tag::INT));
        Ok(Plan::call(needs).with_shape(shape))
    }

    fn process(&mut self, batch: &Batch, verdicts: &mut Verdicts) -> Result<(), String> {
        for event in batch.events() {
            let Some(table) = self.tables.get(event.relation()) else { continue };
            let count = match (event.op(), table.key(&event)) {
                (Op::Insert | Op::Snapshot, Some(key)) => {
                    let count = read(&key)? + 1;
                    kv::set(&key, &count.to_le_bytes())?;
                    Cell::Int(count)
                }
                (Op::Update | Op::Delete, Some(key)) => Cell::Int(read(&key)?),
                (Op::Insert | Op::Snapshot | Op::Update | Op::Delete, None) => Cell::Null,
                _ => continue,
            };
            verdicts.emit(&event, 0).cell(count);
        }
        Ok(())
    }
}

impl Table {
    /// Under what the row is counted; none when a value is null or was not sent. A value is led by
    /// its length, so that no two rows are taken for one.
    fn key(&self, event: &Event) -> Option<String> {
        let (mut key, mut value) = (self.name.clone(), String::new());
        for (cell, &zoned) in event.row().cells().zip(&self.zoned) {
            value.clear();
            text::append(&mut value, cell, zoned).then_some(())?;
            key.push_str(&format!("/{}:{value}", value.len()));
        }
        Some(key)
    }
}

fn read(key: &str) -> Result<i64, String> {
    match kv::get(key)? {
        None => Ok(0),
        Some(bytes) => match bytes.try_into() {
            Ok(bytes) => Ok(i64::from_le_bytes(bytes)),
            Err(_) => Err(format!("the state of {key} is no count")),
        },
    }
}
