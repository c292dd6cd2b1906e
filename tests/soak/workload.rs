//! Random transactions of several sessions, and what must come out of them.
//!
//! A trigger notes each change of a row in the table `audit`, in the same transaction, while it
//! holds the row: what stands there at the end is what committed, and each row's changes stand in
//! the order of their commits. A session that lost its connection need not know what became of its
//! last transaction. Another trigger numbers the versions of all rows.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use crate::ledger::{Steps, View};

/// Tables with keys of numbers and of text, and with both kinds of old rows. `notes` keeps large
/// values out of line and uncompressed, so that updates leave them out.
pub const SCHEMA: &str = "
CREATE SEQUENCE versions;
CREATE TABLE audit (
    id bigserial PRIMARY KEY, tbl text NOT NULL, op text NOT NULL,
    key text, old_key text, v bigint
);
CREATE TABLE items (id bigint PRIMARY KEY, v bigint, note text);
CREATE TABLE notes (id bigint PRIMARY KEY, v bigint, note text);
CREATE TABLE parts (id text PRIMARY KEY, v bigint, note text);
ALTER TABLE notes REPLICA IDENTITY FULL, ALTER note SET STORAGE EXTERNAL;
ALTER TABLE parts ALTER note SET STORAGE EXTERNAL;

CREATE FUNCTION set_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.v := nextval('versions');
    IF NEW.note LIKE '#%' THEN
        NEW.note := repeat(NEW.id || ':' || NEW.v || '|', substr(NEW.note, 2)::int);
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    CASE TG_OP
    WHEN 'TRUNCATE' THEN
        INSERT INTO audit (tbl, op) VALUES (TG_TABLE_NAME, 'truncate');
    WHEN 'DELETE' THEN
        INSERT INTO audit (tbl, op, key, v) VALUES (TG_TABLE_NAME, 'delete', OLD.id, OLD.v);
    WHEN 'UPDATE' THEN
        INSERT INTO audit (tbl, op, key, old_key, v)
        VALUES (TG_TABLE_NAME, 'update', NEW.id, OLD.id, NEW.v);
    ELSE
        INSERT INTO audit (tbl, op, key, v) VALUES (TG_TABLE_NAME, 'insert', NEW.id, NEW.v);
    END CASE;
    RETURN NULL;
END $$;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['items', 'notes', 'parts'] LOOP
        EXECUTE format('CREATE TRIGGER version BEFORE INSERT OR UPDATE ON %I
                        FOR EACH ROW EXECUTE FUNCTION set_version()', t);
        EXECUTE format('CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON %I
                        FOR EACH ROW EXECUTE FUNCTION note_change()', t);
        EXECUTE format('CREATE TRIGGER emptied AFTER TRUNCATE ON %I
                        FOR EACH STATEMENT EXECUTE FUNCTION note_change()', t);
    END LOOP;
END $$;";

const TABLES: [&str; 3] = ["items", "notes", "parts"];
/// So few that each has many versions, and sessions meet.
const KEYS: i64 = 24;
/// Between two transactions of a session.
const PAUSES: std::ops::Range<u64> = 5..60;

/// A connection, once the server lets us in.
pub async fn connect(url: &str) -> Client {
    loop {
        if let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await {
            tokio::spawn(connection);
            return client;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A session: transactions until it is told to stop, on a new connection where one is lost. The
/// same seed makes the same transactions.
pub async fn session(url: String, seed: u64, stop: CancellationToken) {
    let mut session = Session { random: StdRng::seed_from_u64(seed) };
    let mut client = connect(&url).await;
    while !stop.is_cancelled() {
        let sql = session.transaction();
        // Two sessions that wait for each other, a key that is taken, a server that goes: what did
        // not commit is not in the audit.
        if client.batch_execute(&sql).await.is_err()
            && client.batch_execute("ROLLBACK").await.is_err()
        {
            client = connect(&url).await;
        }
        let pause = session.random.random_range(PAUSES);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

struct Session {
    random: StdRng,
}

impl Session {
    fn transaction(&mut self) -> String {
        let mut sql = String::from("BEGIN;");
        for _ in 0..self.random.random_range(1..=4) {
            if self.random.random_bool(0.2) {
                let change = self.change();
                let end = if self.random.random_bool(0.5) { "ROLLBACK TO" } else { "RELEASE" };
                sql += &format!("SAVEPOINT s;{change};{end} s;");
            } else {
                sql += &self.change();
                sql.push(';');
            }
        }
        sql += if self.random.random_bool(0.1) { "ROLLBACK" } else { "COMMIT" };
        sql
    }

    fn change(&mut self) -> String {
        let table = *TABLES.choose(&mut self.random).expect("not empty");
        let (key, other) = (self.key(table), self.key(table));
        let note = format!("'#{}'", self.size());
        match self.random.random_range(0..100) {
            0..35 => format!(
                "INSERT INTO {table} (id, note) VALUES ({key}, {note})
                 ON CONFLICT (id) DO UPDATE SET note = excluded.note"
            ),
            35..55 => format!("UPDATE {table} SET note = {note} WHERE id = {key}"),
            55..75 => format!("UPDATE {table} SET v = v WHERE id = {key}"),
            75..85 => format!("DELETE FROM {table} WHERE id = {key}"),
            85..95 => format!(
                "UPDATE {table} SET id = {other} WHERE id = {key}
                 AND NOT EXISTS (SELECT FROM {table} WHERE id = {other})"
            ),
            95..98 => format!(
                "INSERT INTO items (id, note) SELECT 1000 + n, '#2' FROM generate_series(1, 100) n
                 ON CONFLICT (id) DO UPDATE SET note = {note}"
            ),
            98 => "DELETE FROM items WHERE id > 1000".into(),
            _ => format!("TRUNCATE {table}"),
        }
    }

    fn key(&mut self, table: &str) -> String {
        let key = self.random.random_range(1..=KEYS);
        if table == "parts" { format!("'part {key}/é%'") } else { key.to_string() }
    }

    /// How many words a note has: seldom so many that it is a large value.
    fn size(&mut self) -> u32 {
        match self.random.random_range(0..40) {
            0 => 3_000,
            1..4 => 500,
            _ => self.random.random_range(0..8),
        }
    }
}

/// What committed since the last [`forget`], as each view has it.
pub async fn committed(client: &Client) -> [Steps; 3] {
    let sql = "SELECT tbl, op, key, old_key, v FROM audit ORDER BY id";
    let mut committed = [View::Whole, View::Items, View::ItemsApart].map(Steps::of);
    for row in client.query(sql, &[]).await.expect(sql) {
        let (table, op): (&str, &str) = (row.get(0), row.get(1));
        let (key, old_key): (Option<&str>, Option<&str>) = (row.get(2), row.get(3));
        for steps in &mut committed {
            steps.add(table, op, (key, old_key), row.get(4));
        }
    }
    committed
}

/// A row that says that the round is over; its key.
pub async fn end(client: &Client, round: u32) -> String {
    let key = -i64::from(round) - 1;
    let sql = format!("INSERT INTO items (id) VALUES ({key})");
    client.batch_execute(&sql).await.expect(&sql);
    key.to_string()
}

/// Empties the audit.
pub async fn forget(client: &Client) {
    client.batch_execute("TRUNCATE audit").await.expect("empty the audit");
}
