//! Order per key: each key is a lane, and a lane has one event under way at a time. A lane whose
//! event failed waits by itself; the others go on.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::model::EventRecord;

/// A lane, by the hash of what its events have in common. Two keys with the same hash share a lane,
/// which costs a little concurrency and no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

/// Where an event came from: a feed, and its number in that feed's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    hasher: RandomState,
}

/// The first of the queue is the one that is sent, or tried again.
#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Pending>,
    /// Tries of the first that failed.
    attempts: u32,
    /// When the first was first tried.
    first_try: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    place: Place,
    event: EventRecord,
    /// Whether it has left the run that it was read in.
    copied: bool,
}

impl Lanes {
    /// The lane of what has this in common.
    pub fn id(&self, common: impl Hash) -> LaneId {
        LaneId(self.hasher.hash_one(common))
    }

    /// Adds an event at the end of its lane.
    pub fn push(&mut self, id: LaneId, place: Place, event: EventRecord) {
        let lane = self.lanes.entry(id).or_default();
        if lane.queue.is_empty() {
            self.ready.push_back(id);
        }
        lane.queue.push_back(Pending { place, event, copied: false });
    }

    /// The next event that may be sent. Its lane is under way until [`Lanes::finish`] or
    /// [`Lanes::retry`].
    pub fn next(&mut self, now: Instant) -> Option<(LaneId, EventRecord)> {
        while let Some(&(due, id)) = self.waiting.first().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, id));
            self.ready.push_back(id);
        }
        let id = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&id)?;
        lane.first_try.get_or_insert(now);
        Some((id, lane.queue.front()?.event.clone()))
    }

    /// When the next event may be sent; `None` while there is nothing to send.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        match self.ready.is_empty() {
            false => Some(now),
            true => self.waiting.first().map(|(due, _)| *due),
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
        let Some(lane) = self.lanes.get_mut(&id) else { return Vec::new() };
        // Behind the first that was not copied, none was.
        let new = lane.queue.partition_point(|pending| pending.copied);
        let mut released = Vec::new();
        for pending in lane.queue.range_mut(new..) {
            pending.copy();
            self.copied += pending.size();
            released.push(pending.place);
        }
        released
    }

    /// The lane's first event is done with: its next may go.
    pub fn finish(&mut self, id: LaneId) -> Option<(Place, EventRecord)> {
        let lane = self.lanes.get_mut(&id)?;
        let done = lane.queue.pop_front()?;
        if done.copied {
            self.copied -= done.size();
        }
        if lane.attempts > 0 {
            self.failing -= 1;
        }
        (lane.attempts, lane.first_try) = (0, None);
        match lane.queue.is_empty() {
            true => drop(self.lanes.remove(&id)),
            false => self.ready.push_back(id),
        }
        Some((done.place, done.event))
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
mod tests {
    use super::*;
    use crate::model::{Lsn, Offset};

    fn push(lanes: &mut Lanes, lane: u64, seq: u64) {
        let offset = Offset::new(Lsn(seq), 0);
        let event = EventRecord { offset, key: Bytes::from("k"), json: Bytes::from("{}") };
        lanes.push(LaneId(lane), Place { feed: 0, seq }, event);
    }

    fn next(lanes: &mut Lanes, now: Instant) -> Option<(u64, u64)> {
        lanes.next(now).map(|(id, event)| (id.0, event.offset.commit.0))
    }

    #[test]
    fn a_lane_sends_one_event_at_a_time_and_the_others_go_on() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        for (lane, seq) in [(1, 1), (1, 2), (2, 3)] {
            push(&mut lanes, lane, seq);
        }
        assert_eq!(next(&mut lanes, now), Some((1, 1)));
        assert_eq!(next(&mut lanes, now), Some((2, 3)));
        assert_eq!(next(&mut lanes, now), None);
        lanes.finish(LaneId(1));
        assert_eq!(next(&mut lanes, now), Some((1, 2)));
    }

    #[test]
    fn a_failed_event_comes_again_when_it_is_due_and_before_its_lane_goes_on() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        push(&mut lanes, 1, 1);
        push(&mut lanes, 1, 2);
        let due = now + Duration::from_secs(5);
        for attempts in 1..4 {
            assert_eq!(next(&mut lanes, due), Some((1, 1)));
            assert_eq!(lanes.fail(LaneId(1), due).map(|f| f.attempts), Some(attempts));
            lanes.retry(LaneId(1), due);
            assert_eq!(next(&mut lanes, now), None);
            assert_eq!(lanes.next_due(now), Some(due));
        }
        assert!(lanes.any_failing());
        assert_eq!(next(&mut lanes, due), Some((1, 1)));
        lanes.finish(LaneId(1));
        assert!(!lanes.any_failing());
        assert_eq!(next(&mut lanes, due), Some((1, 2)));
    }

    #[test]
    fn a_failing_lane_keeps_no_run_in_memory() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        for seq in 1..4 {
            push(&mut lanes, 1, seq);
        }
        let released = |places: Vec<Place>| places.iter().map(|p| p.seq).collect::<Vec<_>>();
        lanes.next(now);
        assert_eq!(released(lanes.retry(LaneId(1), now)), [1, 2, 3]);
        push(&mut lanes, 1, 4);
        lanes.next(now);
        assert_eq!(released(lanes.retry(LaneId(1), now)), [4]);
        assert_eq!(lanes.copied(), 4 * "k{}".len());
        while lanes.next(now).is_some() {
            lanes.finish(LaneId(1));
        }
        assert_eq!(lanes.copied(), 0);
    }
}
