//! Changed definitions of tables on their way through a pipeline: what changed, as an event says
//! it, and what the pipeline's policy makes of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::model::status::SchemaStatus;
use crate::model::{Column, EventId, Offset, Relation, ReplicaIdentity};
use crate::store::schema::{Hold, Place};
use crate::store::{Store, StoreError};

/// What happens when the definition of a table changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnSchemaChange {
    /// The change is an event, and the rows behind it flow on.
    #[default]
    Pass,
    /// The pipeline stops before it until a person accepts it.
    Halt,
    /// The table's rows behind it go to the dead letters until a person accepts it.
    DeadLetter,
}

/// A table's definition up to a place in the stream, and behind it.
#[derive(Debug)]
pub struct Redefined {
    /// As the change before used it.
    pub before: Arc<Relation>,
    /// As the changes behind use it.
    pub after: Arc<Relation>,
}

/// One thing that differs.
#[derive(Debug, Serialize)]
struct Change<'a> {
    change: Kind,
    column: Option<&'a str>,
    before: Option<Side<'a>>,
    after: Option<Side<'a>>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    TableRecreated,
    TableRenamed,
    ColumnDropped,
    ColumnAdded,
    TypeChanged,
    KeyChanged,
    ReplicaIdentityChanged,
}

/// What stood on one side of a change.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Side<'a> {
    Oid(u32),
    Name(String),
    Type(&'a str),
    Key(Vec<&'a str>),
    Identity(ReplicaIdentity),
}

/// A definition as events show it.
#[derive(Debug, Serialize)]
struct Definition<'a> {
    schema: &'a str,
    table: &'a str,
    oid: u32,
    replica_identity: ReplicaIdentity,
    columns: Vec<ColumnShown<'a>>,
}

#[derive(Debug, Serialize)]
struct ColumnShown<'a> {
    name: &'a str,
    r#type: &'a str,
    key: bool,
}

/// The `data` of a `walmill.schema.changed` event.
#[derive(Debug, Serialize)]
struct Data<'a> {
    schema: &'a str,
    table: &'a str,
    changes: Vec<Change<'a>>,
    before: Definition<'a>,
    after: Definition<'a>,
}

impl Redefined {
    /// The event's data, as JSON.
    #[must_use]
    pub fn data(&self) -> Vec<u8> {
        let data = Data {
            schema: &self.after.schema,
            table: &self.after.table,
            changes: self.changes(),
            before: Definition::of(&self.before),
            after: Definition::of(&self.after),
        };
        // Writing strings and numbers to memory does not fail.
        serde_json::to_vec(&data).unwrap_or_default()
    }

    fn changes(&self) -> Vec<Change<'_>> {
        let Self { before, after } = self;
        let mut changes = Vec::new();
        let mut table = |change, before, after| {
            changes.push(Change { change, column: None, before: Some(before), after: Some(after) });
        };
        if before.oid != after.oid {
            table(Kind::TableRecreated, Side::Oid(before.oid), Side::Oid(after.oid));
        }
        if (&before.schema, &before.table) != (&after.schema, &after.table) {
            let name = |relation: &Relation| Side::Name(relation.to_string());
            table(Kind::TableRenamed, name(before), name(after));
        }
        if before.identity != after.identity {
            let identity = |relation: &Relation| Side::Identity(relation.identity);
            table(Kind::ReplicaIdentityChanged, identity(before), identity(after));
        }
        if key(before) != key(after) {
            table(Kind::KeyChanged, Side::Key(key(before)), Side::Key(key(after)));
        }
        changes.extend(self.columns());
        changes
    }

    /// Columns that went, came, or have another type. PostgreSQL does not number columns in the
    /// stream, so a renamed one is one that went and one that came.
    fn columns(&self) -> Vec<Change<'_>> {
        let kept = self.kept();
        let mut changes = Vec::new();
        for column in &self.before.columns {
            let (change, after) = match kept.get(column.name.as_str()) {
                None => (Kind::ColumnDropped, None),
                Some(now) if same_type(column, now) => continue,
                Some(now) => (Kind::TypeChanged, Some(Side::Type(&now.type_name))),
            };
            let before = Some(Side::Type(&column.type_name));
            changes.push(Change { change, column: Some(&column.name), before, after });
        }
        for column in &self.after.columns {
            if !kept.contains_key(column.name.as_str()) {
                let (change, column, after) =
                    (Kind::ColumnAdded, Some(column.name.as_str()), &column.type_name);
                changes.push(Change {
                    change,
                    column,
                    before: None,
                    after: Some(Side::Type(after)),
                });
            }
        }
        changes
    }

    /// The columns that are there before and after. PostgreSQL never moves a column, so one that
    /// stands in another order now was dropped and added again.
    fn kept(&self) -> HashMap<&str, &Column> {
        let places: HashMap<&str, usize> =
            self.before.columns.iter().map(|column| column.name.as_str()).zip(0..).collect();
        let (mut kept, mut last) = (HashMap::new(), None);
        for column in &self.after.columns {
            if let Some(&place) = places.get(column.name.as_str())
                && last.is_none_or(|last| last < place)
            {
                last = Some(place);
                kept.insert(column.name.as_str(), column);
            }
        }
        kept
    }
}

fn same_type(before: &Column, after: &Column) -> bool {
    (before.type_oid, before.type_mod) == (after.type_oid, after.type_mod)
}

fn key(relation: &Relation) -> Vec<&str> {
    relation.columns.iter().filter(|column| column.key).map(|column| column.name.as_str()).collect()
}

impl<'a> Definition<'a> {
    fn of(relation: &'a Relation) -> Self {
        let column = |column: &'a Column| ColumnShown {
            name: &column.name,
            r#type: &column.type_name,
            key: column.key,
        };
        Self {
            schema: &relation.schema,
            table: &relation.table,
            oid: relation.oid,
            replica_identity: relation.identity,
            columns: relation.columns.iter().map(column).collect(),
        }
    }
}

/// In words, for logs and dead letters.
impl fmt::Display for Redefined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Change { change, column, before, after }) in self.changes().iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            let column = column.unwrap_or_default();
            let side = |side: &Option<Side<'_>>| side.as_ref().map(Side::to_string);
            let (before, after) =
                (side(before).unwrap_or_default(), side(after).unwrap_or_default());
            match change {
                Kind::TableRecreated => write!(f, "another table has this name")?,
                Kind::TableRenamed => write!(f, "it was {before}")?,
                Kind::ColumnDropped => write!(f, "column `{column}` is gone")?,
                Kind::ColumnAdded => write!(f, "column `{column}` {after} is new")?,
                Kind::TypeChanged => write!(f, "column `{column}` is {after} instead of {before}")?,
                Kind::KeyChanged => write!(f, "the key is ({after}) instead of ({before})")?,
                Kind::ReplicaIdentityChanged => {
                    write!(f, "its replica identity is {after} instead of {before}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Side<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oid(oid) => write!(f, "{oid}"),
            Self::Name(name) => f.write_str(name),
            Self::Type(name) => f.write_str(name),
            Self::Key(columns) => f.write_str(&columns.join(", ")),
            Self::Identity(ReplicaIdentity::Default) => f.write_str("default"),
            Self::Identity(ReplicaIdentity::Nothing) => f.write_str("nothing"),
            Self::Identity(ReplicaIdentity::Full) => f.write_str("full"),
            Self::Identity(ReplicaIdentity::Index) => f.write_str("index"),
        }
    }
}

/// A change that the pipeline waits before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the definition of {table} changed at {event} ({change}), and the pipeline has \
     `on_schema_change = \"halt\"`; `walmill pipeline accept-schema {pipeline}` lets it go on"
)]
pub struct Halted {
    pipeline: String,
    table: String,
    change: String,
    event: EventId,
}

impl Halted {
    /// As the status shows it.
    #[must_use]
    pub fn status(&self) -> SchemaStatus {
        let (event, table) = (self.event.to_string(), self.table.clone());
        SchemaStatus { event, table, change: self.change.clone() }
    }
}

/// One pipeline's policy, and what it holds back by it.
pub struct Gate {
    store: Store,
    pipeline: String,
    policy: OnSchemaChange,
    accepted: Option<Place>,
    holds: Vec<Hold>,
    /// As the last commit left them.
    stored: Vec<Hold>,
}

impl Gate {
    /// As the last batch left it. Another policy than `dead-letter` holds nothing back.
    ///
    /// # Errors
    /// The store failed; so below.
    pub fn open(
        store: Store,
        pipeline: String,
        policy: OnSchemaChange,
    ) -> Result<Self, StoreError> {
        let stored = store.holds(&pipeline)?;
        let holds = match policy {
            OnSchemaChange::DeadLetter => stored.clone(),
            OnSchemaChange::Pass | OnSchemaChange::Halt => Vec::new(),
        };
        let accepted = store.accepted_schema(&pipeline)?;
        Ok(Self { store, pipeline, policy, accepted, holds, stored })
    }

    /// Takes in what was accepted meanwhile.
    pub fn refresh(&mut self) -> Result<(), StoreError> {
        self.accepted = self.store.accepted_schema(&self.pipeline)?;
        let accepted = self.accepted;
        self.holds.retain(|hold| Some(hold.since) > accepted);
        Ok(())
    }

    /// Whether the pipeline has to stop before the change at this place.
    #[must_use]
    pub fn stops(&self, at: Offset, change: &Redefined) -> Option<Halted> {
        if self.policy != OnSchemaChange::Halt || self.is_accepted(at) {
            return None;
        }
        Some(Halted {
            pipeline: self.pipeline.clone(),
            table: change.after.to_string(),
            change: change.to_string(),
            event: EventId(at),
        })
    }

    /// The pipeline goes past a change: the table's rows may be held back from here on.
    pub fn pass(&mut self, at: Offset, change: &Redefined) {
        if self.policy != OnSchemaChange::DeadLetter || self.is_accepted(at) {
            return;
        }
        let (oid, table, words) = (change.after.oid, change.after.to_string(), change.to_string());
        warn!(
            pipeline = self.pipeline,
            "the definition of {table} changed ({words}): its rows go to the dead letters until \
             `walmill pipeline accept-schema {}`",
            self.pipeline
        );
        let earlier = self.holds.iter().position(|hold| hold.oid == oid);
        let words = match earlier.map(|at| self.holds.swap_remove(at)) {
            Some(hold) => format!("{}; {words}", hold.change),
            None => words,
        };
        self.holds.push(Hold { oid, table, change: words, since: Place::of(at) });
    }

    fn is_accepted(&self, at: Offset) -> bool {
        self.accepted.is_some_and(|accepted| Place::of(at) <= accepted)
    }

    /// Why rows of a table are held back, if they are.
    #[must_use]
    pub fn holds(&self, oid: u32) -> Option<String> {
        let hold = self.holds.iter().find(|hold| hold.oid == oid)?;
        let since = EventId(hold.since.offset());
        Some(format!("the definition of {} changed at {since}: {}", hold.table, hold.change))
    }

    /// Whether every row passes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.holds.is_empty()
    }

    /// What a batch's commit has to write.
    #[must_use]
    pub fn to_write(&self) -> Option<Vec<Hold>> {
        (self.holds != self.stored).then(|| self.holds.clone())
    }

    /// The batch is committed.
    pub fn committed(&mut self) {
        self.stored.clone_from(&self.holds);
    }

    /// The batch was not committed.
    pub fn roll_back(&mut self) {
        self.holds.clone_from(&self.stored);
    }

    /// What waits to be accepted.
    #[must_use]
    pub fn status(&self) -> Vec<SchemaStatus> {
        let status = |hold: &Hold| SchemaStatus {
            event: EventId(hold.since.offset()).to_string(),
            table: hold.table.clone(),
            change: hold.change.clone(),
        };
        self.holds.iter().map(status).collect()
    }
}
