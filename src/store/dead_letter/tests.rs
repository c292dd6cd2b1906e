use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::metrics::Metrics;
use crate::model::{Lsn, Offset, clock};
use crate::store::{Config, Store};

fn open(folder: &Path, dead_letters: LetterRetention) -> Store {
    let config = Config { path: folder.join("data"), dead_letters, ..Config::default() };
    Store::open(&config, Arc::new(Metrics::new())).expect("a store")
}

fn letter(time: i64) -> DeadLetter {
    DeadLetter {
        event: "0/A/0".into(),
        by: By::Output { output: "hook".into(), stream: "s".into() },
        reason: "answered 422: no such customer".into(),
        time,
        attempts: 1,
        retrying: false,
        tries: Vec::new(),
        change: None,
        key: Some("public.t/1".into()),
        payload: RawValue::from_string("{\"id\":\"0/A/0\",\"data\":1}".into()).expect("JSON"),
    }
}

fn write(store: &Store, letters: Vec<DeadLetter>) {
    store.save_checkpoint("hook", "s", Offset::new(Lsn(10), 0), letters).expect("a write");
}

fn ids(store: &Store) -> Vec<u64> {
    let letters = store.dead_letters(100).expect("a read");
    letters.iter().map(|(id, _)| *id).collect()
}

#[test]
fn the_oldest_go_when_they_are_too_old_too_many_or_too_much() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = LetterRetention { count: 3, ..LetterRetention::default() };
    let store = open(folder.path(), limits.clone());
    let now = clock::now();
    let old = now - 31 * 86_400_000_000;
    write(&store, vec![letter(old), letter(now), letter(now), letter(now), letter(now)]);
    store.inner.retain_dead_letters(now).expect("it removes");
    assert_eq!(ids(&store), [5, 4, 3], "one was too old, and one too many");
    let metrics = store.inner.metrics.encode().expect("text");
    assert!(metrics.contains("walmill_dead_letters_kept 3"), "{metrics}");
    assert!(metrics.contains("walmill_dead_letters_expired_total 2"), "{metrics}");
    store.close().expect("it closes");
    drop(store);
    let store = open(folder.path(), LetterRetention { size: ByteSize::new(1), ..limits });
    store.inner.retain_dead_letters(now).expect("it removes");
    assert!(ids(&store).is_empty());
    assert_eq!(
        store.inner.dead_letters.kept(),
        Delta::default(),
        "what is counted is what is there"
    );
}

#[test]
fn what_is_to_be_tried_again_is_still_so_after_opening_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), LetterRetention::default());
    write(&store, vec![letter(1), letter(2)]);
    let second = Filter { ids: vec![2], ..Filter::default() };
    assert_eq!(store.retry_dead_letters(&second, |_| true).expect("a mark").ids, [2]);
    assert!(store.retry_dead_letters(&second, |_| true).expect("a mark").ids.is_empty());
    store.close().expect("it closes");
    drop(store);
    let store = open(folder.path(), LetterRetention::default());
    let next = |behind| store.next_dead_letter(Owner::Output("hook"), behind).expect("a read");
    let (id, letter) = next(0).expect("a letter");
    assert!(id == 2 && letter.retrying && next(2).is_none());
    assert!(store.next_dead_letter(Owner::Pipeline("hook"), 0).expect("a read").is_none());
    let event = letter.delivered_again().expect("an event");
    assert_eq!(event.json, "{\"id\":\"0/A/0\",\"replayed\":true,\"data\":1}");
    store.dead_letter_delivered(2).expect("a write");
    assert_eq!((ids(&store), next(0).is_none()), (vec![1], true));
    // One that was dropped meanwhile does not come back.
    store.drop_dead_letters(&Filter { all: true, ..Filter::default() }).expect("a write");
    store.dead_letter_failed(1, &letter).expect("a write");
    assert!(ids(&store).is_empty());
}

#[test]
fn a_filter_means_what_fits_everything_in_it() {
    let letter = letter(1);
    let fits = |filter: Filter| filter.fits(7, &letter);
    let text = |text: &str| Some(text.to_owned());
    assert!(fits(Filter { output: text("hook"), stream: text("s"), ..Filter::default() }));
    assert!(fits(Filter { reason: text("customer"), ids: vec![6, 7], ..Filter::default() }));
    assert!(!fits(Filter { output: text("hook"), stream: text("t"), ..Filter::default() }));
    assert!(!fits(Filter { plugin: text("hook"), ..Filter::default() }));
    assert!(!fits(Filter { ids: vec![6], ..Filter::default() }));
    assert!(!Filter::default().names_any());
}
