//! Backfills: rows of a table that are there already, brought into the stream while it goes on.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Finding, clock};

/// Rows of the first chunk, whose size is not known yet.
const FIRST_CHUNK: u64 = 1_000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackfillRequest {
    /// The tables, each as `schema.table`; each becomes a backfill of its own.
    pub tables: Vec<String>,
    /// Only rows for which this SQL expression is true.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// One table's backfill, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backfill {
    /// Its number.
    pub id: u64,
    /// The table's schema.
    pub schema: String,
    /// The table's name.
    pub table: String,
    /// Only rows for which this SQL expression is true.
    pub filter: Option<String>,
    /// Where it is in its life.
    pub state: BackfillState,
    /// What it waits for, or why it failed, and what to do about it.
    pub note: Option<String>,
    /// The key of the last row that was read, as text: it goes on behind it.
    pub after: Option<Vec<String>>,
    /// Keys that were read and are to be read again: the stream has their rows, but not whole.
    pub again: Vec<Vec<String>>,
    /// Whether the last row was read.
    pub at_end: bool,
    /// Rows read, whatever became of them.
    pub rows_read: u64,
    /// Rows that went to the journal. The others did not pass the filter, or had just changed, so
    /// that the stream has them.
    pub rows_sent: u64,
    /// Rows that the server believes there are.
    pub rows_total: u64,
    /// How many rows to read next.
    pub chunk: u64,
    /// Time spent reading, milliseconds.
    pub active_ms: u64,
    /// When it was asked for, microseconds since 1970-01-01 UTC.
    pub started: i64,
    /// When it ended.
    pub finished: Option<i64>,
}

impl Backfill {
    /// One that begins.
    #[must_use]
    pub fn new(id: u64, (schema, table): (String, String), filter: Option<String>) -> Self {
        Self {
            id,
            schema,
            table,
            filter,
            state: BackfillState::Running,
            note: None,
            after: None,
            again: Vec::new(),
            at_end: false,
            rows_read: 0,
            rows_sent: 0,
            rows_total: 0,
            chunk: FIRST_CHUNK,
            active_ms: 0,
            started: clock::now(),
            finished: None,
        }
    }

    /// A chunk of it is done: it may be the last.
    pub fn chunk_done(&mut self) {
        self.note = None;
        self.rows_total = self.rows_total.max(self.rows_read);
        if self.at_end && self.again.is_empty() {
            self.end(BackfillState::Done);
        }
    }

    /// It is over.
    pub fn end(&mut self, state: BackfillState) {
        (self.state, self.note, self.finished) = (state, None, Some(clock::now()));
    }
}

/// Where a backfill is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackfillState {
    /// It reads, or waits for its turn.
    Running,
    /// A person stopped it, and may let it go on.
    Paused,
    /// Every row was read.
    Done,
    /// A person ended it.
    Cancelled,
    /// It cannot go on until a person has done something; then it may be resumed.
    Failed,
}

impl BackfillState {
    /// Whether nothing more comes of it.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

/// A backfill as the API shows it: no values of rows in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackfillStatus {
    /// Its number.
    pub id: u64,
    /// The table, as `schema.table`.
    pub table: String,
    /// Only rows for which this SQL expression is true.
    #[serde(rename = "where")]
    pub filter: Option<String>,
    /// Where it is in its life.
    pub state: BackfillState,
    /// What it waits for, or why it failed, and what to do about it.
    pub note: Option<String>,
    /// Rows read, whatever became of them.
    pub rows_read: u64,
    /// Rows that went to the journal.
    pub rows_sent: u64,
    /// Rows that the server believes there are.
    pub rows_total: u64,
    /// Rows read per second so far.
    pub rows_per_second: Option<f64>,
    /// Seconds that the rest takes at this rate.
    pub eta_seconds: Option<u64>,
    /// When it was asked for, microseconds since 1970-01-01 UTC.
    pub started: i64,
    /// When it ended.
    pub finished: Option<i64>,
}

impl From<&Backfill> for BackfillStatus {
    fn from(backfill: &Backfill) -> Self {
        let Backfill { rows_read, rows_total, active_ms, .. } = *backfill;
        let rate = rows_read as f64 * 1000.0 / active_ms as f64;
        let rate = Some(rate).filter(|rate| rate.is_finite() && *rate > 0.0);
        let left = rows_total.saturating_sub(rows_read) as f64;
        let eta = rate.filter(|_| backfill.state == BackfillState::Running);
        Self {
            id: backfill.id,
            table: format!("{}.{}", backfill.schema, backfill.table),
            filter: backfill.filter.clone(),
            state: backfill.state,
            note: backfill.note.clone(),
            rows_read,
            rows_sent: backfill.rows_sent,
            rows_total,
            rows_per_second: rate,
            eta_seconds: eta.map(|rate| (left / rate).ceil() as u64),
            started: backfill.started,
            finished: backfill.finished,
        }
    }
}

/// What can be done about a backfill that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillAction {
    /// Stops it where it is.
    Pause,
    /// Lets it go on.
    Resume,
    /// Ends it.
    Cancel,
}

/// What was wished came about, or not.
pub type BackfillAnswer = Result<Vec<BackfillStatus>, Finding>;

/// A wish, and where its answer goes.
#[derive(Debug)]
pub enum BackfillCommand {
    /// Begins.
    Start(BackfillRequest, oneshot::Sender<BackfillAnswer>),
    /// Does something about the one of this number.
    Act(u64, BackfillAction, oneshot::Sender<BackfillAnswer>),
}

/// The source's backfills, as others reach them.
#[derive(Debug, Clone)]
pub struct Backfills {
    /// Wishes.
    pub commands: mpsc::Sender<BackfillCommand>,
    /// All of them, the newest last.
    pub status: watch::Receiver<Vec<BackfillStatus>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_when_the_end_is_read_and_nothing_is_to_be_read_again() {
        let mut backfill = Backfill::new(1, ("public".into(), "orders".into()), None);
        backfill.chunk_done();
        assert_eq!(backfill.state, BackfillState::Running);
        (backfill.at_end, backfill.again) = (true, vec![vec!["7".into()]]);
        backfill.chunk_done();
        assert_eq!(backfill.state, BackfillState::Running);
        backfill.again.clear();
        backfill.chunk_done();
        assert_eq!(backfill.state, BackfillState::Done);
        assert!(backfill.finished.is_some());
    }

    #[test]
    fn rate_and_time_left_come_from_what_was_kept() {
        let backfill = Backfill {
            rows_read: 3_000,
            rows_total: 10_000,
            active_ms: 1_500,
            ..Backfill::new(1, ("public".into(), "orders".into()), None)
        };
        let status = BackfillStatus::from(&backfill);
        assert_eq!((status.rows_per_second, status.eta_seconds), (Some(2_000.0), Some(4)));
        let new = Backfill { rows_read: 0, active_ms: 0, ..backfill.clone() };
        let status = BackfillStatus::from(&new);
        assert_eq!((status.rows_per_second, status.eta_seconds), (None, None));
        let paused = Backfill { state: BackfillState::Paused, ..backfill };
        assert_eq!(BackfillStatus::from(&paused).eta_seconds, None);
    }
}
