//! What walmill's journal holds, transaction by transaction.

use walmill::model::{Offset, Relation, RelationId};
use walmill::pgoutput::{self, Message, OldTuple, Tuple, Value, frame};
use walmill::store::Store;
use walmill::store::journal::{Block, Read};

use super::{Cell, Change, Row, Transaction};
use crate::support::process::PATIENCE;
use crate::support::streaming::messages;

/// Everything up to the message that is the end.
pub(super) async fn transactions(store: &Store) -> Vec<Transaction> {
    let mut reader = store.journal_reader(Offset::START);
    let mut read = Transactions { store, done: Vec::new() };
    let reading = async {
        while !read.done.last().is_some_and(Transaction::is_end) {
            match reader.next().expect("read the journal") {
                Read::Block(block) => read.block(&block),
                Read::End => reader.visible().changed().await.expect("the store is open"),
                Read::Gap { .. } => panic!("a gap"),
            }
        }
    };
    let ended: Result<(), _> = tokio::time::timeout(PATIENCE, reading).await;
    assert!(ended.is_ok(), "the end did not come within {:?}", PATIENCE);
    read.done
}

struct Transactions<'a> {
    store: &'a Store,
    done: Vec<Transaction>,
}

impl Transactions<'_> {
    fn block(&mut self, block: &Block) {
        // That a definition changed is walmill's own word.
        let sent = |message: &&[u8]| frame::read_redefined(message).is_none();
        for (index, message) in messages(&block.frames).filter(sent).enumerate() {
            let message = pgoutput::decode(message).expect("a message");
            // A later part of a large transaction begins again.
            if index == 0 && block.part > 0 {
                continue;
            }
            self.take(message);
        }
    }

    fn take(&mut self, message: Message<'_>) {
        let change = match message {
            Message::Begin { xid, .. } => {
                let xid = (xid != 0).then_some(xid);
                return self.done.push(Transaction { xid, changes: Vec::new() });
            }
            Message::Commit { .. } => return,
            Message::Insert { relation, new } => self.row(relation, "INSERT", None, Some(new)),
            Message::Update { relation, old, new } => self.row(relation, "UPDATE", old, Some(new)),
            Message::Delete { relation, old } => self.row(relation, "DELETE", Some(old), None),
            Message::Truncate { cascade, restart_identity: restart, relations } => {
                let tables = relations.iter().map(|id| self.relation(id).to_string()).collect();
                Change::Truncate { tables, cascade, restart }
            }
            Message::Message { transactional, prefix, content, .. } => Change::Message {
                transactional,
                prefix: prefix.into(),
                content: String::from_utf8(content.into()).expect("text"),
            },
            other => panic!("{other:?} in the journal"),
        };
        self.done.last_mut().expect("an open transaction").changes.push(change);
    }

    fn relation(&self, id: u32) -> Relation {
        let found = self.store.relation(RelationId(id)).expect("read a relation");
        found.as_deref().cloned().expect("an interned relation")
    }

    fn row(
        &self,
        relation: u32,
        op: &'static str,
        old: Option<OldTuple<'_>>,
        new: Option<Tuple<'_>>,
    ) -> Change {
        let relation = self.relation(relation);
        let old = old.map(|old| {
            let mut row = row(&relation, old.tuple);
            row.retain(|(_, cell)| *cell != Cell::Null);
            row
        });
        let new = new.map(|new| row(&relation, new));
        Change::Row { table: relation.to_string(), op, old, new }
    }
}

fn row(relation: &Relation, tuple: Tuple<'_>) -> Row {
    assert_eq!(relation.columns.len(), tuple.len(), "a row of {relation}");
    let names = relation.columns.iter().map(|column| column.name.clone());
    let cells = tuple.iter().map(|value| match value {
        Value::Null => Cell::Null,
        Value::Unchanged => Cell::Unchanged,
        Value::Text(text) => Cell::Text(String::from_utf8(text.into()).expect("text")),
        Value::Binary(_) => panic!("a binary value, which nobody asked for"),
    });
    names.zip(cells).collect()
}
