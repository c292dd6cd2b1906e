//! One reader's place in one stream.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};

use super::Server;
use super::place::{Gap, Reason, Start};
use super::runs::{Form, Run};
use crate::model::Offset;
use crate::model::event::Events;
use crate::store::StoreError;
use crate::store::stream::{Read, Stream};

/// One reader's place in one stream. It keeps nothing but that place: what comes next is read from
/// the store when the reader can take it.
pub(super) struct Feed {
    stream: Arc<Stream>,
    head: watch::Receiver<Offset>,
    after: Offset,
    /// The last read found nothing, with the head that `head` has seen.
    exhausted: bool,
    /// It has not been at the end yet, so its next run is probably on disk.
    catching_up: bool,
}

/// What a feed found.
pub(super) enum Found<T> {
    /// A run of events; those up to the feed's place are not for this reader.
    Run(T),
    /// Events are missing; the feed has moved behind them.
    Gap(Gap),
    /// Nothing yet.
    Nothing,
}

impl Feed {
    pub(super) fn new(stream: Arc<Stream>, start: Start) -> Self {
        let head = stream.head();
        Self { stream, head, after: start.after, exhausted: false, catching_up: true }
    }

    pub(super) fn name(&self) -> &str {
        self.stream.name()
    }

    /// Everything up to and including this place has been taken.
    pub(super) fn after(&self) -> Offset {
        self.after
    }

    /// Notes that everything up to and including `offset` has been taken.
    pub(super) fn advance(&mut self, offset: Offset) {
        self.after = offset;
    }

    /// Offset of the stream's newest event.
    pub(super) fn newest(&self) -> Offset {
        *self.head.borrow()
    }

    /// Waits until there is something to read. It may be dropped and called again at any time.
    pub(super) async fn ready(&mut self) {
        while self.exhausted || *self.head.borrow_and_update() <= self.after {
            // The stream, and with it the sender, lives as long as this feed.
            if self.head.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            self.exhausted = false;
        }
    }

    /// The next run, as it is stored.
    pub(super) async fn read(&mut self) -> Result<Found<Events>, StoreError> {
        self.read_as(|_, events| Ok(events)).await
    }

    /// The next run in a form for the wire, shared with everyone who reads it about now.
    pub(super) async fn read_run(
        &mut self,
        form: Form,
        server: &Arc<Server>,
    ) -> Result<Found<Arc<Run>>, StoreError> {
        let server = Arc::clone(server);
        self.read_as(move |stream, events| {
            server.runs.encoded(form, stream.name(), server.state.store.epoch(), &events)
        })
        .await
    }

    async fn read_as<T: Send + 'static>(
        &mut self,
        shape: impl FnOnce(&Stream, Events) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Found<T>, StoreError> {
        // Seen before the read: an event that comes between the two wakes `ready` again.
        self.head.mark_unchanged();
        let (stream, after) = (Arc::clone(&self.stream), self.after);
        let work = move || match stream.read(after)? {
            Read::Events(events) => shape(&stream, events).map(Found::Run),
            Read::Gap { purged } => Ok(Found::Gap(Gap { purged, reason: Reason::Retention })),
            Read::End => Ok(Found::Nothing),
        };
        let found = match self.catching_up {
            true => aside(work).await?,
            false => work()?,
        };
        match &found {
            Found::Gap(gap) => self.after = self.after.max(gap.purged),
            Found::Nothing => (self.exhausted, self.catching_up) = (true, false),
            Found::Run(_) => {}
        }
        Ok(found)
    }
}

/// Runs what may wait for the disk where nobody waits for it.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<Found<T>, StoreError> + Send + 'static,
) -> Result<Found<T>, StoreError> {
    match spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(found) => found,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is about to end.
        Err(Err(_)) => Ok(Found::Nothing),
    }
}
