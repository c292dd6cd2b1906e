//! Copies of changes as the journal has them, for dead letters: the letter may be tried again when
//! the journal has long let go of the change.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::place::Place;
use crate::model::{EventId, Lsn, Offset};
use crate::pgoutput::{self, Message, frame, row};
use crate::store::dead_letter::{Change, DeadLetter};
use crate::store::journal::{Block, Read};
use crate::store::{Store, StoreError};

/// Puts a copy of its change into each letter that has none. What the journal no longer has, it
/// cannot give: the letter is kept without.
///
/// # Errors
/// The store failed.
pub fn enclose(store: &Store, letters: &mut [DeadLetter]) -> Result<(), StoreError> {
    let mut wanted: BTreeMap<Offset, Option<Change>> = BTreeMap::new();
    for letter in letters.iter().filter(|letter| letter.change.is_none()) {
        wanted.extend(place_of(letter).map(|place| (place, None)));
    }
    find(store, &mut wanted)?;
    for letter in letters.iter_mut().filter(|letter| letter.change.is_none()) {
        letter.change = place_of(letter).and_then(|place| wanted.get(&place).cloned().flatten());
    }
    Ok(())
}

/// The place of the change that a letter is about.
pub fn place_of(letter: &DeadLetter) -> Option<Offset> {
    let EventId(offset) = letter.event.parse().ok()?;
    Some(Offset::new(offset.commit, offset.ordinal))
}

/// Looks for changes in the journal, from the first of them to the last.
fn find(store: &Store, wanted: &mut BTreeMap<Offset, Option<Change>>) -> Result<(), StoreError> {
    let Some((&first, _)) = wanted.first_key_value() else { return Ok(()) };
    let Some((&last, _)) = wanted.last_key_value() else { return Ok(()) };
    let before = match first.ordinal.checked_sub(1) {
        Some(ordinal) => Offset::new(first.commit, ordinal).end(),
        None => Offset::end_of(Lsn(first.commit.0.saturating_sub(1))),
    };
    let mut reader = store.journal_reader(before);
    while let Read::Block(block) = reader.next()? {
        let next = if block.complete { Offset::end_of(block.last) } else { Offset::START };
        // Anything else than frames of ours would have stopped the pipeline before it came here.
        let end = search(block, wanted).unwrap_or(next);
        if end > last {
            break;
        }
    }
    Ok(())
}

/// Takes what is wanted out of a block: the place behind it. `None` where its frames are none.
fn search(block: Block, wanted: &mut BTreeMap<Offset, Option<Change>>) -> Option<Offset> {
    let mut place = Place::new(block);
    while let Some(frame) = place.next_frame() {
        let count = changes_in(&mut place, &frame)?;
        let Some(transaction) = place.transaction.filter(|_| count > 0) else { continue };
        let first = place.take_ordinal(count).ok()?;
        let behind = Offset::new(first.commit, place.ordinal);
        for (_, found) in wanted.range_mut(first..behind) {
            *found = Some(Change {
                commit: first.commit,
                time: transaction.time,
                xid: transaction.xid,
                ordinal: first.ordinal,
                // The block is much larger, and would be kept in memory by it.
                frame: Bytes::copy_from_slice(&frame),
            });
        }
    }
    let last = place.block.last;
    Some(if place.block.complete { Offset::end_of(last) } else { Offset::new(last, place.ordinal) })
}

/// How many ordinals a frame takes; begins a transaction where it is its first.
fn changes_in(place: &mut Place, frame: &[u8]) -> Option<u32> {
    if let Some(&(b'I' | b'U' | b'D' | row::TAG | frame::REDEFINED | frame::GAP)) = frame.first() {
        return Some(1);
    }
    match pgoutput::decode(frame).ok()? {
        Message::Begin { final_lsn, time, xid } => {
            place.begin(final_lsn, time, xid);
            Some(0)
        }
        Message::Truncate { relations, .. } => u32::try_from(relations.iter().count()).ok(),
        Message::Message { .. } => Some(1),
        _ => Some(0),
    }
}
