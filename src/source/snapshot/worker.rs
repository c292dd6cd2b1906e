//! Tables read in ranges of blocks by several connections, all in one exported snapshot.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::catalog::{Part, Published};
use super::copy::append_row;
use crate::model::RelationId;
use crate::pgoutput::frame;
use crate::source::database::Database;
use crate::source::entry::Place;
use crate::source::fault::{Fault, Report, quote};
use crate::source::url::Url;

/// Rows of this size make a part of the snapshot's transaction.
const PART: usize = 1 << 20;
/// Blocks that are read in one go: 32 MiB.
const RANGE: u64 = 4096;
/// The first server version that finds a range of blocks without reading the others.
const WITH_RANGES: i32 = 14;
/// The first server version that ends transactions for being long.
const WITH_TRANSACTION_TIMEOUT: i32 = 17;

/// A connection whose transaction sees the snapshot.
pub(super) struct Session(Database);

impl Session {
    /// Joins the snapshot.
    pub(super) async fn open(url: &Url, place: &Place, snapshot: &str) -> Result<Self, Fault> {
        let database = Database::beside(url, place).await?;
        prepare(&database).await?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'",
            snapshot.replace('\'', "''")
        );
        database.run("join the slot's snapshot", &begin).await?;
        Ok(Self(database))
    }

    pub(super) fn database(&self) -> &Database {
        &self.0
    }

    /// Keeps the tables from being rewritten or emptied, which the snapshot would not survive.
    pub(super) async fn lock(&self, parts: &[&Part], wait: &str) -> Result<(), Fault> {
        for parts in parts.chunks(500) {
            let names: Vec<_> = parts.iter().map(|part| format!("ONLY {}", part.name)).collect();
            let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE {wait}", names.join(", "));
            self.0.run("lock the tables", &lock).await.map_err(|fault| readable(fault, &self.0))?;
        }
        Ok(())
    }
}

/// Makes values read as the stream sends them, and nothing hidden without a word.
pub(in crate::source) async fn prepare(database: &Database) -> Result<(), Fault> {
    let mut settings = "SET row_security TO off".to_owned();
    if database.version() >= WITH_TRANSACTION_TIMEOUT {
        settings.push_str("; SET transaction_timeout TO 0");
    }
    let encoding = "SELECT current_setting('server_encoding')";
    let rows = database.rows("look at the server's settings", encoding, &[]).await?;
    if rows.first().is_some_and(|row| row.get::<_, &str>(0) == "SQL_ASCII") {
        settings.push_str("; SET client_encoding TO 'SQL_ASCII'");
    }
    database.run("pin the session's settings", &settings).await
}

/// What a refusal to read means.
pub(in crate::source) fn readable(fault: Fault, database: &Database) -> Fault {
    match fault {
        Fault::Person(Report { error, .. }) if error.ends_with("(42501)") => {
            let user = quote(database.user());
            Fault::person(
                error,
                format!(
                    "let walmill's role read the published tables: `GRANT SELECT ON ALL TABLES IN \
                     SCHEMA … TO {user}`; where row-level security hides rows from it, also `ALTER \
                     ROLE {user} BYPASSRLS`"
                ),
            )
        }
        fault => fault,
    }
}

/// A range of one table's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unit {
    table: usize,
    query: String,
    bytes: u64,
}

/// What is to be read, shared by those who read it.
pub(super) struct Work {
    units: Vec<Unit>,
    next: AtomicUsize,
    /// Units that are left of each table.
    left: Vec<AtomicUsize>,
    tables: Vec<(RelationId, u16)>,
    /// The frame that every part begins with.
    begin: [u8; 21],
}

/// Some of the rows, as frames behind a Begin.
pub(super) struct Rows {
    pub(super) frames: Bytes,
    pub(super) rows: u32,
    /// What was read to its end meanwhile.
    pub(super) tables: u64,
    pub(super) bytes: u64,
}

impl Work {
    /// The work of reading these tables; `ids` are their definitions' numbers.
    pub(super) fn new(
        published: &[Published],
        ids: &[RelationId],
        begin: [u8; 21],
        version: i32,
    ) -> Self {
        let tables = published.iter().zip(ids).map(|(table, id)| (*id, table.width())).collect();
        let units: Vec<Unit> = (0..)
            .zip(published)
            .flat_map(|(at, table)| table.parts.iter().map(move |part| (at, table, part)))
            .flat_map(|(at, table, part)| units(at, table, part, version))
            .collect();
        let count = |table| units.iter().filter(|unit| unit.table == table).count();
        let left = (0..published.len()).map(|table| AtomicUsize::new(count(table))).collect();
        Self { units, next: AtomicUsize::new(0), left, tables, begin }
    }

    /// How many can share it.
    pub(super) fn shares(&self) -> usize {
        self.units.len().max(1)
    }

    /// Reads until there is nothing left to read, or nobody to take it.
    pub(super) async fn read(
        &self,
        session: Session,
        out: mpsc::Sender<Rows>,
    ) -> Result<(), Fault> {
        let mut part = PartBuffer::new(self.begin);
        while let Some(unit) = self.units.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let (id, columns) = self.tables[unit.table];
            let lines = session.0.copy("read a table", &unit.query).await;
            let mut lines = lines.map_err(|fault| readable(fault, &session.0))?;
            while let Some(line) = lines.next().await? {
                append_row(&mut part.frames, &line, id, columns)
                    .map_err(|error| Fault::away(error.to_string(), "report this"))?;
                part.rows += 1;
                if part.frames.len() >= PART && out.send(part.take()).await.is_err() {
                    return Ok(());
                }
            }
            part.bytes += unit.bytes;
            let last = self.left[unit.table].fetch_sub(1, Ordering::Relaxed) == 1;
            part.tables += u64::from(last);
        }
        let _ = out.send(part.take()).await;
        Ok(())
    }
}

struct PartBuffer {
    begin: [u8; 21],
    frames: BytesMut,
    rows: u32,
    tables: u64,
    bytes: u64,
}

impl PartBuffer {
    fn new(begin: [u8; 21]) -> Self {
        let mut buffer = Self { begin, frames: BytesMut::new(), rows: 0, tables: 0, bytes: 0 };
        buffer.begin();
        buffer
    }

    fn begin(&mut self) {
        self.frames.reserve(PART + PART / 8);
        put_frame(&mut self.frames, &self.begin);
    }

    fn take(&mut self) -> Rows {
        let frames = self.frames.split().freeze();
        self.begin();
        let (rows, tables, bytes) = (self.rows, self.tables, self.bytes);
        (self.rows, self.tables, self.bytes) = (0, 0, 0);
        Rows { frames, rows, tables, bytes }
    }
}

/// Appends a short message as a frame.
pub(in crate::source) fn put_frame(out: &mut BytesMut, message: &[u8]) {
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
}

/// The frames of a transaction's last part, in which nothing is left to say.
pub(super) fn ending(
    begin: &[u8; 21],
    commit: crate::model::Lsn,
    end: crate::model::Lsn,
    time: i64,
) -> Bytes {
    let mut frames = BytesMut::new();
    put_frame(&mut frames, begin);
    put_frame(&mut frames, &frame::commit(commit, end, time));
    frames.freeze()
}

/// The ranges of one part of a table.
fn units(table: usize, published: &Published, part: &Part, version: i32) -> Vec<Unit> {
    let filter = published.filter.as_ref().map(|filter| format!("({filter})"));
    let unit = |from: u64, to: Option<u64>| {
        let mut conditions = Vec::new();
        if from > 0 {
            conditions.push(format!("ctid >= '({from},0)'::tid"));
        }
        conditions.extend(to.map(|to| format!("ctid < '({to},0)'::tid")));
        conditions.extend(filter.clone());
        let wanted = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        let (columns, name) = (published.columns(), &part.name);
        let query = format!("COPY (SELECT {columns} FROM ONLY {name}{wanted}) TO STDOUT");
        let blocks = to.unwrap_or(part.blocks).saturating_sub(from);
        Unit { table, query, bytes: blocks.saturating_mul(part.block_size) }
    };
    let ranges = if version >= WITH_RANGES { part.blocks.div_ceil(RANGE).max(1) } else { 1 };
    // The last one is open: rows that were there are never behind the end, but it costs nothing.
    (0..ranges)
        .map(|range| unit(range * RANGE, (range + 1 < ranges).then(|| (range + 1) * RANGE)))
        .collect()
}
