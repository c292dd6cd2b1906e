//! Events that a plugin failed on, or that an output refused, kept with the reason.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

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
    /// The event as it was, as JSON.
    pub payload: Box<RawValue>,
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
    /// An output gave it up.
    Output {
        /// The output's name.
        output: String,
        /// The stream it came from.
        stream: String,
    },
}
