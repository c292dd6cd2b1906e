//! The publication: which tables PostgreSQL sends. One that walmill made is kept in step with the
//! config; one that the user made is theirs.

use std::collections::HashSet;

use super::config::Config;
use super::database::Database;
use super::fault::{Fault, quote};
use super::options;
use crate::model::pattern::TablePattern;

/// The comment on a publication that walmill made.
pub(super) const MARK: &str = "made by walmill";

/// A table that the config names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) partitioned: bool,
    /// The partitioned table that it is a part of, or itself.
    root: u32,
}

impl Table {
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }
}

/// Makes sure that the publication is there. `first` says that nothing was streamed yet, so that a
/// table which is not there is a slip and not one that went away.
pub(super) async fn ensure(
    database: &Database,
    config: &Config,
    slot_exists: bool,
    first: bool,
) -> Result<(), Fault> {
    let tables = tables(database, config).await?;
    check_patterns(config, &tables, first)?;
    let query = "SELECT obj_description(oid, 'pg_publication') IS NOT DISTINCT FROM $2, \
                 puballtables FROM pg_publication WHERE pubname = $1";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
        [&config.publication.as_str(), &MARK];
    let found = database.rows("look up the publication", query, &parameters).await?;
    match found.first().map(|row| (row.get(0), row.get(1))) {
        None if slot_exists && !first => Err(Fault::lost(
            format!("publication `{}` is gone", config.publication),
            config.slot.as_str(),
            "PostgreSQL cannot decode what was written without it; ",
        )),
        None => create(database, config, &tables).await,
        Some((_, true)) => Ok(()),
        Some((true, false)) if config.create_publication => add(database, config, &tables).await,
        Some(_) => warn_of_missing(database, config, &tables).await,
    }
}

/// Whether the publication is there.
pub(super) async fn exists(database: &Database, config: &Config) -> Result<bool, Fault> {
    let query = "SELECT FROM pg_publication WHERE pubname = $1";
    let name = config.publication.as_str();
    Ok(!database.rows("look up the publication", query, &[&name]).await?.is_empty())
}

/// The database's tables that the config names.
pub(super) async fn tables(database: &Database, config: &Config) -> Result<Vec<Table>, Fault> {
    // What belongs to an extension is not the user's data, and seldom theirs to publish.
    let query = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p', \
                 coalesce(pg_partition_root(c.oid)::oid, c.oid) \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384 \
                 AND n.nspname <> 'information_schema' AND left(n.nspname, 3) <> 'pg_' \
                 AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
                 AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 2, 3";
    let rows = database.rows("look up the tables", query, &[]).await?;
    let tables = rows.iter().map(|row| Table {
        oid: row.get(0),
        schema: row.get(1),
        name: row.get(2),
        partitioned: row.get(3),
        root: row.get(4),
    });
    Ok(select(tables.collect(), &config.tables))
}

/// Those that a pattern takes; of a partitioned table and its parts only the whole.
fn select(mut tables: Vec<Table>, patterns: &[TablePattern]) -> Vec<Table> {
    tables.retain(|table| patterns.iter().any(|p| p.matches(&table.schema, &table.name)));
    let taken: HashSet<u32> = tables.iter().map(|table| table.oid).collect();
    tables.retain(|table| table.root == table.oid || !taken.contains(&table.root));
    tables
}

fn check_patterns(config: &Config, tables: &[Table], first: bool) -> Result<(), Fault> {
    let empty = |pattern: &&TablePattern| {
        !tables.iter().any(|table| pattern.matches(&table.schema, &table.name))
    };
    for pattern in config.tables.iter().filter(empty) {
        let error = format!(
            "`{pattern}`, which `source.tables` or a pipeline names, is no table of {}",
            config.url
        );
        if first && (pattern.literal().is_some() || tables.is_empty()) {
            return Err(Fault::person(
                error,
                "create the table, or correct the name; the schema is part of it",
            ));
        }
        tracing::warn!("{error}");
    }
    match config.tables.is_empty() {
        true => Err(Fault::person("`source.tables` is empty", "write `tables = [\"public.*\"]`")),
        false => Ok(()),
    }
}

/// `TABLE ONLY a, ONLY b`: an inheriting table is published for its own sake.
fn list(tables: &[&Table]) -> String {
    let only: Vec<String> = tables.iter().map(|table| format!("ONLY {}", table.quoted())).collect();
    format!("TABLE {}", only.join(", "))
}

/// What makes the publication.
pub(super) fn create_statement(config: &Config, tables: &[&Table]) -> String {
    format!(
        "CREATE PUBLICATION {} FOR {} WITH ({})",
        quote(config.publication.as_str()),
        list(tables),
        options::publication(config)
    )
}

async fn create(database: &Database, config: &Config, tables: &[Table]) -> Result<(), Fault> {
    let name = quote(config.publication.as_str());
    let create = create_statement(config, &tables.iter().collect::<Vec<_>>());
    let missing = format!("publication `{}` is missing", config.publication);
    if !config.create_publication {
        return Err(Fault::person(missing, format!("run `{create}`")));
    }
    let statements = format!("{create}; COMMENT ON PUBLICATION {name} IS '{MARK}'");
    match database.run("create the publication", &statements).await {
        Err(Fault::Person(report)) => Err(Fault::person(
            report.error,
            format!("as the owner of the tables or a superuser, run `{create}`"),
        )),
        created => created.inspect(|()| {
            tracing::info!(publication = %config.publication, tables = tables.len(), "created");
        }),
    }
}

/// Adds the tables that a publication of ours lacks. One that cannot be added does not stop the
/// others.
async fn add(database: &Database, config: &Config, tables: &[Table]) -> Result<(), Fault> {
    let query = "SELECT r.prrelid FROM pg_publication_rel r \
                 JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1";
    let rows =
        database.rows("look up the publication", query, &[&config.publication.as_str()]).await?;
    let published: HashSet<u32> = rows.iter().map(|row| row.get(0)).collect();
    for table in tables.iter().filter(|table| !published.contains(&table.oid)) {
        let name = quote(config.publication.as_str());
        let alter = format!("ALTER PUBLICATION {name} ADD {}", list(&[table]));
        match database.run("add a table to the publication", &alter).await {
            Ok(()) => tracing::info!(table = table.quoted(), "added to the publication"),
            Err(Fault::Person(report) | Fault::Halt(report)) => {
                tracing::warn!("{}; run `{alter}` yourself", report.error);
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

async fn warn_of_missing(
    database: &Database,
    config: &Config,
    tables: &[Table],
) -> Result<(), Fault> {
    let query = "SELECT schemaname::text, tablename::text FROM pg_publication_tables \
                 WHERE pubname = $1";
    let rows =
        database.rows("look up the publication", query, &[&config.publication.as_str()]).await?;
    let published: HashSet<(String, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    // A partitioned table may be published by its parts.
    for table in tables.iter().filter(|table| !table.partitioned) {
        if !published.contains(&(table.schema.clone(), table.name.clone())) {
            let (publication, table) = (quote(config.publication.as_str()), table.quoted());
            tracing::warn!(
                "publication {publication} lacks {table}, so its changes do not come: \
                 `ALTER PUBLICATION {publication} ADD TABLE {table}`"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_stands_back_behind_the_whole() {
        let table = |oid, name: &str, root| Table {
            oid,
            schema: "public".into(),
            name: name.into(),
            partitioned: oid == root,
            root,
        };
        let tables = || vec![table(1, "log", 1), table(2, "log_2025", 1), table(3, "posts", 3)];
        let names = |pattern: &str| -> Vec<String> {
            let patterns = [pattern.parse().unwrap()];
            select(tables(), &patterns).into_iter().map(|table| table.name).collect()
        };
        assert_eq!(names("public.*"), ["log", "posts"]);
        assert_eq!(names("public.log_2025"), ["log_2025"]);
    }

    #[test]
    fn names_are_quoted() {
        let table = Table {
            oid: 1,
            schema: "My \"Schema".into(),
            name: "a;drop".into(),
            partitioned: false,
            root: 1,
        };
        assert_eq!(list(&[&table]), r#"TABLE ONLY "My ""Schema"."a;drop""#);
    }
}
