//! Order around a barrier, an event that is about all rows of its stream: it goes alone. It enters
//! the lanes when everything before it is done, and what is behind it when it is done itself.

use std::collections::VecDeque;

/// One feed's events before the lanes. As all of them pass through it in order, those that a
/// barrier waits for are always in the lanes already: it cannot wait for ever.
#[derive(Debug)]
pub struct Line<T> {
    held: VecDeque<Held<T>>,
    /// Events of the feed that are in the lanes.
    in_lanes: usize,
    /// Whether the one in the lanes is a barrier.
    closed: bool,
}

#[derive(Debug)]
struct Held<T> {
    event: T,
    barrier: bool,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { held: VecDeque::new(), in_lanes: 0, closed: false }
    }
}

impl<T> Line<T> {
    /// Adds an event at the end.
    pub fn push(&mut self, event: T, barrier: bool) {
        self.held.push_back(Held { event, barrier });
    }

    /// The next event that may enter the lanes; it is in them until [`Line::leave`].
    pub fn admit(&mut self) -> Option<T> {
        if self.closed {
            return None;
        }
        let in_lanes = self.in_lanes;
        let Held { event, barrier } =
            self.held.pop_front_if(|first| !first.barrier || in_lanes == 0)?;
        self.in_lanes += 1;
        self.closed = barrier;
        Some(event)
    }

    /// One of the events in the lanes is done with.
    pub fn leave(&mut self) {
        self.in_lanes -= 1;
        self.closed = false;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use tokio::time::Instant;

    use super::super::lanes::{LaneId, Lanes, Place};
    use super::*;
    use crate::model::{EventRecord, Lsn, Offset};
    use crate::output::Batch;

    fn admitted(line: &mut Line<u32>) -> Vec<u32> {
        std::iter::from_fn(|| line.admit()).collect()
    }

    #[test]
    fn a_barrier_goes_alone() {
        let mut line = Line::default();
        for (event, barrier) in [(1, false), (2, false), (3, true), (4, false), (5, false)] {
            line.push(event, barrier);
        }
        assert_eq!(admitted(&mut line), [1, 2]);
        line.leave();
        assert!(admitted(&mut line).is_empty());
        line.leave();
        assert_eq!(admitted(&mut line), [3]);
        line.leave();
        assert_eq!(admitted(&mut line), [4, 5]);
    }

    #[test]
    fn barriers_go_one_after_the_other() {
        let mut line = Line::default();
        for event in 1..4 {
            line.push(event, true);
        }
        for event in 1..4 {
            assert_eq!(admitted(&mut line), [event]);
            line.leave();
        }
        assert!(admitted(&mut line).is_empty());
    }

    /// What an event of a test is about.
    #[derive(Debug, Clone, Copy)]
    enum About {
        Rows(u64, u64),
        All,
    }

    impl About {
        fn keeps_order_with(self, other: Self) -> bool {
            match (self, other) {
                (Self::Rows(a, b), Self::Rows(c, d)) => [a, b].iter().any(|x| [c, d].contains(x)),
                _ => true,
            }
        }
    }

    fn about() -> impl Strategy<Value = About> {
        let rows = (0..5_u64, 0..5_u64).prop_map(|(new, old)| About::Rows(new, old));
        prop_oneof![4 => rows, 1 => Just(About::All)]
    }

    /// Two feeds whose events go through lines and lanes, as the delivery puts them together.
    #[derive(Default)]
    struct Outlet {
        lines: [Line<(u64, About)>; 2],
        lanes: Lanes,
    }

    impl Outlet {
        fn admit(&mut self, feed: usize) {
            while let Some((seq, about)) = self.lines[feed].admit() {
                let lane = |key| LaneId(feed as u64 * 1000 + key);
                let lanes = match about {
                    About::Rows(new, old) => (lane(new), Some(lane(old))),
                    About::All => (lane(100 + seq), None),
                };
                let offset = Offset::new(Lsn(feed as u64), u32::try_from(seq).unwrap());
                let event = EventRecord { offset, key: Bytes::from("k"), json: Bytes::new() };
                self.lanes.push(lanes, Place { feed, seq }, event);
            }
        }

        fn push(&mut self, feed: usize, seq: u64, about: About) {
            self.lines[feed].push((seq, about), matches!(about, About::All));
            self.admit(feed);
        }

        fn finish(&mut self, lane: LaneId) {
            let (place, _) = self.lanes.finish(lane).expect("an event under way");
            self.lines[place.feed].leave();
            self.admit(place.feed);
        }
    }

    proptest! {
        /// However reading, failing and finishing take turns: each event is done once, all are, and
        /// none is sent before an earlier one of its feed that it keeps its order with is done.
        #[test]
        fn nothing_goes_past_a_barrier_and_nothing_is_lost_or_doubled(
            events in prop::collection::vec((0..2_usize, about()), 1..60),
            choices in prop::collection::vec((any::<Index>(), 0..4_u8), 1..200),
        ) {
            let (mut outlet, now) = (Outlet::default(), Instant::now());
            let mut unread: VecDeque<_> = events.iter().copied().collect();
            let mut read: [Vec<About>; 2] = Default::default();
            let mut done: [Vec<u64>; 2] = Default::default();
            let mut under_way = Vec::new();
            // When the choices are used up, what is left is read and finished.
            let rest = std::iter::repeat((choices[0].0, 0));
            let mut choices = choices.into_iter().chain(rest);
            loop {
                while let Some((lane, event)) = outlet.lanes.next(now, Batch::ONE).pop() {
                    let feed = usize::try_from(event.offset.commit.0).unwrap();
                    let seq = u64::from(event.offset.ordinal);
                    let about = read[feed][event.offset.ordinal as usize];
                    for (earlier, other) in (0..seq).zip(&read[feed]) {
                        let free = done[feed].contains(&earlier) || !about.keeps_order_with(*other);
                        prop_assert!(free, "{} was sent before {} was done", seq, earlier);
                    }
                    under_way.push((lane, feed, seq));
                }
                let (which, what) = choices.next().expect("they do not end");
                if let (true, Some((feed, about))) = (what % 2 == 0, unread.front().copied()) {
                    unread.pop_front();
                    read[feed].push(about);
                    outlet.push(feed, read[feed].len() as u64 - 1, about);
                } else if under_way.is_empty() {
                    if unread.is_empty() {
                        break;
                    }
                } else {
                    let (lane, feed, seq) = under_way.swap_remove(which.index(under_way.len()));
                    match what {
                        3 => {
                            outlet.lanes.fail(lane, now);
                            outlet.lanes.retry(lane, now);
                        }
                        _ => {
                            outlet.finish(lane);
                            done[feed].push(seq);
                        }
                    }
                }
            }
            for feed in 0..2 {
                done[feed].sort_unstable();
                let all: Vec<u64> = (0..read[feed].len() as u64).collect();
                prop_assert_eq!(&done[feed], &all);
            }
            prop_assert_eq!(outlet.lanes.copied(), 0);
        }
    }
}
