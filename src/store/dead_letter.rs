//! Events that a plugin failed on, or that an output refused, kept with the reason.
//!
//! A letter goes only in the same write as what takes its place: the events that were made of its
//! change, the checkpoint of what was delivered, another letter, or a person's word. One that is to
//! be tried again is marked so on disk, and whoever set it aside tries it, also after a crash.

mod ask;
mod kept;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::model::attempt::Attempt;
use crate::model::{ByteSize, EventId, EventRecord, Lsn, Period};

pub use ask::{Filter, Marked};
pub(super) use kept::{DeadLetters, Delta};

/// `[store] dead_letters = { age = "30d", count = 100000, size = "256MiB" }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LetterRetention {
    /// What was set aside longer ago is removed.
    pub age: Period,
    /// How many are kept; the oldest goes first.
    pub count: u64,
    /// How much they may take; the oldest goes first.
    pub size: ByteSize,
}

impl Default for LetterRetention {
    fn default() -> Self {
        Self {
            age: Period::from_millis(30 * 86_400_000),
            count: 100_000,
            size: ByteSize::new(256 << 20),
        }
    }
}

/// One event that was set aside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event's id (of the change, where a pipeline set it aside).
    pub event: String,
    /// Who set it aside.
    pub by: By,
    /// Why, for a person.
    pub reason: String,
    /// When, microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// Tries before it was given up.
    pub attempts: u32,
    /// Whether a person asked for another try that has not been made yet.
    #[serde(default)]
    pub retrying: bool,
    /// The newest of its tries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tries: Vec<Attempt>,
    /// The change as it stood in the journal, where a pipeline set it aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// The event's key as streams keep it, where an output gave it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The event as it was, as JSON.
    pub payload: Box<RawValue>,
}

/// A change as the journal had it: all that a pipeline needs to run it again, however long ago that
/// was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its transaction's commit.
    pub commit: Lsn,
    /// When that was, microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// PostgreSQL's transaction id.
    pub xid: u32,
    /// The ordinal of the first change in the frame.
    pub ordinal: u32,
    /// The message, as in a block of the journal, without its length.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub frame: Bytes,
}

fn to_base64<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}

impl DeadLetter {
    /// The event that an output gave up, as its stream had it, saying that it comes again. `None`
    /// where what is kept is no event.
    #[must_use]
    pub fn delivered_again(&self) -> Option<EventRecord> {
        let EventId(offset) = self.event.parse().ok()?;
        let key = self.key.clone().unwrap_or_default().into();
        let json = Bytes::copy_from_slice(self.payload.get().as_bytes());
        Some(EventRecord { offset, key, json }.replayed())
    }
}

/// Who set an event aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum By {
    /// A plugin failed on it, or rejected it.
    Plugin {
        /// The pipeline it ran in.
        pipeline: String,
        /// The plugin's name.
        plugin: String,
        /// The version's content hash.
        version: String,
    },
    /// A route chose a stream that the pipeline does not allow.
    Route {
        /// The pipeline.
        pipeline: String,
    },
    /// Its table's definition changed, and the pipeline sets such rows aside until a person accepts
    /// the change.
    Schema {
        /// The pipeline.
        pipeline: String,
    },
    /// An output gave it up.
    Output {
        /// The output's name.
        output: String,
        /// The stream it came from.
        stream: String,
    },
}

/// Who tries a letter again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// The pipeline of this name.
    Pipeline(&'a str),
    /// The output of this name.
    Output(&'a str),
}

impl By {
    /// Who tries it again.
    #[must_use]
    pub fn owner(&self) -> Owner<'_> {
        match self {
            Self::Plugin { pipeline, .. }
            | Self::Route { pipeline }
            | Self::Schema { pipeline } => Owner::Pipeline(pipeline),
            Self::Output { output, .. } => Owner::Output(output),
        }
    }
}
