//! Replays as they are kept, so that a restart goes on with them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fjall::{Keyspace, OwnedWriteBatch};

use super::retention::Reader;
use super::{Store, StoreError, from_json, to_json};
use crate::model::replay::{Part, Replay, ReplayState, Rewound};
use crate::model::{Offset, clock};

/// The keyspace of replays: one for each part at most.
pub(super) struct Replays {
    entries: Keyspace,
    /// Held by the one who changes one.
    changing: Mutex<()>,
}

impl Replays {
    pub(super) fn new(entries: Keyspace) -> Self {
        Self { entries, changing: Mutex::new(()) }
    }

    pub(super) fn get(&self, part: &Part) -> Result<Option<Replay>, StoreError> {
        self.entries.get(key(part))?.map(|json| read(&json)).transpose()
    }

    /// A pipeline got so far. If a person ended the replay meanwhile, it stays ended.
    pub(super) fn advance(
        &self,
        batch: &mut OwnedWriteBatch,
        replay: &Replay,
    ) -> Result<(), StoreError> {
        let kept = self.get(&replay.part)?.filter(|kept| kept.id == replay.id);
        let Some(kept) = kept else { return Ok(()) };
        let state = if kept.is_open() { replay.state.clone() } else { kept.state };
        self.write(batch, &Replay { state, ..replay.clone() })
    }

    fn write(&self, batch: &mut OwnedWriteBatch, replay: &Replay) -> Result<(), StoreError> {
        batch.insert(&self.entries, key(&replay.part), to_json(replay)?);
        Ok(())
    }

    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        // It guards no data.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a reader's replay still needs.
    pub(super) fn needs(&self, reader: &Reader) -> Result<Option<Offset>, StoreError> {
        let Reader::Pipeline(name) = reader else { return Ok(None) };
        let replay = self.get(&Part::Pipeline(name.clone()))?;
        Ok(replay.filter(Replay::is_open).map(|replay| replay.at))
    }
}

impl Store {
    /// Every pipeline's and output's last replay.
    ///
    /// # Errors
    /// See [`StoreError`], here and below.
    pub fn replays(&self) -> Result<Vec<Replay>, StoreError> {
        self.inner.replays.entries.iter().map(|entry| read(&entry.value()?)).collect()
    }

    /// The last replay of a part.
    pub fn replay(&self, part: &Part) -> Result<Option<Replay>, StoreError> {
        self.inner.replays.get(part)
    }

    /// Asks for a replay, on disk when this returns. `None` while another of the part is open.
    pub fn ask_for_replay(
        &self,
        part: Part,
        (from, to): (Offset, Offset),
        (not_before, not_after): (Option<i64>, Option<i64>),
    ) -> Result<Option<Replay>, StoreError> {
        let _one = self.inner.replays.changing();
        let before = self.inner.replays.get(&part)?;
        if before.as_ref().is_some_and(Replay::is_open) {
            return Ok(None);
        }
        let replay = Replay {
            id: before.map_or(1, |before| before.id + 1),
            part,
            state: ReplayState::Asked,
            from,
            to,
            not_before,
            not_after,
            at: from,
            events: 0,
            started: clock::now(),
            streams: Vec::new(),
        };
        self.keep_replay(&replay)?;
        Ok(Some(replay))
    }

    /// A place in the journal before everything that committed at this time or later, and not far
    /// before it: at the beginning of a block.
    pub fn journal_before(&self, time: i64) -> Result<Offset, StoreError> {
        let found = self.inner.records.log.find(|entry| entry.latest >= time)?;
        let found = found.filter(|entry| entry.header.latest >= time);
        Ok(found.map_or_else(|| Offset::end_of(self.last_commit()), |entry| entry.header.before))
    }

    /// Ends an open replay where it is, on disk when this returns.
    pub fn cancel_replay(&self, part: &Part) -> Result<Option<Replay>, StoreError> {
        self.end_replay(part, ReplayState::Cancelled)
    }

    /// Ends an open replay, with how it ended.
    pub fn end_replay(
        &self,
        part: &Part,
        state: ReplayState,
    ) -> Result<Option<Replay>, StoreError> {
        let _one = self.inner.replays.changing();
        let open = self.inner.replays.get(part)?.filter(Replay::is_open);
        let Some(open) = open else { return Ok(None) };
        let at = if state == ReplayState::Done { open.to } else { open.at };
        let ended = Replay { state, at, ..open };
        self.keep_replay(&ended)?;
        Ok(Some(ended))
    }

    fn keep_replay(&self, replay: &Replay) -> Result<(), StoreError> {
        let mut batch = self.inner.db.batch();
        self.inner.replays.write(&mut batch, replay)?;
        batch.commit()?;
        self.flush()?;
        self.inner.dead_letters.tell();
        Ok(())
    }

    /// An output goes back in these streams, all at once, to begin the replay it was asked for.
    /// Where one did not deliver as far as the replay goes back, it stays.
    pub fn rewind_output(&self, output: &str, streams: &[String]) -> Result<(), StoreError> {
        let part = Part::Output(output.into());
        let _one = self.inner.replays.changing();
        let asked =
            self.inner.replays.get(&part)?.filter(|replay| replay.state == ReplayState::Asked);
        let Some(mut replay) = asked else { return Ok(()) };
        let mut batch = self.inner.db.batch();
        for name in streams {
            let Some(stream) = self.stream(name) else { continue };
            let until = self.checkpoint(output, name)?.unwrap_or(Offset::START);
            let from = replay.from.max(stream.purged());
            if from < until {
                self.inner.checkpoints.set_output(&mut batch, (output, name), from);
                replay.streams.push(Rewound { stream: name.clone(), until });
            }
        }
        replay.state = match replay.streams.is_empty() {
            true => ReplayState::Done,
            false => ReplayState::Running,
        };
        self.inner.replays.write(&mut batch, &replay)?;
        batch.commit()?;
        self.inner.syncer.wrote();
        Ok(())
    }

    /// An output whose replay was ended goes on where it was before it went back.
    pub fn resume_output(&self, output: &str) -> Result<(), StoreError> {
        let part = Part::Output(output.into());
        let _one = self.inner.replays.changing();
        let cut = |replay: &Replay| !replay.is_open() && replay.state != ReplayState::Done;
        let Some(mut replay) = self.inner.replays.get(&part)?.filter(cut) else { return Ok(()) };
        let mut batch = self.inner.db.batch();
        for Rewound { stream, until } in std::mem::take(&mut replay.streams) {
            if self.checkpoint(output, &stream)?.is_some_and(|checkpoint| checkpoint < until) {
                self.inner.checkpoints.set_output(&mut batch, (output, &stream), until);
            }
        }
        self.inner.replays.write(&mut batch, &replay)?;
        batch.commit()?;
        self.inner.syncer.wrote();
        Ok(())
    }
}

fn read(json: &[u8]) -> Result<Replay, StoreError> {
    from_json(json, || "a replay".into())
}

/// Names come from the config, where they hold no zero byte.
fn key(part: &Part) -> Vec<u8> {
    let (kind, name) = match part {
        Part::Pipeline(name) => ("pipeline", name),
        Part::Output(name) => ("output", name),
    };
    [kind, name].join("\0").into_bytes()
}
