//! Places on disk: how far each pipeline has come in the journal, and each output in each stream.

use fjall::{Keyspace, OwnedWriteBatch};

use super::StoreError;
use crate::model::Offset;
use crate::mutation::{Mutation, is_on};

/// The keyspace of places.
pub(super) struct Checkpoints {
    entries: Keyspace,
}

impl Checkpoints {
    pub(super) fn new(entries: Keyspace) -> Self {
        Self { entries }
    }

    pub(super) fn pipeline(&self, pipeline: &str) -> Result<Option<Offset>, StoreError> {
        self.read(&pipeline_key(pipeline))
    }

    pub(super) fn set_pipeline(&self, batch: &mut OwnedWriteBatch, pipeline: &str, at: Offset) {
        batch.insert(&self.entries, pipeline_key(pipeline), at.to_bytes());
    }

    pub(super) fn output(&self, output: &str, stream: &str) -> Result<Option<Offset>, StoreError> {
        self.read(&output_key(output, stream))
    }

    pub(super) fn set_output(
        &self,
        batch: &mut OwnedWriteBatch,
        (output, stream): (&str, &str),
        at: Offset,
    ) {
        if !is_on(Mutation::ForgetCheckpoint) {
            batch.insert(&self.entries, output_key(output, stream), at.to_bytes());
        }
    }

    /// Whether an output has one in any stream.
    pub(super) fn has_output(&self, output: &str) -> Result<bool, StoreError> {
        let first = self.entries.prefix(output_key(output, "")).next();
        Ok(first.map(fjall::Guard::key).transpose()?.is_some())
    }

    fn read(&self, key: &[u8]) -> Result<Option<Offset>, StoreError> {
        let Some(bytes) = self.entries.get(key)? else { return Ok(None) };
        let damaged = || StoreError::Damaged {
            what: format!("checkpoint {}", String::from_utf8_lossy(key).replace('\0', " ")),
        };
        Offset::from_bytes(&bytes).map(Some).ok_or_else(damaged)
    }
}

fn pipeline_key(pipeline: &str) -> Vec<u8> {
    ["pipeline", pipeline].join("\0").into_bytes()
}

fn output_key(output: &str, stream: &str) -> Vec<u8> {
    ["output", output, stream].join("\0").into_bytes()
}
