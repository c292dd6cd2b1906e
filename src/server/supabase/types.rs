//! What the columns of a table are called in PostgreSQL's catalog.

use std::sync::Arc;

use crate::model::Relation;

/// The types of a table's columns, as far as the table is known; what a plugin added is not.
#[derive(Debug, Clone, Default)]
pub(super) struct Types(Option<Arc<Table>>);

/// A table's columns.
#[derive(Debug)]
pub(super) struct Table(Vec<Column>);

#[derive(Debug)]
struct Column {
    name: Box<str>,
    type_name: Box<str>,
    modifier: u32,
}

impl Table {
    pub(super) fn of(relation: &Relation) -> Self {
        let columns = relation.columns.iter().map(|column| Column {
            name: column.name.as_str().into(),
            type_name: internal(&column.type_name).into(),
            // -1 is what stands for none, and clients have it without a sign.
            modifier: column.type_mod.cast_unsigned(),
        });
        Self(columns.collect())
    }
}

impl From<Arc<Table>> for Types {
    fn from(table: Arc<Table>) -> Self {
        Self(Some(table))
    }
}

impl Types {
    fn column(&self, name: &str) -> Option<&Column> {
        self.0.as_ref()?.0.iter().find(|column| &*column.name == name)
    }

    /// The type of a column of the table.
    pub(super) fn known(&self, name: &str) -> Option<&str> {
        self.column(name).map(|column| &*column.type_name)
    }

    /// The type of any column: where the table does not say, the one that fits its value.
    pub(super) fn name(&self, name: &str, json: &str) -> String {
        let fits = || match json.as_bytes().first() {
            Some(b'0'..=b'9' | b'-') => "numeric",
            Some(b't' | b'f') => "bool",
            Some(b'{' | b'[') => "jsonb",
            _ => "text",
        };
        self.known(name).unwrap_or_else(fits).to_owned()
    }

    pub(super) fn modifier(&self, name: &str) -> u32 {
        self.column(name).map_or(u32::MAX, |column| column.modifier)
    }
}

/// `numeric(12,2)` is `numeric` in the catalog, `text[]` is `_text`, `public.mood` is `mood`.
fn internal(type_name: &str) -> String {
    let (name, array) = match type_name.strip_suffix("[]") {
        Some(element) => (element, "_"),
        None => (type_name, ""),
    };
    let bare = name.split('(').next().unwrap_or(name);
    let bare = bare.rsplit('.').next().unwrap_or(bare);
    format!("{array}{bare}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_of_the_catalog() {
        for (shown, name) in [
            ("int8", "int8"),
            ("numeric(12,2)", "numeric"),
            ("text[]", "_text"),
            ("_int4", "_int4"),
            ("public.mood", "mood"),
            ("public.mood[]", "_mood"),
        ] {
            assert_eq!(internal(shown), name);
        }
    }
}
