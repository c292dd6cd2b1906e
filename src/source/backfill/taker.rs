//! One chunk of a backfill: read between two watermarks, then placed in the stream by the
//! assembler, and in the journal when this is done with it.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::beside;
use super::plan::{Plan, Range};
use crate::model::Offset;
use crate::model::backfill::Backfill;
use crate::pgoutput::{self, Message, Value};
use crate::source::assembler::watermark::{
    Ask, Chunk, ChunkId, Keyed, Mark, Outcome, PREFIX, Seen,
};
use crate::source::config::Config;
use crate::source::database::Database;
use crate::source::entry::Place;
use crate::source::fault::{Fault, Report, quote};
use crate::source::snapshot::copy::append_row;
use crate::source::snapshot::worker::{prepare, readable};
use crate::store::Store;

/// A chunk takes about so long at most: a snapshot that is held longer keeps the server from
/// tidying up.
const LONG: Duration = Duration::from_secs(1);
/// Rows of a chunk, at least and at most.
const ROWS: std::ops::RangeInclusive<u64> = 10..=100_000;

/// Takes chunks.
pub(super) struct Taker {
    config: Config,
    store: Store,
    asks: mpsc::Sender<Ask>,
    next: ChunkId,
    session: Option<Session>,
    /// Whether the stream notes for us.
    noting: bool,
    /// Where the server is that the stream comes from.
    place: watch::Receiver<Option<Place>>,
}

/// A connection that backfills.
struct Session {
    database: Database,
    /// Transactions from before this one were not noted.
    horizon: u64,
}

/// What became of a chunk.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is in the journal, and the backfill is here now.
    Went(Box<Backfill>),
    /// It is to be taken again, after a while; with the reason where that may last.
    Again(Option<String>),
    /// The same, with fewer rows.
    Smaller,
    /// It can't be taken until a person has done something.
    Failed(Report),
    /// We were asked to stop.
    Stopped,
}

impl Taker {
    pub(super) fn new(
        config: Config,
        store: Store,
        asks: mpsc::Sender<Ask>,
        place: watch::Receiver<Option<Place>>,
    ) -> Self {
        let next = ChunkId { run: rand::random(), count: 0 };
        Self { config, store, asks, next, session: None, noting: false, place }
    }

    /// Whether there is something to let go of.
    pub(super) fn is_busy(&self) -> bool {
        self.session.is_some() || self.noting
    }

    /// There is nothing to take: lets go of the connection and of what was noted. Can be
    /// cancelled; what was not done then is done the next time.
    pub(super) async fn rest(&mut self) {
        self.session = None;
        if self.noting {
            // The source may have ended.
            let _ = ask(&self.asks, Ask::Rest).await;
            self.noting = false;
        }
    }

    /// Takes the next chunk of a backfill.
    pub(super) async fn take(&mut self, backfill: &Backfill, stop: &CancellationToken) -> Taken {
        let read = tokio::select! {
            () = stop.cancelled() => Ok(None),
            read = self.read(backfill) => read.map(Some),
        };
        let taken = match read {
            // The connection may be in the middle of an answer.
            Ok(None) => {
                self.session = None;
                return Taken::Stopped;
            }
            Ok(Some(Read::Chunk { id, chunk, outcome })) => self.place(id, chunk, outcome).await,
            Ok(Some(Read::Not(taken))) => Ok(taken),
            Err(fault) => Err(fault),
        };
        match taken {
            Ok(taken) => taken,
            Err(fault) => {
                self.session = None;
                failed(fault)
            }
        }
    }

    /// From the low watermark to the last row.
    async fn read(&mut self, backfill: &Backfill) -> Result<Read, Fault> {
        let began = Instant::now();
        let session = match self.session.take().filter(|_| !self.has_moved()) {
            Some(session) => session,
            None => self.open().await?,
        };
        let database = &session.database;
        let quoted = format!("{}.{}", quote(&backfill.schema), quote(&backfill.table));
        let table = keyed(database, &quoted).await?;
        let Keyed { oid, .. } = table;
        self.next.count += 1;
        let id = self.next;
        let (sender, outcome) = oneshot::channel();
        ask(&self.asks, |done| Ask::Open { id, table, outcome: sender, done }).await?;
        if self.has_moved() {
            return Ok(Read::Not(Taken::Again(None)));
        }
        emit(database, id, Mark::Low).await?;
        // Behind the lock the table stays as it is, and the snapshot sees how that is.
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
             SET LOCAL statement_timeout TO '600s'; LOCK TABLE {quoted} IN ACCESS SHARE MODE"
        );
        database.run("begin a chunk", &begin).await.map_err(|f| readable(f, database))?;
        let names = (&*backfill.schema, &*backfill.table);
        let plan = match Plan::of(database, &self.config, names).await? {
            Ok(plan) => plan,
            Err(finding) => return Ok(Read::Not(Taken::Failed(report(&finding)))),
        };
        let seen = seen(database).await?;
        let read = match (seen.xmin >= session.horizon, plan.published.relation.oid == oid) {
            (true, true) => Ok(self.rows(database, &plan, backfill).await?),
            (_, false) => Err(Taken::Again(None)),
            (false, _) => Err(Taken::Again(Some(old_transactions(session.horizon)))),
        };
        database.run("end a chunk", "COMMIT").await?;
        self.session = Some(session);
        let mut rows = match read {
            Ok(rows) => rows,
            Err(taken) => return Ok(Read::Not(taken)),
        };
        rows.took(began.elapsed(), self.config.backfill_chunk.bytes());
        let chunk = Chunk {
            frames: rows.frames.freeze(),
            primary_key: plan.key_places(),
            relation: plan.published.relation,
            seen,
            backfill: Box::new(rows.backfill),
        };
        Ok(Read::Chunk { id, chunk: Box::new(chunk), outcome })
    }

    /// Whether the stream has connected anew since the session was opened: perhaps elsewhere,
    /// where nothing comes of what the session writes.
    fn has_moved(&self) -> bool {
        self.place.has_changed().unwrap_or(true)
    }

    async fn open(&mut self) -> Result<Session, Fault> {
        self.place.mark_unchanged();
        let database = beside(&self.config, &self.place).await?;
        prepare(&database).await?;
        // Watermarks must be on disk to be sent, and wait for no standby.
        database.run("pin the session's settings", "SET synchronous_commit TO local").await?;
        // First the notes, then the number: whatever committed without being noted is older.
        self.noting = true;
        ask(&self.asks, Ask::Note).await?;
        let query = "SELECT pg_current_xact_id()::text";
        let rows = database.rows("look at the server's transactions", query, &[]).await?;
        let horizon = rows.first().and_then(|row| row.get::<_, &str>(0).parse().ok());
        Ok(Session { database, horizon: horizon.unwrap_or(u64::MAX) })
    }

    /// The chunk's rows, until they are enough.
    async fn rows(
        &self,
        database: &Database,
        plan: &Plan,
        backfill: &Backfill,
    ) -> Result<Rows, Fault> {
        let id = self.store.intern_relation(&plan.published.relation)?;
        let limit = self.config.backfill_chunk.bytes().saturating_mul(2);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut rows = Rows::new(backfill, plan.rows());
        let end = match backfill.again.is_empty() {
            true => self.end(database, plan, backfill).await?,
            false => None,
        };
        let range = match backfill.again.is_empty() {
            true => Range::Between(backfill.after.as_deref(), end.as_deref()),
            false => Range::Of(&backfill.again),
        };
        let query = plan.rows_query(backfill, &range);
        let lines = database.copy("read a chunk", &query).await;
        let mut lines = lines.map_err(|fault| readable(fault, database))?;
        let mut full = false;
        while let Some(line) = lines.next().await? {
            // Rows to be read again are those of one chunk, so they are never too many.
            full = backfill.again.is_empty() && rows.count > 0 && rows.frames.len() >= limit;
            if full {
                break;
            }
            rows.last = rows.frames.len();
            append_row(&mut rows.frames, &line, id, plan.published.width())
                .map_err(|error| Fault::away(error.to_string(), "report this"))?;
            rows.count += 1;
        }
        if backfill.again.is_empty() {
            rows.arrive(plan, end, full);
        }
        Ok(rows)
    }

    async fn end(
        &self,
        database: &Database,
        plan: &Plan,
        backfill: &Backfill,
    ) -> Result<Option<Vec<String>>, Fault> {
        let query = plan.end_query(backfill.after.as_deref(), backfill.chunk);
        let mut lines = database.copy("find a chunk's end", &query).await?;
        let mut end = None;
        while let Some(line) = lines.next().await? {
            let mut frame = BytesMut::new();
            let places: Vec<usize> = (0..plan.published.primary_key.len()).collect();
            let width = u16::try_from(places.len()).unwrap_or(u16::MAX);
            append_row(&mut frame, &line, crate::model::RelationId(0), width)
                .map_err(|error| Fault::away(error.to_string(), "report this"))?;
            end = Some(key_of(&frame, &places));
        }
        Ok(end)
    }

    /// Gives a chunk to the stream, and waits until it is in the journal.
    async fn place(
        &mut self,
        id: ChunkId,
        chunk: Box<Chunk>,
        mut outcome: oneshot::Receiver<Outcome>,
    ) -> Result<Taken, Fault> {
        ask(&self.asks, |done| Ask::Read(id, chunk, done)).await?;
        let emitted = match &self.session {
            Some(session) => emit(&session.database, id, Mark::High).await,
            None => Ok(()),
        };
        let came = match emitted {
            Ok(()) => tokio::select! {
                biased;
                came = &mut outcome => came,
                // With the connection went what was noted, so the chunk comes nowhere.
                _ = self.place.changed() => {
                    self.session = None;
                    return Ok(Taken::Again(None));
                }
            },
            Err(fault) => {
                // It may be in the server's log all the same. Once the stream begins its notes
                // anew, the chunk has been placed or never will be.
                ask(&self.asks, Ask::Note).await?;
                let Ok(came) = outcome.try_recv() else { return Err(fault) };
                self.session = None;
                Ok(came)
            }
        };
        match came {
            Ok(Outcome::Settled(Some(commit), backfill)) => {
                let mut reader = self.store.journal_reader(Offset::end_of(commit));
                let visible = reader.visible().wait_for(|visible| *visible >= commit).await;
                Ok(if visible.is_ok() { Taken::Went(backfill) } else { Taken::Stopped })
            }
            Ok(Outcome::Settled(None, backfill)) => {
                self.store.save_backfill(&backfill)?;
                Ok(Taken::Went(backfill))
            }
            Ok(Outcome::Unseen(xid)) => Ok(Taken::Again(Some(format!(
                "transaction {xid} has committed, and other sessions do not see that yet: it may \
                 wait for a synchronous standby (`SELECT pid, wait_event FROM pg_stat_activity \
                 WHERE backend_xid = '{xid}'`)"
            )))),
            Ok(Outcome::TooMany) => Ok(Taken::Smaller),
            Ok(Outcome::TableChanged) => Ok(Taken::Again(None)),
            Ok(Outcome::NotesLost) | Err(_) => {
                self.session = None;
                Ok(Taken::Again(None))
            }
        }
    }
}

/// What a read came to.
enum Read {
    Chunk { id: ChunkId, chunk: Box<Chunk>, outcome: oneshot::Receiver<Outcome> },
    Not(Taken),
}

/// Rows that were read, and where the backfill is behind them.
struct Rows {
    frames: BytesMut,
    count: u64,
    /// Where the last row begins.
    last: usize,
    backfill: Backfill,
}

impl Rows {
    fn new(backfill: &Backfill, total: u64) -> Self {
        let mut backfill = backfill.clone();
        backfill.rows_total = backfill.rows_total.max(total);
        Self { frames: BytesMut::new(), count: 0, last: 0, backfill }
    }

    /// Moves the backfill behind what was read: up to `end`, or to the last row where they became
    /// too many before that.
    fn arrive(&mut self, plan: &Plan, end: Option<Vec<String>>, full: bool) {
        let backfill = &mut self.backfill;
        backfill.rows_read += match (full, &end) {
            (false, Some(_)) => backfill.chunk,
            _ => self.count,
        };
        backfill.at_end = !full && end.is_none();
        if let (false, Some(end)) = (full, end) {
            backfill.after = Some(end);
        } else if self.count > 0 {
            backfill.after = Some(key_of(&self.frames[self.last..], &plan.key_places()));
        }
    }

    /// Chooses how many rows to read next: about as many bytes as wanted, and not for long.
    fn took(&mut self, took: Duration, wanted: u64) {
        let backfill = &mut self.backfill;
        backfill.active_ms += u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        if !backfill.again.is_empty() {
            // Those are few.
            return backfill.again.clear();
        }
        let by_size = wanted as f64 / self.frames.len().max(1) as f64;
        let by_time = LONG.as_secs_f64() / took.as_secs_f64().max(0.001);
        let factor = by_size.min(by_time).clamp(0.1, 4.0);
        let next = (backfill.chunk as f64 * factor) as u64;
        backfill.chunk = next.clamp(*ROWS.start(), *ROWS.end());
    }
}

/// The key of a row's frame.
fn key_of(frame: &[u8], places: &[usize]) -> Vec<String> {
    let Some(Ok(Message::Row { new, .. })) = frame.get(4..).map(pgoutput::decode) else {
        return Vec::new();
    };
    let values: Vec<_> = new.iter().collect();
    let text = |place: &usize| match values.get(*place) {
        Some(Value::Text(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    };
    places.iter().map(text).collect()
}

fn report(finding: &crate::model::Finding) -> Report {
    let remedy = finding.suggestion.clone().unwrap_or_default();
    Report { error: finding.message.clone(), remedy }
}

async fn ask(
    asks: &mpsc::Sender<Ask>,
    wish: impl FnOnce(oneshot::Sender<()>) -> Ask,
) -> Result<(), Fault> {
    let (done, heard) = oneshot::channel();
    let gone = || Fault::away("the source has ended", "");
    asks.send(wish(done)).await.map_err(|_| gone())?;
    heard.await.map_err(|_| gone())
}

/// Writes a watermark. The high one takes a transaction number with it, so that the server writes
/// it to disk at once and not within a fifth of a second.
async fn emit(database: &Database, id: ChunkId, mark: Mark) -> Result<(), Fault> {
    let query = match mark {
        Mark::Low => "SELECT pg_logical_emit_message(false, $1, $2)::text",
        Mark::High => {
            "SELECT pg_logical_emit_message(false, $1, $2)::text, pg_current_xact_id()::text"
        }
    };
    let content = id.message(mark);
    database.rows("write a watermark", query, &[&PREFIX, &content]).await.map(drop)
}

/// A table's OID, 0 where there is none, and its primary key.
async fn keyed(database: &Database, table: &str) -> Result<Keyed, Fault> {
    let query = "SELECT coalesce(to_regclass($1)::oid, 0::oid), array( \
         SELECT a.attname::text FROM pg_index i CROSS JOIN LATERAL \
             unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, at) \
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
         WHERE i.indrelid = to_regclass($1) AND i.indisprimary AND k.at <= i.indnkeyatts \
         ORDER BY k.at)";
    let rows = database.rows("look up a table", query, &[&table]).await?;
    let row = rows.first().map(|row| (row.get(0), row.get(1)));
    let (oid, primary_key) = row.unwrap_or_default();
    Ok(Keyed { oid, primary_key })
}

fn old_transactions(horizon: u64) -> String {
    format!(
        "transactions that were open when it began, before number {horizon}, have not ended: \
         `SELECT pid, backend_xid, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL`"
    )
}

async fn seen(database: &Database) -> Result<Seen, Fault> {
    let query = "SELECT pg_current_snapshot()::text";
    let rows = database.rows("look at the snapshot", query, &[]).await?;
    let seen = rows.first().and_then(|row| Seen::read(row.get(0)));
    seen.ok_or_else(|| Fault::away("a snapshot that makes no sense", "report this"))
}

/// A fault as it concerns a chunk: what the query itself is wrong about does not mend itself.
fn failed(fault: Fault) -> Taken {
    match fault {
        Fault::Away(report) if is_of_the_query(&report.error) => Taken::Failed(Report {
            remedy: "correct the filter (`--where`) or the rows, and start or resume it".into(),
            ..report
        }),
        Fault::Away(report) | Fault::Taken(report) => Taken::Again(Some(report.error)),
        Fault::Person(report) | Fault::Lost(report) | Fault::Halt(report) => Taken::Failed(report),
        Fault::Store(error) => Taken::Again(Some(error.to_string())),
    }
}

/// Whether an error of the server, whose code is at its end, is about the data or the query: a
/// division by zero, a filter that does not fit any more, a time that ran out.
fn is_of_the_query(error: &str) -> bool {
    let code = error.strip_suffix(')').and_then(|error| error.rsplit_once('('));
    code.is_some_and(|(_, code)| {
        code.len() == 5 && (code.starts_with("22") || code.starts_with("42") || code == "57014")
    })
}
