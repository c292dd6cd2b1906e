//! What the config names, and what that is in the database.

use super::advice::Advice;
use super::code::Code;
use super::{Database, Facts, Fault};
use crate::model::finding::did_you_mean;
use crate::model::pattern::TablePattern;
use crate::source::fault::quote;

pub(super) async fn check(database: &Database, facts: &Facts<'_>) -> Result<Vec<Advice>, Fault> {
    let mut advice = Vec::new();
    for pattern in &facts.config.tables {
        advice.extend(match pattern.literal() {
            Some((schema, name)) => literal(database, facts, (schema, name)).await?,
            None => nothing(facts, pattern),
        });
    }
    for table in facts.tables {
        advice.extend(heirs(database, facts, table.table.oid, table.name()).await?);
    }
    Ok(advice)
}

/// A pattern that takes no table.
fn nothing(facts: &Facts<'_>, pattern: &TablePattern) -> Option<Advice> {
    let taken =
        facts.tables.iter().any(|table| pattern.matches(&table.table.schema, &table.table.name));
    (!taken).then(|| {
        let message = format!("`{pattern}` is no table of the database");
        let advice = match facts.tables.is_empty() {
            true => Advice::error(Code::TableMissing, "source.tables", message),
            false => Advice::warning(Code::TableMissing, "source.tables", message),
        };
        advice.suggest("create the tables, or correct the pattern; the schema is part of it")
    })
}

/// A table by its name: whether it is one whose changes can come.
async fn literal(
    database: &Database,
    facts: &Facts<'_>,
    (schema, name): (&str, &str),
) -> Result<Option<Advice>, Fault> {
    let query = "SELECT c.relkind::text, c.relpersistence::text, c.relispartition, \
                 coalesce(pg_partition_root(c.oid)::oid, c.oid) \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2";
    let rows = database.rows("look up a table", query, &[&schema, &name]).await?;
    let full = format!("{schema}.{name}");
    let (path, quoted) = (format!("table.{full}"), format!("{}.{}", quote(schema), quote(name)));
    let Some(row) = rows.first() else {
        let known = facts.tables.iter().map(|table| table.name());
        let remedy = match did_you_mean(&full, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => {
                "create the table, or correct the name in `source.tables` or the pipeline".into()
            }
        };
        let message = format!("`{full}` is no table of the database");
        return Ok(Some(Advice::error(Code::TableMissing, path, message).suggest(remedy)));
    };
    let (kind, persistence): (String, String) = (row.get(0), row.get(1));
    let (partition, root): (bool, u32) = (row.get(2), row.get(3));
    Ok(match (kind.as_str(), persistence.as_str()) {
        ("f", _) => {
            let message = format!("`{full}` is a foreign table: its changes are in another server");
            Some(
                Advice::error(Code::ForeignTable, path, message)
                    .suggest("stream from the server that has it, or take it out of the config"),
            )
        }
        ("r" | "p", "u") => {
            let message = format!("`{full}` is unlogged: its changes are in no log");
            Some(Advice::error(Code::Unlogged, path, message).suggest(format!(
                "ALTER TABLE {quoted} SET LOGGED; -- locks and rewrites the table"
            )))
        }
        ("r" | "p", _) if partition => {
            let behind = facts.tables.iter().find(|table| table.table.oid == root);
            behind.map(|whole| {
                let message = format!(
                    "`{full}` is a partition, and its changes come under the name of the whole: {}",
                    whole.name()
                );
                Advice::warning(Code::Partition, path, message)
                    .suggest(format!("name `{}` in its place", whole.name()))
            })
        }
        ("r" | "p", _) => None,
        _ => {
            let message = format!("`{full}` is no table: only tables have changes");
            Some(
                Advice::error(Code::NotATable, path, message)
                    .suggest("name the tables behind it, or take it out of the config"),
            )
        }
    })
}

/// Tables that inherit from one that the config takes, and are not taken.
async fn heirs(
    database: &Database,
    facts: &Facts<'_>,
    table: u32,
    name: &str,
) -> Result<Option<Advice>, Fault> {
    let query = "SELECT n.nspname::text || '.' || c.relname::text, c.oid FROM pg_inherits i \
                 JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE i.inhparent = $1 AND NOT c.relispartition ORDER BY 1";
    let rows = database.rows("look for inheriting tables", query, &[&table]).await?;
    let taken = |oid: u32| facts.tables.iter().any(|table| table.table.oid == oid);
    let left: Vec<String> =
        rows.iter().filter(|row| !taken(row.get(1))).map(|row| row.get(0)).collect();
    Ok((!left.is_empty()).then(|| {
        let message = format!(
            "{} inherit from {name}: their rows show in it, and their changes do not come",
            left.join(", ")
        );
        let names: Vec<String> = left.iter().map(|name| format!("\"{name}\"")).collect();
        Advice::warning(Code::Inherited, format!("table.{name}"), message)
            .suggest(format!("add {} to `source.tables`", names.join(", ")))
    }))
}
