//! An output goes back in its streams and delivers again what a person wants replayed. Its
//! checkpoint goes back, so that what is new comes behind it, in the order of the stream.

use super::feed::{Feed, blocking};
use super::{Delivery, End};
use crate::model::replay::{Part, Replay, ReplayState};
use crate::model::{EventRecord, Offset};
use crate::output::Output;
use crate::store::StoreError;

/// What a stream has in it that is delivered again.
#[derive(Debug, Clone)]
pub struct Again {
    replay: Replay,
    /// Where the output stood before: what lies behind is new.
    pub until: Offset,
}

impl Again {
    /// What an open replay says of a stream.
    pub fn of(replay: &Replay, stream: &str) -> Option<Self> {
        let rewound = replay.streams.iter().find(|rewound| rewound.stream == stream)?;
        Some(Self { replay: replay.clone(), until: rewound.until })
    }

    /// Whether an event has been delivered, and is not to be again.
    pub fn skips(&self, event: &EventRecord) -> bool {
        let wanted = event.offset <= self.replay.to
            && event.time().is_none_or(|time| self.replay.wants(time));
        event.offset <= self.until && !wanted
    }
}

impl<O: Output> Delivery<O> {
    /// What a person wants of replays: whether to stop for it, and to begin anew behind it.
    pub(super) async fn look_for_replay(&mut self) -> Result<Option<End>, StoreError> {
        let (store, part) = (self.store.clone(), Part::Output(self.config.name.clone()));
        let replay = blocking(move || store.replay(&part)).await?;
        let rewinds = replay.is_some_and(|replay| match replay.state {
            ReplayState::Asked => true,
            ReplayState::Running | ReplayState::Done => false,
            ReplayState::Cancelled | ReplayState::Failed(_) => !replay.streams.is_empty(),
        });
        Ok(rewinds.then_some(End::Rewind))
    }

    /// Moves the checkpoints, between two runs of the delivery: back for a replay that begins, and
    /// to where they were for one that was ended.
    pub(super) async fn rewind(&mut self) -> Result<(), StoreError> {
        let (store, output) = (self.store.clone(), self.config.name.clone());
        let streams: Vec<String> = self.feeds.iter().map(|feed| feed.name().to_owned()).collect();
        blocking(move || {
            store.resume_output(&output)?;
            store.rewind_output(&output, &streams)
        })
        .await
    }

    /// Ends a replay that has come to its end in every stream.
    pub(super) async fn end_replay(&mut self) -> Result<(), StoreError> {
        let mut ended = false;
        for feed in self.feeds.iter_mut().filter(|feed| feed.is_past_replay()) {
            feed.again = None;
            ended = true;
        }
        if !ended || self.feeds.iter().any(|feed| feed.again.is_some()) {
            return Ok(());
        }
        let (store, part) = (self.store.clone(), Part::Output(self.config.name.clone()));
        tracing::info!(output = self.config.name, "the replay is through");
        blocking(move || store.end_replay(&part, ReplayState::Done)).await.map(|_| ())
    }
}

impl Feed {
    /// Whether the checkpoint has come to where it was before the replay.
    fn is_past_replay(&self) -> bool {
        self.again.as_ref().is_some_and(|again| self.checkpoint() >= again.until)
    }
}
