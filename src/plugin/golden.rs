//! Golden cases: a table, a config, changes in, and what comes out, run through the real host.
//!
//! A file is TOML, or JSON of the same form. In a row, `<null>`, `<unchanged>` and `<absent>` are
//! what they say (JSON's `null` is the first). A column that a row leaves out is null; in a delete
//! of a table without full old rows it is absent. `docs/plugins.md` describes the whole format.

mod event;
mod json;
mod report;
mod table;
mod trial;
mod update;
mod value;
mod written;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub use event::Given;
pub use report::{At, CaseReport, Difference, shown};
use table::Relation;
pub use table::{Relation as CaseTable, column};
pub use trial::{Answer, Trial};
pub use update::{UpdateError, updated};
pub use written::Taken;

use super::bindings::{Mode, Plan};
use super::{CallError, Plugin, Reason};

const NULL: &str = "<null>";
const UNCHANGED: &str = "<unchanged>";
const ABSENT: &str = "<absent>";

/// How a file of cases is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

impl Format {
    /// By the name of the file: JSON when it ends so, else TOML.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        if is_json { Self::Json } else { Self::Toml }
    }
}

/// One file of cases about one table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    relation: Relation,
    #[serde(default, rename = "case")]
    cases: Vec<Case>,
}

/// A plugin with a config, and what is expected of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    name: String,
    #[serde(default)]
    config: Table,
    /// Another table than the file's.
    relation: Option<Relation>,
    #[serde(default)]
    full_old_rows: bool,
    /// Findings, `path: message`.
    refused: Option<Vec<String>>,
    /// What `on-relation` says instead of a plan.
    table_refused: Option<String>,
    #[serde(default = "call")]
    mode: String,
    /// The columns that the plan asks for.
    needs: Option<Vec<String>>,
    /// Whether the plan asks for old rows.
    old: Option<bool>,
    #[serde(default, rename = "change")]
    changes: Vec<Change>,
}

fn call() -> String {
    "call".into()
}

/// Something that happened, and what should come of it.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    insert: Option<Table>,
    update: Option<Table>,
    delete: Option<Table>,
    snapshot: Option<Table>,
    truncate: Option<bool>,
    message: Option<bool>,
    /// An update's old row.
    old: Option<Table>,
    /// Commit time; changes of one time are one transaction.
    time: Option<Value>,
    /// `pass`, `drop`, `to STREAM`, `reject: REASON`; or the row that goes on in a shape; or, where
    /// a change became several rows, a list of `{ row, table, to }`.
    out: Option<Value>,
    /// The table that the row is said to be of.
    table: Option<String>,
    /// The stream that the row is sent to.
    to: Option<String>,
}

impl File {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str, format: Format) -> Result<Self, String> {
        match format {
            Format::Toml => toml::from_str(text).map_err(|error| error.to_string()),
            Format::Json => {
                json::parse(text)?.try_into().map_err(|error: toml::de::Error| error.to_string())
            }
        }
    }

    /// Runs every case; `load` gives the plugin with a case's config.
    pub fn run(
        &self,
        mut load: impl FnMut(&Table) -> Result<Arc<Plugin>, Reason>,
    ) -> Vec<CaseReport> {
        let run = |case: &Case| CaseReport {
            name: case.name.clone(),
            outcome: case.run(&self.relation, load(&case.config)),
        };
        self.cases.iter().map(run).collect()
    }
}

impl Change {
    /// The operation's code, and the row that it is about.
    fn op(&self) -> Result<(u8, Option<&Table>), String> {
        let rows = [(0, &self.insert), (1, &self.update), (2, &self.delete), (5, &self.snapshot)];
        let mut rows = rows.into_iter().filter_map(|(op, row)| Some((op, Some(row.as_ref()?))));
        let bare = [(3, self.truncate), (4, self.message)];
        let bare = bare.into_iter().filter(|(_, set)| *set == Some(true)).map(|(op, _)| (op, None));
        let mut kinds = rows.by_ref().chain(bare);
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => Ok(kind),
            _ => Err("needs one of insert, update, delete, snapshot, truncate, message".into()),
        }
    }

    /// The same in words: `insert { id = 1 }`.
    fn words(&self) -> String {
        let names = ["insert", "update", "delete", "truncate", "message", "snapshot"];
        match self.op() {
            Ok((op, Some(row))) => format!("{} {}", names[usize::from(op)], report::inline(row)),
            Ok((op, None)) => names[usize::from(op)].into(),
            Err(_) => "a change of no kind".into(),
        }
    }

    fn expected(&self) -> Answer {
        Answer { out: self.out.clone(), table: self.table.clone(), to: self.to.clone() }
    }
}

impl Case {
    /// What is otherwise than expected; or why that can't be told.
    fn run(
        &self,
        relation: &Relation,
        loaded: Result<Arc<Plugin>, Reason>,
    ) -> Result<Vec<Difference>, String> {
        let refused = match &loaded {
            Ok(_) => None,
            Err(Reason::Call { error: CallError::Findings(findings), .. }) => Some(
                findings.iter().map(|found| format!("{}: {}", found.path, found.message)).collect(),
            ),
            Err(other) => return Err(other.to_string()),
        };
        let mut differences = Vec::new();
        if refused != self.refused {
            let at = At::Case("refused");
            differences.push(Difference::of(at, texts(&self.refused), texts(&refused)));
        }
        if let Ok(plugin) = loaded
            && self.refused.is_none()
        {
            self.run_table(relation, &plugin, &mut differences)?;
        }
        Ok(differences)
    }

    fn run_table(
        &self,
        relation: &Relation,
        plugin: &Arc<Plugin>,
        differences: &mut Vec<Difference>,
    ) -> Result<(), String> {
        let relation = self.relation.as_ref().unwrap_or(relation).bind(self.full_old_rows)?;
        let (mut trial, refused) = match Trial::start(plugin, relation) {
            Ok(trial) => (Some(trial), None),
            Err(CallError::Failed(reason)) => (None, Some(reason)),
            Err(error) => return Err(error.to_string()),
        };
        if refused != self.table_refused {
            let at = At::Case("table_refused");
            let text = |text: &Option<String>| text.clone().map(Value::from);
            differences.push(Difference::of(at, text(&self.table_refused), text(&refused)));
        }
        let Some(trial) = trial.as_mut().filter(|_| self.table_refused.is_none()) else {
            return Ok(());
        };
        self.check_plan(trial, differences);
        let answers = trial.run(&self.changes)?;
        for (at, (change, answer)) in self.changes.iter().zip(answers).enumerate() {
            change.compare(at, answer, differences);
        }
        Ok(())
    }

    fn check_plan(&self, trial: &Trial, differences: &mut Vec<Difference>) {
        let plan = trial.plan();
        let mut check = |key, expected: Value, actual: Value| {
            if expected != actual {
                differences.push(Difference::of(At::Case(key), Some(expected), Some(actual)));
            }
        };
        check("mode", self.mode.clone().into(), mode(plan).into());
        if let Some(needs) = &self.needs {
            check("needs", needs.clone().into(), trial.needs().into());
        }
        if let Some(old) = self.old {
            check("old", old.into(), plan.old.into());
        }
    }
}

impl Change {
    fn compare(&self, at: usize, answer: Answer, differences: &mut Vec<Difference>) {
        let expected = self.expected();
        let text = |text: Option<String>| text.map(Value::from);
        let keys = [
            ("out", expected.out, answer.out),
            ("table", text(expected.table), text(answer.table)),
            ("to", text(expected.to), text(answer.to)),
        ];
        for (key, expected, actual) in keys {
            if expected != actual {
                let at = At::Change { index: at, key, words: self.words() };
                differences.push(Difference::of(at, expected, actual));
            }
        }
    }
}

fn texts(texts: &Option<Vec<String>>) -> Option<Value> {
    texts.clone().map(Value::from)
}

fn mode(plan: &Plan) -> &'static str {
    match plan.mode {
        Mode::Call => "call",
        Mode::Pass => "pass",
        Mode::Drop => "drop",
    }
}

#[cfg(test)]
mod tests;
