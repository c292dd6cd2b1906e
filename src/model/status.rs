//! The latest facts about each part, as the parts publish them (through `watch` channels) and as
//! the admin API, the console and the readiness check show them.

use serde::{Deserialize, Serialize};

use super::Lsn;
use super::plugin::ReloadStatus;

/// The source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceStatus {
    /// What it is doing.
    pub state: SourceState,
    /// The replication slot's name.
    pub slot: String,
    /// The publication's name.
    pub publication: String,
    /// `server_version` of PostgreSQL, once connected.
    pub server_version: Option<String>,
    /// `system_identifier` of PostgreSQL, once connected.
    pub system_identifier: Option<String>,
    /// The server's timeline, once connected.
    pub timeline: Option<u32>,
    /// End of the server's log, as it last said.
    pub server_lsn: Lsn,
    /// End of what has been received.
    pub received_lsn: Lsn,
    /// What has been confirmed to PostgreSQL: synced to disk here.
    pub confirmed_lsn: Lsn,
    /// Commit time of the last transaction received, microseconds since 1970-01-01 UTC.
    pub last_commit_time: Option<i64>,
    /// Times that the connection was made.
    pub connections: u64,
    /// What the slot keeps on the server, once that was looked at.
    pub wal: Option<RetainedWal>,
}

/// How much of the server's log is kept for the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RetainedWal {
    /// Bytes between the oldest record that the slot needs and the log's end.
    pub retained_bytes: u64,
    /// Bytes that can still be written before the slot is in danger of being invalidated; `None`
    /// where the server sets no limit (`max_slot_wal_keep_size`).
    pub safe_bytes: Option<u64>,
    /// The most that it should be, by `source.wal_budget`.
    pub budget_bytes: Option<u64>,
}

impl RetainedWal {
    /// Whether more is kept than the config wants to see.
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        self.budget_bytes.is_some_and(|budget| self.retained_bytes > budget)
    }
}

/// What the source is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum SourceState {
    /// Making a connection.
    Connecting,
    /// Reading the rows that are there, before it receives.
    Snapshotting(SnapshotProgress),
    /// Receiving.
    Streaming,
    /// The last try failed; it goes on by itself.
    Waiting {
        /// What happened.
        error: String,
        /// What a person can do about it.
        remedy: String,
        /// When the next try is made, milliseconds from the failure.
        retry_ms: u64,
    },
    /// Another reader has the slot; it takes over when the slot is freed.
    Standby {
        /// Who has it.
        error: String,
        /// What a person can do, if that is not meant.
        remedy: String,
    },
    /// Going on would lose or invent changes, so it does not, until a person decides.
    Halted {
        /// What does not fit.
        error: String,
        /// What a person can do about it.
        remedy: String,
        /// Whether it is the slot that cannot give what comes next, so that it can be made anew.
        slot_lost: bool,
    },
    /// Shut down.
    Stopped,
}

/// How far a snapshot is. Totals are what the server estimates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotProgress {
    /// Tables that are read to their end.
    pub tables_done: u64,
    /// All of them.
    pub tables_total: u64,
    /// Rows read.
    pub rows_done: u64,
    /// Rows that the server believes there are.
    pub rows_total: u64,
    /// Bytes of the tables' files that are read.
    pub bytes_done: u64,
    /// Size of the tables' files.
    pub bytes_total: u64,
}

/// One plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginStatus {
    /// Its name in the config.
    pub name: String,
    /// Content hash of the version in force: the first 12 hexadecimal digits of the SHA-256.
    pub version: String,
    /// The name and version that it gives itself.
    pub describes: String,
    /// The source language, where the file's `producers` section says.
    pub language: Option<String>,
    /// Size of the file in bytes.
    pub size: u64,
    /// The file it was loaded from.
    pub path: String,
    /// Since when this version is in force, microseconds since 1970-01-01 UTC.
    pub since: i64,
    /// The generation that brought it.
    pub generation: u64,
    /// The version that waits for a person's word, if one does.
    pub waiting: Option<String>,
    /// What a person should know: a file that is not in force, a version that waits.
    pub note: Option<String>,
    /// The most that its file may have, in bytes.
    pub max_size: u64,
    /// What happened to it, newest first.
    pub history: Vec<ReloadStatus>,
}

/// One pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PipelineStatus {
    /// Its name.
    pub name: String,
    /// The plugins it runs, in order.
    pub plugins: Vec<String>,
    /// Commit up to which every change is done.
    pub cursor: Lsn,
    /// Events emitted since the start.
    pub emitted: u64,
    /// Changes dropped by a plugin since the start.
    pub dropped: u64,
    /// Changes set aside since the start.
    pub dead_letters: u64,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
    /// Changed definitions of tables that wait until a person accepts them.
    pub schema_changes: Vec<SchemaStatus>,
}

/// A changed definition of a table, before which a pipeline waits or behind which it sets the
/// table's rows aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaStatus {
    /// The id of its event.
    pub event: String,
    /// `schema.table`
    pub table: String,
    /// What changed, in words.
    pub change: String,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputStatus {
    /// Its name.
    pub name: String,
    /// `webhook`, …
    pub kind: &'static str,
    /// Where it delivers to, without secrets.
    pub target: String,
    /// Events delivered since the start.
    pub delivered: u64,
    /// Tries that failed since the start.
    pub failed: u64,
    /// Events given up since the start.
    pub dead_letters: u64,
    /// The last failure, while it lasts.
    pub error: Option<String>,
    /// Why it delivers nothing until a person enables it, if that is so.
    pub disabled: Option<Disabled>,
}

/// An output's far side said that it wants no more: a webhook's receiver answered 410, say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// When it said so, microseconds since 1970-01-01 UTC.
    pub since: i64,
    /// What it said.
    pub why: String,
    /// Who said it. An output that was given another place by the config delivers there.
    pub target: String,
}
