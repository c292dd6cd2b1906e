//! What a case came to, for people: which expectation, what was expected, what came.

use std::fmt;

use serde::Serialize;
use toml::{Table, Value};

/// What a case came to.
#[derive(Debug, Clone)]
pub struct CaseReport {
    /// The case's name.
    pub name: String,
    /// What is otherwise than expected, which is nothing when it passes; or why that can't be told.
    pub outcome: Result<Vec<Difference>, String>,
}

impl CaseReport {
    /// Whether everything is as expected.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.outcome.as_ref().is_ok_and(Vec::is_empty)
    }
}

/// Shown as the lines below a case's name: nothing when it passes.
impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(differences) => differences.iter().try_for_each(|found| write!(f, "{found}")),
            Err(why) => why.lines().try_for_each(|line| writeln!(f, "    {line}")),
        }
    }
}

/// An expectation of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A key of the case itself.
    Case(&'static str),
    /// A key of one of its changes.
    Change {
        /// Which, from 0.
        index: usize,
        /// The key.
        key: &'static str,
        /// What the change is.
        words: String,
    },
}

/// An expectation that isn't met.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Which.
    pub at: At,
    /// What the case says; none where it has no such key.
    pub expected: Option<Value>,
    /// What came; none where the key should go.
    pub actual: Option<Value>,
}

impl Difference {
    pub(super) fn of(at: At, expected: Option<Value>, actual: Option<Value>) -> Self {
        Self { at, expected, actual }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match &self.at {
            At::Case(key) => {
                writeln!(f, "    {key}")?;
                key
            }
            At::Change { index, key, words } => {
                writeln!(f, "    change {}: {words}", index + 1)?;
                key
            }
        };
        match (&self.expected, &self.actual) {
            (Some(Value::Table(expected)), Some(Value::Table(actual))) => {
                columns(f, key, expected, actual)
            }
            (expected, actual) => {
                line(f, '-', key, expected.as_ref())?;
                line(f, '+', key, actual.as_ref())
            }
        }
    }
}

/// Of two rows only the columns that differ; all of both when that is only their order.
fn columns(f: &mut fmt::Formatter<'_>, key: &str, expected: &Table, actual: &Table) -> fmt::Result {
    let mut names: Vec<&String> = expected.keys().collect();
    names.extend(actual.keys().filter(|name| !expected.contains_key(*name)));
    for name in names {
        let (expected, actual) = (expected.get(name), actual.get(name));
        if expected != actual {
            let key = format!("{key}.{name}");
            line(f, '-', &key, expected)?;
            line(f, '+', &key, actual)?;
        }
    }
    Ok(())
}

fn line(f: &mut fmt::Formatter<'_>, sign: char, key: &str, value: Option<&Value>) -> fmt::Result {
    match value {
        Some(Value::Table(row)) => writeln!(f, "      {sign} {key} = {}", inline(row)),
        Some(value) => writeln!(f, "      {sign} {key} = {}", literal(value)),
        None => Ok(()),
    }
}

/// A value in one line, as it stands in a file of cases.
#[must_use]
pub fn shown(value: &Value) -> String {
    literal(value)
}

/// A table in one line, as in `{ id = 1, name = "x" }`.
pub(super) fn inline(table: &Table) -> String {
    let pair = |(key, value): (&String, &Value)| format!("{} = {}", name(key), literal(value));
    match table.iter().map(pair).collect::<Vec<_>>().join(", ") {
        pairs if pairs.is_empty() => "{}".into(),
        pairs => format!("{{ {pairs} }}"),
    }
}

fn name(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(bare) { key.into() } else { Value::from(key).to_string() }
}

/// A value as it stands in TOML.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::Table(table) => inline(table),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        plain => plain.to_string(),
    }
}

/// For `--json`.
impl Serialize for CaseReport {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            name: &'a str,
            passes: bool,
            differences: Vec<ShownDifference<'a>>,
            error: Option<&'a str>,
        }
        #[derive(Serialize)]
        struct ShownDifference<'a> {
            change: Option<usize>,
            key: &'static str,
            expected: Option<&'a Value>,
            actual: Option<&'a Value>,
        }
        let differences = self.outcome.as_deref().unwrap_or_default().iter().map(|found| {
            let (change, key) = match found.at {
                At::Case(key) => (None, key),
                At::Change { index, key, .. } => (Some(index + 1), key),
            };
            let (expected, actual) = (found.expected.as_ref(), found.actual.as_ref());
            ShownDifference { change, key, expected, actual }
        });
        let shown = Shown {
            name: &self.name,
            passes: self.passes(),
            differences: differences.collect(),
            error: self.outcome.as_ref().err().map(String::as_str),
        };
        shown.serialize(serializer)
    }
}
