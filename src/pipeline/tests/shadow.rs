//! Two versions over the same events, with no effect outside.

use std::time::Duration;

use super::super::shadow::{Range, Trial, compare};
use super::*;
use crate::model::EventId;
use crate::model::replay::Times;
use crate::model::shadow::{Comparison, Verdict};
use crate::plugin::{Allow, Plugin};

/// Drops every event.
const DROP: Guest = Guest {
    process: "(memory.fill (i32.const 131072) (i32.const 1) (i32.load (local.get 0)))",
    ..PASS
};

/// Reads `k`, traps where it is there, and sets it.
const FIRST_ONLY: Guest = Guest {
    imports: r#"(import "walmill:plugin/kv@0.1.0" "get" (func $get (param i32 i32 i32)))
                (import "walmill:plugin/kv@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))"#,
    fields: r#"(data (i32.const 512) "kv")"#,
    process: "(call $get (i32.const 512) (i32.const 1) (i32.const 1600))
              (if (i32.load8_u (i32.const 1600)) (then unreachable))
              (if (i32.load8_u (i32.const 1604)) (then unreachable))
              (call $set (i32.const 512) (i32.const 1) (i32.const 513) (i32.const 1) (i32.const 1632))",
    ..PASS
};

fn load(house: &House, guest: &Guest, allow: Allow) -> Arc<Plugin> {
    let path = house.folder.join("trial.wasm");
    std::fs::write(&path, guest.bytes()).expect("write the plugin");
    let config = PluginConfig { path, allow, ..plugin_config() };
    let configs = BTreeMap::from([("guest".to_owned(), config)]);
    let registry =
        Registry::open(&Engine::new(None).expect("an engine"), configs, Arc::new(Metrics::new()));
    registry.expect("a plugin that loads").snapshot().by_name["guest"].clone()
}

fn trial(before: &Arc<Plugin>, after: &Arc<Plugin>, range: Range) -> Trial {
    Trial {
        config: config(OnError::DeadLetter),
        before: vec![before.clone()],
        after: vec![after.clone()],
        range,
        times: Times::default(),
        examples: 2,
        longest: Duration::from_secs(10),
        cancel: CancellationToken::new(),
    }
}

/// Twelve events in four transactions, of several blocks each.
async fn twelve() -> (House, Vec<Lsn>) {
    let mut house = House::new();
    let mut commits = Vec::new();
    for first in [1, 4, 7, 10] {
        let rows: Vec<_> = (first..first + 3).map(|id| house.insert(id, "a title")).collect();
        commits.push(house.commit(&rows, 2).await);
    }
    (house, commits)
}

fn id(commit: Lsn, ordinal: u32) -> Option<String> {
    Some(EventId(Offset::new(commit, ordinal)).to_string())
}

#[tokio::test]
async fn the_last_events_are_compared_and_the_first_differences_shown() {
    let (house, commits) = twelve().await;
    let [pass, drop] = [PASS, DROP].map(|guest| load(&house, &guest, Allow::default()));
    let comparison = compare(&house.store, &trial(&pass, &drop, Range::Last(5))).expect("no fault");
    let Comparison { events, differ, first, last, before, after, examples, cut, .. } = comparison;
    assert_eq!((events, differ, cut), (5, 5, None));
    assert_eq!((first, last), (id(commits[2], 1), id(commits[3], 2)));
    assert_eq!((before.emitted, after.dropped, after.failed), (5, 5, 0));
    assert_eq!(examples.len(), 2);
    assert_eq!(
        (examples[0].table.as_str(), &examples[0].after),
        ("public.posts", &Verdict::Dropped)
    );
    let Verdict::Emitted { events } = &examples[0].before else { panic!("{examples:?}") };
    assert!(events[0].contains(r#""record":{"id":8,"title":"a title"}"#), "{events:?}");

    let range = Range::Between(Offset::end_of(commits[0]), Offset::end_of(commits[1]));
    let same = compare(&house.store, &trial(&pass, &pass, range)).expect("no fault");
    assert_eq!((same.events, same.differ, same.last), (3, 0, id(commits[1], 2)));
    let all = compare(&house.store, &trial(&pass, &pass, Range::Last(1000))).expect("no fault");
    assert_eq!((all.events, all.first), (12, id(commits[0], 0)));
}

#[tokio::test]
async fn a_version_that_breaks_on_every_event_is_told_from_one_that_does_not() {
    let (house, _) = twelve().await;
    let trap = Guest { process: "unreachable", ..PASS };
    let [pass, trap] = [PASS, trap].map(|guest| load(&house, &guest, Allow::default()));
    let found = compare(&house.store, &trial(&pass, &trap, Range::Last(12))).expect("no fault");
    assert_eq!((found.after.failed, found.before.failed, found.differ), (12, 0, 12));
    assert_eq!(found.after.errors.len(), 1);
    assert!(found.after.errors[0].contains("unreachable"), "{:?}", found.after.errors);
    let both = compare(&house.store, &trial(&trap, &trap, Range::Last(12))).expect("no fault");
    assert_eq!((both.differ, both.before.failed), (0, 12), "it was no better before");
    let cancelled = trial(&pass, &trap, Range::Last(12));
    cancelled.cancel.cancel();
    assert!(compare(&house.store, &cancelled).expect("no fault").cut.is_some());
}

#[tokio::test]
async fn what_a_side_writes_it_reads_again_and_nobody_else_does() {
    let (house, _) = twelve().await;
    let state = load(&house, &FIRST_ONLY, Allow { kv: true, ..Allow::default() });
    // Each side sees `k` missing once, and its own write from then on.
    let range = Range::Last(2);
    let found = compare(&house.store, &trial(&state, &state, range)).expect("no fault");
    assert_eq!((found.before.emitted, found.before.failed), (1, 1));
    assert_eq!((found.after.emitted, found.after.failed), (1, 1));
    assert_eq!(house.store.plugin_state("guest", "k").expect("no fault"), None);
    assert!(
        house.store.streams().is_empty() && house.store.dead_letters(9).expect("ok").is_empty()
    );
    assert_eq!(house.store.pipeline_cursor("posts").expect("no fault"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_ends_when_its_time_on_the_clock_is_over() {
    let (house, _) = twelve().await;
    let plugin = load(&house, &PASS, Allow::default());
    let trial = Trial { longest: Duration::ZERO, ..trial(&plugin, &plugin, Range::Last(100)) };
    let comparison = compare(&house.store, &trial).expect("it can be compared");
    assert_eq!((comparison.events, comparison.cut.as_deref()), (0, Some("it had taken 0 s")));
}
