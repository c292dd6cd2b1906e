//! Tables: their columns by name, sets of them from a configuration, and something for each.

use std::cell::Cell;

use serde::Deserialize;

use crate::config::did_you_mean;
use crate::{Column, Relation};

/// What a column's values are: [`Column::tag`], and the tags of computed columns.
pub mod tag {
    /// No value.
    pub const NULL: u8 = 0;
    /// `boolean`
    pub const BOOL: u8 = 1;
    /// `smallint`, `integer`, `bigint`
    pub const INT: u8 = 2;
    /// `real`, `double precision`
    pub const FLOAT: u8 = 3;
    /// `timestamp`, `timestamptz`
    pub const TIMESTAMP: u8 = 4;
    /// `date`
    pub const DATE: u8 = 5;
    /// `time`
    pub const TIME: u8 = 6;
    /// Text, and every type with no tag of its own in PostgreSQL's text form.
    pub const TEXT: u8 = 16;
    /// `numeric`
    pub const NUMERIC: u8 = 17;
    /// `json`, `jsonb`
    pub const JSON: u8 = 18;
    /// `bytea`
    pub const BYTEA: u8 = 19;
    /// `uuid`
    pub const UUID: u8 = 20;
    /// An array, as a JSON array.
    pub const ARRAY: u8 = 21;
    /// A large value that an update left as it was, and PostgreSQL did not send.
    pub const UNCHANGED: u8 = 32;
    /// A column of an old row outside the replica identity.
    pub const ABSENT: u8 = 33;
}

impl Relation {
    /// `schema.table`, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The index of a column.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<u32> {
        (0..).zip(&self.columns).find(|(_, column)| column.name == name).map(|(index, _)| index)
    }

    /// The index of a column that has to be there.
    ///
    /// # Errors
    /// Names the table and lists its columns.
    pub fn require(&self, name: &str) -> Result<u32, String> {
        self.index_of(name).ok_or_else(|| {
            let names = || self.columns.iter().map(|column| &*column.name);
            let list: Vec<_> = names().collect();
            format!(
                "{} has no column `{name}`{} (its columns: {})",
                self.name(),
                did_you_mean(name, names()),
                list.join(", ")
            )
        })
    }

    /// The column at an index that [`require`](Self::require) gave.
    #[must_use]
    pub fn column(&self, index: u32) -> &Column {
        &self.columns[index as usize]
    }
}

/// Tables by name, for a configuration: `schema.table`, where each `*` stands for any run of
/// characters. Without any, all tables.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(transparent)]
pub struct Tables(Vec<String>);

impl Tables {
    /// Whether the table is one of them.
    #[must_use]
    pub fn contains(&self, relation: &Relation) -> bool {
        let name = relation.name();
        self.0.is_empty() || self.0.iter().any(|pattern| matches(pattern, &name))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let mut tails = name.char_indices().map(|(at, _)| &name[at..]);
            tails.any(|tail| matches(rest, tail)) || matches(rest, "")
        }),
    }
}

/// The columns that a plan asks for, each once.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Needs(Vec<u32>);

impl Needs {
    /// Asks for a column, by its index in the relation; gives its place in the rows.
    pub fn add(&mut self, index: u32) -> usize {
        self.0.iter().position(|&need| need == index).unwrap_or_else(|| {
            self.0.push(index);
            self.0.len() - 1
        })
    }

    /// Whether an update may leave one of them as it was without PostgreSQL sending it, while the
    /// old row has it: then the plan should ask for old rows.
    #[must_use]
    pub fn profit_from_old(&self, relation: &Relation) -> bool {
        let large = |&index: &u32| {
            let tag = relation.column(index).tag;
            (tag::TEXT..tag::UNCHANGED).contains(&tag) && tag != tag::UUID
        };
        relation.full_old_rows && self.0.iter().any(large)
    }

    /// The columns' indexes in the relation, in the order of the rows' cells.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }
}

impl IntoIterator for Needs {
    type Item = u32;
    type IntoIter = std::vec::IntoIter<u32>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Something for each relation, found by its id without a search as long as the id stays the same.
#[derive(Debug)]
pub struct PerRelation<T> {
    /// In the order of the ids.
    entries: Vec<(u32, T)>,
    last: Cell<usize>,
}

impl<T> PerRelation<T> {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new(), last: Cell::new(0) }
    }

    /// Keeps the value under [`Relation::id`], in place of the one that was there.
    pub fn insert(&mut self, id: u32, value: T) {
        match self.entries.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => self.entries[at].1 = value,
            Err(at) => self.entries.insert(at, (id, value)),
        }
    }

    /// The value kept for the relation.
    #[inline]
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&T> {
        match self.entries.get(self.last.get()) {
            Some((last, value)) if *last == id => Some(value),
            _ => self.find(id),
        }
    }

    fn find(&self, id: u32) -> Option<&T> {
        let at = self.entries.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.last.set(at);
        Some(&self.entries[at].1)
    }
}

impl<T> Default for PerRelation<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation() -> Relation {
        let column = |name: &str| Column {
            name: name.into(),
            type_oid: 25,
            type_name: "text".into(),
            tag: tag::TEXT,
            key: false,
        };
        Relation {
            id: 1,
            schema: "public".into(),
            table: "orders".into(),
            columns: vec![column("id"), column("country")],
            full_old_rows: false,
        }
    }

    #[test]
    fn an_unknown_column_is_told_with_the_table_and_its_columns() {
        assert_eq!(relation().require("country"), Ok(1));
        assert_eq!(
            relation().require("contry").unwrap_err(),
            "public.orders has no column `contry`; did you mean `country`? (its columns: id, country)"
        );
    }

    #[test]
    fn tables_are_chosen_by_name_and_pattern() {
        let contains = |patterns: &[&str]| {
            Tables(patterns.iter().map(|&pattern| pattern.into()).collect()).contains(&relation())
        };
        assert!(contains(&[]));
        assert!(contains(&["public.users", "public.orders"]));
        assert!(contains(&["public.*"]) && contains(&["*.ord*s"]) && contains(&["*"]));
        assert!(!contains(&["orders"]) && !contains(&["public.order"]) && !contains(&["*.users"]));
    }

    #[test]
    fn values_are_found_by_relation_in_any_order() {
        let mut values = PerRelation::new();
        for id in [7, 3, 9, 3] {
            values.insert(id, id * 10);
        }
        for (id, value) in [(3, Some(30)), (9, Some(90)), (9, Some(90)), (4, None), (7, Some(70))] {
            assert_eq!(values.get(id).copied(), value);
        }
    }
}
