//! A case's table: `name type`, and `key` behind the columns of the key.

use serde::{Deserialize, Serialize};

use crate::plugin::bindings;

/// A table's name and columns.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Relation {
    /// `schema.table`
    pub table: String,
    /// `name type`, and `key` behind those of the key.
    pub columns: Vec<String>,
}

/// The number under which a case's table is announced.
const ID: u32 = 7;

impl Relation {
    /// As a plugin is told about it.
    ///
    /// # Errors
    /// A name that is none.
    pub fn bind(&self, full_old_rows: bool) -> Result<bindings::Relation, String> {
        let name = self.table.split_once('.');
        let (schema, table) =
            name.ok_or_else(|| format!("table `{}` is not `schema.table`", self.table))?;
        let columns = self.columns.iter().map(|written| bind_column(written));
        Ok(bindings::Relation {
            id: ID,
            schema: schema.into(),
            table: table.into(),
            columns: columns.collect::<Result<_, _>>()?,
            full_old_rows,
        })
    }
}

/// A column as a case writes it.
#[must_use]
pub fn column(name: &str, type_name: &str, key: bool) -> String {
    format!("{name} {type_name}{}", if key { " key" } else { "" })
}

fn bind_column(written: &str) -> Result<bindings::Column, String> {
    let (rest, key) = match written.strip_suffix(" key") {
        Some(rest) => (rest, true),
        None => (written, false),
    };
    let (name, type_name) = rest
        .split_once(' ')
        .filter(|(name, type_name)| !name.is_empty() && !type_name.trim().is_empty())
        .ok_or_else(|| format!("column `{written}` is not `name type` or `name type key`"))?;
    let (type_oid, tag) = known(type_name.split('(').next().unwrap_or_default());
    Ok(bindings::Column { name: name.into(), type_oid, type_name: type_name.into(), tag, key })
}

/// A type's name, if its cells have this tag by that name; or that of one whose cells have it.
pub(super) fn named(type_name: &str, tag: u8) -> String {
    let others = ["bool", "int8", "float8", "timestamptz", "date", "time", "numeric", "jsonb"];
    let others = others.into_iter().chain(["bytea", "uuid", "text[]", "text"]);
    let mut names = std::iter::once(type_name).chain(others);
    let fits = |name: &&str| known(name.split('(').next().unwrap_or_default()).1 == tag;
    names.find(fits).unwrap_or(type_name).to_owned()
}

/// A type's OID and the tag of its cells. Types that aren't here read as text, like PostgreSQL's
/// own that have no tag.
fn known(type_name: &str) -> (u32, u8) {
    match type_name {
        "bool" | "boolean" => (16, 1),
        "int2" | "smallint" => (21, 2),
        "int4" | "integer" => (23, 2),
        "int8" | "bigint" => (20, 2),
        "float4" | "real" => (700, 3),
        "float8" | "double precision" => (701, 3),
        "timestamp" => (1114, 4),
        "timestamptz" => (1184, 4),
        "date" => (1082, 5),
        "time" => (1083, 6),
        "text" => (25, 16),
        "varchar" => (1043, 16),
        "numeric" => (1700, 17),
        "json" => (114, 18),
        "jsonb" => (3802, 18),
        "bytea" => (17, 19),
        "uuid" => (2950, 20),
        array if array.ends_with("[]") => (16_401, 21),
        _ => (16_400, 16),
    }
}
