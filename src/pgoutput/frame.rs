//! What is written rather than read: relations replaced in place, a transaction's two ends made up
//! for a message that had none, and frames of our own where a table's definition changes and where
//! changes are lost.

use super::cursor::postgres_time;
use super::row;
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

/// The relations that a change names: none, where the message is something else.
pub fn relations(message: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let places = match message.first() {
        Some(b'I' | b'U' | b'D' | &row::TAG) => ROW_RELATION..ROW_RELATION + 4,
        Some(b'T') => TRUNCATE_RELATIONS..message.len(),
        _ => 0..0,
    };
    let words = message.get(places).unwrap_or_default().as_chunks().0;
    words.iter().map(|word| u32::from_be_bytes(*word))
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

/// Tag of the frame that stands before the first change under a new definition of a table.
pub const REDEFINED: u8 = b'x';

/// The frame that says: the next change of this table uses the definition of number `after`, and
/// its last one used `before`.
#[must_use]
pub fn redefined(before: u32, after: u32) -> [u8; 9] {
    let mut message = [REDEFINED; 9];
    message[1..5].copy_from_slice(&before.to_be_bytes());
    message[5..].copy_from_slice(&after.to_be_bytes());
    message
}

/// Reads what [`redefined`] wrote; `None` if it is something else.
#[must_use]
pub fn read_redefined(message: &[u8]) -> Option<(u32, u32)> {
    let (&REDEFINED, numbers) = message.split_first()? else { return None };
    let (before, after) = numbers.split_first_chunk()?;
    let after = <[u8; 4]>::try_from(after).ok()?;
    Some((u32::from_be_bytes(*before), u32::from_be_bytes(after)))
}
