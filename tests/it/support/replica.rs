//! A table made of events alone, to be compared with the one they came from.

use std::collections::BTreeMap;

use tokio_postgres::{Client, SimpleQueryMessage};
use walmill::model::{Offset, Relation, RelationId};
use walmill::pgoutput::{self, Message, Tuple, Value};
use walmill::store::journal::Read;

use super::process::PATIENCE;
use super::streaming::{Streaming, messages};

/// A row's values as text, by its key's text.
pub type Rows = BTreeMap<String, Vec<Option<String>>>;

/// Every event of a journal applied in order to empty tables.
#[derive(Default)]
pub struct Replica {
    /// By name.
    pub tables: BTreeMap<String, Rows>,
    /// Snapshot rows by table and key, with their values.
    pub snapshot: Vec<(String, String, Vec<Option<String>>)>,
    /// Messages seen, as `prefix content`.
    pub messages: Vec<String>,
    changes: usize,
}

impl Replica {
    /// Applies the journal from its beginning until a message with this content was seen.
    pub async fn until(streaming: &Streaming, marker: &str) -> Self {
        let mut replica = Self::default();
        let mut reader = streaming.store.journal_reader(Offset::START);
        let waiting = async {
            loop {
                match reader.next().expect("read the journal") {
                    Read::Block(block) => {
                        replica.apply_all(streaming, &block.frames);
                        if replica.messages.iter().any(|seen| seen == marker) {
                            return;
                        }
                    }
                    Read::End => reader.visible().changed().await.expect("the store is open"),
                    Read::Gap { .. } => panic!("a gap"),
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        let status = streaming.status.borrow().clone();
        assert!(waited.is_ok(), "no `{marker}` after {} changes: {status:?}", replica.changes);
        replica
    }

    fn apply_all(&mut self, streaming: &Streaming, frames: &[u8]) {
        for message in messages(frames) {
            self.changes += 1;
            let relation = |id| {
                let known = streaming.store.relation(RelationId(id)).expect("read a relation");
                known.expect("an interned relation")
            };
            match pgoutput::decode(message).expect("a valid message") {
                Message::Row { relation: id, new } => {
                    let relation = relation(id);
                    let (key, row) = (key(&relation, new), values(new));
                    self.snapshot.push((relation.table.clone(), key.clone(), row.clone()));
                    self.rows(&relation).insert(key, row);
                }
                Message::Insert { relation: id, new } => {
                    let relation = relation(id);
                    let key = key(&relation, new);
                    let before = self.rows(&relation).insert(key.clone(), values(new));
                    assert!(before.is_none(), "{key} of {relation} was there at its insert");
                }
                Message::Update { relation: id, old, new } => {
                    let relation = relation(id);
                    let before = key(&relation, old.map_or(new, |old| old.tuple));
                    let (now, rows) = (key(&relation, new), self.rows(&relation));
                    // A row that was not snapshotted yet becomes known by its update.
                    let unchanged = rows.remove(&before);
                    rows.insert(now, merged(new, unchanged));
                }
                Message::Delete { relation: id, old } => {
                    let relation = relation(id);
                    let key = key(&relation, old.tuple);
                    self.rows(&relation).remove(&key);
                }
                Message::Truncate { relations, .. } => {
                    relations.iter().for_each(|id| self.rows(&relation(id)).clear());
                }
                Message::Message { content, .. } => {
                    self.messages.push(String::from_utf8_lossy(content).into_owned());
                }
                _ => {}
            }
        }
    }

    fn rows(&mut self, relation: &Relation) -> &mut Rows {
        self.tables.entry(relation.table.clone()).or_default()
    }
}

fn values(tuple: Tuple<'_>) -> Vec<Option<String>> {
    tuple.iter().map(text).collect()
}

fn text(value: Value<'_>) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Unchanged => Some("(unchanged)".into()),
        Value::Text(bytes) | Value::Binary(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    }
}

/// The new row, with what was not sent again taken from the old one.
fn merged(new: Tuple<'_>, old: Option<Vec<Option<String>>>) -> Vec<Option<String>> {
    let old = old.unwrap_or_default();
    let value = |(at, value)| match value {
        Value::Unchanged => old.get(at).cloned().unwrap_or(Some("(unchanged)".into())),
        value => text(value),
    };
    new.iter().enumerate().map(value).collect()
}

fn key(relation: &Relation, tuple: Tuple<'_>) -> String {
    let columns = relation.columns.iter().zip(tuple.iter()).filter(|(column, _)| column.key);
    let values: Vec<String> = columns.map(|(_, value)| format!("{:?}", text(value))).collect();
    values.join(" ")
}

/// The same of the table itself; its key are the columns of its primary key.
pub async fn table(client: &Client, name: &str) -> Rows {
    let keys = client
        .query(
            "select a.attname::text from pg_index i join pg_attribute a on a.attrelid = i.indrelid \
             and a.attnum = any (i.indkey) where i.indrelid = $1::text::regclass and i.indisprimary",
            &[&name],
        )
        .await
        .expect("a primary key");
    let keys: Vec<String> = keys.iter().map(|row| row.get(0)).collect();
    let rows = client.simple_query(&format!("select * from {name}")).await.expect("read the table");
    let mut table = Rows::new();
    for message in rows {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let value = |at| row.get(at).map(str::to_owned);
        let names = row.columns().iter().enumerate();
        let key = names.filter(|(_, column)| keys.iter().any(|key| key == column.name()));
        let key: Vec<String> = key.map(|(at, _)| format!("{:?}", value(at))).collect();
        table.insert(key.join(" "), (0..row.len()).map(value).collect());
    }
    table
}
