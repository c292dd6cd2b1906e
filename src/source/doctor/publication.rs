//! The publication: whether it has what the config needs.

use std::collections::HashMap;

use super::advice::Advice;
use super::code::Code;
use super::server::Server;
use super::tables::Table;
use super::{Config, Database, Facts, Fault};
use crate::source::fault::quote;
use crate::source::publication::{MARK, create_statement};

/// The first version that publishes some columns or rows of a table.
const PARTIAL: i32 = 15;

/// What the catalog says about it.
pub(super) struct Publication {
    ours: bool,
    all: bool,
    insert: bool,
    update: bool,
    delete: bool,
    truncate: bool,
    root: bool,
    /// Tables that it covers, however they are named in it.
    covers: Vec<u32>,
    partial: HashMap<u32, Partial>,
}

/// What of a table is published.
#[derive(Default)]
struct Partial {
    columns: Option<Vec<i16>>,
    filter: Option<String>,
    filtered: Vec<i16>,
}

impl Publication {
    pub(super) async fn look(
        database: &Database,
        config: &Config,
        server: &Server,
    ) -> Result<Option<Self>, Fault> {
        let (doing, name) = ("look at the publication", config.publication.as_str());
        let query = "SELECT obj_description(oid, 'pg_publication') IS NOT DISTINCT FROM $2, \
                     puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot \
                     FROM pg_publication WHERE pubname = $1";
        let rows = database.rows(doing, query, &[&name, &MARK]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let query = "SELECT c.oid FROM pg_publication_tables t \
                     JOIN pg_namespace n ON n.nspname = t.schemaname \
                     JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename \
                     WHERE t.pubname = $1";
        let covers = database.rows(doing, query, &[&name]).await?;
        let mut partial = HashMap::new();
        if server.version >= PARTIAL {
            let query = "SELECT r.prrelid, r.prattrs::int2[], pg_get_expr(r.prqual, r.prrelid), \
                         ARRAY(SELECT m[1]::int2 FROM \
                         regexp_matches(r.prqual::text, ':varattno (\\d+)', 'g') m) \
                         FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid \
                         WHERE p.pubname = $1";
            for row in database.rows(doing, query, &[&name]).await? {
                let part =
                    Partial { columns: row.get(1), filter: row.get(2), filtered: row.get(3) };
                partial.insert(row.get(0), part);
            }
        }
        Ok(Some(Self {
            ours: row.get(0),
            all: row.get(1),
            insert: row.get(2),
            update: row.get(3),
            delete: row.get(4),
            truncate: row.get(5),
            root: row.get(6),
            covers: covers.iter().map(|row| row.get(0)).collect(),
            partial,
        }))
    }

    /// Whether changes of rows that are there are published: only these need an identity.
    pub(super) fn changes_rows(&self) -> bool {
        self.update || self.delete
    }

    /// Whether the table's changes come, itself or by its partitions.
    pub(super) fn covers(&self, table: &Table) -> bool {
        let all_leaves =
            !table.leaves.is_empty() && table.leaves.iter().all(|leaf| self.covers.contains(leaf));
        self.all || self.covers.contains(&table.table.oid) || all_leaves
    }
}

pub(super) fn check(facts: &Facts<'_>) -> Vec<Advice> {
    let name = facts.config.publication.as_str();
    let path = format!("publication.{name}");
    let Some(publication) = facts.publication else { return missing(facts, &path) };
    // One that walmill made, it keeps up itself at its next start.
    let kept = |table: &Table| publication.ours && table.owned && facts.config.create_publication;
    let mut advice: Vec<Advice> = facts
        .tables
        .iter()
        .filter(|table| !publication.covers(table) && !kept(table))
        .map(|table| {
            let message =
                format!("publication `{name}` lacks {}, so its changes do not come", table.name());
            let add =
                format!("ALTER PUBLICATION {} ADD TABLE ONLY {}", quote(name), table.quoted());
            Advice::error(Code::PublicationTables, table.path(), message).fix([add])
        })
        .collect();
    advice.extend(operations(publication, name, &path));
    advice.extend(root(publication, facts, &path));
    for table in facts.tables {
        if let Some(part) = publication.partial.get(&table.table.oid) {
            advice.extend(partial(publication, part, table, name));
        }
    }
    advice
}

fn missing(facts: &Facts<'_>, path: &str) -> Vec<Advice> {
    if facts.config.create_publication || facts.tables.is_empty() {
        // walmill makes it, and what keeps it from that is the role's.
        return Vec::new();
    }
    let name = &facts.config.publication;
    let message = format!("publication `{name}` is missing, and `create_publication` is off");
    let tables: Vec<_> = facts.tables.iter().map(|table| &table.table).collect();
    let create = create_statement(facts.config, &tables);
    vec![Advice::error(Code::PublicationMissing, path, message).fix([create])]
}

fn operations(publication: &Publication, name: &str, path: &str) -> Option<Advice> {
    let lacking: Vec<&str> = [
        ("insert", publication.insert),
        ("update", publication.update),
        ("delete", publication.delete),
        ("truncate", publication.truncate),
    ]
    .into_iter()
    .filter_map(|(operation, published)| (!published).then_some(operation))
    .collect();
    (!lacking.is_empty()).then(|| {
        let message = format!("publication `{name}` does not publish {}", lacking.join(", "));
        Advice::warning(Code::PublicationOperations, path, message).suggest(format!(
            "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate'); -- tables \
             without a key must have a replica identity first",
            quote(name)
        ))
    })
}

fn root(publication: &Publication, facts: &Facts<'_>, path: &str) -> Option<Advice> {
    let partitioned: Vec<&str> = facts
        .tables
        .iter()
        .filter(|table| table.table.partitioned && publication.covers(table))
        .map(|table| table.name())
        .collect();
    let name = facts.config.publication.as_str();
    (!publication.root && !partitioned.is_empty()).then(|| {
        let message = format!(
            "changes of {} come under the names of its partitions, which pipelines may not know",
            partitioned.join(", ")
        );
        Advice::warning(Code::PublicationRoot, path, message).suggest(format!(
            "ALTER PUBLICATION {} SET (publish_via_partition_root = true);",
            quote(name)
        ))
    })
}

/// What PostgreSQL refuses at an UPDATE or DELETE, and says at no other time.
fn partial(publication: &Publication, part: &Partial, table: &Table, name: &str) -> Vec<Advice> {
    let mut advice = Vec::new();
    let identity = table.identity();
    if !publication.changes_rows() || identity.is_empty() {
        return advice;
    }
    if let Some(columns) = &part.columns
        && !identity.iter().all(|column| columns.contains(column))
    {
        let message = format!(
            "the columns of {} that are published lack a part of its replica identity: UPDATE and \
             DELETE fail at the server",
            table.name()
        );
        let all = columns.iter().chain(identity.iter().filter(|key| !columns.contains(key)));
        let all: Vec<String> = all.filter_map(|column| table.column(*column)).collect();
        let (publication, quoted) = (quote(name), table.quoted());
        let filter =
            part.filter.as_ref().map_or(String::new(), |filter| format!(" WHERE ({filter})"));
        advice.push(Advice::error(Code::PublicationColumns, table.path(), message).suggest(
            format!(
                "BEGIN; ALTER PUBLICATION {publication} DROP TABLE {quoted}; ALTER PUBLICATION \
                 {publication} ADD TABLE {quoted} ({}){filter}; COMMIT;",
                all.join(", ")
            ),
        ));
    }
    if !part.filtered.iter().all(|column| identity.contains(column)) {
        let message = format!(
            "the row filter of {} uses columns that are not in its replica identity: UPDATE and \
             DELETE fail at the server",
            table.name()
        );
        let full = format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.quoted());
        advice.push(Advice::error(Code::PublicationFilter, table.path(), message).fix([full]));
    }
    advice
}
