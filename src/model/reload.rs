//! Another config while walmill runs: what was asked for, and what came of it.

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::Finding;

/// What came of reading the config again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadReport {
    /// When, microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// Why it was read: `signal`, `file` or `api`.
    pub why: &'static str,
    /// What came of it.
    pub outcome: ReloadOutcome,
    /// What changed, in words; of a config that was refused, what would have.
    pub changes: Vec<String>,
    /// What is wrong with it, or odd about it.
    pub findings: Vec<Finding>,
}

/// What came of reading the config again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadOutcome {
    /// All of it is in force.
    Applied,
    /// It is the one that is in force.
    Unchanged,
    /// Nothing of it is in force.
    Refused,
}

/// A wish to read the config again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Who asks: `signal`, `file` or `api`.
    pub why: &'static str,
    /// Where the answer goes, if anyone waits for it.
    pub answer: Option<oneshot::Sender<ReloadReport>>,
}

/// Reading the config again, as others reach it.
#[derive(Debug, Clone)]
pub struct Reloads {
    /// Wishes.
    pub requests: mpsc::Sender<ReloadRequest>,
    /// The last outcome since the start.
    pub last: watch::Receiver<Option<ReloadReport>>,
}
