//! Where the events since a time begin.

use proptest::prelude::*;

use super::*;
use crate::model::Lsn;
use crate::model::event::EventsBuilder;
use crate::store::Store;
use crate::store::testing::{open, outcome};

/// One transaction at these times, a second apart from each other by number.
fn run(commit: u64, times: &[u8]) -> Events {
    let mut run = EventsBuilder::default();
    for (ordinal, second) in (0..).zip(times) {
        let json = format!("{{\"id\":\"x\",\"time\":\"1970-01-01T00:00:{second:02}.000000Z\"}}");
        run.committed(micros(*second));
        let offset = Offset::new(Lsn(commit), ordinal);
        run.push(offset, |key| key.extend(b"public.t/1"), |to| to.extend(json.as_bytes()));
    }
    run.finish()
}

fn micros(second: u8) -> i64 {
    i64::from(second) * 1_000_000
}

/// The place of every event with its time.
fn commit(store: &Store, commits: &[Vec<u8>]) -> Vec<(Offset, i64)> {
    let mut all = Vec::new();
    for (commit, times) in (1_u64..).zip(commits) {
        let events = run(8 * commit, times);
        let places = events.after(Offset::START).map(|event| event.offset);
        all.extend(places.zip(times.iter().map(|second| micros(*second))));
        store.commit(outcome("p", 8 * commit, vec![("s", events)])).unwrap();
    }
    all
}

/// The same, found by looking at every event that ever was.
fn by_hand(all: &[(Offset, i64)], stream: &Stream, time: i64) -> Since {
    let Some(at) = all.iter().position(|(_, committed)| *committed >= time) else {
        return Since::Kept(*stream.head().borrow());
    };
    let (place, purged) = (all[at].0, stream.purged());
    match at.checked_sub(1).map(|before| all[before].0) {
        _ if place <= purged => Since::Removed(purged),
        before => Since::Kept(before.unwrap_or(Offset::START).max(purged)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn events_since_a_time_begin_with_the_first_of_them_in_the_stream_whatever_the_clocks_did(
        commits in prop::collection::vec(prop::collection::vec(0_u8..60, 1..4), 1..20),
        kept_from in 0_u64..20,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let all = commit(&store, &commits);
        let stream = store.stream("s").unwrap();
        let check = |stream: &Stream| {
            for time in (0..=61).step_by(3).map(micros) {
                let (found, expected) = (stream.since(time).unwrap(), by_hand(&all, stream, time));
                assert!(same(stream, found, expected), "{time}: {found:?}, not {expected:?}");
            }
        };
        check(&stream);
        stream.log.drop_before(|entry| entry.last.commit.0 >= 8 * kept_from).unwrap();
        check(&stream);
        drop(stream);
        store.close().unwrap();
        drop(store);
        let store = open(dir.path());
        check(&store.stream("s").unwrap());
        store.close().unwrap();
    }
}

/// Two places are one if nothing lies between them.
fn same(stream: &Stream, found: Since, expected: Since) -> bool {
    let next = |after| match stream.read(after).unwrap() {
        Read::Events(events) => events.after(after).next().map(|event| event.offset),
        Read::End => None,
        Read::Gap { purged } => Some(purged),
    };
    match (found, expected) {
        (Since::Kept(one), Since::Kept(other)) => next(one) == next(other),
        (one, other) => one == other,
    }
}

#[test]
fn what_comes_again_is_no_younger_than_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = commit(&store, &[vec![10], vec![20], vec![30]]);
    let again = vec![("s".to_owned(), run(8, &[10]))];
    let place = crate::store::Again::Letter(1);
    let outcome =
        crate::store::Outcome { events: again, again: Some(place), ..outcome("p", 24, vec![]) };
    store.commit(outcome).unwrap();
    let stream = store.stream("s").unwrap();
    assert_eq!(stream.since(micros(10)).unwrap(), Since::Kept(Offset::START));
    assert_eq!(stream.since(micros(25)).unwrap(), Since::Kept(all[1].0));
    assert_eq!(stream.since(micros(31)).unwrap(), Since::Kept(*stream.head().borrow()));
}
