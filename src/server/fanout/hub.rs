//! One task for each stream that has readers with filters: it reads each event once, finds whom it
//! is for, and puts it into their queues, encoded once for all who see it the same way.
//!
//! A queue is bounded. Whoever does not empty it in time is let go of, and reads the log by itself
//! from where its queue ended until it has caught up. So nothing waits without bound, and nothing
//! is lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Index, View};
use crate::model::event::Events;
use crate::model::{Epoch, EventRecord, Offset};
use crate::server::filter::Filter;
use crate::server::runs::{Form, encode_one};
use crate::store::stream::{Read, Stream};

/// Events that may wait in one queue.
const QUEUE: usize = 256;

/// What a reader wants of a stream, and what it may see of that.
#[derive(Debug)]
pub struct Wanted {
    filter: Filter,
    view: View,
}

impl Wanted {
    /// Rows that fit the filter, as the view shows them.
    pub(crate) fn new(filter: Filter, view: View) -> Self {
        Self { filter, view }
    }
}

/// An event in the form that goes over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) offset: Offset,
    pub(crate) bytes: Bytes,
}

/// Finds what one reader wants among events that it reads by itself.
pub(crate) struct Seat {
    pub(crate) wanted: Arc<Wanted>,
    form: Form,
    index: Index,
    found: Vec<usize>,
}

impl Seat {
    pub(crate) fn new(wanted: Arc<Wanted>, form: Form) -> Self {
        let mut index = Index::default();
        index.insert(&wanted.filter, 0);
        Self { wanted, form, index, found: Vec::new() }
    }

    /// The event as it is seen, if it is wanted.
    pub(crate) fn see(&mut self, event: &EventRecord) -> Option<Bytes> {
        let wanted = self.index.find(event, &mut self.found).is_none_or(|found| !found.is_empty());
        wanted.then(|| self.wanted.view.of(event))?
    }

    /// The events behind `after` that are wanted, for the wire.
    pub(crate) fn items(
        &mut self,
        (stream, epoch): (&str, Epoch),
        events: &Events,
        after: Offset,
    ) -> Vec<Item> {
        let form = self.form;
        let see = |event: EventRecord| {
            let json = self.see(&event)?;
            let bytes = encode_one(form, stream, epoch, event.offset, &json)?;
            Some(Item { offset: event.offset, bytes })
        };
        events.after(after).filter_map(see).collect()
    }
}

/// The hubs of all streams.
#[derive(Default)]
pub(crate) struct Hubs(Mutex<HashMap<String, Arc<Hub>>>);

impl Hubs {
    /// Gives a reader that has read everything up to `after` a queue with what comes behind.
    /// `None` where the hub is further than that: the reader has to catch up.
    pub(crate) fn attach(
        &self,
        stream: &Arc<Stream>,
        seat: &Seat,
        after: Offset,
        terms: &Terms,
    ) -> Option<Attached> {
        let hub = {
            let mut hubs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let hub = hubs.entry(stream.name().to_owned()).or_insert_with(|| {
                let (stream, epoch) = (Arc::clone(stream), terms.epoch);
                Arc::new(Hub { stream, epoch, state: Mutex::default() })
            });
            Arc::clone(hub)
        };
        hub.attach(seat, after, terms)
    }
}

/// What holds for every queue.
pub(crate) struct Terms {
    pub(crate) epoch: Epoch,
    /// Bytes that may wait in one queue.
    pub(crate) bytes: usize,
    pub(crate) shutdown: CancellationToken,
}

/// One stream's.
struct Hub {
    stream: Arc<Stream>,
    epoch: Epoch,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    index: Index,
    members: HashMap<usize, Member>,
    next: usize,
    /// Everything up to here has been put into the queues.
    position: Offset,
    /// There is a task.
    running: bool,
}

struct Member {
    wanted: Arc<Wanted>,
    form: Form,
    /// What it has had before it came.
    after: Offset,
    queue: mpsc::Sender<Item>,
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

/// A place in a hub, until it is dropped.
pub(crate) struct Attached {
    hub: Arc<Hub>,
    member: usize,
    queue: mpsc::Receiver<Item>,
    waiting: Arc<AtomicUsize>,
}

impl Attached {
    /// The next event; `None` once the hub has let go and everything before that was taken.
    pub(crate) async fn next(&mut self) -> Option<Item> {
        let item = self.queue.recv().await?;
        Some(self.took(item))
    }

    /// The next event, if it is there.
    pub(crate) fn take(&mut self) -> Option<Item> {
        let item = self.queue.try_recv().ok()?;
        Some(self.took(item))
    }

    fn took(&self, item: Item) -> Item {
        self.waiting.fetch_sub(item.bytes.len(), Ordering::Relaxed);
        item
    }

    /// Where the hub is, if everything that it found for this reader has been taken.
    pub(crate) fn position(&self) -> Option<Offset> {
        let position = self.hub.state().position;
        // What lies before that position was put into the queue while it was moved on.
        let is_attached = !self.queue.is_closed();
        (is_attached && self.queue.is_empty()).then_some(position)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.hub.state().remove(self.member);
    }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever panicked, members are whole; at worst one reads the log by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(self: Arc<Self>, seat: &Seat, after: Offset, terms: &Terms) -> Option<Attached> {
        let mut state = self.state();
        if !state.running {
            // A reader may be ahead of a tail that is made again; the hub never is.
            state.position = after.min(*self.stream.head().borrow());
        }
        if state.position > after {
            return None;
        }
        let (sender, queue) = mpsc::channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let member = state.next;
        state.next += 1;
        state.index.insert(&seat.wanted.filter, member);
        let (wanted, form, bytes) = (Arc::clone(&seat.wanted), seat.form, terms.bytes);
        let joined =
            Member { wanted, form, after, queue: sender, waiting: Arc::clone(&waiting), bytes };
        state.members.insert(member, joined);
        if !std::mem::replace(&mut state.running, true) {
            tokio::spawn(Arc::clone(&self).run(terms.shutdown.clone()));
        }
        drop(state);
        Some(Attached { hub: self, member, queue, waiting })
    }

    /// Runs until nobody is there any more.
    async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut head = self.stream.head();
        loop {
            // Seen before the read: an event that comes between the two wakes this again.
            head.mark_unchanged();
            match self.step() {
                Step::More => tokio::task::yield_now().await,
                Step::Alone => return,
                Step::End => tokio::select! {
                    changed = head.changed() => if changed.is_err() { return },
                    () = shutdown.cancelled() => return,
                },
            }
        }
    }

    fn step(&self) -> Step {
        let mut state = self.state();
        if state.members.is_empty() {
            state.running = false;
            return Step::Alone;
        }
        match self.stream.read(state.position) {
            Ok(Read::Events(events)) => {
                for event in events.after(state.position) {
                    state.hand_out((self.stream.name(), self.epoch), &event);
                }
                state.position = events.last;
                Step::More
            }
            Ok(Read::End) => Step::End,
            // Who reads the log finds the same, and tells its client.
            Ok(Read::Gap { .. }) | Err(_) => {
                *state = State { next: state.next, ..State::default() };
                Step::Alone
            }
        }
    }
}

/// What a hub's task does next.
enum Step {
    /// There may be more to read.
    More,
    /// It has read everything.
    End,
    /// It ends: nobody is there.
    Alone,
}

impl State {
    fn remove(&mut self, member: usize) {
        if let Some(gone) = self.members.remove(&member) {
            self.index.remove(&gone.wanted.filter, member);
        }
    }

    fn hand_out(&mut self, stream: (&str, Epoch), event: &EventRecord) {
        let mut found = Vec::new();
        let mut shapes = Shapes { stream, event, made: Vec::new() };
        let mut late = Vec::new();
        let everyone = self.index.find(event, &mut found).is_none();
        if everyone {
            found.extend(self.members.keys());
        }
        for id in found {
            let Some(member) = self.members.get(&id) else { continue };
            if event.offset <= member.after {
                continue;
            }
            if let Some(bytes) = shapes.of(member)
                && !member.offer(Item { offset: event.offset, bytes })
            {
                late.push(id);
            }
        }
        late.into_iter().for_each(|id| self.remove(id));
    }
}

impl Member {
    /// Whether there was room for it.
    fn offer(&self, item: Item) -> bool {
        let len = item.bytes.len();
        let before = self.waiting.load(Ordering::Relaxed);
        // One that is larger than all of the room may still be alone in it.
        if before > 0 && before + len > self.bytes {
            return false;
        }
        self.waiting.fetch_add(len, Ordering::Relaxed);
        self.queue.try_send(item).is_ok()
    }
}

/// One event in each form and view that somebody wants it in.
struct Shapes<'a> {
    stream: (&'a str, Epoch),
    event: &'a EventRecord,
    made: Vec<(Form, Arc<Wanted>, Option<Bytes>)>,
}

impl Shapes<'_> {
    fn of(&mut self, member: &Member) -> Option<Bytes> {
        let same = |(form, wanted, _): &&(Form, Arc<Wanted>, _)| {
            *form == member.form && wanted.view == member.wanted.view
        };
        if let Some((_, _, bytes)) = self.made.iter().find(same) {
            return bytes.clone();
        }
        let (stream, epoch) = self.stream;
        let json = member.wanted.view.of(self.event);
        let bytes =
            json.and_then(|json| encode_one(member.form, stream, epoch, self.event.offset, &json));
        self.made.push((member.form, Arc::clone(&member.wanted), bytes.clone()));
        bytes
    }
}
