//! Order per key: each key is a lane, and a lane has one event under way at a time. A lane whose
//! event failed waits by itself; the others go on. What is about all keys is kept apart before the
//! lanes, in [`super::barrier`].

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
    queue: VecDeque<Entry>,
    /// Entries from the first on that no longer keep a run in memory.
    released: usize,
    /// Tries of the first that failed.
    attempts: u32,
    /// When the first was first tried.
    first_try: Option<Instant>,
}

#[derive(Debug)]
enum Entry {
    Event(Pending),
    /// The event in the other lane is for this one's key, too: nothing goes past it.
    Also(LaneId),
}

#[derive(Debug)]
struct Pending {
    place: Place,
    event: EventRecord,
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
    pub fn push(&mut self, (id, also): (LaneId, Option<LaneId>), place: Place, event: EventRecord) {
        let also = also.filter(|also| *also != id);
        if let Some(also) = also {
            self.lanes.entry(also).or_default().queue.push_back(Entry::Also(id));
        }
        let lane = self.lanes.entry(id).or_default();
        lane.queue.push_back(Entry::Event(Pending { place, event, also, copied: false }));
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
        match lane.queue.front()? {
            Entry::Event(pending) => Some((id, pending.event.clone())),
            Entry::Also(_) => None,
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
        let ready = self.ready_by(id);
        self.ready.extend(ready);
        Some((done.place, done.event))
    }

    /// Takes the first entry off a lane.
    fn leave(&mut self, id: LaneId) -> Option<Entry> {
        let lane = self.lanes.get_mut(&id)?;
        let first = lane.queue.pop_front();
        lane.released = lane.released.saturating_sub(1);
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
        lanes.push((LaneId(lane), None), Place { feed: 0, seq }, event);
    }

    fn push_across(lanes: &mut Lanes, pair: (u64, u64), seq: u64) {
        let offset = Offset::new(Lsn(seq), 0);
        let event = EventRecord { offset, key: Bytes::from("k"), json: Bytes::from("{}") };
        lanes.push((LaneId(pair.0), Some(LaneId(pair.1))), Place { feed: 0, seq }, event);
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
    fn an_event_about_two_keys_waits_for_both_and_both_wait_for_it() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        push(&mut lanes, 1, 1);
        push_across(&mut lanes, (2, 1), 2);
        push(&mut lanes, 1, 3);
        push(&mut lanes, 2, 4);
        assert_eq!(next(&mut lanes, now), Some((1, 1)));
        assert_eq!(next(&mut lanes, now), None);
        lanes.finish(LaneId(1));
        assert_eq!(next(&mut lanes, now), Some((2, 2)));
        assert_eq!(next(&mut lanes, now), None);
        let released = lanes.retry(LaneId(2), now);
        assert_eq!(released.len(), 3, "what waits in either lane");
        assert_eq!(next(&mut lanes, now), Some((2, 2)));
        lanes.finish(LaneId(2));
        assert_eq!(next(&mut lanes, now), Some((1, 3)));
        assert_eq!(next(&mut lanes, now), Some((2, 4)));
        lanes.finish(LaneId(1));
        lanes.finish(LaneId(2));
        assert_eq!((lanes.copied(), lanes.lanes.len()), (0, 0));
    }

    proptest::proptest! {
        /// Whatever is about which keys, and in whatever order events end: each is sent once, all
        /// are, and none before an earlier one that shares a key with it.
        #[test]
        fn every_event_is_sent_and_none_before_another_of_its_keys(
            events in proptest::collection::vec((0..5_u64, 0..5_u64), 1..40),
            choices: Vec<proptest::sample::Index>,
        ) {
            let (mut lanes, now) = (Lanes::default(), Instant::now());
            for (seq, pair) in (0..).zip(&events) {
                push_across(&mut lanes, *pair, seq);
            }
            let mut choices = choices.into_iter().cycle();
            let (mut under_way, mut done) = (Vec::new(), Vec::new());
            loop {
                while let Some(sent) = next(&mut lanes, now) {
                    under_way.push(sent);
                }
                if under_way.is_empty() {
                    break;
                }
                let choice = choices.next().map_or(0, |choice| choice.index(under_way.len()));
                let (lane, seq) = under_way.swap_remove(choice);
                let (a, b) = events[seq as usize];
                for (earlier, (c, d)) in (0..seq).zip(&events) {
                    let shares = [a, b].iter().any(|key| key == c || key == d);
                    proptest::prop_assert!(!shares || done.contains(&earlier));
                }
                lanes.finish(LaneId(lane));
                done.push(seq);
            }
            proptest::prop_assert_eq!(done.len(), events.len());
            proptest::prop_assert_eq!(lanes.lanes.len(), 0);
        }
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
