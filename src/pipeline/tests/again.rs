//! Dead letters that are tried again.

use super::*;
use crate::store::dead_letter::Filter;

fn all() -> Filter {
    Filter { all: true, ..Filter::default() }
}

/// Three changes, of which the second fails.
async fn house_with_a_letter() -> (House, Registry) {
    let mut house = House::new();
    let changes = [house.insert(0, "x"), house.truncate(), house.insert(2, "x")];
    house.commit(&changes, 2).await;
    let registry = house.plugin(&failing("unreachable"));
    house.run(&registry, config(OnError::DeadLetter)).await;
    (house, registry)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_goes_through_a_mended_plugin_under_its_id_behind_what_is_newest() {
    let (mut house, registry) = house_with_a_letter().await;
    let newer = house.insert(3, "newer");
    house.commit(&[newer], 1).await;
    house.run(&registry, config(OnError::DeadLetter)).await;
    registry.offer("guest", PASS.bytes()).expect("a version that loads");
    let marked = house.store.retry_dead_letters(&all(), |_| true).expect("it is marked");
    assert_eq!(marked.ids, [1]);
    house.run(&registry, config(OnError::DeadLetter)).await;
    assert_eq!(house.ids(), ["0/100/0", "0/100/2", "0/200/0", "0/100/1"]);
    let events = house.events();
    let replayed: Vec<_> = events.iter().map(|event| event["replayed"] == true).collect();
    assert_eq!(replayed, [false, false, false, true]);
    assert_eq!(events[3]["txend"], Value::Null, "nobody knows that it is the last");
    assert!(house.store.dead_letters(10).expect("dead letters").is_empty());
    // The pipeline's own way was not touched.
    let next = house.insert(4, "next");
    house.commit(&[next], 1).await;
    house.run(&registry, config(OnError::DeadLetter)).await;
    assert_eq!(house.ids().last().map(String::as_str), Some("0/300/0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_fails_again_stays_and_has_both_tries() {
    let (house, registry) = house_with_a_letter().await;
    let counted = || registry.snapshot().by_name["guest"].seen_and_failed();
    let before = counted();
    house.store.retry_dead_letters(&all(), |_| true).expect("it is marked");
    // Where failures stop the pipeline, or are skipped, one that a person asked for is kept too.
    for policy in [OnError::DeadLetter, OnError::Stop, OnError::Skip] {
        house.store.retry_dead_letters(&all(), |_| true).expect("it is marked");
        house.run(&registry, config(policy)).await;
    }
    let letters = house.store.dead_letters(10).expect("dead letters");
    let [(1, letter)] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.attempts, letter.tries.len(), letter.retrying), (4, 4, false));
    assert_eq!(counted(), before, "it is no reason to take a version back");
    assert_eq!(house.ids(), ["0/100/0", "0/100/2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_has_a_copy_of_its_change_for_when_the_journal_lets_go_of_it() {
    let (house, _) = house_with_a_letter().await;
    let letters = house.store.dead_letters(10).expect("dead letters");
    let change = letters[0].1.change.clone().expect("a copy");
    assert_eq!((change.commit, change.ordinal, change.xid), (Lsn(0x100), 1, 9));
    assert_eq!((change.time, &change.frame[..]), (1_000_000, &house.truncate()[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_a_table_that_is_not_taken_any_more_says_so_and_stays() {
    let (house, registry) = house_with_a_letter().await;
    registry.offer("guest", PASS.bytes()).expect("a version that loads");
    house.store.retry_dead_letters(&all(), |_| true).expect("it is marked");
    let other = r#"name = "posts"
        tables = ["public.comments"]
        plugins = ["guest"]"#;
    house.run(&registry, toml::from_str(other).expect("a config")).await;
    let letters = house.store.dead_letters(10).expect("dead letters");
    let last = letters[0].1.tries.last().expect("a try");
    assert_eq!(last.error, "the pipeline does not take its table any more");
}
