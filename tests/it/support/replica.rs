//! A table made of events alone, to be compared with the one they came from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};
use walmill::cluster::Cluster;
use walmill::model::{Offset, Relation, RelationId};
use walmill::pgoutput::{self, Message, Tuple, Value};
use walmill::store::journal::Read;

use super::process::PATIENCE;
use super::streaming::{Streaming, messages};
use super::{connect, execute};

/// A row's values as text, by its key's text.
pub type Rows = BTreeMap<String, Vec<Option<String>>>;

/// Every event of a journal applied in order to empty tables.
#[derive(Default)]
pub struct Replica {
    /// By name.
    pub tables: BTreeMap<String, Rows>,
    /// Snapshot rows by table and key, with their values.
    pub snapshot: Vec<(String, String, Vec<Option<String>>)>,
    /// Snapshot rows that are in a state which the stream had ended before.
    pub stale: usize,
    /// By table and key: what the stream said last; `None` for a row that is gone.
    states: HashMap<(String, String), Option<Vec<Option<String>>>>,
    /// Messages seen, as `prefix content`.
    pub messages: Vec<String>,
    changes: usize,
}

impl Replica {
    /// That a table came out as it is; shows some of what differs.
    pub fn assert_same(&self, name: &str, there: &Rows) {
        let none = Rows::new();
        let here = self.tables.get(name).unwrap_or(&none);
        let keys: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let differ = keys.into_iter().filter(|key| here.get(*key) != there.get(*key));
        let shown = |key: &String| format!("{key}: {:?} is {:?}", here.get(key), there.get(key));
        let differ: Vec<String> = differ.map(shown).map(|line| cut(&line)).take(5).collect();
        assert!(differ.is_empty(), "{name} differs:\n{}", differ.join("\n"));
    }

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
                    let place = (relation.table.clone(), key.clone());
                    // Once the stream has said what the row is, it can be nothing else.
                    let known = self.states.get(&place);
                    self.stale += usize::from(known.is_some_and(|known| !agree(known, &row)));
                    self.snapshot.push((relation.table.clone(), key.clone(), row.clone()));
                    self.rows(&relation).insert(key, row);
                }
                Message::Insert { relation: id, new } => {
                    let relation = relation(id);
                    let key = key(&relation, new);
                    self.state(&relation, &key, Some(values(new)));
                    let before = self.rows(&relation).insert(key.clone(), values(new));
                    assert!(before.is_none(), "{key} of {relation} was there at its insert");
                }
                Message::Update { relation: id, old, new } => {
                    let relation = relation(id);
                    let before = key(&relation, old.map_or(new, |old| old.tuple));
                    let now = key(&relation, new);
                    self.state(&relation, &before, None);
                    self.state(&relation, &now, Some(values(new)));
                    let rows = self.rows(&relation);
                    // A row that was not snapshotted yet becomes known by its update.
                    let unchanged = rows.remove(&before);
                    rows.insert(now, merged(new, unchanged));
                }
                Message::Delete { relation: id, old } => {
                    let relation = relation(id);
                    let key = key(&relation, old.tuple);
                    self.state(&relation, &key, None);
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

    /// The stream says what a row is now.
    fn state(&mut self, relation: &Relation, key: &str, row: Option<Vec<Option<String>>>) {
        let place = (relation.table.clone(), key.to_owned());
        self.states.insert(place, row);
    }

    fn rows(&mut self, relation: &Relation) -> &mut Rows {
        self.tables.entry(relation.table.clone()).or_default()
    }
}

/// Whether a row may be what the stream said last, where that said it.
fn agree(known: &Option<Vec<Option<String>>>, row: &[Option<String>]) -> bool {
    let same = |(known, now): (&Option<String>, &Option<String>)| {
        known.as_deref() == Some("(unchanged)") || known == now
    };
    known.as_ref().is_some_and(|known| known.iter().zip(row).all(same))
}

fn cut(line: &str) -> String {
    line.chars().take(400).collect()
}

fn values(tuple: Tuple<'_>) -> Vec<Option<String>> {
    tuple.iter().map(shown).collect()
}

fn shown(value: Value<'_>) -> Option<String> {
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
        value => shown(value),
    };
    new.iter().enumerate().map(value).collect()
}

fn key(relation: &Relation, tuple: Tuple<'_>) -> String {
    let columns = relation.columns.iter().zip(tuple.iter()).filter(|(column, _)| column.key);
    let values: Vec<String> = columns.map(|(_, value)| format!("{:?}", shown(value))).collect();
    values.join(" ")
}

/// A value that a query answers.
pub async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{error:?} in {sql}")).get(0)
}

/// Transactions on two tables that go on until they are stopped.
pub struct Writer {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writer {
    /// The tables, with so many rows in each: `items` has a compound key and values that are
    /// stored aside, `words` a key of text with odd characters.
    pub async fn tables(client: &Client, rows: usize) {
        execute(
            client,
            "create table items (part int, id int, note text, large text, primary key (id, part));
             alter table items alter large set storage external;
             create table words (id text collate \"C\" primary key, n int)",
        )
        .await;
        let items = format!(
            "insert into items select n % 3, n, md5(n::text), \
             case when n % 50 = 0 then repeat('long', 800) end from generate_series(1, {rows}) n"
        );
        execute(client, &items).await;
        let words = format!(
            "insert into words select n || E'\\t\\n\\\\ é''\"' || n, n from generate_series(1, {rows}) n"
        );
        execute(client, &words).await;
    }

    /// So many connections write.
    pub async fn start(cluster: &Cluster, count: u32) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for writer in 0..count {
            let client = connect(cluster).await;
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tasks.push(tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(writer.into());
                while !stop.load(Ordering::Relaxed) {
                    execute(&client, &transaction(&mut random, writer)).await;
                    done.fetch_add(1, Ordering::Relaxed);
                    // The machine has other things to do, too.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }));
        }
        Self { stop, done, tasks }
    }

    /// Waits until so many more transactions are through.
    pub async fn go_on(&self, count: usize) {
        let wanted = self.done.load(Ordering::Relaxed) + count;
        super::until("the writers write", || self.done.load(Ordering::Relaxed) >= wanted).await;
    }

    /// Lets them end.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("the writer writes");
        }
    }
}

/// A few changes of rows that are there or not, in the order of their keys so that no two writers
/// wait for each other; some are taken back.
fn transaction(random: &mut StdRng, writer: u32) -> String {
    let mut ids: Vec<u32> =
        (0..random.random_range(1..=6)).map(|_| random.random_range(0..40_000)).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut sql = String::from("begin;");
    for id in ids {
        // Each writer has new keys of its own, so that none is taken by another meanwhile.
        let new = 30_000 + random.random_range(0..5_000) * 2 + writer % 2;
        sql.push_str(&match random.random_range(0..10) {
            0..=3 => format!("update items set note = 'n{new}' where id = {id};"),
            4 => format!(
                "update items set id = {new} where id = {id} and part = {id} % 3 \
                 and not exists (select from items where id = {new});"
            ),
            5 => format!("delete from items where id = {id};"),
            6 => format!(
                "insert into items values (9, {new}, 'new', repeat('w', 3000)) \
                 on conflict do nothing;"
            ),
            7 => format!("update words set n = {new} where id like '{id}\t%';"),
            8 => format!(
                "update words set id = 'w{new}' where id like '{id}\t%' \
                 and not exists (select from words where id = 'w{new}');"
            ),
            _ => format!("delete from words where id like '{id}\t%';"),
        });
    }
    let end = if random.random_bool(0.1) { "rollback" } else { "commit" };
    sql + end
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
