//! Golden cases: a table, a config, changes in, and what comes out.
//!
//! In a row, `<null>`, `<unchanged>` and `<absent>` are what they say. A column that a row leaves
//! out is null; in a delete of a table without full old rows it is absent.

use std::sync::{Arc, Mutex};

use serde::Deserialize;
use toml::value::Datetime;
use toml::{Table, Value};
use walmill::plugin::bindings::{self, Batch, Column, Mode, Outcome, Plan, Source};
use walmill::plugin::{CallError, Plugin, Reason, Scratch};

/// One file of cases about one table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub relation: Relation,
    pub case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relation {
    table: String,
    /// `name type`, and `key` behind those of the key.
    columns: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default)]
    pub config: Table,
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
    #[serde(default)]
    change: Vec<Change>,
}

fn call() -> String {
    "call".into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    insert: Option<Table>,
    update: Option<Table>,
    delete: Option<Table>,
    snapshot: Option<Table>,
    truncate: Option<bool>,
    message: Option<bool>,
    /// An update's old row.
    old: Option<Table>,
    /// `pass`, `drop`, `to STREAM`, `reject: REASON`; or the row that goes on in a shape.
    out: Value,
    /// The table that the row is said to be of.
    table: Option<String>,
    /// The stream that the row is sent to.
    to: Option<String>,
}

/// What comes of a change: the keys of [`Change`] that say it.
#[derive(Debug, PartialEq)]
struct Answer {
    out: Value,
    table: Option<String>,
    to: Option<String>,
}

const NULL: &str = "<null>";
const UNCHANGED: &str = "<unchanged>";
const ABSENT: &str = "<absent>";

/// Runs one case.
pub fn check(place: &str, relation: &Relation, case: &Case, loaded: Result<Arc<Plugin>, Reason>) {
    let plugin = match (loaded, &case.refused) {
        (Ok(plugin), None) => plugin,
        (Err(reason), Some(expected)) => {
            return assert_eq!(&findings(&reason), expected, "{place}");
        }
        (Ok(_), Some(expected)) => panic!("{place}: loads, instead of refusing {expected:?}"),
        (Err(reason), None) => panic!("{place}: {reason}"),
    };
    let state = Arc::new(Mutex::new(Scratch::default()));
    let mut instance = plugin.instantiate(0, 1, false, state).expect("an instance");
    let relation = case.relation.as_ref().unwrap_or(relation).bind(case.full_old_rows);
    let plan = match (instance.on_relation(&relation), &case.table_refused) {
        (Ok(plan), None) => plan,
        (Err(CallError::Failed(reason)), Some(expected)) => {
            return assert_eq!(&reason, expected, "{place}");
        }
        (answer, expected) => panic!("{place}: {answer:?} instead of {expected:?}"),
    };
    check_plan(place, &relation, case, &plan);
    let table = TableOf { relation: &relation, plan: &plan };
    let outcome = match plan.mode {
        Mode::Call => {
            let batch = table.batch(&case.change);
            Some(instance.process(&batch, 0).unwrap_or_else(|error| panic!("{place}: {error}")))
        }
        Mode::Pass | Mode::Drop => None,
    };
    for (event, change) in case.change.iter().enumerate() {
        let answer = table.render(outcome.as_ref(), event, change);
        assert_eq!(answer, change.answer(), "{place}: change {}", event + 1);
    }
}

fn check_plan(place: &str, relation: &bindings::Relation, case: &Case, plan: &Plan) {
    let mode = match plan.mode {
        Mode::Call => "call",
        Mode::Pass => "pass",
        Mode::Drop => "drop",
    };
    assert_eq!(mode, case.mode, "{place}");
    let name = |&need: &u32| relation.columns[need as usize].name.clone();
    let needs: Vec<String> = plan.needs.iter().map(name).collect();
    assert_eq!(&needs, case.needs.as_ref().unwrap_or(&needs), "{place}");
    assert_eq!(plan.old, case.old.unwrap_or(plan.old), "{place}");
}

fn findings(reason: &Reason) -> Vec<String> {
    match reason {
        Reason::Call { error: CallError::Findings(findings), .. } => findings
            .iter()
            .map(|finding| format!("{}: {}", finding.path, finding.message))
            .collect(),
        other => panic!("{other} instead of findings"),
    }
}

impl Relation {
    fn bind(&self, full_old_rows: bool) -> bindings::Relation {
        let (schema, table) = self.table.split_once('.').expect("schema.table");
        bindings::Relation {
            id: 7,
            schema: schema.into(),
            table: table.into(),
            columns: self.columns.iter().map(|column| bind_column(column)).collect(),
            full_old_rows,
        }
    }
}

fn bind_column(written: &str) -> Column {
    let mut words = written.split(' ');
    let (name, type_name) = (words.next().expect("a name"), words.next().expect("a type"));
    let (type_oid, tag) = match type_name.split('(').next().unwrap_or_default() {
        "bool" => (16, 1),
        "int4" => (23, 2),
        "int8" => (20, 2),
        "float8" => (701, 3),
        "timestamp" => (1114, 4),
        "timestamptz" => (1184, 4),
        "date" => (1082, 5),
        "text" => (25, 16),
        "numeric" => (1700, 17),
        "jsonb" => (3802, 18),
        "uuid" => (2950, 20),
        _ => (16_400, 16),
    };
    let key = words.next() == Some("key");
    Column { name: name.into(), type_oid, type_name: type_name.into(), tag, key }
}

/// A table and the plan for it.
struct TableOf<'a> {
    relation: &'a bindings::Relation,
    plan: &'a Plan,
}

impl Change {
    /// The operation's code, and the row that it is about.
    fn op(&self) -> (u8, Option<&Table>) {
        let rows = [(0, &self.insert), (1, &self.update), (2, &self.delete), (5, &self.snapshot)];
        let row = rows.into_iter().find_map(|(op, row)| Some((op, Some(row.as_ref()?))));
        row.unwrap_or_else(|| match (self.truncate, self.message) {
            (Some(true), None) => (3, None),
            (None, Some(true)) => (4, None),
            _ => panic!("a change is of some kind"),
        })
    }

    fn answer(&self) -> Answer {
        Answer { out: self.out.clone(), table: self.table.clone(), to: self.to.clone() }
    }
}

impl TableOf<'_> {
    fn batch(&self, changes: &[Change]) -> Batch {
        let mut batch = Batch {
            count: u32::try_from(changes.len()).expect("few changes"),
            ops: Vec::new(),
            relations: vec![self.relation.id; changes.len()],
            lsns: Vec::new(),
            times: Vec::new(),
            starts: vec![0],
            tags: Vec::new(),
            data: Vec::new(),
            heap: Vec::new(),
        };
        for change in changes {
            let (op, row) = change.op();
            batch.ops.push(op);
            let old = change.old.as_ref().filter(|_| self.plan.old);
            for row in row.into_iter().chain(old) {
                for &need in &self.plan.needs {
                    let column = &self.relation.columns[need as usize];
                    push(&mut batch, column, &self.value(row, column, op));
                }
            }
            batch.starts.push(u32::try_from(batch.tags.len()).expect("few cells"));
        }
        batch
    }

    fn value(&self, row: &Table, column: &Column, op: u8) -> Value {
        let missing = if op == 2 && !self.relation.full_old_rows { ABSENT } else { NULL };
        row.get(&column.name).cloned().unwrap_or_else(|| missing.into())
    }

    /// What comes of a change.
    fn render(&self, outcome: Option<&Outcome>, event: usize, change: &Change) -> Answer {
        let plain = |out: String| Answer { out: out.into(), table: None, to: None };
        let verdict = outcome.map_or(0, |outcome| outcome.verdicts[event]);
        match (verdict, outcome) {
            (1, _) => plain("drop".into()),
            (2, Some(outcome)) => self.emitted(outcome, event, change),
            (3, Some(outcome)) => {
                let before = outcome.verdicts[..event].iter().filter(|&&v| v == 3).count();
                plain(format!("reject: {}", outcome.reasons[before]))
            }
            _ => match (self.plan.pass_shape, outcome) {
                (Some(shape), _) => self.shaped(shape, change, &[]),
                (None, Some(outcome)) => plain(passed(outcome, event)),
                (None, None) => plain("pass".into()),
            },
        }
    }

    fn emitted(&self, outcome: &Outcome, event: usize, change: &Change) -> Answer {
        let row = outcome.row_events.iter().position(|&e| e as usize == event).expect("a row");
        let (start, end) = (outcome.starts[row] as usize, outcome.starts[row + 1] as usize);
        let cells = (start..end).map(|at| match (outcome.tags[at], outcome.data[at]) {
            (0, _) => NULL.into(),
            (1, data) => (data != 0).into(),
            (2, data) => data.cast_signed().into(),
            (16, data) => text(outcome, data),
            (32, _) => UNCHANGED.into(),
            (33, _) => ABSENT.into(),
            (tag, _) => panic!("a cell with tag {tag}"),
        });
        let to = route(outcome, &outcome.row_routes, row)
            .or_else(|| route(outcome, &outcome.event_routes, event));
        let cells: Vec<Value> = cells.collect();
        Answer { to, ..self.shaped(outcome.row_shapes[row], change, &cells) }
    }

    fn shaped(&self, shape: u32, change: &Change, computed: &[Value]) -> Answer {
        let shape = &self.plan.shapes[shape as usize];
        let (op, row) = change.op();
        let mut computed = computed.iter().cloned();
        let mut value = |source: &Source, row| match source {
            Source::Input(at) => self.value(row, &self.relation.columns[*at as usize], op),
            Source::Computed(_) => computed.next().expect("a computed cell"),
            Source::Fixed(text) => text.clone().into(),
        };
        let columns = row.map_or_else(Table::new, |row| {
            let columns = shape.columns.iter();
            columns.map(|column| (column.name.clone(), value(&column.source, row))).collect()
        });
        Answer { out: columns.into(), table: shape.table.clone(), to: None }
    }
}

fn passed(outcome: &Outcome, event: usize) -> String {
    match route(outcome, &outcome.event_routes, event) {
        None => "pass".into(),
        Some(route) => format!("to {route}"),
    }
}

/// The stream that one of a list's routes names, if it names one.
fn route(outcome: &Outcome, routes: &[u32], at: usize) -> Option<String> {
    let route = (*routes.get(at)? as usize).checked_sub(1)?;
    Some(outcome.routes[route].clone())
}

fn text(outcome: &Outcome, data: u64) -> Value {
    let start = usize::try_from(data >> 32).expect("32 bits");
    let len = usize::try_from(data & 0xffff_ffff).expect("32 bits");
    String::from_utf8(outcome.heap[start..start + len].to_vec()).expect("UTF-8").into()
}

fn push(batch: &mut Batch, column: &Column, value: &Value) {
    let (tag, data) = match (column.tag, value) {
        (_, Value::String(marker)) if marker == NULL => (0, 0),
        (_, Value::String(marker)) if marker == UNCHANGED => (32, 0),
        (_, Value::String(marker)) if marker == ABSENT => (33, 0),
        (1, Value::Boolean(truth)) => (1, u64::from(*truth)),
        (2, Value::Integer(int)) => (2, int.cast_unsigned()),
        (3, Value::Float(float)) => (3, float.to_bits()),
        (4, Value::Datetime(time)) => (4, micros(time).cast_unsigned()),
        (5, Value::Datetime(date)) => (5, days(date).cast_unsigned()),
        (tag @ 16..=18, Value::String(text)) => (tag, keep(batch, text.as_bytes())),
        (20, Value::String(uuid)) => (20, keep(batch, &bytes(uuid))),
        (_, value) => panic!("{value} is no {}", column.type_name),
    };
    batch.tags.push(tag);
    batch.data.push(data);
}

fn keep(batch: &mut Batch, bytes: &[u8]) -> u64 {
    let start = batch.heap.len() as u64;
    batch.heap.extend_from_slice(bytes);
    start << 32 | bytes.len() as u64
}

fn bytes(uuid: &str) -> Vec<u8> {
    let digits = uuid.replace('-', "");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..32).step_by(2).map(byte).collect()
}

/// Microseconds since 1970; of a time that is written in UTC or without zone.
fn micros(time: &Datetime) -> i64 {
    let clock = time.time.expect("a time");
    let minutes = i64::from(clock.hour) * 60 + i64::from(clock.minute);
    let seconds = days(time) * 86_400 + minutes * 60 + i64::from(clock.second.unwrap_or(0));
    seconds * 1_000_000 + i64::from(clock.nanosecond.unwrap_or(0)) / 1_000
}

/// Days since 1970, counted one year and one month after the other.
fn days(date: &Datetime) -> i64 {
    let date = date.date.expect("a date");
    let leap =
        |year: u16| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let years: i64 = (1970..date.year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let february = if leap(date.year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before: i64 = months[..usize::from(date.month) - 1].iter().sum();
    years + before + i64::from(date.day) - 1
}
