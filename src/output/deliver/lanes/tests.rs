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
    batch(lanes, now, 1).pop()
}

fn batch(lanes: &mut Lanes, now: Instant, events: usize) -> Vec<(u64, u64)> {
    let limit = Batch { events: events.try_into().unwrap(), bytes: usize::MAX, same_key: true };
    let batch = lanes.next(now, limit).into_iter();
    batch.map(|(id, event)| (id.0, event.offset.commit.0)).collect()
}

#[test]
fn a_batch_has_several_events_of_a_key_and_all_are_in_their_order() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    for (seq, lane) in (0..).zip([1, 2, 1, 1, 2]) {
        push(&mut lanes, lane, seq);
    }
    assert_eq!(batch(&mut lanes, now, 3), [(1, 0), (1, 2), (1, 3)]);
    push(&mut lanes, 1, 5);
    assert_eq!(batch(&mut lanes, now, 3), [(2, 1), (2, 4)]);
    for lane in [1, 1, 2, 2, 1] {
        assert_eq!(batch(&mut lanes, now, 3), [], "the lanes are under way");
        lanes.finish(LaneId(lane));
    }
    assert_eq!(batch(&mut lanes, now, 3), [(1, 5)]);
}

#[test]
fn what_was_not_tried_comes_before_everything_else_and_what_failed_comes_alone() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    for (seq, lane) in (0..).zip([1, 2, 1, 3, 2]) {
        push(&mut lanes, lane, seq);
    }
    assert_eq!(batch(&mut lanes, now, 9).len(), 5);
    lanes.finish(LaneId(1));
    lanes.fail(LaneId(2), now);
    lanes.retry(LaneId(2), now);
    lanes.put_back(&[2, 1, 3, 2].map(LaneId));
    push(&mut lanes, 4, 5);
    assert_eq!(batch(&mut lanes, now, 9), [(1, 2), (3, 3), (4, 5)]);
    assert_eq!(batch(&mut lanes, now, 9), [(2, 1)]);
    lanes.finish(LaneId(2));
    assert_eq!(batch(&mut lanes, now, 9), [(2, 4)]);
}

#[test]
fn a_batch_is_bounded_in_bytes_but_never_empty() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    for seq in 0..5 {
        push(&mut lanes, seq, seq);
    }
    let sizes = [0, 1, 4].map(|bytes| {
        let limit = Batch { events: 9.try_into().unwrap(), bytes, same_key: true };
        lanes.next(now, limit).len()
    });
    assert_eq!(sizes, [1, 1, 2]);
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
        size in 1..6_usize,
    ) {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        for (seq, pair) in (0..).zip(&events) {
            push_across(&mut lanes, *pair, seq);
        }
        let mut choices = choices.into_iter();
        let (mut under_way, mut done) = (Vec::new(), Vec::new());
        loop {
            loop {
                let batch = batch(&mut lanes, now, size);
                if batch.is_empty() {
                    break;
                }
                under_way.push(batch);
            }
            if under_way.is_empty() {
                break;
            }
            let mut choice = |len| choices.next().map_or(len - 1, |choice| choice.index(len));
            let batch = under_way.swap_remove(choice(under_way.len()));
            let taken = choice(batch.len() + 1);
            for &(lane, seq) in &batch[..taken] {
                let (a, b) = events[seq as usize];
                for (earlier, (c, d)) in (0..seq).zip(&events) {
                    let shares = [a, b].iter().any(|key| key == c || key == d);
                    proptest::prop_assert!(!shares || done.contains(&earlier));
                }
                lanes.finish(LaneId(lane));
                done.push(seq);
            }
            let rest: Vec<_> = batch[taken..].iter().map(|(lane, _)| LaneId(*lane)).collect();
            if let Some(&failed) = rest.first().filter(|_| choice(2) == 1) {
                lanes.fail(failed, now);
                lanes.retry(failed, now);
            }
            lanes.put_back(&rest);
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
    next(&mut lanes, now);
    assert_eq!(released(lanes.retry(LaneId(1), now)), [1, 2, 3]);
    push(&mut lanes, 1, 4);
    next(&mut lanes, now);
    assert_eq!(released(lanes.retry(LaneId(1), now)), [4]);
    assert_eq!(lanes.copied(), 4 * "k{}".len());
    while next(&mut lanes, now).is_some() {
        lanes.finish(LaneId(1));
    }
    assert_eq!(lanes.copied(), 0);
}
