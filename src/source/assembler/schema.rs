//! The definition that each table's last change used, so that a change under another one is told
//! from one under the same: once, here, and the same way whenever the stream comes again.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Relation, RelationId};
use crate::store::StoreError;
use crate::store::journal::TableUse;

/// Gives the definition of a number.
pub(in crate::source) type Resolve =
    Box<dyn FnMut(RelationId) -> Result<Option<Arc<Relation>>, StoreError> + Send>;

/// Tables' definitions as the changes so far have used them. What the open transaction added can be
/// taken back: it will come again.
pub(in crate::source) struct Definitions {
    resolve: Resolve,
    /// By the table's OID.
    used: HashMap<u32, RelationId>,
    /// OIDs by schema and table: a table that was dropped and made again has a new one.
    names: HashMap<(String, String), u32>,
    /// What the numbers in use stand for.
    relations: HashMap<RelationId, Arc<Relation>>,
    /// The one that was used last: changes of one table often come in a row.
    recent: Option<RelationId>,
    undo: Vec<Undo>,
}

/// What stood there before the open transaction.
enum Undo {
    Used(u32, Option<RelationId>),
    Name((String, String), Option<u32>),
}

impl Definitions {
    /// As the journal left them.
    pub(in crate::source) fn new(
        tables: Vec<(RelationId, Arc<Relation>)>,
        resolve: Resolve,
    ) -> Self {
        let (used, names, relations) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut definitions =
            Self { resolve, used, names, relations, recent: None, undo: Vec::new() };
        for (id, relation) in tables {
            definitions.used.insert(relation.oid, id);
            definitions.names.insert(name_of(&relation), relation.oid);
            definitions.relations.insert(id, relation);
        }
        definitions
    }

    /// The next change uses this definition: the one before it, where a reader must hear that the
    /// table is another now.
    pub(in crate::source) fn uses(
        &mut self,
        id: RelationId,
    ) -> Result<Option<RelationId>, StoreError> {
        if self.recent == Some(id) {
            return Ok(None);
        }
        let relation = self.relation(id)?;
        self.recent = Some(id);
        let same_table = self.used.get(&relation.oid).copied();
        if same_table == Some(id) {
            return Ok(None);
        }
        let name = name_of(&relation);
        let same_name = self.names.get(&name).copied().filter(|oid| *oid != relation.oid);
        let replaced = same_name.and_then(|oid| self.set_used(oid, None));
        self.set_used(relation.oid, Some(id));
        let before = match same_table.or(replaced) {
            Some(before) => Some((before, self.relation(before)?)),
            None => None,
        };
        if let Some((_, before)) = &before {
            let old = name_of(before);
            if self.names.get(&old) == Some(&relation.oid) {
                self.set_name(old, None);
            }
        }
        self.set_name(name, Some(relation.oid));
        let differs = before.filter(|(_, before)| !says_the_same(before, &relation));
        Ok(differs.map(|(before, _)| before))
    }

    fn relation(&mut self, id: RelationId) -> Result<Arc<Relation>, StoreError> {
        if let Some(relation) = self.relations.get(&id) {
            return Ok(Arc::clone(relation));
        }
        let relation = (self.resolve)(id)?;
        let damaged = || StoreError::Damaged { what: format!("relation {}", id.0) };
        let relation = relation.ok_or_else(damaged)?;
        self.relations.insert(id, Arc::clone(&relation));
        Ok(relation)
    }

    /// The open transaction is whole: what it changed.
    pub(in crate::source) fn commit(&mut self) -> Vec<TableUse> {
        let mut oids: Vec<u32> = Vec::new();
        for undo in self.undo.drain(..) {
            match undo {
                Undo::Used(oid, _) if !oids.contains(&oid) => oids.push(oid),
                Undo::Used(..) | Undo::Name(..) => {}
            }
        }
        let now = |oid: u32| TableUse { oid, relation: self.used.get(&oid).copied() };
        oids.into_iter().map(now).collect()
    }

    /// The open transaction will come again.
    pub(super) fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Used(oid, before) => drop(put(&mut self.used, oid, before)),
                Undo::Name(name, before) => drop(put(&mut self.names, name, before)),
            }
        }
        self.recent = None;
        let used = &self.used;
        self.relations.retain(|id, relation| used.get(&relation.oid) == Some(id));
    }

    fn set_used(&mut self, oid: u32, id: Option<RelationId>) -> Option<RelationId> {
        let before = put(&mut self.used, oid, id);
        self.undo.push(Undo::Used(oid, before));
        before
    }

    fn set_name(&mut self, name: (String, String), oid: Option<u32>) {
        let before = put(&mut self.names, name.clone(), oid);
        self.undo.push(Undo::Name(name, before));
    }
}

fn put<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

fn name_of(relation: &Relation) -> (String, String) {
    (relation.schema.clone(), relation.table.clone())
}

/// Whether two definitions agree in all that the stream itself says. What is looked up in the
/// catalog beside it (the key of a table with replica identity FULL, how a user's type reads) is
/// that of today and not of the change's time; an ordinal must not depend on it, or ids would not
/// be the same when the stream comes again.
fn says_the_same(before: &Relation, after: &Relation) -> bool {
    let says_key = after.says_key();
    let same_column = |(before, after): (&crate::model::Column, &crate::model::Column)| {
        before.name == after.name
            && (before.type_oid, before.type_mod) == (after.type_oid, after.type_mod)
            && (!says_key || before.key == after.key)
    };
    (before.oid, before.identity) == (after.oid, after.identity)
        && (&before.schema, &before.table) == (&after.schema, &after.table)
        && before.columns.len() == after.columns.len()
        && before.columns.iter().zip(&after.columns).all(same_column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Column, Kind, ReplicaIdentity};

    fn table(oid: u32, name: &str, columns: &[&str]) -> Relation {
        let column = |name: &&str| Column {
            name: (*name).into(),
            type_oid: 23,
            type_mod: -1,
            type_name: "int4".into(),
            kind: Kind::Int,
            key: *name == "id",
        };
        Relation {
            oid,
            schema: "public".into(),
            table: name.into(),
            identity: ReplicaIdentity::Default,
            columns: columns.iter().map(column).collect(),
        }
    }

    /// Definitions of the numbers 1, 2, ….
    fn numbered(relations: &[Relation]) -> Definitions {
        let relations: Vec<_> = relations.iter().cloned().map(Arc::new).collect();
        let resolve = move |id: RelationId| Ok(relations.get(id.0 as usize - 1).cloned());
        Definitions::new(Vec::new(), Box::new(resolve))
    }

    fn uses(definitions: &mut Definitions, number: u32) -> Option<u32> {
        definitions.uses(RelationId(number)).unwrap().map(|id| id.0)
    }

    #[test]
    fn a_table_is_new_once_and_then_another_when_it_changed() {
        let mut seen = numbered(&[
            table(1, "a", &["id"]),
            table(1, "a", &["id", "b"]),
            table(2, "other", &["id"]),
        ]);
        let used = [1, 1, 3, 2, 2, 3, 1].map(|number| uses(&mut seen, number));
        assert_eq!(used, [None, None, None, Some(1), None, None, Some(2)]);
    }

    #[test]
    fn a_name_that_another_table_took_is_another_table() {
        let mut seen = numbered(&[table(1, "a", &["id"]), table(2, "a", &["id"])]);
        assert_eq!([1, 2, 2].map(|number| uses(&mut seen, number)), [None, Some(1), None]);
        let mut now = seen.commit();
        now.sort_by_key(|table| table.oid);
        let one = TableUse { oid: 1, relation: None };
        assert_eq!(now, [one, TableUse { oid: 2, relation: Some(RelationId(2)) }]);
    }

    #[test]
    fn a_name_that_was_given_up_is_free_for_a_new_table() {
        let mut seen =
            numbered(&[table(1, "a", &["id"]), table(1, "b", &["id"]), table(2, "a", &["id"])]);
        assert_eq!([1, 2, 3, 2].map(|number| uses(&mut seen, number)), [None, Some(1), None, None]);
    }

    #[test]
    fn what_an_open_transaction_used_is_taken_back() {
        let mut seen = numbered(&[table(1, "a", &["id"]), table(1, "b", &["id"])]);
        assert_eq!(uses(&mut seen, 1), None);
        assert_eq!(seen.commit().len(), 1);
        assert_eq!(uses(&mut seen, 2), Some(1));
        seen.roll_back();
        assert_eq!(uses(&mut seen, 2), Some(1));
        assert_eq!(seen.commit(), [TableUse { oid: 1, relation: Some(RelationId(2)) }]);
        assert_eq!(uses(&mut seen, 2), None);
        assert_eq!(seen.commit(), []);
    }

    #[test]
    fn what_was_looked_up_makes_no_new_table() {
        let full = |key: &str| {
            let mut relation = table(1, "a", &["id", "b"]);
            relation.identity = ReplicaIdentity::Full;
            relation.columns.iter_mut().for_each(|column| column.key = column.name == key);
            relation
        };
        let mut seen = numbered(&[full("id"), full("b"), table(1, "a", &["id", "b"])]);
        assert_eq!([1, 2, 3].map(|number| uses(&mut seen, number)), [None, None, Some(2)]);
    }
}
