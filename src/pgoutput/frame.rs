//! What is written rather than read: relations replaced in place, and a transaction's two ends made
//! up for a message that had none.

use super::cursor::postgres_time;
use crate::model::Lsn;

/// Where Insert, Update and Delete name their relation.
const ROW_RELATION: usize = 1;
/// Where Truncate begins to name its relations.
const TRUNCATE_RELATIONS: usize = 1 + 4 + 1;

/// Replaces the relation in a valid Insert, Update or Delete.
pub fn set_row_relation(message: &mut [u8], relation: u32) {
    set_word(message, ROW_RELATION, relation);
}

/// Replaces the relation at `index` in a valid Truncate.
pub fn set_truncate_relation(message: &mut [u8], index: usize, relation: u32) {
    set_word(message, TRUNCATE_RELATIONS + index * 4, relation);
}

fn set_word(message: &mut [u8], at: usize, word: u32) {
    if let Some(place) = message.get_mut(at..at + 4) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

/// A Begin message. `time` is in microseconds since 1970-01-01 UTC.
#[must_use]
pub fn begin(final_lsn: Lsn, time: i64, xid: u32) -> [u8; 21] {
    let mut message = [b'B'; 21];
    message[1..9].copy_from_slice(&final_lsn.0.to_be_bytes());
    message[9..17].copy_from_slice(&postgres_time(time).to_be_bytes());
    message[17..].copy_from_slice(&xid.to_be_bytes());
    message
}

/// A Commit message. `time` is in microseconds since 1970-01-01 UTC.
#[must_use]
pub fn commit(commit_lsn: Lsn, end_lsn: Lsn, time: i64) -> [u8; 26] {
    let mut message = [b'C'; 26];
    message[1] = 0;
    message[2..10].copy_from_slice(&commit_lsn.0.to_be_bytes());
    message[10..18].copy_from_slice(&end_lsn.0.to_be_bytes());
    message[18..].copy_from_slice(&postgres_time(time).to_be_bytes());
    message
}

/// Tag of the frame that says that changes are lost.
pub const GAP: u8 = b'g';

/// Changes that PostgreSQL had no more when they were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap<'a> {
    /// Everything up to here has come.
    pub from: Lsn,
    /// From here on the stream goes on.
    pub to: Lsn,
    /// Whether what the tables hold follows.
    pub snapshot: bool,
    /// Why they are lost.
    pub reason: &'a str,
}

/// The frame that says: the changes between these two places are lost.
#[must_use]
pub fn gap(from: Lsn, to: Lsn, snapshot: bool, reason: &str) -> Vec<u8> {
    let mut message = vec![GAP];
    message.extend(from.0.to_be_bytes());
    message.extend(to.0.to_be_bytes());
    message.push(u8::from(snapshot));
    message.extend(reason.as_bytes());
    message
}

/// Reads what [`gap`] wrote; `None` if it is something else.
#[must_use]
pub fn read_gap(message: &[u8]) -> Option<Gap<'_>> {
    let (&GAP, rest) = message.split_first()? else { return None };
    let (from, rest) = rest.split_first_chunk()?;
    let (to, rest) = rest.split_first_chunk()?;
    let (&snapshot, reason) = rest.split_first()?;
    Some(Gap {
        from: Lsn(u64::from_be_bytes(*from)),
        to: Lsn(u64::from_be_bytes(*to)),
        snapshot: snapshot != 0,
        reason: std::str::from_utf8(reason).ok()?,
    })
}
