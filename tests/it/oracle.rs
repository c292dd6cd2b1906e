//! PostgreSQL's own decoder as oracle: a second slot over the same log, with the plugin
//! `test_decoding`, must tell the same transactions, change by change, as walmill's source and
//! journal.

mod journal;
mod test_decoding;

use std::fmt;

use tempfile::TempDir;
use tokio_postgres::Client;
use walmill::cluster::Cluster;
use walmill::source::Config;

use crate::support::streaming::Streaming;
use crate::support::turmoil::{Ddl, Turmoil, seed};
use crate::support::{connect, execute};

/// A committed transaction, or a message that belongs to none.
#[derive(Debug, PartialEq, Eq)]
pub struct Transaction {
    /// `None` for a message of its own.
    pub xid: Option<u32>,
    pub changes: Vec<Change>,
}

/// One change, in a form that both decoders can be brought to.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    Row { table: String, op: &'static str, old: Option<Row>, new: Option<Row> },
    Truncate { tables: Vec<String>, cascade: bool, restart: bool },
    Message { transactional: bool, prefix: String, content: String },
}

/// Columns by name, in the table's order. An old row is without its NULLs, since one decoder leaves
/// them out.
pub type Row = Vec<(String, Cell)>;

#[derive(Debug, PartialEq, Eq)]
pub enum Cell {
    Null,
    Unchanged,
    Text(String),
}

/// The message behind everything.
const END: &str = "the end";

impl Transaction {
    pub fn is_end(&self) -> bool {
        matches!(self.changes.as_slice(), [Change::Message { prefix, .. }] if prefix == END)
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = self.changes.iter().map(|change| format!("\n  {change:?}"));
        let text = format!("transaction {:?}{}", self.xid, changes.collect::<String>());
        f.pad(&text)
    }
}

/// Every table there is and will be, under the names of the partitioned ones.
const PUBLICATION: &str =
    "CREATE PUBLICATION walmill FOR ALL TABLES WITH (publish_via_partition_root = true);";
const SLOT: &str = "SELECT pg_create_logical_replication_slot('oracle', 'test_decoding')";

/// So many rounds of the workload.
const ROUNDS: usize = 120;

/// What PostgreSQL does with a transaction that is too large for its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Large {
    /// There is none.
    None,
    /// Keeps it on its own disk until it commits.
    Spilled,
    /// Sends it while it is open.
    Streamed,
}

/// When PostgreSQL sends a transaction that is prepared first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prepared {
    AtCommit,
    AtPrepare,
}

/// Runs a workload past both decoders.
async fn compare(large: Large, prepared: Prepared) {
    let memory = if large == Large::None { "64MB" } else { "64kB" };
    let options = Turmoil::options().set("logical_decoding_work_mem", memory);
    let cluster = Cluster::start(&options).expect("a throw-away PostgreSQL");
    let client = connect(&cluster).await;
    execute(&client, &Turmoil::schema()).await;
    execute(&client, PUBLICATION).await;
    let folder = TempDir::new().expect("a folder");
    let mut source = Config::new(cluster.url().parse().expect("a URL"));
    source.streaming = large != Large::Spilled;
    source.two_phase = prepared == Prepared::AtPrepare;
    let source = Streaming::start(folder.path(), source);
    source.streaming().await;
    execute(&client, SLOT).await;

    let writers = Turmoil::writers(&cluster).await;
    let mut turmoil = Turmoil::new(seed(), Ddl::Silent);
    turmoil.rounds(&writers, ROUNDS).await;
    execute(&client, &format!("SELECT pg_logical_emit_message(false, '{END}', '')")).await;
    // A message alone does not make the server write its log out; a commit does.
    execute(&client, "CREATE TABLE behind ()").await;

    let theirs = oracle(&client).await;
    let ours = journal::transactions(&source.store).await;
    assert_eq!(went(&client).await, large);
    source.stop().await;
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert!(ours == theirs, "transaction {at}\nours: {ours:.2000}\ntheirs: {theirs:.2000}");
    }
    assert_eq!(ours.len(), theirs.len());
    let changes: usize = ours.iter().map(|transaction| transaction.changes.len()).sum();
    println!("{} transactions, {changes} changes", ours.len());
    assert!(changes > 10 * ROUNDS, "only {changes} changes in {ROUNDS} rounds");
}

/// Which way the largest transactions went, by the server's own count.
async fn went(client: &Client) -> Large {
    let query = "SELECT spill_txns > 0, stream_txns > 0 FROM pg_stat_replication_slots \
                 WHERE slot_name = 'walmill'";
    let row = client.query_one(query, &[]).await.expect("the slot's counts");
    match (row.get(0), row.get(1)) {
        (_, true) => Large::Streamed,
        (true, false) => Large::Spilled,
        (false, false) => Large::None,
    }
}

async fn oracle(client: &Client) -> Vec<Transaction> {
    // As walmill asks for values. And in memory: when PostgreSQL 18 decodes an aborted transaction
    // that did not fit, it calls this plugin for a stream it never began, which crashes it.
    execute(
        client,
        "SET logical_decoding_work_mem = '1GB'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; \
         SET bytea_output = 'hex'; SET timezone = 'UTC'",
    )
    .await;
    // Empty transactions too: to leave them out it would forget that messages make one not empty.
    let changes = "SELECT data FROM pg_logical_slot_get_changes('oracle', NULL, NULL, \
                   'include-xids', '1', 'skip-empty-xacts', '0')";
    let rows = client.query(changes, &[]).await.expect("test_decoding");
    test_decoding::transactions(rows.iter().map(|row| row.get(0)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_holds_what_postgresql_itself_decodes() {
    compare(Large::None, Prepared::AtCommit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn also_of_transactions_that_come_while_they_are_open() {
    compare(Large::Streamed, Prepared::AtCommit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn also_of_transactions_that_the_server_keeps_on_its_disk() {
    compare(Large::Spilled, Prepared::AtCommit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn also_of_transactions_that_come_when_they_are_prepared() {
    compare(Large::None, Prepared::AtPrepare).await;
    compare(Large::Streamed, Prepared::AtPrepare).await;
}
