//! Changes that nobody will send any more: a transaction of its own in the journal, so that every
//! reader learns of it at its place in the stream.

use bytes::{BufMut as _, BytesMut};

use super::fault::{Fault, Report};
use crate::model::{Lsn, clock};
use crate::pgoutput::frame;
use crate::store::journal::Block;

/// What was lost with a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    from: Lsn,
    snapshot: bool,
    reason: String,
}

impl Gap {
    /// Behind `from`. `snapshot`: what the tables hold comes behind it. `fault` is what is wrong
    /// with the slot.
    pub(super) fn new(from: Lsn, snapshot: bool, fault: Option<Fault>) -> Self {
        let reason = match fault {
            Some(
                Fault::Away(report)
                | Fault::Taken(report)
                | Fault::Person(report)
                | Fault::Lost(report)
                | Fault::Halt(report),
            ) => {
                let Report { error, .. } = report;
                error
            }
            Some(Fault::Store(_)) | None => "the slot was made anew".into(),
        };
        Self { from, snapshot, reason }
    }

    /// Where its transaction stands before a slot that begins at `point`: behind everything that
    /// was received before, and before a snapshot (whose place is one byte nearer).
    fn commit_before(point: Lsn) -> Lsn {
        Lsn(point.0.saturating_sub(2))
    }

    /// Its transaction, for a slot that begins at `point`.
    pub(super) fn block(&self, point: Lsn) -> Block {
        let (commit, time) = (Self::commit_before(point), clock::now());
        let gap = frame::gap(self.from, point, self.snapshot, &self.reason);
        let mut frames = BytesMut::new();
        for message in
            [&frame::begin(commit, time, 0)[..], &gap, &frame::commit(commit, commit, time)]
        {
            // A reason is a sentence, not 4 GiB.
            frames.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
            frames.put_slice(message);
        }
        Block {
            first: commit,
            part: 0,
            ordinal: 0,
            last: commit,
            complete: true,
            end: commit,
            time,
            tables: Vec::new(),
            frames: frames.freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_place_is_before_the_snapshot_that_follows_it() {
        let gap = Gap::new(Lsn(50), true, Some(Fault::halt("slot `s` is gone", "")));
        let block = gap.block(Lsn(100));
        assert_eq!(
            (block.first, block.last, block.end, block.complete),
            (Lsn(98), Lsn(98), Lsn(98), true)
        );
        assert!(block.last < crate::store::BegunSnapshot::commit_before(Lsn(100)));
        let message = &block.frames[4 + 21 + 4..];
        let read = frame::read_gap(&message[..message.len() - 4 - 26]).unwrap();
        assert_eq!((read.from, read.to, read.snapshot), (Lsn(50), Lsn(100), true));
        assert_eq!(read.reason, "slot `s` is gone");
    }
}
