//! A running plugin: one call, within time and memory; thrown away after a trap.

use std::time::Duration;

use super::bindings::{Batch, Outcome, Plan, Relation};

/// What is wrong with a plugin's config, as the plugin says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where, as a path into the config table.
    pub path: String,
    /// What.
    pub message: String,
}

/// Why a call gave no answer. After all but [`CallError::Failed`] and [`CallError::Findings`] the
/// instance is dead.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// It trapped.
    #[error("trap: {0}")]
    Trap(String),
    /// It used more processor time than it may.
    #[error("deadline of {limit:?}")]
    Deadline {
        /// `limits.deadline`
        limit: Duration,
    },
    /// It asked for more memory than it may have, and then trapped.
    #[error("memory limit of {limit}")]
    Memory {
        /// `limits.memory` in bytes.
        limit: u64,
    },
    /// The plugin returned an error, or an answer that does not hold together.
    #[error("{0}")]
    Failed(String),
    /// `init` does not take the config.
    #[error("config refused")]
    Findings(Vec<Finding>),
}

/// A running plugin. It counts its calls and their processor time in the metrics `plugin_calls`
/// and `plugin_cpu` by itself.
pub struct Instance {}

impl Instance {
    /// Announces a relation. The plan has been checked against it and is remembered: `process`
    /// checks its answers by it.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn on_relation(&mut self, relation: &Relation) -> Result<Plan, CallError> {
        todo!()
    }

    /// Runs a batch. Every relation in it must have been announced; `now` is what the plugin's
    /// clock says, microseconds since 1970-01-01 UTC. The outcome has been checked.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn process(&mut self, batch: &Batch, now: i64) -> Result<Outcome, CallError> {
        todo!()
    }

    /// Whether it can still be called.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        todo!()
    }
}
