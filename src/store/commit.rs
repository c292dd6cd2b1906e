//! The one atomic write of what a pipeline made of a batch.

use std::sync::Arc;

use fjall::PersistMode;

use super::dead_letter::DeadLetter;
use super::schema::Hold;
use super::stream::Stream;
use super::{Inner, StoreError};
use crate::metrics::Name;
use crate::model::Offset;
use crate::model::event::Events;
use crate::model::replay::Replay;
use crate::mutation::{Mutation, is_on};

/// What one batch of a pipeline leaves behind: all of it, or none.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The pipeline's name.
    pub pipeline: String,
    /// Everything up to and including this place of the journal is done; [`Offset::end_of`] its
    /// commit, where that is the end of a transaction.
    pub cursor: Offset,
    /// Events for each stream, in order.
    pub events: Vec<(String, Events)>,
    /// Writes to plugins' keyed state: plugin, key, value (none: deleted).
    pub state: Vec<StateWrite>,
    /// Changes that were set aside.
    pub dead_letters: Vec<DeadLetter>,
    /// The tables whose rows are set aside from now on, where that changed.
    pub holds: Option<Vec<Hold>>,
    /// Set where this goes over ground that the cursor has passed.
    pub again: Option<Again>,
}

/// What goes over passed ground again. Its events bear ids that their streams may have had, so they
/// stand behind the newest event ([`Offset::again`]), and the cursor stays.
#[derive(Debug, Clone)]
pub enum Again {
    /// A dead letter's change. The letter goes; where its change failed again, the first of
    /// [`Outcome::dead_letters`] takes its place.
    Letter(u64),
    /// A replay, which is so far now.
    Replay(Box<Replay>),
}

/// One write to a plugin's keyed state.
#[derive(Debug, Clone)]
pub struct StateWrite {
    /// The plugin's name.
    pub plugin: String,
    /// The key.
    pub key: String,
    /// The value; `None` deletes.
    pub value: Option<Vec<u8>>,
}

/// A stream, and the runs of events that go to it.
type Runs = (Arc<Stream>, Vec<Events>);

impl Inner {
    pub(super) fn commit(&self, outcome: Outcome) -> Result<(), StoreError> {
        let Outcome { pipeline, cursor, events, state, dead_letters, holds, again } = outcome;
        self.mutate(&pipeline, cursor)?;
        let mut batch = self.db.batch();
        let mut runs = self.by_stream(&pipeline, events)?;
        // In the order of their names, so that two pipelines never wait for each other in a circle.
        let streams: Vec<_> = runs.iter().map(|(stream, _)| Arc::clone(stream)).collect();
        let _appending: Vec<_> = streams.iter().map(|stream| stream.appending()).collect();
        if again.is_some() {
            runs.iter_mut().try_for_each(|(stream, runs)| stream.place_again(runs))?;
            // Readers may see them before a sync. After a power cut they could come again at other
            // places, so that a reader who goes on from one of these would miss what is there then.
            batch = batch.durability(Some(PersistMode::SyncAll));
        }
        let mut written = Vec::with_capacity(runs.len());
        for (stream, runs) in &runs {
            written.push((stream, stream.append(&mut batch, runs)?));
        }
        self.states.write(&mut batch, state);
        // A person may drop a letter, or end a replay, meanwhile.
        let changing =
            again.is_some().then(|| (self.dead_letters.changing(), self.replays.changing()));
        let delta = match again {
            Some(Again::Letter(id)) => self.dead_letters.settle(&mut batch, id, &dead_letters)?,
            Some(Again::Replay(replay)) => {
                self.replays.advance(&mut batch, &replay)?;
                self.dead_letters.write(&mut batch, &dead_letters)?
            }
            None => {
                self.checkpoints.set_pipeline(&mut batch, &pipeline, cursor);
                self.dead_letters.write(&mut batch, &dead_letters)?
            }
        };
        if let Some(holds) = holds {
            self.schemas.write_holds(&mut batch, &pipeline, &holds)?;
        }
        batch.commit()?;
        self.dead_letters.wrote(delta);
        drop(changing);
        self.metrics.dead_letters.inc_by(dead_letters.len() as u64);
        for (stream, entries) in written {
            stream.wrote(entries)?;
        }
        for (stream, runs) in &runs {
            let name = Name { name: stream.name().into() };
            let events = runs.iter().map(|run| u64::from(run.count)).sum();
            self.metrics.stream_events.get_or_create(&name).inc_by(events);
        }
        self.syncer.wrote();
        Ok(())
    }

    /// What breaks its promises, where that is asked for.
    fn mutate(&self, pipeline: &str, cursor: Offset) -> Result<(), StoreError> {
        if is_on(Mutation::SplitCommit) {
            let mut early = self.db.batch().durability(Some(PersistMode::Buffer));
            self.checkpoints.set_pipeline(&mut early, pipeline, cursor);
            early.commit()?;
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        if is_on(Mutation::Hoard) {
            // Written, whatever the optimizer thinks of it.
            std::mem::forget(std::hint::black_box(vec![1_u8; 4 << 20]));
        }
        Ok(())
    }

    /// Each stream once, by name, with its runs in order.
    fn by_stream(
        &self,
        pipeline: &str,
        mut events: Vec<(String, Events)>,
    ) -> Result<Vec<Runs>, StoreError> {
        events.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut streams: Vec<Runs> = Vec::new();
        for (name, run) in events {
            match streams.last_mut() {
                Some((stream, runs)) if stream.name() == name => runs.push(run),
                _ => streams.push((self.streams.declare(&name, pipeline)?, vec![run])),
            }
        }
        Ok(streams)
    }
}
