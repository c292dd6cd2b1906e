//! The published tables as the catalog has them, described exactly as the stream describes them,
//! so that a row that was read and a row that was streamed have one definition.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Row;

use crate::model::{Column, Relation, ReplicaIdentity};
use crate::source::database::Database;
use crate::source::fault::{Fault, quote};
use crate::source::types::Types;

/// From here on OIDs are given out when a database is made, and pgoutput names the types.
const FIRST_NAMED_TYPE: u32 = 10_000;
/// The first version whose publications have column lists and row filters.
const WITH_FILTERS: i32 = 15;
/// The first version that can publish generated columns; before, none is.
const WITH_GENERATED: i32 = 18;

/// A published table.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::source) struct Published {
    /// As the stream describes it.
    pub(in crate::source) relation: Relation,
    /// The columns of its primary key, in its order.
    pub(in crate::source) primary_key: Vec<String>,
    /// The publication's row filter, as SQL.
    pub(in crate::source) filter: Option<String>,
    /// The tables that hold its rows: itself, or a partitioned table's leaves.
    pub(in crate::source) parts: Vec<Part>,
}

/// A table that holds rows.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::source) struct Part {
    /// Its name, as SQL wants it.
    pub(in crate::source) name: String,
    /// Its file: another one after it was rewritten or emptied.
    file: u32,
    /// Size of that file.
    pub(in crate::source) blocks: u64,
    /// Bytes of a block.
    pub(in crate::source) block_size: u64,
    /// What the server believes there is.
    pub(in crate::source) rows: u64,
}

impl Published {
    /// Whether rows of this one, read with the older definition, are what they seem.
    pub(in crate::source) fn is_still(&self, now: &Self) -> bool {
        let files = |table: &Self| -> Vec<(String, u32)> {
            table.parts.iter().map(|part| (part.name.clone(), part.file)).collect()
        };
        self.relation == now.relation && self.filter == now.filter && files(self) == files(now)
    }

    /// The columns, as SQL wants them.
    pub(in crate::source) fn columns(&self) -> String {
        let names: Vec<_> = self.relation.columns.iter().map(|c| quote(&c.name)).collect();
        names.join(", ")
    }

    /// How many columns there are. PostgreSQL has at most 1,600.
    pub(in crate::source) fn width(&self) -> u16 {
        u16::try_from(self.relation.columns.len()).unwrap_or(u16::MAX)
    }
}

/// What a publication publishes, by name.
pub(in crate::source) async fn published(
    database: &Database,
    publication: &str,
) -> Result<Vec<Published>, Fault> {
    let version = database.version();
    let lists = if version >= WITH_FILTERS {
        "p.attnames::text[], p.rowfilter"
    } else {
        "NULL::text[], NULL::text"
    };
    let query = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, c.relreplident::text, {lists} \
         FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
         WHERE p.pubname = $1 ORDER BY 2, 3"
    );
    let rows = database.rows("look up the publication's tables", &query, &[&publication]).await?;
    let oids: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let mut columns = columns(database, &oids).await?;
    let mut parts = parts(database, &oids).await?;
    let types = types(database, &columns).await?;
    let tables = rows.iter().map(|row| {
        let oid: u32 = row.get(0);
        let listed = columns.remove(&oid).unwrap_or_default();
        describe(row, listed, parts.remove(&oid).unwrap_or_default(), &types)
    });
    Ok(tables.collect())
}

/// A column as the catalog has it.
struct Listed {
    name: String,
    type_oid: u32,
    type_mod: i32,
    /// Part of the replica identity, as the stream would say.
    identity: bool,
    /// Its place in the primary key.
    primary: Option<i64>,
}

fn describe(row: &Row, listed: Vec<Listed>, parts: Vec<Part>, types: &Types) -> Published {
    let names: Option<Vec<String>> = row.get(4);
    let published = |column: &Listed| names.as_ref().is_none_or(|all| all.contains(&column.name));
    let primary_key = listed.iter().filter_map(|column| Some((column.primary?, &column.name)));
    let primary_key: BTreeMap<i64, &String> = primary_key.collect();
    let primary_key: Vec<String> = primary_key.into_values().cloned().collect();
    let column = |column: &Listed| Column {
        name: column.name.clone(),
        type_oid: column.type_oid,
        type_mod: column.type_mod,
        type_name: types.name_of(column.type_oid, column.type_mod),
        kind: types.kind_of(column.type_oid),
        key: column.identity,
    };
    let mut relation = Relation {
        oid: row.get(0),
        schema: row.get(1),
        table: row.get(2),
        identity: identity(row.get(3)),
        columns: listed.iter().filter(|column| published(column)).map(column).collect(),
    };
    match relation.says_key() {
        true => relation.identify(),
        false => relation.set_key(&primary_key),
    }
    Published { relation, primary_key, filter: row.get(5), parts }
}

fn identity(code: &str) -> ReplicaIdentity {
    match code {
        "n" => ReplicaIdentity::Nothing,
        "f" => ReplicaIdentity::Full,
        "i" => ReplicaIdentity::Index,
        _ => ReplicaIdentity::Default,
    }
}

async fn columns(database: &Database, oids: &[u32]) -> Result<HashMap<u32, Vec<Listed>>, Fault> {
    let generated =
        if database.version() >= WITH_GENERATED { "true" } else { "a.attgenerated = ''" };
    // The identity's index is the one that the server would take: unique, at once, and valid.
    let query = format!(
        "SELECT a.attrelid, a.attname::text, a.atttypid, a.atttypmod, \
         c.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid \
             AND i.indisunique AND i.indimmediate AND (i.indisvalid OR c.relkind = 'p') \
             AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident \
                 ELSE false END \
             AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])), \
         (SELECT k.at FROM pg_index i CROSS JOIN LATERAL \
             unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, at) \
             WHERE i.indrelid = c.oid AND i.indisprimary AND k.at <= i.indnkeyatts \
             AND k.attnum = a.attnum) \
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
         WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped AND {generated} \
         ORDER BY a.attrelid, a.attnum"
    );
    let mut columns: HashMap<u32, Vec<Listed>> = HashMap::new();
    for row in database.rows("look up the columns", &query, &[&oids]).await? {
        columns.entry(row.get(0)).or_default().push(Listed {
            name: row.get(1),
            type_oid: row.get(2),
            type_mod: row.get(3),
            identity: row.get(4),
            primary: row.get(5),
        });
    }
    Ok(columns)
}

/// Names the types that pgoutput would name; a domain goes by the name of what it stands on.
async fn types(database: &Database, columns: &HashMap<u32, Vec<Listed>>) -> Result<Types, Fault> {
    let named = columns.values().flatten().map(|column| column.type_oid);
    let named: Vec<u32> = named.filter(|oid| *oid >= FIRST_NAMED_TYPE).collect();
    let query = "WITH RECURSIVE base AS ( \
         SELECT t.oid AS named, t.* FROM pg_type t WHERE t.oid = ANY ($1) \
         UNION ALL SELECT b.named, t.* FROM base b JOIN pg_type t ON t.oid = b.typbasetype \
             WHERE b.typtype = 'd') \
         SELECT b.named, CASE n.nspname WHEN 'pg_catalog' THEN '' ELSE n.nspname::text END, \
             b.typname::text \
         FROM base b JOIN pg_namespace n ON n.oid = b.typnamespace WHERE b.typtype <> 'd'";
    let mut types = Types::default();
    for row in database.rows("look up the types", query, &[&named]).await? {
        if types.name(row.get(0), row.get(1), row.get(2)) {
            types.set_array(row.get(0), database.array(row.get(0)).await?);
        }
    }
    Ok(types)
}

async fn parts(database: &Database, oids: &[u32]) -> Result<HashMap<u32, Vec<Part>>, Fault> {
    // An unlogged or foreign part never reaches the stream, so its rows have no place here.
    let query = "SELECT t.root, n.nspname::text, c.relname::text, c.relfilenode, \
         coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int8, \
         current_setting('block_size')::int8, greatest(c.reltuples, 0)::int8 \
         FROM unnest($1::oid[]) AS t (root) CROSS JOIN LATERAL ( \
             SELECT t.root AS oid UNION \
             SELECT relid::oid FROM pg_partition_tree(t.root) WHERE isleaf) AS leaf \
         JOIN pg_class c ON c.oid = leaf.oid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND c.relpersistence = 'p' ORDER BY 1, 2, 3";
    let count = |row: &Row, at| u64::try_from(row.get::<_, i64>(at)).unwrap_or(0);
    let mut parts: HashMap<u32, Vec<Part>> = HashMap::new();
    for row in database.rows("look up the tables' sizes", query, &[&oids]).await? {
        parts.entry(row.get(0)).or_default().push(Part {
            name: format!("{}.{}", quote(row.get(1)), quote(row.get(2))),
            file: row.get(3),
            blocks: count(&row, 4),
            block_size: count(&row, 5),
            rows: count(&row, 6),
        });
    }
    Ok(parts)
}
