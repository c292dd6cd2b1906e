//! Ground that the pipeline has passed: changes of dead letters, run through the plugins as they
//! are now, between two batches of the pipeline's own way.
//!
//! What comes of them has the id that it would have had, and says that it is replayed. It stands in
//! its stream behind what is newest there, since streams only grow.

use bytes::{BufMut as _, Bytes};
use tracing::{info, warn};

use super::changes::{Changes, ChangesError, copy};
use super::rows::Batch;
use super::schema::{Gate, OnSchemaChange};
use super::transform::Counts;
use super::{Config, Halt, Limits, Pipeline};
use crate::model::attempt::{self, Attempt};
use crate::model::{Offset, clock};
use crate::pgoutput::frame;
use crate::store::dead_letter::{Change, DeadLetter, Owner};
use crate::store::journal::Block;
use crate::store::{Again, Store, StoreError};

/// Why a letter's change was not run.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error(
        "what is kept of the change is not enough to run it again, and the journal has let go of it"
    )]
    Gone,
    #[error("the pipeline does not take its table any more")]
    NotTaken,
    #[error(transparent)]
    Changes(#[from] ChangesError),
}

/// Reads single changes for a pipeline. No policy holds them back: that they are tried again is a
/// person's word.
pub(super) fn reader(store: &Store, config: &Config) -> Result<Changes, StoreError> {
    let gate = Gate::open(store.clone(), config.name.clone(), OnSchemaChange::Pass)?;
    let (tables, messages) = (config.tables.clone(), config.messages.clone());
    Ok(Changes::new(store.clone(), tables, messages, gate, Offset::START))
}

impl Pipeline {
    /// Tries the next dead letter again that a person asked for. Whether there was one.
    pub(super) fn retry_letter(&mut self) -> Result<bool, Halt> {
        let next = self.store.next_dead_letter(Owner::Pipeline(&self.name), 0);
        let Some((id, letter)) = next.map_err(ChangesError::Store)? else { return Ok(false) };
        let batch = match self.batch_of(&letter) {
            Ok(batch) => batch,
            Err(Unfit::Changes(ChangesError::Store(error))) => {
                return Err(ChangesError::Store(error).into());
            }
            Err(unfit) => {
                self.give_back(id, letter, &unfit.to_string()).map_err(ChangesError::Store)?;
                return Ok(true);
            }
        };
        let (mut outcome, counts) = self.transform.apply_again(batch)?;
        outcome.again = Some(Again::Letter(id));
        let (pipeline, event) = (&self.name, &letter.event);
        match outcome.dead_letters.first() {
            None => info!(pipeline, event, letter = id, "a dead letter has gone through"),
            Some(again) => {
                warn!(pipeline, event, letter = id, "dead-lettered again: {}", again.reason);
            }
        }
        self.store.commit(outcome).map_err(ChangesError::Store)?;
        self.count_again(counts);
        Ok(true)
    }

    /// The letter's change as a batch of its own.
    fn batch_of(&mut self, letter: &DeadLetter) -> Result<Batch, Unfit> {
        let place = copy::place_of(letter).ok_or(Unfit::Gone)?;
        let mut letter = [letter.clone()];
        copy::enclose(&self.store, &mut letter).map_err(ChangesError::Store)?;
        let [letter] = letter;
        let change = letter.change.ok_or(Unfit::Gone)?;
        let mut batch = Batch::behind(Offset::START);
        let tables = self.transform.tables();
        self.again.read_block(block_of(&change), &mut batch, tables, &Limits::default())?;
        // A TRUNCATE is one message for several tables.
        batch.rows.retain(|row| row.ordinal == place.ordinal);
        if batch.rows.is_empty() { Err(Unfit::NotTaken) } else { Ok(batch) }
    }

    /// The letter stays, and says what this try came to.
    fn give_back(&self, id: u64, mut letter: DeadLetter, why: &str) -> Result<(), StoreError> {
        warn!(pipeline = self.name, event = letter.event, letter = id, "not tried again: {why}");
        let error = why.to_owned();
        let attempt =
            Attempt { time: clock::now(), took_ms: 0, error, request: None, response: None };
        attempt::keep(&mut letter.tries, attempt);
        letter.attempts = letter.attempts.saturating_add(1);
        self.store.dead_letter_failed(id, &letter)
    }

    pub(super) fn count_again(&self, counts: Counts) {
        self.count(counts);
        self.status.send_modify(|status| {
            status.emitted += counts.emitted;
            status.dropped += counts.dropped;
            status.dead_letters += counts.dead_letters;
        });
    }
}

/// A block with nothing but this change. It has no commit, so that no event says that it is the
/// last of its transaction.
fn block_of(change: &Change) -> Block {
    let Change { commit, time, xid, ordinal, .. } = *change;
    let mut frames = Vec::new();
    for frame in [&frame::begin(commit, time, xid)[..], &change.frame] {
        // A frame is a message of PostgreSQL's, which is smaller.
        frames.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        frames.put_slice(frame);
    }
    Block {
        first: commit,
        part: 1,
        ordinal,
        last: commit,
        complete: false,
        end: commit,
        time,
        frames: Bytes::from(frames),
        tables: Vec::new(),
    }
}
