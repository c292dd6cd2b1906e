//! One stream as an output reads it: from its checkpoint, a run at a time.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::barrier::Line;
use super::replay::Again;
use super::window::Window;
use crate::model::event::Events;
use crate::model::replay::{Part, Replay};
use crate::model::{EventRecord, Lsn, Offset};
use crate::store::failing::Failing;
use crate::store::stream::{Read, Stream};
use crate::store::{Store, StoreError};

/// A stream, how far it has been read, and what of that is not done yet.
pub struct Feed {
    stream: Arc<Stream>,
    head: watch::Receiver<Offset>,
    /// Everything up to and including this place has been read.
    read: Offset,
    checkpoint: Offset,
    /// What has been read and is not behind the checkpoint.
    pub window: Window,
    /// What of that is held back by a barrier, and what is not.
    pub line: Line<(u64, EventRecord)>,
    /// What was failing before a restart.
    pub past: HashMap<Offset, Failing>,
    /// What of it is delivered again, because a person wants that.
    pub again: Option<Again>,
    /// Whether there may be more to read than has been.
    pub more: bool,
}

impl Feed {
    /// Goes on at the output's checkpoint. Without one it delivers the stream whole: those of which
    /// it does not want all got a checkpoint when it began ([`Store::begin_output`]).
    pub async fn open(
        store: &Store,
        output: &str,
        stream: Arc<Stream>,
    ) -> Result<Self, StoreError> {
        let mut head = stream.head();
        head.mark_unchanged();
        let (store, output) = (store.clone(), output.to_owned());
        let name = stream.name().to_owned();
        let opened = blocking(move || {
            let checkpoint = store.checkpoint(&output, &name)?.unwrap_or(Offset::START);
            let past = store.failing(&output, &name, checkpoint)?;
            let replay = store.replay(&Part::Output(output))?.filter(Replay::is_open);
            let again = replay.and_then(|replay| Again::of(&replay, &name));
            Ok::<_, StoreError>((checkpoint, past.into_iter().collect(), again))
        });
        let (checkpoint, past, again) = opened.await?;
        let (window, line) = (Window::default(), Line::default());
        Ok(Self {
            stream,
            head,
            read: checkpoint,
            checkpoint,
            window,
            line,
            past,
            again,
            more: true,
        })
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        self.stream.name()
    }

    /// Everything up to here is done.
    pub fn checkpoint(&self) -> Offset {
        self.checkpoint
    }

    /// Becomes ready when the stream has something behind what has been read.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut head = self.head.clone();
        async move {
            // The sender lives as long as the store; without it nothing new can come.
            if head.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Reads the next run. Empty when there is none yet, or when retention was faster.
    pub async fn read(&mut self) -> Result<Vec<(u64, EventRecord)>, StoreError> {
        // Before the read: what comes while it runs wakes us afterwards.
        self.head.mark_unchanged();
        let (stream, after) = (self.stream.clone(), self.read);
        match blocking(move || stream.read(after)).await? {
            Read::Events(run) => self.take(&run),
            Read::End => {
                self.more = false;
                Ok(Vec::new())
            }
            Read::Gap { purged } => {
                self.skip_to(purged);
                Ok(Vec::new())
            }
        }
    }

    /// The bytes of PostgreSQL's log between checkpoint and the stream's end.
    pub fn lag(&self) -> u64 {
        match self.head.borrow().commit {
            Lsn::ZERO => 0,
            head => head.since(self.checkpoint.commit),
        }
    }

    /// Saves the checkpoint, if it can move, together with the dead letters of what was given up.
    pub async fn save(&mut self, store: &Store, output: &str) -> Result<(), StoreError> {
        let Some((offset, letters)) = self.window.advance() else { return Ok(()) };
        let (store, output, name) = (store.clone(), output.to_owned(), self.name().to_owned());
        blocking(move || store.save_checkpoint(&output, &name, offset, letters)).await?;
        self.checkpoint = offset;
        Ok(())
    }

    fn take(&mut self, run: &Events) -> Result<Vec<(u64, EventRecord)>, StoreError> {
        let events: Vec<EventRecord> = run.after(self.read).collect();
        match events.last() {
            Some(last) if last.offset == run.last => self.read = run.last,
            // Going on behind a run that cannot be read to its end would lose events in silence.
            _ => {
                let what = format!("stream {} after {:?}", self.name(), self.read);
                return Err(StoreError::Damaged { what });
            }
        }
        let (mut taken, again) = (Vec::with_capacity(events.len()), self.again.as_ref());
        let skips = |event: &EventRecord| again.is_some_and(|again| again.skips(event));
        if !events.iter().all(skips) {
            self.window.begin_run(run.bytes.len());
        }
        for event in events {
            if skips(&event) {
                self.window.push_done(event.offset);
                continue;
            }
            let replayed = again.is_some_and(|again| event.offset <= again.until);
            let seq = self.window.push(event.offset);
            taken.push((seq, if replayed { event.replayed() } else { event }));
        }
        Ok(taken)
    }

    fn skip_to(&mut self, purged: Offset) {
        tracing::error!(
            stream = self.name(),
            from = %self.read.commit,
            to = %purged.commit,
            "retention removed events before they were delivered; going on behind them"
        );
        self.read = self.read.max(purged);
        self.window.push_done(self.read);
    }
}

/// Runs a read or write of the store where it may wait for the disk.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is being dropped cancels it, and then nobody polls this.
            Err(_) => std::future::pending().await,
        },
    }
}
