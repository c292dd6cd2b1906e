//! The tables that the config takes: whether their old rows can be told, and their large values.

use super::advice::Advice;
use super::code::Code;
use super::{Config, Database, Facts, Fault};
use crate::source::fault::quote;
use crate::source::publication;

/// A table that the config takes.
pub(super) struct Table {
    pub(super) table: publication::Table,
    name: String,
    /// What holds its rows: itself, or its partitions.
    holders: Vec<Holder>,
    /// OIDs of its partitions.
    pub(super) leaves: Vec<u32>,
    pub(super) owned: bool,
    pub(super) readable: bool,
    columns: Vec<(i16, String)>,
}

/// A table with rows of its own.
struct Holder {
    name: String,
    quoted: String,
    /// `pg_class.relreplident`
    identity: Identity,
    /// Columns of the primary key, if an identity can be made of it.
    key: Vec<i16>,
    /// Columns of the index that was chosen.
    index: Vec<i16>,
    /// Bytes of values that are kept apart.
    apart: i64,
    /// Columns whose values can be.
    large: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    Default,
    Nothing,
    Full,
    Index,
}

impl Table {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn quoted(&self) -> String {
        self.table.quoted()
    }

    pub(super) fn path(&self) -> String {
        format!("table.{}", self.name)
    }

    pub(super) fn column(&self, number: i16) -> Option<String> {
        let found = self.columns.iter().find(|(own, _)| *own == number);
        found.map(|(_, name)| quote(name))
    }

    /// Columns by which the server names an old row.
    pub(super) fn identity(&self) -> Vec<i16> {
        match self.holders.first() {
            None => Vec::new(),
            Some(holder) => match holder.identity {
                Identity::Default => holder.key.clone(),
                Identity::Nothing => Vec::new(),
                Identity::Index => holder.index.clone(),
                Identity::Full => self.columns.iter().map(|(number, _)| *number).collect(),
            },
        }
    }
}

pub(super) async fn look(database: &Database, config: &Config) -> Result<Vec<Table>, Fault> {
    let mut tables = Vec::new();
    for table in publication::tables(database, config).await? {
        let query = "SELECT pg_has_role(c.relowner, 'USAGE'), has_table_privilege(c.oid, 'SELECT') \
                     FROM pg_class c WHERE c.oid = $1";
        let Some(row) = database.rows("look at a table", query, &[&table.oid]).await?.pop() else {
            // It went away just now.
            continue;
        };
        let query = "SELECT attnum, attname::text FROM pg_attribute \
                     WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY 1";
        let columns = database.rows("look at a table", query, &[&table.oid]).await?;
        let holders = holders(database, &table).await?;
        let leaves = match table.partitioned {
            true => holders.iter().map(|(oid, _)| *oid).collect(),
            false => Vec::new(),
        };
        tables.push(Table {
            name: format!("{}.{}", table.schema, table.name),
            holders: holders.into_iter().map(|(_, holder)| holder).collect(),
            leaves,
            owned: row.get(0),
            readable: row.get(1),
            columns: columns.iter().map(|row| (row.get(0), row.get(1))).collect(),
            table,
        });
    }
    Ok(tables)
}

async fn holders(
    database: &Database,
    table: &publication::Table,
) -> Result<Vec<(u32, Holder)>, Fault> {
    // A key that may be violated until the end of a transaction identifies nothing.
    let query = "SELECT c.oid, n.nspname::text, c.relname::text, c.relreplident::text, \
                 coalesce((SELECT i.indkey::int2[] FROM pg_index i WHERE i.indrelid = c.oid \
                 AND i.indisprimary AND i.indimmediate AND i.indisvalid), '{}'), \
                 coalesce((SELECT i.indkey::int2[] FROM pg_index i WHERE i.indrelid = c.oid \
                 AND i.indisreplident AND i.indimmediate AND i.indisvalid), '{}'), \
                 CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE pg_relation_size(c.reltoastrelid) END, \
                 ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid \
                 AND a.attnum > 0 AND NOT a.attisdropped AND a.attlen = -1 \
                 AND a.attstorage IN ('x', 'e') ORDER BY a.attnum) \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind = 'r' AND (c.oid = $1 OR c.oid IN \
                 (SELECT t.relid FROM pg_partition_tree($1) t WHERE t.isleaf)) ORDER BY 2, 3";
    let rows = database.rows("look at a table", query, &[&table.oid]).await?;
    let holder = |row: &tokio_postgres::Row| {
        let (schema, name): (String, String) = (row.get(1), row.get(2));
        let holder = Holder {
            quoted: format!("{}.{}", quote(&schema), quote(&name)),
            name: format!("{schema}.{name}"),
            identity: match row.get::<_, String>(3).as_str() {
                "n" => Identity::Nothing,
                "f" => Identity::Full,
                "i" => Identity::Index,
                _ => Identity::Default,
            },
            key: row.get(4),
            index: row.get(5),
            apart: row.get(6),
            large: row.get(7),
        };
        (row.get(0), holder)
    };
    Ok(rows.iter().map(holder).collect())
}

pub(super) fn check(facts: &Facts<'_>) -> Vec<Advice> {
    // One that walmill makes publishes everything.
    let changes_rows = facts.publication.is_none_or(|publication| publication.changes_rows());
    let holders = facts.tables.iter().flat_map(|table| &table.holders);
    holders
        .flat_map(|holder| {
            let identity = holder.identity(changes_rows);
            // Who has no identity at all hears of that first.
            let toast = if identity.is_none() { holder.toast() } else { None };
            identity.into_iter().chain(toast)
        })
        .collect()
}

impl Holder {
    fn identity(&self, changes_rows: bool) -> Option<Advice> {
        let (code, why) = match self.identity {
            _ if !changes_rows => return None,
            Identity::Default if self.key.is_empty() => {
                (Code::NoIdentity, "has no primary key that could name its old rows")
            }
            Identity::Nothing => (Code::IdentityNothing, "has REPLICA IDENTITY NOTHING"),
            Identity::Index if self.index.is_empty() => {
                (Code::IdentityIndex, "has lost the index that was its replica identity")
            }
            Identity::Default | Identity::Full | Identity::Index => return None,
        };
        let message = format!(
            "{} {why}: once it is published, UPDATE and DELETE fail at the server",
            self.name
        );
        let advice = Advice::error(code, format!("table.{}", self.name), message);
        Some(advice.fix([format!("ALTER TABLE {} REPLICA IDENTITY FULL", self.quoted)]))
    }

    fn toast(&self) -> Option<Advice> {
        (self.apart > 0 && self.identity != Identity::Full && !self.large.is_empty()).then(|| {
            let message = format!(
                "{} has large values: where an update leaves one as it is, it is not sent, and the \
                 event names its column in `unchanged` ({})",
                self.name,
                self.large.join(", ")
            );
            let path = format!("table.{}", self.name);
            Advice::warning(Code::Toast, path, message).suggest(format!(
                "ALTER TABLE {} REPLICA IDENTITY FULL; -- if plugins need them; it writes more log",
                self.quoted
            ))
        })
    }
}
