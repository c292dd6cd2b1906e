//! A random workload that has everything: tables of many types, every replica identity, values that
//! are stored out of line, keys that change, savepoints, rollbacks, transactions that overlap, DDL
//! between and inside them, truncates, COPY, large transactions, and logical messages.
//!
//! It keeps no books of rows: what must come of it is asked of PostgreSQL. The same seed gives the
//! same statements.

mod tables;
mod values;

use bytes::Bytes;
use futures_util::SinkExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio_postgres::Client;
use walmill::cluster::{Cluster, Options};

use super::execute;
use tables::SCHEMA;
pub use tables::TABLES;
use tables::Table;

/// Sessions that write at the same time, each to rows of its own.
const WRITERS: i64 = 3;

/// The seed of this run; `WALMILL_TEST_SEED` repeats one.
pub fn seed() -> u64 {
    let seed = match std::env::var("WALMILL_TEST_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => rand::random(),
    };
    println!("WALMILL_TEST_SEED={seed}");
    seed
}

/// How columns are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ddl {
    /// As it comes: what becomes of old rows happens on the server, and no change tells of it.
    Silent,
    /// With an update of every old row behind it, where that is needed to know what became of it.
    Told,
}

/// Makes statements and runs them.
pub struct Turmoil {
    random: StdRng,
    tables: Vec<Table>,
    ddl: Ddl,
    /// For rows and names that were not there before.
    next: i64,
}

/// One session's open transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Session {
    Idle,
    Open,
}

impl Turmoil {
    /// The same seed makes the same statements.
    pub fn new(seed: u64, ddl: Ddl) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, tables: tables::all(), ddl, next: WRITERS }
    }

    /// SQL that makes the types and tables.
    pub fn schema() -> String {
        format!("{}{}", tables::BEFORE, SCHEMA.concat())
    }

    /// So many rounds, each of overlapping transactions and then something that needs a table for
    /// itself.
    pub async fn rounds(&mut self, writers: &[Client], rounds: usize) {
        for _ in 0..rounds {
            self.overlap(writers).await;
            let alone = self.alone();
            execute(&writers[0], &alone).await;
            self.copy(&writers[1]).await;
        }
    }

    /// Opens a few sessions for it.
    pub async fn writers(cluster: &Cluster) -> Vec<Client> {
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            writers.push(super::connect(cluster).await);
        }
        writers
    }

    /// Every table gets one more row, so that whatever was done to its columns is told.
    pub fn last_words(&mut self) -> String {
        let count = self.tables.len();
        (0..count).map(|index| self.insert(index, 0, 1)).collect()
    }

    /// Steps of several transactions, shuffled; at the end all of them have ended.
    async fn overlap(&mut self, writers: &[Client]) {
        let mut sessions = [Session::Idle; WRITERS as usize];
        for _ in 0..self.random.random_range(4..12) {
            let writer = self.random.random_range(0..WRITERS);
            let at = usize::try_from(writer).expect("small");
            let begin = if sessions[at] == Session::Idle { "BEGIN;" } else { "" };
            sessions[at] = Session::Open;
            execute(&writers[at], &format!("{begin}{}", self.step(writer))).await;
            if self.random.random_bool(0.3) {
                self.end(&writers[at]).await;
                sessions[at] = Session::Idle;
            }
        }
        for (session, client) in sessions.into_iter().zip(writers) {
            if session == Session::Open {
                self.end(client).await;
            }
        }
    }

    /// Ends a transaction, well or not, in one step or in two.
    async fn end(&mut self, client: &Client) {
        let end = if self.random.random_bool(0.15) { "ROLLBACK" } else { "COMMIT" };
        if self.random.random_bool(0.2) {
            execute(client, "PREPARE TRANSACTION 'turmoil'").await;
            execute(client, &format!("{end} PREPARED 'turmoil'")).await;
        } else {
            execute(client, end).await;
        }
    }

    /// What the workload needs of a server.
    pub fn options() -> Options {
        Options::default().set("max_prepared_transactions", "1")
    }

    /// A change, or two, some of them behind savepoints that are taken back.
    fn step(&mut self, writer: i64) -> String {
        match self.random.random_range(0..10) {
            0..6 => self.change(writer),
            6 => format!("SAVEPOINT a;{}RELEASE a;", self.change(writer)),
            7 => format!("SAVEPOINT a;{}ROLLBACK TO a;", self.change(writer)),
            8 => {
                let [one, two, three] = [0; 3].map(|_| self.change(writer));
                format!("SAVEPOINT a;{one}SAVEPOINT b;{two}ROLLBACK TO b;{three}RELEASE a;")
            }
            _ => self.message(),
        }
    }

    fn change(&mut self, writer: i64) -> String {
        let index = self.random.random_range(0..self.tables.len());
        let choice = self.random.random_range(0..12);
        match choice {
            _ if !self.tables[index].changeable => self.insert(index, writer, 2),
            0..4 => {
                let rows = self.random.random_range(1..4);
                self.insert(index, writer, rows)
            }
            4..8 => self.update(index, writer),
            8 => self.update_key(index, writer),
            9 => self.delete(index, writer),
            10 => self.touch(index, writer),
            _ => self.insert_many(index, writer),
        }
    }

    fn fresh_id(&mut self, writer: i64) -> i64 {
        self.next += WRITERS;
        self.next - self.next % WRITERS + writer
    }

    fn insert(&mut self, index: usize, writer: i64, rows: usize) -> String {
        let mut sql = String::new();
        for _ in 0..rows {
            let id = self.fresh_id(writer);
            let table = &self.tables[index];
            let (names, values) = table.row(&mut self.random, id);
            sql.push_str(&format!("INSERT INTO {} ({names}) VALUES ({values});", table.name));
        }
        sql
    }

    /// Many rows in one statement: at times more than the server decodes in memory.
    fn insert_many(&mut self, index: usize, writer: i64) -> String {
        let count = *[30, 100, 1500].choose(&mut self.random).expect("not empty");
        let first = self.fresh_id(writer);
        self.next += count * WRITERS;
        let last = first + (count - 1) * WRITERS;
        let table = &self.tables[index];
        format!(
            "INSERT INTO {} ({}) SELECT n FROM generate_series({first},{last},{WRITERS}) n;",
            table.name, table.key
        )
    }

    /// Rows by COPY, which the server logs many at a time.
    async fn copy(&mut self, client: &Client) {
        let index = self.random.random_range(0..self.tables.len());
        let rows: String = (0..20).map(|_| format!("{}\n", self.fresh_id(1))).collect();
        let Table { name, key, .. } = &self.tables[index];
        let copy = format!("COPY {name} ({key}) FROM STDIN");
        let sink = client.copy_in(&copy).await.expect("COPY");
        let mut sink = std::pin::pin!(sink);
        sink.send(Bytes::from(rows)).await.expect("rows");
        sink.finish().await.expect("the end of COPY");
    }

    /// A few of the session's rows.
    fn some(&mut self, index: usize, writer: i64) -> String {
        let (key, modulo) = (&self.tables[index].key, self.random.random_range(5..40));
        let rest = self.random.random_range(0..modulo);
        format!("{key} % {WRITERS} = {writer} AND {key} / {WRITERS} % {modulo} = {rest}")
    }

    fn update(&mut self, index: usize, writer: i64) -> String {
        let some = self.some(index, writer);
        let table = &self.tables[index];
        let set = table.change(&mut self.random);
        format!("UPDATE {} SET {set} WHERE {some};", table.name)
    }

    fn update_key(&mut self, index: usize, writer: i64) -> String {
        let some = self.some(index, writer);
        let Table { name, key, .. } = &self.tables[index];
        // Far from all that are inserted, and the session's still.
        let new = format!("3000000000 + {WRITERS} * nextval('keys') + {writer}");
        format!("UPDATE {name} SET {key} = {new} WHERE {some};")
    }

    /// An update that changes nothing, so that large values are not logged.
    fn touch(&mut self, index: usize, writer: i64) -> String {
        let some = self.some(index, writer);
        let Table { name, key, .. } = &self.tables[index];
        format!("UPDATE {name} SET {key} = {key} WHERE {some};")
    }

    fn delete(&mut self, index: usize, writer: i64) -> String {
        let some = self.some(index, writer);
        format!("DELETE FROM {} WHERE {some};", self.tables[index].name)
    }

    fn message(&mut self) -> String {
        let transactional = self.random.random_bool(0.5);
        let text = values::literal(&mut self.random, "text");
        format!("SELECT pg_logical_emit_message({transactional}, 'turmoil', {text});")
    }

    /// Something that no other session may be in the way of.
    fn alone(&mut self) -> String {
        let index = self.random.random_range(0..self.tables.len());
        match self.random.random_range(0..8) {
            0 => self.truncate(index),
            1 => self.recreate(index),
            2 | 3 => self.alter(index),
            4 => {
                // Inside a transaction, with changes before and after.
                let (before, alter) = (self.insert(index, 0, 1), self.alter(index));
                let after = self.insert(index, 0, 1);
                format!("BEGIN;{before}{alter}{after}COMMIT;")
            }
            5 => {
                let before = self.tables[index].clone();
                let (alter, insert) = (self.alter(index), self.insert(index, 0, 1));
                self.tables[index] = before;
                format!("BEGIN;{alter}{insert}ROLLBACK;")
            }
            _ => self.message(),
        }
    }

    fn truncate(&mut self, index: usize) -> String {
        let other = self.random.random_range(0..self.tables.len());
        let names = match index == other {
            true => self.tables[index].name.to_owned(),
            false => format!("{}, {}", self.tables[index].name, self.tables[other].name),
        };
        let how = ["", " RESTART IDENTITY", " CASCADE"].choose(&mut self.random);
        format!("TRUNCATE {names}{};", how.expect("not empty"))
    }

    /// The same name, another table. It is emptied first, which readers of events are told.
    fn recreate(&mut self, index: usize) -> String {
        let name = self.tables[index].name;
        self.tables[index] = Table::original(index);
        format!("TRUNCATE {name}; DROP TABLE {name}; {}", SCHEMA[index])
    }

    fn alter(&mut self, index: usize) -> String {
        self.next += WRITERS;
        let (random, number) = (&mut self.random, self.next);
        let alter = self.tables[index].alter(random, number);
        match self.ddl {
            Ddl::Silent => alter.silent,
            Ddl::Told => alter.told,
        }
    }
}
