//! Order per key: each key is a lane, and a lane's events are under way in one batch at a time. A
//! lane whose event failed waits by itself; the others go on. What is about all keys is kept apart
//! before the lanes, in [`super::barrier`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::model::{EventRecord, Offset};
use crate::mutation::{Mutation, is_on};
use crate::output::Batch;

/// A lane, by the hash of what its events have in common. Two keys with the same hash share a lane,
/// which costs a little concurrency and no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

/// Where an event came from: a feed, and its number in that feed's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which feed.
    pub feed: usize,
    /// Its number in the feed's window.
    pub seq: u64,
}

/// How often a lane's first event has failed, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// Tries that failed, this one among them.
    pub attempts: u32,
    /// Time since the first try.
    pub since_first_try: Duration,
}

/// Events that are not delivered yet, by lane.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<LaneId, Lane>,
    /// Lanes that may send now.
    ready: VecDeque<LaneId>,
    /// Lanes that wait to try again.
    waiting: BTreeSet<(Instant, LaneId)>,
    /// Lanes whose first event has failed.
    failing: usize,
    /// Bytes of events that were copied out of their runs.
    copied: usize,
    /// Places of events that left their runs since [`Lanes::released`] was asked.
    released: Vec<Place>,
    hasher: RandomState,
}

/// The first of the queue is the one that is sent, or tried again.
#[derive(Debug)]
struct Lane {
    queue: VecDeque<Entry>,
    /// Entries from the first on that are in a batch.
    under_way: usize,
    /// Entries from the first on that no longer keep a run in memory.
    released: usize,
    /// Tries of the first that failed.
    attempts: u32,
    /// When the first was first tried.
    first_try: Option<Instant>,
}

impl Default for Lane {
    fn default() -> Self {
        // Most lanes have one event, and there are thousands of lanes.
        let queue = VecDeque::with_capacity(1);
        Self { queue, under_way: 0, released: 0, attempts: 0, first_try: None }
    }
}

#[derive(Debug)]
enum Entry {
    Event(Pending),
    /// The event in the other lane is for this one's key, too: nothing goes past it.
    Also(LaneId),
}

/// What became of an event before a restart.
#[derive(Debug, Clone, Copy)]
pub struct Past {
    /// Tries that failed.
    pub attempts: u32,
    /// When it was first tried.
    pub first_try: Instant,
    /// When it is to be tried next.
    pub due: Instant,
}

#[derive(Debug)]
struct Pending {
    place: Place,
    event: EventRecord,
    /// Until it is the first of its lane.
    past: Option<Past>,
    /// The lane in which its other key waits for it.
    also: Option<LaneId>,
    /// Whether it has left the run that it was read in.
    copied: bool,
}

impl Lanes {
    /// The lane of what has this in common.
    pub fn id(&self, common: impl Hash) -> LaneId {
        LaneId(self.hasher.hash_one(common))
    }

    /// Adds an event at the end of its lane; and of another, where it is about two keys. Then it
    /// goes once it is the first of both, and what is behind it in both waits for it. Every event
    /// joins its lanes at once, so two of them never wait for each other.
    #[cfg(test)]
    pub fn push(&mut self, lanes: (LaneId, Option<LaneId>), place: Place, event: EventRecord) {
        self.push_with(lanes, place, event, None);
    }

    /// Adds an event that was tried before a restart: it goes on where it was on its schedule.
    pub fn push_with(
        &mut self,
        (id, also): (LaneId, Option<LaneId>),
        place: Place,
        event: EventRecord,
        past: Option<Past>,
    ) {
        let also = also.filter(|also| *also != id);
        if let Some(also) = also {
            self.lanes.entry(also).or_default().queue.push_back(Entry::Also(id));
        }
        let lane = self.lanes.entry(id).or_default();
        lane.queue.push_back(Entry::Event(Pending { place, event, past, also, copied: false }));
        if lane.queue.len() == 1 {
            let ready = self.ready_by(id);
            self.ready.extend(ready);
        }
    }

    /// The lane whose event may be sent, now that this lane has another first entry.
    fn ready_by(&self, id: LaneId) -> Option<LaneId> {
        let first = |id| self.lanes.get(&id).and_then(|lane: &Lane| lane.queue.front());
        match first(id) {
            Some(Entry::Event(Pending { also: None, .. })) => Some(id),
            Some(Entry::Event(Pending { also: Some(also), .. })) => {
                matches!(first(*also), Some(Entry::Also(main)) if *main == id).then_some(id)
            }
            Some(Entry::Also(main)) => match first(*main) {
                Some(Entry::Event(pending)) => (pending.also == Some(id)).then_some(*main),
                _ => None,
            },
            None => None,
        }
    }

    /// The next events that may be sent, in the order in which they were added; none, if there are
    /// none. Each is under way until [`Lanes::finish`], [`Lanes::retry`] or [`Lanes::put_back`].
    ///
    /// What has failed before goes by itself, so that it is clear what the far side does not take.
    pub fn next(&mut self, now: Instant, limit: Batch) -> Vec<(LaneId, EventRecord)> {
        while let Some(&(due, id)) = self.waiting.first().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, id));
            self.ready.push_back(id);
        }
        let mut taking = Taking { limit, bytes: 0, taken: Vec::new() };
        while let Some(id) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            if let Some(due) = lane.resume() {
                self.failing += 1;
                if due > now {
                    let places = self.retry(id, due);
                    self.released.extend(places);
                    continue;
                }
            }
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let alone = lane.attempts > 0;
            if alone && !taking.taken.is_empty() || !lane.send(id, now, &mut taking) {
                self.ready.push_front(id);
                break;
            }
            if alone {
                break;
            }
        }
        let mut taken = taking.taken;
        taken.sort_unstable_by_key(|(place, ..)| *place);
        taken.into_iter().map(|(_, id, event)| (id, event)).collect()
    }

    /// Places of events that no longer keep a run in memory, since the last time.
    pub fn released(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.released)
    }

    /// How many events may be sent, and their bytes, as far as is worth knowing for a batch.
    #[must_use]
    pub fn ready(&self, limit: Batch) -> (usize, usize) {
        let (mut events, mut bytes) = (0, 0);
        for lane in self.ready.iter().filter_map(|id| self.lanes.get(id)) {
            for entry in &lane.queue {
                let Entry::Event(pending) = entry else { break };
                events += 1;
                bytes += pending.event.json.len();
                if events >= limit.events.get() || bytes >= limit.bytes {
                    return (events, bytes);
                }
            }
        }
        (events, bytes)
    }

    /// What is still under way of these lanes was not tried, and is ready again.
    pub fn put_back(&mut self, ids: &[LaneId]) {
        for &id in ids.iter().rev() {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            if std::mem::take(&mut lane.under_way) > 0 {
                self.ready.push_front(id);
            }
        }
    }

    /// When the next event may be sent; `None` while there is nothing to send.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        match self.ready.is_empty() {
            false => Some(now),
            true => self.waiting.first().map(|(due, _)| *due),
        }
    }

    /// The lane's first event: where it came from, and its place in its stream.
    #[must_use]
    pub fn first(&self, id: LaneId) -> Option<(Place, Offset)> {
        match self.lanes.get(&id)?.queue.front()? {
            Entry::Event(pending) => Some((pending.place, pending.event.offset)),
            Entry::Also(_) => None,
        }
    }

    /// Counts a try of the lane's first event that failed.
    pub fn fail(&mut self, id: LaneId, now: Instant) -> Option<Failure> {
        let lane = self.lanes.get_mut(&id)?;
        if lane.attempts == 0 {
            self.failing += 1;
        }
        lane.attempts = lane.attempts.saturating_add(1);
        let since_first_try = now - *lane.first_try.get_or_insert(now);
        Some(Failure { attempts: lane.attempts, since_first_try })
    }

    /// Tries the lane's first event again at `due`. Until then its events may wait for long, so
    /// they are copied out of the runs that they were read in; the places of those that were are
    /// returned, for they no longer keep a run in memory.
    pub fn retry(&mut self, id: LaneId, due: Instant) -> Vec<Place> {
        self.waiting.insert((due, id));
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.under_way = 0;
            if is_on(Mutation::Overtake) {
                lane.overtake();
            }
        }
        let mut released = Vec::new();
        let also = match self.lanes.get(&id).and_then(|lane| lane.queue.front()) {
            Some(Entry::Event(pending)) => pending.also,
            _ => None,
        };
        for id in std::iter::once(id).chain(also) {
            self.release(id, &mut released);
        }
        released
    }

    fn release(&mut self, id: LaneId, released: &mut Vec<Place>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        for entry in lane.queue.range_mut(lane.released..) {
            if let Entry::Event(pending) = entry {
                pending.copy();
                self.copied += pending.size();
                released.push(pending.place);
            }
        }
        lane.released = lane.queue.len();
    }

    /// The lane's first event is done with: its next may go.
    pub fn finish(&mut self, id: LaneId) -> Option<(Place, EventRecord)> {
        let lane = self.lanes.get_mut(&id)?;
        if lane.attempts > 0 {
            self.failing -= 1;
        }
        let Entry::Event(done) = self.leave(id)? else { return None };
        if done.copied {
            self.copied -= done.size();
        }
        if let Some(also) = done.also {
            self.leave(also);
            // Both may look at the same event.
            let ready = self.ready_by(also).filter(|ready| Some(*ready) != self.ready_by(id));
            self.ready.extend(ready);
        }
        if self.lanes.get(&id).is_some_and(|lane| lane.under_way == 0) {
            let ready = self.ready_by(id);
            self.ready.extend(ready);
        }
        Some((done.place, done.event))
    }

    /// Takes the first entry off a lane.
    fn leave(&mut self, id: LaneId) -> Option<Entry> {
        let lane = self.lanes.get_mut(&id)?;
        let first = lane.queue.pop_front();
        lane.released = lane.released.saturating_sub(1);
        lane.under_way = lane.under_way.saturating_sub(1);
        (lane.attempts, lane.first_try) = (0, None);
        if lane.queue.is_empty() {
            self.lanes.remove(&id);
        }
        first
    }

    /// Whether some event has failed and is to be tried again.
    #[must_use]
    pub fn any_failing(&self) -> bool {
        self.failing > 0
    }

    /// Bytes of events that were copied out of their runs.
    #[must_use]
    pub fn copied(&self) -> usize {
        self.copied
    }
}

/// A batch in the making.
struct Taking {
    limit: Batch,
    bytes: usize,
    taken: Vec<(Place, LaneId, EventRecord)>,
}

impl Taking {
    /// Whether there was room for it.
    fn add(&mut self, id: LaneId, pending: &Pending) -> bool {
        let bytes = self.bytes + pending.event.json.len();
        let fits = self.taken.len() < self.limit.events.get() && bytes <= self.limit.bytes;
        if fits || self.taken.is_empty() {
            self.bytes = bytes;
            self.taken.push((pending.place, id, pending.event.clone()));
            return true;
        }
        false
    }
}

impl Lane {
    /// Lets the second event go first, where nothing else depends on the order.
    fn overtake(&mut self) {
        let own = |entry: &Entry| matches!(entry, Entry::Event(pending) if pending.also.is_none());
        if self.released == 0 && self.queue.len() > 1 && self.queue.iter().take(2).all(own) {
            self.queue.swap(0, 1);
        }
    }

    /// Goes on with its first event where it was before a restart: when it is due.
    fn resume(&mut self) -> Option<Instant> {
        let Some(Entry::Event(pending)) = self.queue.front_mut() else { return None };
        let past = pending.past.take()?;
        (self.attempts, self.first_try) = (past.attempts, Some(past.first_try));
        Some(past.due)
    }

    /// Puts its first event into a batch, and those behind it that are of this lane only. False if
    /// there was no room for the first.
    fn send(&mut self, id: LaneId, now: Instant, taking: &mut Taking) -> bool {
        let alone = self.attempts > 0 || !taking.limit.same_key;
        for entry in &self.queue {
            let Entry::Event(pending) = entry else { break };
            let first = self.under_way == 0;
            let own = pending.also.is_some() || pending.past.is_some();
            if !first && (alone || own) || !taking.add(id, pending) {
                break;
            }
            self.under_way += 1;
            if pending.also.is_some() {
                break;
            }
        }
        if self.under_way > 0 {
            self.first_try.get_or_insert(now);
        }
        self.under_way > 0
    }
}

impl Pending {
    fn size(&self) -> usize {
        self.event.key.len() + self.event.json.len()
    }

    fn copy(&mut self) {
        self.event.key = Bytes::copy_from_slice(&self.event.key);
        self.event.json = Bytes::copy_from_slice(&self.event.json);
        self.copied = true;
    }
}

#[cfg(test)]
mod tests;
