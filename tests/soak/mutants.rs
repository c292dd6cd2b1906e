//! The soak notices: walmills that break one promise each, on purpose, do not get through a short
//! one. What is found must be what was broken.

use std::time::Duration;

use crate::plan::{Draw, Kind};
use crate::promise::Promise;
use crate::run::Soak;

/// Faults strike at random, so the one that matters may miss; then another seed is tried.
const TRIES: u64 = 5;

/// A short soak of a walmill that is mutated so, with these faults.
async fn caught(mutation: &str, kinds: &'static [Kind], promises: &[Promise]) {
    for seed in 1..=TRIES {
        let draw = Draw { kinds, round: Duration::from_secs(4), every: Duration::from_millis(400) };
        let soak = Soak {
            seed,
            time: Duration::from_secs(6),
            draw,
            patience: Duration::from_secs(30),
            // So long that there is always something that is not on disk.
            sync_interval: "300ms",
            variables: vec![("WALMILL_MUTATION", mutation.to_owned())],
        };
        if let Some(broken) = soak.run().await.broken {
            println!("{mutation}, seed {seed}: {broken}");
            assert!(promises.contains(&broken.promise), "{mutation} is something else: {broken}");
            return;
        }
    }
    panic!("{mutation} was not noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_position_that_is_confirmed_before_it_is_on_disk_is_noticed() {
    let promises = [Promise::NothingLost, Promise::GoesOn];
    caught("confirm-early", &[Kind::PowerCut], &promises).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sync_that_is_skipped_is_noticed() {
    let promises = [Promise::NothingLost, Promise::GoesOn];
    caught("skip-sync", &[Kind::PowerCut], &promises).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_output_s_checkpoint_that_is_forgotten_is_noticed() {
    caught("forget-checkpoint", &[Kind::Kill], &[Promise::NotAgain]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cursor_that_is_written_before_its_events_is_noticed() {
    caught("split-commit", &[Kind::Kill], &[Promise::NothingLost]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_that_overtakes_one_of_its_key_that_failed_is_noticed() {
    caught("overtake", &[Kind::Receiver], &[Promise::OrderPerKey]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_that_are_dropped_when_a_delivery_fails_are_noticed() {
    let kinds = &[Kind::Receiver, Kind::Broker, Kind::Cut];
    caught("drop-failed", kinds, &[Promise::NothingLost]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_that_is_never_given_back_is_noticed() {
    caught("hoard", &[Kind::Swap], &[Promise::Bounded]).await;
}
