//! A change that really happened, written as a golden case has it; and a case made of it.

use toml::{Table, Value};

use super::table::{column, named};
use super::value::{read, timestamp};
use super::{Answer, CaseTable, Given, json, mode};
use crate::plugin::bindings::{Plan, Relation};

/// A change as a plugin is given it.
#[derive(Debug)]
pub struct Taken<'a> {
    /// Its event's id.
    pub id: String,
    /// Its table.
    pub relation: &'a Relation,
    /// When it was committed, microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// `insert`, `update`, …
    pub op: &'static str,
    /// Each column's tag and data; nothing for a TRUNCATE.
    pub row: &'a [(u8, u64)],
    /// The same of an update's old row, if it has one.
    pub old: &'a [(u8, u64)],
    /// What the cells' data point into.
    pub heap: &'a [u8],
}

impl Taken<'_> {
    /// One line of JSON, which [`Given::parse`] reads.
    ///
    /// # Errors
    /// A cell that is none.
    pub fn written(&self) -> Result<String, String> {
        let mut change = Table::new();
        change.insert("id".into(), self.id.clone().into());
        change.insert("relation".into(), relation(self.relation).into());
        if self.relation.full_old_rows {
            change.insert("full_old_rows".into(), true.into());
        }
        if let Some(time) = timestamp(self.time) {
            change.insert("time".into(), time.into());
        }
        let row = match self.row {
            [] => true.into(),
            cells => self.cells(cells)?,
        };
        change.insert(self.op.into(), row);
        if !self.old.is_empty() {
            change.insert("old".into(), self.cells(self.old)?);
        }
        Ok(json::compact(&change.into()))
    }

    fn cells(&self, cells: &[(u8, u64)]) -> Result<Value, String> {
        let mut row = Table::new();
        for (column, (tag, data)) in self.relation.columns.iter().zip(cells) {
            row.insert(column.name.clone(), read(*tag, *data, self.heap)?);
        }
        Ok(row.into())
    }
}

fn relation(relation: &Relation) -> Table {
    let columns = relation.columns.iter();
    let columns =
        columns.map(|it| Value::from(column(&it.name, &named(&it.type_name, it.tag), it.key)));
    let name = format!("{}.{}", relation.schema, relation.table);
    let columns: Vec<Value> = columns.collect();
    Table::from_iter([("table".into(), name.into()), ("columns".into(), columns.into())])
}

impl Given {
    /// A file of one golden case: this change, and the answer as what is expected.
    #[must_use]
    pub fn case(
        &self,
        relation: &CaseTable,
        (config, plan): (&Table, &Plan),
        answer: &Answer,
    ) -> String {
        let name = self.id.clone().unwrap_or_else(|| "one change".into());
        let mut change = Table::try_from(&self.change).unwrap_or_default();
        let told = Table::try_from(answer).unwrap_or_default();
        change.extend(told);
        let mut case = Table::from_iter([("name".to_owned(), Value::from(name))]);
        if !config.is_empty() {
            case.insert("config".into(), config.clone().into());
        }
        if self.has_full_old_row() {
            case.insert("full_old_rows".into(), true.into());
        }
        if mode(plan) != "call" {
            case.insert("mode".into(), mode(plan).into());
        }
        case.insert("change".into(), vec![Value::from(change)].into());
        let relation = Table::try_from(relation).unwrap_or_default();
        let file = Table::from_iter([
            ("relation".to_owned(), Value::from(relation)),
            ("case".to_owned(), vec![Value::from(case)].into()),
        ]);
        json::write(&file.into())
    }
}
