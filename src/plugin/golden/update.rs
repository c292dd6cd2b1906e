//! Expected outcomes rewritten in their file, which stays as it is otherwise.

use toml::Value;
use toml_edit::{DocumentMut, Item, TableLike};

use super::report::literal;
use super::{At, CaseReport, Difference, Format, json};

/// Why a file can't be rewritten.
#[derive(Debug, thiserror::Error)]
#[error("case `{case}` can't be rewritten: {why}")]
pub struct UpdateError {
    /// The case's name.
    pub case: String,
    /// Why.
    pub why: String,
}

/// The text of a file with what came put in place of what was expected. Comments, order and form
/// of the rest stay in TOML; JSON is written anew.
///
/// # Errors
/// A case has no outcome, or the reports are of another file.
pub fn updated(text: &str, format: Format, reports: &[CaseReport]) -> Result<String, UpdateError> {
    for report in reports {
        if let Err(why) = &report.outcome {
            return Err(UpdateError { case: report.name.clone(), why: why.clone() });
        }
    }
    match format {
        Format::Toml => updated_toml(text, reports),
        Format::Json => updated_json(text, reports),
    }
}

fn changes(reports: &[CaseReport]) -> impl Iterator<Item = (usize, &CaseReport, &Difference)> {
    reports.iter().enumerate().flat_map(|(at, report)| {
        let differences = report.outcome.as_deref().unwrap_or_default();
        differences.iter().map(move |difference| (at, report, difference))
    })
}

fn moved(report: &CaseReport) -> UpdateError {
    let why = "the file does not hold it any more".into();
    UpdateError { case: report.name.clone(), why }
}

fn updated_toml(text: &str, reports: &[CaseReport]) -> Result<String, UpdateError> {
    let lost = |why: toml_edit::TomlError| UpdateError { case: "all".into(), why: why.to_string() };
    let mut document: DocumentMut = text.parse().map_err(lost)?;
    for (at, report, difference) in changes(reports) {
        let case = document.get_mut("case").and_then(|cases| nth(cases, at));
        let case = case.ok_or_else(|| moved(report))?;
        let (table, key) = match &difference.at {
            At::Case(key) => (Some(case), *key),
            At::Change { index, key, .. } => {
                (case.get_mut("change").and_then(|changes| nth(changes, *index)), *key)
            }
        };
        put(table.ok_or_else(|| moved(report))?, key, difference.actual.as_ref())
            .map_err(|why| UpdateError { case: report.name.clone(), why })?;
    }
    Ok(document.to_string())
}

/// An element of a list, in either of the forms that TOML has for one.
fn nth(list: &mut Item, at: usize) -> Option<&mut dyn TableLike> {
    match list {
        Item::ArrayOfTables(tables) => tables.get_mut(at).map(|table| table as &mut dyn TableLike),
        Item::Value(toml_edit::Value::Array(values)) => values
            .get_mut(at)
            .and_then(toml_edit::Value::as_inline_table_mut)
            .map(|table| table as &mut dyn TableLike),
        _ => None,
    }
}

fn put(table: &mut dyn TableLike, key: &str, value: Option<&Value>) -> Result<(), String> {
    let Some(value) = value else {
        remove(table, key);
        return Ok(());
    };
    let mut new: toml_edit::Value =
        literal(value).parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            // The blanks and the comment around it stay.
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => _ = table.insert(key, Item::Value(new)),
    }
    Ok(())
}

/// Takes a key out; the blank before the end of an inline table stays.
fn remove(table: &mut dyn TableLike, key: &str) {
    let end = last(table).and_then(|value| value.decor().suffix()?.as_str().map(str::to_owned));
    table.remove(key);
    if let (Some(end), Some(value)) = (end.filter(|end| end.trim().is_empty()), last(table)) {
        value.decor_mut().set_suffix(end);
    }
}

fn last(table: &mut dyn TableLike) -> Option<&mut toml_edit::Value> {
    table.iter_mut().last().and_then(|(_, item)| item.as_value_mut())
}

fn updated_json(text: &str, reports: &[CaseReport]) -> Result<String, UpdateError> {
    let lost = |why| UpdateError { case: "all".into(), why };
    let mut document = json::parse(text).map_err(lost)?;
    for (at, report, difference) in changes(reports) {
        let case = document.get_mut("case").and_then(|cases| cases.get_mut(at));
        let (table, key) = match &difference.at {
            At::Case(key) => (case, *key),
            At::Change { index, key, .. } => {
                let changes = case.and_then(|case| case.get_mut("change"));
                (changes.and_then(|changes| changes.get_mut(*index)), *key)
            }
        };
        let table = table.and_then(Value::as_table_mut).ok_or_else(|| moved(report))?;
        match &difference.actual {
            Some(value) => _ = table.insert(key.to_owned(), value.clone()),
            None => _ = table.remove(key),
        }
    }
    Ok(json::write(&document))
}
