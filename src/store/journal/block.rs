//! A block as an entry of the journal's log.
//!
//! Its key is the commit LSN of its first transaction and the number of its part. What of it is not
//! in the key or the entry's header stands before its frames.

use super::Block;
use crate::model::{Lsn, Offset};
use crate::store::log::Entry;

/// End LSN, commit time, ordinal, whether it is complete.
pub(super) const HEAD: usize = 8 + 8 + 4 + 1;

/// The key under which a block is stored.
pub(super) fn key(first: Lsn, part: u32) -> Offset {
    Offset::new(first, part)
}

/// After everything of the transaction that committed at `commit`; before everything, if none did.
pub(super) fn end_of(commit: Lsn) -> Offset {
    if commit == Lsn::ZERO { Offset::START } else { Offset::end_of(commit) }
}

pub(super) fn head(block: &Block) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    bytes[..8].copy_from_slice(&block.end.0.to_be_bytes());
    bytes[8..16].copy_from_slice(&block.time.to_be_bytes());
    bytes[16..20].copy_from_slice(&block.ordinal.to_be_bytes());
    bytes[20] = u8::from(block.complete);
    bytes
}

/// The block in an entry, sharing its memory; `None` if it is none.
pub(super) fn decode(entry: &Entry) -> Option<Block> {
    let (end, rest) = entry.body.split_first_chunk()?;
    let (time, rest) = rest.split_first_chunk()?;
    let (ordinal, rest) = rest.split_first_chunk()?;
    let complete = match rest.first()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(Block {
        first: entry.key.commit,
        part: entry.key.ordinal,
        ordinal: u32::from_be_bytes(*ordinal),
        last: entry.header.last.commit,
        complete,
        end: Lsn(u64::from_be_bytes(*end)),
        time: i64::from_be_bytes(*time),
        frames: entry.body.slice(HEAD..),
        tables: Vec::new(),
    })
}
