//! A soak: random transactions and random faults of everything around walmill, with all outputs at
//! once, for as long as one likes.
//!
//! It goes in rounds. In the storm of a round sessions write while things go wrong. Then all is
//! well again, and once walmill is quiet, what each output got is compared with what committed:
//! nothing lost, nothing invented, each row's changes in order, what came twice the same, memory
//! bounded. Then walmill is ended in peace, and what an output had taken by then must not come
//! again.
//!
//! `WALMILL_SOAK=2h` says for how long, `WALMILL_SOAK_SEED` repeats a run: the same transactions of
//! each session and the same faults at the same times. How they meet is the machine's affair.

#[cfg(feature = "kafka")]
mod kafka;
mod ledger;
#[cfg(feature = "mutations")]
mod mutants;
mod plan;
mod promise;
mod readers;
#[path = "../it/webhook/receiver.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod receiver;
mod run;
#[path = "../it/brokers/server.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod server;
mod sinks;
mod stage;
mod support;
mod workload;
mod world;

use std::time::Duration;

use walmill::model::Period;

use plan::{Draw, EVERYTHING};
use run::{Outcome, Soak};

/// Without another word.
const TIME: Duration = Duration::from_secs(75);

fn seed() -> u64 {
    match std::env::var("WALMILL_SOAK_SEED") {
        Ok(seed) => seed.parse().expect("WALMILL_SOAK_SEED is a number"),
        Err(_) => rand::random(),
    }
}

fn time() -> Duration {
    let Ok(time) = std::env::var("WALMILL_SOAK") else { return TIME };
    let time: Period = time.parse().expect("WALMILL_SOAK is a time, as 2h");
    time.duration()
}

fn report(soak: &Soak, outcome: &Outcome) {
    let Outcome { broken, story, .. } = outcome;
    let Some(broken) = broken else { return };
    panic!(
        "{broken}\n\nwhat happened, in seconds:\n{story}\nto run it again:\n  \
         WALMILL_SOAK_SEED={} cargo nextest run --release --no-capture -E 'binary(soak)'",
        soak.seed
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_each_output_gets_what_committed_and_each_row_in_order() {
    let draw = Draw {
        kinds: EVERYTHING,
        round: Duration::from_secs(10),
        every: Duration::from_millis(700),
    };
    let patience = Duration::from_secs(120);
    let (variables, sync_interval) = (Vec::new(), "20ms");
    let soak = Soak { seed: seed(), time: time(), draw, patience, sync_interval, variables };
    println!("WALMILL_SOAK_SEED={}", soak.seed);
    let outcome = soak.run().await;
    report(&soak, &outcome);
    println!(
        "{} rounds, {} events, {} came again, {} MiB at most",
        outcome.rounds, outcome.events, outcome.again, outcome.memory
    );
    assert!(outcome.events > 100, "only {} events", outcome.events);
}
