//! A pipeline goes over what it has done again: from a place in the journal to another, through the
//! plugins as they are now. What is new waits until it is through, so that the newest event of each
//! row is the last one in the stream here, too.

use tracing::info;

use super::changes::{Changes, ChangesError};
use super::schema::{Gate, OnSchemaChange};
use super::{Config, Halt, Limits, Pipeline};
use crate::model::Offset;
use crate::model::pattern::{Glob, TablePattern};
use crate::model::replay::{Part, Replay, ReplayState};
use crate::store::{Again, Store, StoreError};

/// What it takes to read the journal once more.
pub(super) struct Replays {
    tables: Vec<TablePattern>,
    messages: Vec<Glob>,
    running: Option<Running>,
    /// Whether the store has to be asked for one.
    look: bool,
}

struct Running {
    replay: Replay,
    changes: Changes,
    /// Of the next batch.
    limits: Limits,
}

impl Replays {
    pub(super) fn new(config: &Config) -> Self {
        let (tables, messages) = (config.tables.clone(), config.messages.clone());
        Self { tables, messages, running: None, look: true }
    }

    /// There may be another one, or one that is to end.
    pub(super) fn look(&mut self) {
        self.look = true;
    }

    /// The next batch is made with new tables.
    pub(super) fn forget_tables(&mut self) {
        if let Some(running) = &mut self.running {
            running.changes.forget_tables();
        }
    }

    /// Takes up what a person asked for, or lets go of it.
    fn refresh(&mut self, store: &Store, pipeline: &str) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.look) {
            return Ok(());
        }
        let kept = store.replay(&Part::Pipeline(pipeline.into()))?.filter(Replay::is_open);
        if self.running.as_ref().map(|running| running.replay.id) == kept.as_ref().map(|r| r.id) {
            return Ok(());
        }
        self.running = match kept {
            None => None,
            Some(replay) => {
                info!(pipeline, from = %replay.at.commit, to = %replay.to.commit, "replays");
                // A person accepted, or will, what is held back: a replay shows all there was.
                let gate = Gate::open(store.clone(), pipeline.into(), OnSchemaChange::Pass)?;
                let (tables, messages) = (self.tables.clone(), self.messages.clone());
                let changes = Changes::new(store.clone(), tables, messages, gate, replay.at);
                Some(Running { replay, changes, limits: Limits::default() })
            }
        };
        Ok(())
    }
}

impl Pipeline {
    /// The next batch of a replay. Whether there was one.
    pub(super) fn replay_batch(&mut self) -> Result<bool, Halt> {
        self.replays.refresh(&self.store, &self.name).map_err(ChangesError::Store)?;
        let Some(Running { replay, changes, limits }) = &mut self.replays.running else {
            return Ok(false);
        };
        let batch = match changes.next_batch(self.transform.tables(), limits) {
            Ok(batch) => batch,
            Err(ChangesError::Store(error)) => return Err(ChangesError::Store(error).into()),
            Err(error) => {
                let failed = ReplayState::Failed(error.to_string());
                let part = replay.part.clone();
                self.end_replay(&part, failed).map_err(ChangesError::Store)?;
                return Ok(true);
            }
        };
        let Some(mut batch) = batch else {
            let part = replay.part.clone();
            self.end_replay(&part, ReplayState::Done).map_err(ChangesError::Store)?;
            return Ok(true);
        };
        let to = replay.to;
        let transactions = std::mem::take(&mut batch.transactions);
        batch.rows.retain(|row| {
            let transaction = transactions[row.transaction as usize];
            let offset = Offset::new(transaction.commit, row.ordinal);
            offset <= to && replay.wants(transaction.time)
        });
        batch.transactions = transactions;
        let (at, from, rows) = (batch.end, replay.at, batch.rows.len());
        let (mut outcome, counts) = match self.transform.apply_again(batch) {
            Ok(done) => done,
            Err(error) => {
                changes.seek(from);
                if error.is_too_much() {
                    limits.shrink(rows);
                    return Ok(true);
                }
                return Err(error.into());
            }
        };
        limits.grow();
        replay.at = at.min(to);
        replay.events += counts.emitted;
        let done = at >= to;
        replay.state = if done { ReplayState::Done } else { ReplayState::Running };
        outcome.again = Some(Again::Replay(Box::new(replay.clone())));
        if done {
            info!(pipeline = self.name, events = replay.events, "the replay is through");
            self.replays.running = None;
        }
        self.store.commit(outcome).map_err(ChangesError::Store)?;
        self.count_again(counts);
        Ok(true)
    }

    fn end_replay(&mut self, part: &Part, state: ReplayState) -> Result<(), StoreError> {
        info!(pipeline = self.name, "the replay ends: {state:?}");
        self.replays.running = None;
        self.store.end_replay(part, state).map(|_| ())
    }
}
