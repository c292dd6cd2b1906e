//! A plugin's instance that is asked about changes to one table, outside of any stream.

use std::sync::{Arc, Mutex};

use serde::Serialize;
use toml::{Table, Value};

use super::value::{Cells, NO_TIME};
use super::{ABSENT, Change, NULL};
use crate::plugin::bindings::{Batch, Column, Mode, Outcome, Plan, Relation, Source};
use crate::plugin::check::{DROP, EMIT, REJECT};
use crate::plugin::{CallError, Instance, Plugin, Scratch};

/// What came of a change.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Answer {
    /// `pass`, `drop`, `to STREAM`, `reject: REASON`; or the row that goes on; or several.
    pub out: Option<Value>,
    /// The table that the row is said to be of, where that is another than its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The stream that the row is sent to, where that is another than the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

impl Answer {
    /// `pass`, `drop`, `reject` or `emit`.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match &self.out {
            Some(Value::String(out)) if out == "drop" => "drop",
            Some(Value::String(out)) if out.starts_with("reject: ") => "reject",
            Some(Value::String(_)) | None => "pass",
            Some(_) => "emit",
        }
    }
}

/// An instance with scratch state, a table, and the plan for it.
pub struct Trial {
    instance: Instance,
    relation: Relation,
    plan: Plan,
    /// Transactions so far: each needs a position of its own.
    transactions: u64,
}

impl Trial {
    /// Starts the plugin and announces the table.
    ///
    /// # Errors
    /// [`CallError::Failed`] when the plugin doesn't take the table, else what went wrong.
    pub fn start(plugin: &Arc<Plugin>, relation: Relation) -> Result<Self, CallError> {
        let state = Arc::new(Mutex::new(Scratch::default()));
        let mut instance = plugin.instantiate(0, 1, true, state)?;
        let plan = instance.on_relation(&relation)?;
        Ok(Self { instance, relation, plan, transactions: 0 })
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The columns that the plan asks for.
    #[must_use]
    pub fn needs(&self) -> Vec<String> {
        let columns = &self.relation.columns;
        self.plan.needs.iter().map(|&need| columns[need as usize].name.clone()).collect()
    }

    /// The plugin's answers to changes; those of one commit time are one call.
    ///
    /// # Errors
    /// The plugin failed, or a change is none of this table.
    pub fn run(&mut self, changes: &[Change]) -> Result<Vec<Answer>, String> {
        let mut answers = Vec::with_capacity(changes.len());
        for changes in changes.chunk_by(|one, next| one.time == next.time) {
            let first = answers.len();
            let place = |at: usize, why: String| format!("change {}: {why}", first + at + 1);
            let outcome = self.call(changes, first)?;
            for (at, change) in changes.iter().enumerate() {
                let answer = self.answer(outcome.as_ref(), at, change);
                answers.push(answer.map_err(|why| place(at, why))?);
            }
        }
        Ok(answers)
    }

    fn call(&mut self, changes: &[Change], first: usize) -> Result<Option<Outcome>, String> {
        if self.plan.mode != Mode::Call {
            return Ok(None);
        }
        let time = match changes.first().and_then(|change| change.time.as_ref()) {
            Some(Value::Datetime(time)) => super::value::micros(time)?,
            // JSON has times as text.
            Some(Value::String(text)) => {
                let time = text.parse().map_err(|_| format!("`time = {text}` is no time"))?;
                super::value::micros(&time)?
            }
            Some(other) => return Err(format!("`time = {other}` is no time")),
            None => NO_TIME,
        };
        self.transactions += 1;
        let batch = self
            .batch(changes, time)
            .map_err(|(at, why)| format!("change {}: {why}", first + at + 1))?;
        let answer = self.instance.process(&batch, time);
        answer.map(Some).map_err(|error| format!("`process` failed: {error}"))
    }

    fn batch(&self, changes: &[Change], time: i64) -> Result<Batch, (usize, String)> {
        let mut cells = Cells::default();
        let (mut ops, mut starts) = (Vec::new(), vec![0]);
        for (at, change) in changes.iter().enumerate() {
            let place = |why| (at, why);
            let (op, row) = change.op().map_err(place)?;
            ops.push(op);
            let old = change.old.as_ref().filter(|_| self.plan.old);
            for row in row.into_iter().chain(old) {
                self.check_names(row).map_err(place)?;
                for &need in &self.plan.needs {
                    let column = &self.relation.columns[need as usize];
                    cells.push(column, &self.value(row, column, op)).map_err(place)?;
                }
            }
            starts.push(small(cells.tags.len()));
        }
        let count = changes.len();
        let sent = if self.plan.envelope { count } else { 0 };
        let Cells { tags, data, heap } = cells;
        Ok(Batch {
            count: small(count),
            ops,
            relations: vec![self.relation.id; count],
            lsns: vec![self.transactions; sent],
            times: vec![time; sent],
            starts,
            tags,
            data,
            heap,
        })
    }

    /// A misspelt column would be a null that nobody meant.
    fn check_names(&self, row: &Table) -> Result<(), String> {
        let known = |name: &String| self.relation.columns.iter().any(|column| column.name == *name);
        match row.keys().find(|name| !known(name)) {
            Some(name) => Err(format!("the table has no column `{name}`")),
            None => Ok(()),
        }
    }

    fn value(&self, row: &Table, column: &Column, op: u8) -> Value {
        let missing = if op == 2 && !self.relation.full_old_rows { ABSENT } else { NULL };
        row.get(&column.name).cloned().unwrap_or_else(|| missing.into())
    }

    fn answer(
        &self,
        outcome: Option<&Outcome>,
        event: usize,
        change: &Change,
    ) -> Result<Answer, String> {
        let plain = |out: String| Answer { out: Some(out.into()), ..Answer::default() };
        let Some(outcome) = outcome else {
            return match (self.plan.mode, self.plan.pass_shape) {
                (Mode::Drop, _) => Ok(plain("drop".into())),
                (_, Some(shape)) => self.shaped(shape, change, Vec::new()),
                (_, None) => Ok(plain("pass".into())),
            };
        };
        match outcome.verdicts[event] {
            DROP => Ok(plain("drop".into())),
            EMIT => self.emitted(outcome, event, change),
            REJECT => {
                let before = outcome.verdicts[..event].iter().filter(|&&v| v == REJECT).count();
                Ok(plain(format!("reject: {}", outcome.reasons[before])))
            }
            _ => {
                let to = route(outcome, &outcome.event_routes, event);
                match (self.plan.pass_shape, to) {
                    (Some(shape), to) => {
                        Ok(Answer { to, ..self.shaped(shape, change, Vec::new())? })
                    }
                    (None, None) => Ok(plain("pass".into())),
                    (None, Some(to)) => Ok(plain(format!("to {to}"))),
                }
            }
        }
    }

    fn emitted(&self, outcome: &Outcome, event: usize, change: &Change) -> Result<Answer, String> {
        let default = route(outcome, &outcome.event_routes, event);
        let rows = (0..outcome.row_events.len())
            .filter(|&row| outcome.row_events[row] as usize == event)
            .map(|row| {
                let computed = computed(outcome, row)?;
                let to = route(outcome, &outcome.row_routes, row).or_else(|| default.clone());
                Ok(Answer { to, ..self.shaped(outcome.row_shapes[row], change, computed)? })
            });
        let mut rows = rows.collect::<Result<Vec<Answer>, String>>()?;
        match rows.pop() {
            Some(only) if rows.is_empty() => Ok(only),
            last => {
                let rows = rows.into_iter().chain(last).map(listed);
                Ok(Answer { out: Some(Value::Array(rows.collect())), ..Answer::default() })
            }
        }
    }

    fn shaped(&self, shape: u32, change: &Change, computed: Vec<Value>) -> Result<Answer, String> {
        let shape = &self.plan.shapes[shape as usize];
        let (op, row) = change.op()?;
        let mut computed = computed.into_iter();
        let mut value = |source: &Source, row| match source {
            Source::Input(at) => self.value(row, &self.relation.columns[*at as usize], op),
            Source::Computed(_) => computed.next().unwrap_or_else(|| ABSENT.into()),
            Source::Fixed(text) => text.clone().into(),
        };
        let columns = row.map_or_else(Table::new, |row| {
            let columns = shape.columns.iter();
            columns.map(|column| (column.name.clone(), value(&column.source, row))).collect()
        });
        Ok(Answer { out: Some(columns.into()), table: shape.table.clone(), to: None })
    }
}

/// One of several rows, as an entry of `out`.
fn listed(row: Answer) -> Value {
    let Answer { out, table, to } = row;
    let text = |text: Option<String>| text.map(Value::from);
    let keys = [("row", out), ("table", text(table)), ("to", text(to))];
    let keys = keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Table(keys.collect())
}

fn computed(outcome: &Outcome, row: usize) -> Result<Vec<Value>, String> {
    let cells = match outcome.starts.as_slice() {
        [] => 0..0,
        starts => starts[row] as usize..starts[row + 1] as usize,
    };
    cells.map(|at| super::value::read(outcome.tags[at], outcome.data[at], &outcome.heap)).collect()
}

/// The stream that one of a list's routes names, if it names one.
fn route(outcome: &Outcome, routes: &[u32], at: usize) -> Option<String> {
    let route = (*routes.get(at)? as usize).checked_sub(1)?;
    Some(outcome.routes[route].clone())
}

/// Of a file of cases, which has far fewer than 2^32 of anything.
fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
