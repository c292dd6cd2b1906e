//! Whether a table can be backfilled, and the SQL that reads it in the order of its primary key.

use crate::model::Finding;
use crate::model::backfill::Backfill;
use crate::model::finding::did_you_mean;
use crate::source::config::Config;
use crate::source::database::Database;
use crate::source::fault::{Fault, quote};
use crate::source::snapshot::catalog::{self, Published};

/// The first server version whose pgoutput passes messages on, which the watermarks are.
const WITH_MESSAGES: i32 = 14;

/// A table as it is read.
pub(super) struct Plan {
    pub(super) published: Published,
    /// Where it is read from, as SQL.
    pub(super) from: String,
    /// The primary key's columns, as SQL.
    key: Vec<String>,
}

/// Which rows of the table a chunk is about.
pub(super) enum Range<'a> {
    /// Those behind this key, up to and including that one; without ends where there is none.
    Between(Option<&'a [String]>, Option<&'a [String]>),
    /// Those of these keys.
    Of(&'a [Vec<String>]),
}

impl Plan {
    /// Looks the table up; the finding says why it can't be backfilled.
    pub(super) async fn of(
        database: &Database,
        config: &Config,
        (schema, table): (&str, &str),
    ) -> Result<Result<Self, Finding>, Fault> {
        let publication = config.publication.as_str();
        let all = catalog::published(database, publication).await?;
        let named = |published: &&Published| {
            published.relation.schema == schema && published.relation.table == table
        };
        match all.iter().find(named) {
            Some(published) => Ok(Self::new(published.clone())),
            None => not_published(database, publication, (schema, table), &all).await.map(Err),
        }
    }

    fn new(published: Published) -> Result<Self, Finding> {
        let relation = &published.relation;
        let name = format!("{}.{}", quote(&relation.schema), quote(&relation.table));
        if published.primary_key.is_empty() {
            return Err(Finding::error(
                "no-primary-key",
                relation.to_string(),
                format!("{relation} has no primary key, in whose order it would be read"),
            )
            .suggest(format!(
                "give it one (`ALTER TABLE {name} ADD PRIMARY KEY (…)`), or take a first snapshot \
                 into a new data folder (`snapshot = \"initial\"`)"
            )));
        }
        let has = |name: &String| relation.columns.iter().any(|column| column.name == *name);
        if let Some(column) = published.primary_key.iter().find(|name| !has(name)) {
            return Err(Finding::error(
                "key-not-published",
                relation.to_string(),
                format!(
                    "the publication's column list of {relation} lacks `{column}`, a part of \
                         its primary key"
                ),
            )
            .suggest("add it to the column list (`ALTER PUBLICATION … SET TABLE …`)"));
        }
        // A partitioned table is read as a whole; any other without those that inherit from it.
        let itself = published.parts.len() == 1 && published.parts[0].name == name;
        let from = if itself { format!("ONLY {name}") } else { name };
        let key = published.primary_key.iter().map(|name| quote(name)).collect();
        Ok(Self { published, from, key })
    }

    /// Where the primary key is among the table's columns.
    pub(super) fn key_places(&self) -> Vec<usize> {
        let columns = &self.published.relation.columns;
        let place = |name: &String| columns.iter().position(|column| column.name == *name);
        self.published.primary_key.iter().filter_map(place).collect()
    }

    /// Rows that the server believes there are.
    pub(super) fn rows(&self) -> u64 {
        self.published.parts.iter().map(|part| part.rows).sum()
    }

    /// The key of the row that ends a chunk of so many; no row where fewer are left.
    pub(super) fn end_query(&self, after: Option<&[String]>, rows: u64) -> String {
        let (key, from) = (self.key.join(", "), &self.from);
        let wanted = self.wanted(&Range::Between(after, None), Vec::new());
        let skip = rows.saturating_sub(1);
        format!(
            "COPY (SELECT {key} FROM {from}{wanted} ORDER BY {key} OFFSET {skip} LIMIT 1) TO STDOUT"
        )
    }

    /// The rows of a chunk, in the order of their keys.
    pub(super) fn rows_query(&self, backfill: &Backfill, range: &Range<'_>) -> String {
        let (columns, key, from) = (self.published.columns(), self.key.join(", "), &self.from);
        let filters = [&self.published.filter, &backfill.filter];
        let filters =
            filters.into_iter().flatten().map(|filter| format!("(\n{filter}\n)")).collect();
        let wanted = self.wanted(range, filters);
        format!("COPY (SELECT {columns} FROM {from}{wanted} ORDER BY {key}) TO STDOUT")
    }

    fn wanted(&self, range: &Range<'_>, filters: Vec<String>) -> String {
        let key = self.key.join(", ");
        let mut conditions = Vec::new();
        match range {
            Range::Between(after, to) => {
                conditions.extend(after.map(|after| format!("({key}) > ({})", literals(after))));
                conditions.extend(to.map(|to| format!("({key}) <= ({})", literals(to))));
            }
            Range::Of(keys) => {
                let keys: Vec<_> = keys.iter().map(|key| format!("({})", literals(key))).collect();
                conditions.push(format!("({key}) IN ({})", keys.join(", ")));
            }
        }
        conditions.extend(filters);
        match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        }
    }
}

/// Values as SQL; each takes the type of the column that it is compared with.
fn literals(values: &[String]) -> String {
    let literal =
        |value: &String| format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''"));
    values.iter().map(literal).collect::<Vec<_>>().join(", ")
}

async fn not_published(
    database: &Database,
    publication: &str,
    (schema, table): (&str, &str),
    all: &[Published],
) -> Result<Finding, Fault> {
    let name = format!("{schema}.{table}");
    let quoted = format!("{}.{}", quote(schema), quote(table));
    let there = "SELECT to_regclass($1) IS NOT NULL, array(SELECT relid::regclass::text \
                 FROM pg_partition_tree(to_regclass($1)) WHERE isleaf)";
    let rows = database.rows("look up a table", there, &[&quoted]).await?;
    let found = rows.first().map(|row| (row.get(0), row.get(1)));
    let (exists, parts): (bool, Vec<String>) = found.unwrap_or_default();
    if !exists {
        let names: Vec<String> = all.iter().map(|table| table.relation.to_string()).collect();
        let meant = did_you_mean(&name, names.iter().map(String::as_str));
        let finding = Finding::error("unknown-table", &*name, format!("there is no table {name}"));
        return Ok(match meant {
            Some(meant) => finding.suggest(format!("did you mean `{meant}`?")),
            None => finding.suggest("write it as `schema.table`"),
        });
    }
    let published = |part: &&String| all.iter().any(|table| table.relation.to_string() == **part);
    let finding = Finding::error(
        "not-published",
        name,
        format!("{quoted} is not in publication `{publication}`, so its changes do not come"),
    );
    let parts: Vec<_> = parts.iter().filter(published).cloned().collect();
    Ok(match parts.is_empty() {
        true => finding.suggest(format!(
            "`ALTER PUBLICATION {} ADD TABLE {quoted}`, and name it in `source.tables`",
            quote(publication)
        )),
        false => finding.suggest(format!("its parts are: name {}", parts.join(", "))),
    })
}

/// Whether this server and this table can be backfilled at all, and what the filter means there.
pub(super) async fn check(
    database: &Database,
    config: &Config,
    (schema, table): (&str, &str),
    filter: Option<&str>,
) -> Result<Result<Plan, Finding>, Fault> {
    let standby = "SELECT pg_is_in_recovery()";
    let rows = database.rows("look at the server", standby, &[]).await?;
    if rows.first().is_some_and(|row| row.get(0)) {
        return Ok(Err(Finding::error(
            "standby",
            "source.url",
            "the server is a standby, and a backfill writes its watermarks into the log",
        )
        .suggest("backfill from the primary server")));
    }
    if database.version() < WITH_MESSAGES {
        return Ok(Err(Finding::error(
            "server-too-old",
            "source.url",
            format!("PostgreSQL {} does not pass watermarks on", database.version()),
        )
        .suggest("use PostgreSQL 14 or later, or a first snapshot into a new data folder")));
    }
    let plan = match Plan::of(database, config, (schema, table)).await? {
        Ok(plan) => plan,
        Err(finding) => return Ok(Err(finding)),
    };
    let Some(filter) = filter else { return Ok(Ok(plan)) };
    // What is an expression in both places is one, and nothing that closes a bracket of ours.
    let from = &plan.from;
    let tries = [
        format!("SELECT FROM {from} WHERE (\n{filter}\n) LIMIT 0"),
        format!("SELECT (\n{filter}\n)::boolean FROM {from} LIMIT 0"),
    ];
    for query in tries {
        if let Err(fault) = database.rows("read the filter", &query, &[]).await {
            let finding = Finding::error("bad-filter", "where", fault.report()?.error);
            return Ok(Err(
                finding.suggest("write a condition on the table's columns, as behind WHERE in SQL")
            ));
        }
    }
    Ok(Ok(plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_text_are_literals() {
        let values = ["it's", "a\\b", "tab\tand \"quote\""].map(str::to_owned);
        assert_eq!(literals(&values), "E'it''s', E'a\\\\b', E'tab\tand \"quote\"'");
    }
}
