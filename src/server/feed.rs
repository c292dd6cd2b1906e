//! One reader's place in one stream.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};

use super::Server;
use super::fanout::{Attached, Item, Seat, Wanted};
use super::place::{Gap, Reason, Start};
use super::runs::{Form, Run};
use crate::model::Offset;
use crate::model::event::Events;
use crate::store::StoreError;
use crate::store::stream::{Read, Stream};

/// Events of one run that come out of a queue.
const MOST_ITEMS: usize = 256;
/// Runs that are sent together.
pub(super) const MOST_RUNS: usize = 64;

/// One reader's place in one stream. Without a filter it keeps nothing but that place: what comes
/// next is read from the store when the reader can take it. With one it does the same until it has
/// read everything, and is then told of what it wants by the stream's hub.
pub(super) struct Feed {
    stream: Arc<Stream>,
    head: watch::Receiver<Offset>,
    after: Offset,
    /// The last read found nothing, with the head that `head` has seen.
    exhausted: bool,
    sieve: Option<Sieve>,
}

/// What a reader with a filter has besides its place.
struct Sieve {
    seat: Box<Seat>,
    hub: Option<Attached>,
    /// Taken out of the queue, and not given to the reader yet.
    first: Option<Item>,
    /// The last of the queue that was given to the reader, who may not have sent it yet.
    given: Offset,
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
        let after = start.after;
        Self { stream, head, after, exhausted: false, sieve: None }
    }

    /// The same for a reader that does not want, or may not see, everything.
    pub(super) fn of(
        stream: Arc<Stream>,
        start: Start,
        wanted: Option<Arc<Wanted>>,
        form: Form,
    ) -> Self {
        let seat = |wanted| Box::new(Seat::new(wanted, form));
        let given = Offset::START;
        let sieve =
            wanted.map(|wanted| Sieve { seat: seat(wanted), hub: None, first: None, given });
        Self { sieve, ..Self::new(stream, start) }
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

    /// Moves on behind what the reader's filter left out; whether that was anything.
    pub(super) fn settle(&mut self) -> bool {
        let position = match &self.sieve {
            // What was given and is not taken yet must not be passed over.
            Some(Sieve { first: None, hub: Some(hub), given, .. }) if self.after >= *given => {
                hub.position()
            }
            _ => None,
        };
        let before = self.after;
        self.after = before.max(position.unwrap_or(before));
        self.after > before
    }

    /// Offset of the stream's newest event.
    pub(super) fn newest(&self) -> Offset {
        *self.head.borrow()
    }

    /// Waits until there is something to read. It may be dropped and called again at any time.
    pub(super) async fn ready(&mut self) {
        if let Some(sieve) = &mut self.sieve {
            if sieve.first.is_some() {
                return;
            }
            if let Some(hub) = &mut sieve.hub {
                sieve.first = hub.next().await;
                if sieve.first.is_some() {
                    return;
                }
                // The reader was too slow for its queue, and reads the log until it has caught up.
                (sieve.hub, self.exhausted) = (None, false);
            }
        }
        while self.exhausted || *self.head.borrow_and_update() <= self.after {
            if !self.exhausted && self.sieve.is_some() {
                // At the end: what comes is the hub's to find.
                return;
            }
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

    /// The next run in a form for the wire, shared with everyone who reads it about now. Who takes
    /// fewer than `room` of its events reads the others again.
    pub(super) async fn read_run(
        &mut self,
        form: Form,
        room: usize,
        server: &Arc<Server>,
    ) -> Result<Found<Arc<Run>>, StoreError> {
        if self.sieve.is_some() {
            return self.read_wanted(room, server).await;
        }
        let server = Arc::clone(server);
        self.read_as(move |stream, events| {
            server.runs.encoded(form, stream.name(), server.state.store.epoch(), &events)
        })
        .await
    }

    /// What the reader wants: out of its queue, or out of the log while it has none.
    async fn read_wanted(
        &mut self,
        room: usize,
        server: &Arc<Server>,
    ) -> Result<Found<Arc<Run>>, StoreError> {
        if let Some(run) = self.sieve.as_mut().and_then(|sieve| sieve.queued(room)) {
            return Ok(run);
        }
        let found = self.read().await?;
        let Some(sieve) = &mut self.sieve else { return Ok(Found::Nothing) };
        match found {
            Found::Gap(gap) => Ok(Found::Gap(gap)),
            Found::Run(events) => {
                let of = (self.stream.name(), server.state.store.epoch());
                match sieve.seat.items(of, &events, self.after) {
                    items if items.is_empty() => {
                        self.after = events.last;
                        Ok(Found::Nothing)
                    }
                    items => Ok(Found::Run(Arc::new(Run::of(items)))),
                }
            }
            Found::Nothing => {
                self.exhausted = false;
                let terms = server.terms();
                sieve.hub = server.hubs.attach(&self.stream, &sieve.seat, self.after, &terms);
                Ok(Found::Nothing)
            }
        }
    }

    /// Adds the runs that follow those at hand, as far as they are in memory: whoever is behind
    /// gets them together.
    pub(super) fn read_on(
        &self,
        form: Form,
        room: usize,
        server: &Server,
        runs: &mut Vec<Arc<Run>>,
    ) -> Result<(), StoreError> {
        let (mut bytes, mut events) = (0, 0);
        while let Some((newest, last)) = runs.last().and_then(|run| Some((run, run.last()?))) {
            bytes += newest.size();
            events += newest.len();
            if self.sieve.is_some()
                || bytes >= server.buffer()
                || events >= room
                || runs.len() == MOST_RUNS
            {
                break;
            }
            let Some(Read::Events(next)) = self.stream.recent(last) else { break };
            let epoch = server.state.store.epoch();
            runs.push(server.runs.encoded(form, self.stream.name(), epoch, &next)?);
        }
        Ok(())
    }

    async fn read_as<T: Send + 'static>(
        &mut self,
        shape: impl FnOnce(&Stream, Events) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Found<T>, StoreError> {
        // Seen before the read: an event that comes between the two wakes `ready` again.
        self.head.mark_unchanged();
        let found = |stream: &Stream, read| match read {
            Read::Events(events) => shape(stream, events).map(Found::Run),
            Read::Gap { purged } => Ok(Found::Gap(Gap { purged, reason: Reason::Retention })),
            Read::End => Ok(Found::Nothing),
        };
        let found = match self.stream.recent(self.after) {
            Some(recent) => found(&self.stream, recent)?,
            None => {
                let (stream, after) = (Arc::clone(&self.stream), self.after);
                aside(move || found(&stream, stream.read(after)?)).await?
            }
        };
        match &found {
            Found::Gap(gap) => self.after = self.after.max(gap.purged),
            Found::Nothing => self.exhausted = true,
            Found::Run(_) => {}
        }
        Ok(found)
    }
}

impl Sieve {
    /// What waits in the queue, if there is one; no more than there is room for, because what was
    /// taken out does not come again.
    fn queued(&mut self, room: usize) -> Option<Found<Arc<Run>>> {
        let hub = self.hub.as_mut()?;
        let queued = std::iter::from_fn(|| hub.take());
        let items = self.first.take().into_iter().chain(queued).take(MOST_ITEMS.min(room));
        let items: Vec<Item> = items.collect();
        self.given = items.last().map_or(self.given, |item| item.offset);
        Some(match items.is_empty() {
            true => Found::Nothing,
            false => Found::Run(Arc::new(Run::of(items))),
        })
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
