//! What walmill keeps on disk: one embedded database in the data folder, with a keyspace each for
//! the journal, relations, streams, checkpoints, plugin state and dead letters.
//!
//! The two promises made here: a position is [`journal::Durable`] only when it is on disk, and a
//! pipeline's batch (events, state, dead letters, cursor) is one atomic commit. Nothing here knows
//! PostgreSQL, WebAssembly or a socket.

pub mod dead_letter;
pub mod journal;
pub mod stream;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Epoch, Lsn, Offset, Relation, RelationId};
use dead_letter::DeadLetter;
use stream::Stream;

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The data folder.
    pub path: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { path: "./walmill-data".into() }
    }
}

/// Why the data folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another walmill runs on it.
    #[error("data folder {0} is in use by another walmill")]
    Locked(PathBuf),
    /// Made by a version whose layout this one does not know.
    #[error("data folder {path} has layout {found}; this walmill reads layout {known}")]
    Layout {
        /// The folder.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What we know.
        known: u32,
    },
    /// It cannot be made, read or written.
    #[error("data folder {path}")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        cause: anyhow::Error,
    },
}

/// The store refused a read or a write. After a failed write it refuses every further one: what is
/// on disk is then unknown until it is opened again, so walmill ends and starts anew.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Input or output failed.
    #[error("store")]
    Failed(#[from] fjall::Error),
    /// What was read is not what was written.
    #[error("store: {what} is damaged")]
    Damaged {
        /// Which record.
        what: String,
    },
}

/// Where the stream in the journal comes from; it must not change under a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `system_identifier` of IDENTIFY_SYSTEM.
    pub system_identifier: String,
    /// The server's timeline.
    pub timeline: u32,
    /// The slot's name.
    pub slot: String,
    /// The database's name.
    pub database: String,
}

/// What one batch of a pipeline leaves behind: all of it, or none.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The pipeline's name.
    pub pipeline: String,
    /// Everything up to and including this place of the journal is done.
    pub cursor: Offset,
    /// Events for each stream, in order.
    pub events: Vec<(String, crate::model::event::Events)>,
    /// Writes to plugins' keyed state: plugin, key, value (none: deleted).
    pub state: Vec<StateWrite>,
    /// Changes that were set aside.
    pub dead_letters: Vec<DeadLetter>,
}

/// One write to a plugin's keyed state.
#[derive(Debug, Clone)]
pub struct StateWrite {
    /// The plugin's name.
    pub plugin: String,
    /// The key.
    pub key: String,
    /// The value; `None` deletes.
    pub value: Option<Vec<u8>>,
}

/// The open store. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<()>,
}

impl Store {
    /// Opens the data folder, or makes it; recovers the journal to its last whole transaction.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        todo!()
    }

    /// Which making of the store this is.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        todo!()
    }

    /// Where the journal's stream comes from, once it is known.
    pub fn origin(&self) -> Result<Option<Origin>, StoreError> {
        todo!()
    }

    /// Records the origin, on disk when this returns.
    pub fn set_origin(&self, origin: &Origin) -> Result<(), StoreError> {
        todo!()
    }

    /// The number of this definition: the one it had before, or the next, written before any
    /// block that uses it.
    pub fn intern_relation(&self, relation: &Relation) -> Result<RelationId, StoreError> {
        todo!()
    }

    /// Commit LSN of the last whole transaction in the journal.
    #[must_use]
    pub fn last_commit(&self) -> Lsn {
        todo!()
    }

    /// The definition behind a number.
    pub fn relation(&self, id: RelationId) -> Result<Option<Arc<Relation>>, StoreError> {
        todo!()
    }

    /// Starts the journal's thread: what is sent to the appender is stored in that order and
    /// synced in groups.
    pub fn start_journal(&self) -> Result<journal::Journal, StoreError> {
        todo!()
    }

    /// Reads the journal's committed changes behind `after`.
    pub fn journal_reader(&self, after: Offset) -> journal::Reader {
        todo!()
    }

    /// Commits a pipeline's batch in one atomic write, then wakes the readers of its streams.
    pub fn commit(&self, outcome: Outcome) -> Result<(), StoreError> {
        todo!()
    }

    /// Where a pipeline goes on; `None` for one that never ran.
    pub fn pipeline_cursor(&self, pipeline: &str) -> Result<Option<Offset>, StoreError> {
        todo!()
    }

    /// A plugin's stored value.
    pub fn plugin_state(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        todo!()
    }

    /// Makes sure that a stream exists, so that readers can wait for its first event.
    pub fn declare_stream(&self, name: &str, pipeline: &str) -> Result<Arc<Stream>, StoreError> {
        todo!()
    }

    /// The stream of that name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        todo!()
    }

    /// Every stream, by name.
    #[must_use]
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        todo!()
    }

    /// How far an output has delivered a stream: every event up to and including it is done.
    pub fn checkpoint(&self, output: &str, stream: &str) -> Result<Option<Offset>, StoreError> {
        todo!()
    }

    /// Moves an output's checkpoint, together with the dead letters of what it gave up.
    pub fn save_checkpoint(
        &self,
        output: &str,
        stream: &str,
        offset: Offset,
        dead_letters: Vec<DeadLetter>,
    ) -> Result<(), StoreError> {
        todo!()
    }

    /// The newest dead letters first, at most `limit`.
    pub fn dead_letters(&self, limit: usize) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
        todo!()
    }

    /// Syncs everything and stops the background work. Called once, last.
    pub fn close(&self) -> Result<(), StoreError> {
        todo!()
    }
}
