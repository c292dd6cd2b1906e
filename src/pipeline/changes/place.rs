//! A place in a block of the journal, and what can be wrong with the frames there.

use bytes::Bytes;

use super::ChangesError;
use crate::model::{Lsn, Offset};
use crate::pgoutput;
use crate::pipeline::rows::Transaction;
use crate::store::StoreError;
use crate::store::journal::Block;

/// A block that has not been read to its end.
pub(super) struct Place {
    pub(super) block: Block,
    pub(super) rest: Bytes,
    pub(super) transaction: Option<Transaction>,
    pub(super) ordinal: u32,
}

impl Place {
    pub(super) fn new(block: Block) -> Self {
        Self { rest: block.frames.clone(), ordinal: block.ordinal, block, transaction: None }
    }

    /// A transaction begins, or goes on in this block.
    pub(super) fn begin(&mut self, commit: Lsn, time: i64, xid: u32) -> Transaction {
        let transaction = Transaction { commit, time, xid, ends: false };
        self.transaction = Some(transaction);
        self.ordinal = if self.block.part == 0 { 0 } else { self.block.ordinal };
        transaction
    }

    pub(super) fn next_frame(&mut self) -> Option<Bytes> {
        let length = self.rest.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))?;
        let end = 4_usize.checked_add(length as usize)?;
        if self.rest.len() < end {
            return None;
        }
        let frame = self.rest.split_to(end);
        Some(frame.slice(4..))
    }

    pub(super) fn next_tag(&self) -> Option<u8> {
        self.rest.get(4).copied()
    }

    /// The next frame, without taking it.
    pub(super) fn clone_frame(&self) -> Option<Bytes> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let frame = rest.get(..u32::from_be_bytes(*length) as usize)?;
        Some(self.rest.slice_ref(frame))
    }

    pub(super) fn take_ordinal(&mut self, count: u32) -> Result<Offset, FrameError> {
        let commit = self.transaction.ok_or("a change outside a transaction")?.commit;
        let ordinal = self.ordinal;
        self.ordinal = ordinal.checked_add(count).ok_or("too many changes in a transaction")?;
        Ok(Offset::new(commit, ordinal))
    }
}

pub(super) enum FrameError {
    Store(StoreError),
    What(String),
}

impl From<&str> for FrameError {
    fn from(what: &str) -> Self {
        Self::What(what.into())
    }
}

impl From<String> for FrameError {
    fn from(what: String) -> Self {
        Self::What(what)
    }
}

impl From<pgoutput::DecodeError> for FrameError {
    fn from(error: pgoutput::DecodeError) -> Self {
        Self::What(error.to_string())
    }
}

pub(super) fn malformed_or(
    malformed: &impl Fn(String) -> ChangesError,
) -> impl FnOnce(FrameError) -> ChangesError {
    |error| match error {
        FrameError::Store(error) => error.into(),
        FrameError::What(what) => malformed(what),
    }
}
