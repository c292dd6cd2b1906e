//! A random workload on one table, and what must come out of it: what committed, in commit order,
//! through a filter, a reshape and a route.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

/// The table. Its old rows are whole, so that deletes can be filtered and routed, too.
pub const SCHEMA: &str = "CREATE TABLE orders (
    id bigint PRIMARY KEY,
    region text NOT NULL,
    status text NOT NULL,
    email text,
    total numeric(12,2) NOT NULL,
    note text
);
ALTER TABLE orders REPLICA IDENTITY FULL;";

/// The plugins and the pipeline that the expectations are about.
pub const PIPELINE: &str = r#"
[plugins.placed]
path = "PLUGINS/filter.wasm"
config = { where = "status <> 'draft'" }

[plugins.tidy]
path = "PLUGINS/reshape.wasm"
config = { rename = { total = "amount" }, drop = ["note"], mask = { email = "email" } }

[plugins.by-region]
path = "PLUGINS/route.wasm"
config = { column = "region", prefix = "orders." }

[[pipeline]]
name = "orders"
tables = ["public.orders"]
plugins = ["placed", "tidy", "by-region"]
streams = ["orders.nz", "orders.de", "orders.us"]
"#;

/// The streams that come out.
pub const STREAMS: [&str; 3] = ["orders.nz", "orders.de", "orders.us"];
const REGIONS: [&str; 3] = ["nz", "de", "us"];
const STATUSES: [&str; 4] = ["draft", "paid", "shipped", "returned"];
/// Ids of the rows that mark the end.
const END: i64 = 1_000_000;

/// The seed of this run; `WALMILL_TEST_SEED` repeats one.
pub fn seed() -> u64 {
    let seed = match std::env::var("WALMILL_TEST_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => rand::random(),
    };
    println!("WALMILL_TEST_SEED={seed}");
    seed
}

/// What must come out, by stream, in order: op, id, and the row as the plugins leave it.
pub type Expected = BTreeMap<String, Vec<Value>>;

#[derive(Clone)]
struct Order {
    region: &'static str,
    status: &'static str,
    email: Option<String>,
    cents: i64,
}

/// Makes transactions, and keeps the books.
pub struct Workload {
    random: StdRng,
    rows: BTreeMap<i64, Order>,
    next: i64,
    expected: Expected,
    changes: usize,
}

/// A transaction under way: the rows as it sees them, and what it will have changed.
#[derive(Clone)]
struct Open {
    rows: BTreeMap<i64, Order>,
    events: Vec<(String, Value)>,
}

impl Workload {
    /// The same seed makes the same transactions.
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            rows: BTreeMap::new(),
            next: 1,
            expected: Expected::new(),
            changes: 0,
        }
    }

    /// Changes made so far, rolled back ones included.
    pub fn changes(&self) -> usize {
        self.changes
    }

    /// The next transaction as SQL: one to twenty changes, some behind a savepoint and taken back,
    /// and one transaction in eight rolled back as a whole.
    pub fn transaction(&mut self) -> String {
        let mut open = Open { rows: self.rows.clone(), events: Vec::new() };
        let mut sql = String::from("BEGIN;");
        for _ in 0..self.random.random_range(1..=4) {
            if self.random.random_bool(0.3) {
                let before = open.clone();
                sql.push_str("SAVEPOINT s;");
                self.change(&mut open, &mut sql);
                if self.random.random_bool(0.5) {
                    sql.push_str("ROLLBACK TO s;");
                    open = before;
                } else {
                    sql.push_str("RELEASE s;");
                }
            } else {
                self.change(&mut open, &mut sql);
            }
        }
        if self.random.random_bool(0.125) {
            sql.push_str("ROLLBACK;");
        } else {
            sql.push_str("COMMIT;");
            self.commit(open);
        }
        sql
    }

    /// One row in each stream that marks its end.
    pub fn end(&mut self) -> String {
        let mut open = Open { rows: self.rows.clone(), events: Vec::new() };
        let mut sql = String::from("BEGIN;");
        for (at, region) in (0..).zip(REGIONS) {
            let order = Order { region, status: "paid", email: None, cents: 0 };
            insert(&mut open, &mut sql, END + at, order);
        }
        sql.push_str("COMMIT;");
        self.commit(open);
        sql
    }

    /// Everything that must have come out.
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    fn commit(&mut self, open: Open) {
        self.rows = open.rows;
        for (stream, event) in open.events {
            self.expected.entry(stream).or_default().push(event);
        }
    }

    fn change(&mut self, open: &mut Open, sql: &mut String) {
        for _ in 0..self.random.random_range(1..=5) {
            self.changes += 1;
            let ids: Vec<i64> = open.rows.keys().copied().collect();
            let known = ids.choose(&mut self.random).copied();
            match (self.random.random_range(0..10), known) {
                (0..4, _) | (_, None) => {
                    let (id, order) = (self.next, self.order());
                    self.next += 1;
                    insert(open, sql, id, order);
                }
                (4..8, Some(id)) => {
                    let order = self.order();
                    update(open, sql, id, order);
                }
                (_, Some(id)) => delete(open, sql, id),
            }
        }
    }

    fn order(&mut self) -> Order {
        let random = &mut self.random;
        let email =
            random.random_bool(0.8).then(|| format!("u{}@example.com", random.random::<u16>()));
        Order {
            region: REGIONS.choose(random).expect("not empty"),
            status: STATUSES.choose(random).expect("not empty"),
            email,
            cents: random.random_range(0..10_000_000),
        }
    }
}

/// Whether the stream has reached its end.
pub fn ended(events: &[Value]) -> bool {
    events.last().is_some_and(|event| event["data"]["key"]["id"].as_i64() >= Some(END))
}

/// An event reduced to what is expected of it.
pub fn reduce(event: &Value) -> Value {
    let data = &event["data"];
    let row = if data["op"] == "delete" { &data["old_record"] } else { &data["record"] };
    json!({"op": data["op"], "row": row})
}

fn insert(open: &mut Open, sql: &mut String, id: i64, order: Order) {
    let email = quote(order.email.as_deref());
    let Order { region, status, cents, .. } = &order;
    let total = decimal(*cents);
    write!(sql, "INSERT INTO orders VALUES ({id},'{region}','{status}',{email},{total},'n');")
        .expect("a string");
    event(open, "insert", id, &order);
    open.rows.insert(id, order);
}

fn update(open: &mut Open, sql: &mut String, id: i64, order: Order) {
    let email = quote(order.email.as_deref());
    let Order { region, status, cents, .. } = &order;
    let total = decimal(*cents);
    write!(
        sql,
        "UPDATE orders SET region='{region}',status='{status}',email={email},total={total} \
         WHERE id={id};"
    )
    .expect("a string");
    event(open, "update", id, &order);
    open.rows.insert(id, order);
}

fn delete(open: &mut Open, sql: &mut String, id: i64) {
    write!(sql, "DELETE FROM orders WHERE id={id};").expect("a string");
    if let Some(order) = open.rows.remove(&id) {
        event(open, "delete", id, &order);
    }
}

/// What the three plugins make of a change.
fn event(open: &mut Open, op: &str, id: i64, order: &Order) {
    if order.status == "draft" {
        return;
    }
    let email = order.email.as_ref().map(|_| "u***@example.com");
    let total: Value = serde_json::from_str(&decimal(order.cents)).expect("a number");
    let mut row =
        json!({"id": id, "region": order.region, "status": order.status, "amount": total});
    row["email"] = json!(email);
    let event = json!({"op": op, "row": row});
    open.events.push((format!("orders.{}", order.region), event));
}

fn decimal(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn quote(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".into(), |text| format!("'{text}'"))
}
