//! The tables that the stream has described, and the numbers of their definitions.

use std::collections::HashMap;

use super::{AssembleError, Step};
use crate::model::{Column, Relation, RelationId};
use crate::pgoutput;
use crate::source::types::Types;
use crate::store::StoreError;

/// Gives a definition its number.
pub(in crate::source) type Intern =
    Box<dyn FnMut(&Relation) -> Result<RelationId, StoreError> + Send>;

/// What is known of tables on one connection: it begins anew with each.
pub(super) struct Tables {
    intern: Intern,
    types: Types,
    known: HashMap<u32, Known>,
    /// The one that was used last: changes of one table often come in a row.
    recent: Option<(u32, RelationId)>,
    /// A definition that waits for its primary key.
    keyless: Option<Relation>,
}

struct Known {
    relation: Relation,
    /// Drawn when a change first needs it.
    id: Option<RelationId>,
}

impl Tables {
    pub(super) fn new(intern: Intern) -> Self {
        let (types, known) = (Types::default(), HashMap::new());
        Self { intern, types, known, recent: None, keyless: None }
    }

    /// The connection is gone, and tables will be described again.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.types.clear();
        (self.recent, self.keyless) = (None, None);
    }

    /// A type that is not built in has this name.
    pub(super) fn name_type(&mut self, oid: u32, schema: &str, name: &str) {
        self.types.name(oid, schema, name);
    }

    /// A table's definition as it is now.
    pub(super) fn relation(&self, oid: u32) -> Result<&Relation, AssembleError> {
        let known = self.known.get(&oid).ok_or(AssembleError::UnknownRelation(oid))?;
        Ok(&known.relation)
    }

    /// The number of a table's definition as it is now.
    pub(super) fn id_of(&mut self, oid: u32) -> Result<RelationId, AssembleError> {
        if let Some((_, id)) = self.recent.filter(|(recent, _)| *recent == oid) {
            return Ok(id);
        }
        let known = self.known.get_mut(&oid).ok_or(AssembleError::UnknownRelation(oid))?;
        let id = match known.id {
            Some(id) => id,
            None => *known.id.insert((self.intern)(&known.relation)?),
        };
        self.recent = Some((oid, id));
        Ok(id)
    }

    /// A table is defined like this from now on.
    pub(super) fn describe(&mut self, described: pgoutput::Relation<'_>) -> Step {
        let relation = self.named(described);
        if relation.says_key() {
            self.learn(relation);
            return Step::Done;
        }
        let oid = relation.oid;
        self.keyless = Some(relation);
        Step::PrimaryKey(oid)
    }

    /// The primary key that was asked for. A table without one is identified by all its columns.
    pub(super) fn set_primary_key(&mut self, names: &[String]) {
        let Some(mut relation) = self.keyless.take() else { return };
        relation.set_key(names);
        self.learn(relation);
    }

    fn learn(&mut self, relation: Relation) {
        let oid = relation.oid;
        if self.known.get(&oid).is_none_or(|known| known.relation != relation) {
            self.recent = None;
            self.known.insert(oid, Known { relation, id: None });
        }
    }

    fn named(&self, described: pgoutput::Relation<'_>) -> Relation {
        let column = |column: pgoutput::Column<'_>| Column {
            name: column.name.into(),
            type_oid: column.type_oid,
            type_mod: column.type_mod,
            type_name: self.types.name_of(column.type_oid, column.type_mod),
            kind: self.types.kind_of(column.type_oid),
            key: column.key,
        };
        let schema = if described.schema.is_empty() { "pg_catalog" } else { described.schema };
        Relation {
            oid: described.oid,
            schema: schema.into(),
            table: described.table.into(),
            identity: described.identity,
            columns: described.columns.iter().map(column).collect(),
        }
    }
}
