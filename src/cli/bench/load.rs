//! What every case reads: one table of ten columns, and a number of changes of which it is known
//! beforehand what each plugin lets through.

use tokio_postgres::Client;

use super::cases::Kept;
use crate::model::Lsn;

/// The slot that is made before the load; each case reads from a copy of it.
pub(super) const SLOT: &str = "walmill_bench";
/// Rows of the largest transactions.
const BULK: u64 = 100_000;
/// Rows of the others that have several.
const SOME: u64 = 100;

pub(super) const SCHEMA: &str = "
    CREATE TABLE orders (
        id bigint PRIMARY KEY, quantity bigint NOT NULL, priority integer NOT NULL,
        total numeric(12,2) NOT NULL, email text NOT NULL, region text NOT NULL,
        status text NOT NULL, paid boolean NOT NULL, created_at timestamptz NOT NULL,
        details jsonb NOT NULL);
    CREATE PUBLICATION walmill_bench FOR TABLE orders;";
/// Of the row `r`.
const VALUES: &str = "r, r % 90, r % 7, (r % 100000) / 100.0, 'user' || r || '@example.com',
    (ARRAY['NZ', 'DE', 'US', 'JP'])[1 + r % 4], (ARRAY['paid', 'new', 'shipped', 'lost'])[1 + r % 4],
    r % 2 = 0, now(), jsonb_build_object('a', r, 'b', repeat('x', 80))";

/// How many rows of each kind. Every one is a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Inserted in transactions of 100,000, or one if there are fewer.
    bulk: u64,
    /// Inserted in transactions of 100.
    some: u64,
    /// Inserted one by one.
    single: u64,
    /// Updated in transactions of 100.
    updates: u64,
    /// Deleted in transactions of 100, but for the last.
    deletes: u64,
}

impl Load {
    /// Half in large transactions, and something of everything.
    pub(super) fn new(changes: u64) -> Self {
        let part = |percent: u64| changes * percent / 100;
        let (some, single, updates) = (part(25), part(5), part(15));
        // The last of them is a transaction of its own, by which the end is known.
        let deletes = part(5).max(1);
        let bulk = changes.saturating_sub(some + single + updates + deletes);
        Self { bulk, some, single, updates, deletes }
    }

    fn inserts(self) -> u64 {
        self.bulk + self.some + self.single
    }

    /// All of them.
    pub(super) fn changes(self) -> u64 {
        self.inserts() + self.updates + self.deletes
    }

    /// What a plugin that keeps this lets through. Of a deleted row only the key is known, so
    /// deletes pass.
    pub(super) fn kept(self, kept: Kept) -> u64 {
        // Regions and states of an order follow from its id.
        let among = |first: u64, last: u64| (first..=last).filter(|id| kept.keeps(*id)).count();
        let rows = among(1, self.inserts()) + among(1, self.updates);
        rows as u64 + self.deletes
    }

    /// Makes the changes. All of them are done once a reader is behind the position that this
    /// gives.
    pub(super) async fn make(self, database: &Client) -> Result<Lsn, tokio_postgres::Error> {
        let insert = |rows| format!("INSERT INTO orders SELECT {VALUES} FROM {rows}");
        let series = |step: u64| insert(format!("generate_series(i, least(i + {step} - 1, n)) r"));
        let mut first = 1;
        for (rows, step) in [(self.bulk, BULK), (self.some, SOME), (self.single, 1)] {
            let last = first + rows - 1;
            repeat(database, first, last, step, &series(step)).await?;
            first = last + 1;
        }
        let range = "id BETWEEN i AND least(i + 99, n)";
        let update = format!("UPDATE orders SET quantity = quantity + 1 WHERE {range}");
        repeat(database, 1, self.updates, SOME, &update).await?;
        let delete = format!("DELETE FROM orders WHERE {range}");
        repeat(database, 2, self.deletes, SOME, &delete).await?;
        let end = database.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?;
        database.batch_execute("DELETE FROM orders WHERE id = 1").await?;
        Ok(end.get::<_, String>(0).parse().unwrap_or_default())
    }
}

/// Runs the statement for each `i` from first to last, each time in a transaction of its own, on
/// the server: our own round trips would take most of the time.
pub(super) async fn repeat(
    database: &Client,
    first: u64,
    last: u64,
    step: u64,
    statement: &str,
) -> Result<(), tokio_postgres::Error> {
    let block = format!(
        "DO $$ DECLARE i bigint := {first}; n bigint := {last}; BEGIN
            WHILE i <= n LOOP {statement}; COMMIT; i := i + {step}; END LOOP; END $$"
    );
    database.batch_execute(&block).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_accounted_for() {
        for changes in [1, 7, 100, 1_000, 123_457] {
            assert_eq!(Load::new(changes).changes(), changes);
        }
        let load = Load::new(1_000);
        assert_eq!(load.kept(Kept::All), 1_000);
        // A fourth of 800 inserts and of 150 updates, and 50 deletes.
        assert_eq!(load.kept(Kept::Region), 200 + 37 + 50);
        assert_eq!(load.kept(Kept::Status), 400 + 75 + 50);
    }
}
