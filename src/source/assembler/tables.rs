//! The tables that the stream has described, and the numbers of their definitions.

use std::collections::HashMap;

use super::{AssembleError, Step};
use crate::model::{Column, Relation, RelationId};
use crate::pgoutput;
use crate::source::types::{ArrayType, Types};
use crate::store::StoreError;

/// Gives a definition its number.
pub(in crate::source) type Intern =
    Box<dyn FnMut(&Relation) -> Result<RelationId, StoreError> + Send>;

/// What is known of tables on one connection: it begins anew with each.
pub(super) struct Tables {
    intern: Intern,
    types: Types,
    known: HashMap<u32, Known>,
    /// What was described inside open transactions, by their numbers: it holds there only, until
    /// they commit.
    open: HashMap<u32, HashMap<u32, Known>>,
    /// Those that changes refer to, on whichever connection they were described.
    numbered: HashMap<RelationId, Relation>,
    /// The open transaction that is coming in.
    inside: Option<u32>,
    /// Definitions so far.
    described: u64,
    /// The one that was used last: changes of one table often come in a row.
    recent: Option<(u32, RelationId)>,
    /// A definition that waits for its primary key.
    keyless: Option<Relation>,
}

struct Known {
    relation: Relation,
    /// Drawn when a change first needs it.
    id: Option<RelationId>,
    /// How many definitions had come before this one.
    since: u64,
}

impl Tables {
    pub(super) fn new(intern: Intern) -> Self {
        let (types, known, open) = (Types::default(), HashMap::new(), HashMap::new());
        let (numbered, recent, keyless) = (HashMap::new(), None, None);
        Self { intern, types, known, open, numbered, inside: None, described: 0, recent, keyless }
    }

    /// The connection is gone, and tables will be described again.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.open.clear();
        self.types.clear();
        (self.inside, self.recent, self.keyless) = (None, None, None);
    }

    /// What comes now is inside this open transaction.
    pub(super) fn enter(&mut self, xid: u32) {
        (self.inside, self.recent) = (Some(xid), None);
    }

    /// What comes now is inside none.
    pub(super) fn leave(&mut self) {
        (self.inside, self.recent) = (None, None);
    }

    /// The open transaction has committed, so what it described holds for all, unless something
    /// newer does: PostgreSQL does not describe it again.
    pub(super) fn keep(&mut self, xid: u32) {
        self.recent = None;
        for (oid, described) in self.open.remove(&xid).unwrap_or_default() {
            if self.known.get(&oid).is_none_or(|known| known.since < described.since) {
                self.known.insert(oid, described);
            }
        }
    }

    /// The open transaction was rolled back.
    pub(super) fn forget(&mut self, xid: u32) {
        self.open.remove(&xid);
    }

    /// The definitions that hold now.
    fn current(&mut self) -> &mut HashMap<u32, Known> {
        match self.inside {
            Some(xid) => self.open.entry(xid).or_default(),
            None => &mut self.known,
        }
    }

    /// A type that is not built in has this name.
    pub(super) fn name_type(&mut self, oid: u32, schema: &str, name: &str) -> Step {
        match self.types.name(oid, schema, name) {
            true => Step::Array(oid),
            false => Step::Done,
        }
    }

    /// What a type is that was asked about.
    pub(super) fn set_array(&mut self, of: u32, array: Option<ArrayType>) {
        self.types.set_array(of, array);
    }

    /// The definition of this number, if it was described to this process.
    pub(super) fn numbered(&self, id: RelationId) -> Option<&Relation> {
        self.numbered.get(&id)
    }

    /// The number of a table's definition as it is now.
    pub(super) fn id_of(&mut self, oid: u32) -> Result<RelationId, AssembleError> {
        if let Some((_, id)) = self.recent.filter(|(recent, _)| *recent == oid) {
            return Ok(id);
        }
        // A plain match: the definition and the one who numbers it are borrowed together.
        let current = match self.inside {
            Some(xid) => self.open.get_mut(&xid),
            None => Some(&mut self.known),
        };
        let known = current.and_then(|current| current.get_mut(&oid));
        let known = known.ok_or(AssembleError::UnknownRelation(oid))?;
        let id = match known.id {
            Some(id) => id,
            None => {
                let id = (self.intern)(&known.relation)?;
                // A change under an older definition is then of an unknown one, which is safe.
                self.numbered.retain(|_, older| older.oid != oid);
                self.numbered.insert(id, known.relation.clone());
                *known.id.insert(id)
            }
        };
        self.recent = Some((oid, id));
        Ok(id)
    }

    /// A table is defined like this from now on.
    pub(super) fn describe(&mut self, described: pgoutput::Relation<'_>) -> Step {
        let mut relation = self.named(described);
        if relation.says_key() {
            relation.identify();
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
        self.described += 1;
        let since = self.described;
        match self.current().get_mut(&oid) {
            Some(known) if known.relation == relation => known.since = since,
            _ => {
                self.current().insert(oid, Known { relation, id: None, since });
                self.recent = None;
            }
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
