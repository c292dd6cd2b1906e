//! What a plugin makes of events and keeps for itself is bounded, and nobody else suffers for it.

use super::*;
use crate::plugin::{Allow, Limits};

fn limited(limits: &str) -> PluginConfig {
    let limits: Limits = toml::from_str(limits).expect("limits");
    PluginConfig { limits, allow: Allow { kv: true, ..Allow::default() }, ..plugin_config() }
}

/// Splits each event in as many rows as its text says, each with the input's `title`.
pub(super) const SPLITS: Guest = Guest {
    fields: r#"(data (i32.const 512) "title")
        ;; one column, `title` = input 1, and one shape of it
        (data (i32.const 532) "\00\02\00\00\05\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00")
        (data (i32.const 600) "\00\00\00\00\00\00\00\00\00\00\00\00\14\02\00\00\01\00\00\00")"#,
    on_relation: "(i32.store (i32.const 1172) (i32.const 600)) (i32.store (i32.const 1176) (i32.const 1))",
    // One row for every event, then 999 more for the last.
    process: "(local.set $n (i32.load (local.get 0)))
        (memory.fill (i32.const 131072) (i32.const 2) (local.get $n))
        (memory.fill (i32.const 140000) (i32.const 0) (i32.const 8000))
        (i32.store (i32.const 1300) (i32.const 140000))
        (i32.store (i32.const 1308) (i32.const 150000))
        (i32.store (i32.const 1304) (i32.add (local.get $n) (i32.const 999)))
        (i32.store (i32.const 1312) (i32.add (local.get $n) (i32.const 999)))
        (local.set $n (i32.const 0))
        (loop $next
          (i32.store (i32.add (i32.const 140000) (i32.mul (local.get $n) (i32.const 4)))
            (select (local.get $n) (i32.sub (i32.load (local.get 0)) (i32.const 1))
              (i32.lt_u (local.get $n) (i32.load (local.get 0)))))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $n)
            (i32.add (i32.load (local.get 0)) (i32.const 999)))))",
    ..PASS
};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_a_plugin_blows_up_goes_to_the_dead_letters_and_its_neighbours_on() {
    let mut house = House::new();
    let titles = ["short", "short", "x".repeat(20_000).leak()];
    for title in titles {
        let change = house.insert(1, title);
        house.commit(&[change], 1).await;
    }
    let registry = house.plugin_with(&SPLITS, limited("event_output = \"1MiB\""));
    house.run(&registry, config(OnError::DeadLetter)).await;
    let letters = house.store.dead_letters(10).expect("dead letters");
    let [(_, letter)] = letters.as_slice() else { panic!("{} dead letters", letters.len()) };
    assert_eq!(letter.event, "0/300/0");
    assert_eq!(
        letter.reason,
        "made more than 1MiB of one event: raise `plugins.guest.limits.event_output`"
    );
    assert!(house.ids().iter().any(|id| id.starts_with("0/100/")));
    assert!(house.ids().iter().any(|id| id.starts_with("0/200/")));
}

/// Sets keys `a`, `aa`, and so on to 64 KiB each, until it is refused for its quota.
const FLOOD: Guest = Guest {
    imports: r#"(import "walmill:plugin/kv@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))"#,
    process: "(memory.fill (i32.const 2048) (i32.const 97) (i32.const 1024))
        (loop $more
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (if (i32.gt_u (local.get $n) (i32.const 1024)) (then unreachable))
          (call $set (i32.const 2048) (local.get $n) (i32.const 140000) (i32.const 65536)
            (i32.const 1632))
          (br_if $more (i32.eqz (i32.load8_u (i32.const 1632)))))
        ;; of the errors, it is `quota`
        (if (i32.ne (i32.load8_u (i32.const 1636)) (i32.const 1)) (then unreachable))",
    ..PASS
};

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_state_ends_at_its_quota_and_is_an_answer_to_the_plugin() {
    let mut house = House::new();
    let registry = house.plugin_with(&FLOOD, limited("state = \"1MiB\""));
    for _ in 0..3 {
        let change = house.insert(1, "x");
        house.commit(&[change], 1).await;
        house.run(&registry, config(OnError::DeadLetter)).await;
    }
    assert_eq!(house.ids().len(), 3);
    assert!(house.store.dead_letters(10).expect("dead letters").is_empty());
    let size = house.store.plugin_state_size("guest").expect("a size");
    assert!((900_000..=1 << 20).contains(&size), "{size}");
    assert_eq!(house.store.plugin_state_size("gues").expect("a size"), 0);
}

/// Rejects the fourth event of a call.
const CHECKS: Guest = Guest {
    fields: r#"(data (i32.const 512) "no")"#,
    process: "(memory.fill (i32.const 131072) (i32.const 0) (i32.load (local.get 0)))
        (if (i32.gt_u (i32.load (local.get 0)) (i32.const 3)) (then
          (i32.store8 (i32.const 131075) (i32.const 3))
          (i32.store (i32.const 140000) (i32.const 512)) (i32.store (i32.const 140004) (i32.const 2))
          (i32.store (i32.const 1364) (i32.const 140000))
          (i32.store (i32.const 1368) (i32.const 1))))",
    ..PASS
};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_split_is_set_aside_whole_when_a_later_plugin_fails_on_one_of_its_rows() {
    let mut house = House::new();
    let changes = [1, 2, 3].map(|id| house.insert(id, "x"));
    house.commit(&changes, 10).await;
    // Three rows of the last change, of which the second is rejected.
    let split = Guest { process: SPLITS.process.replace("999", "2").leak(), ..SPLITS };
    let registry = house.plugins(&[("split", &split), ("check", &CHECKS)], &plugin_config());
    let plugins = vec!["split".into(), "check".into()];
    house.run(&registry, Config { plugins, ..config(OnError::DeadLetter) }).await;
    assert_eq!(house.ids(), ["0/100/0", "0/100/1"]);
    let letters = house.store.dead_letters(10).expect("dead letters");
    let letters: Vec<_> = letters.iter().map(|(_, letter)| letter.event.as_str()).collect();
    assert_eq!(letters, ["0/100/2"]);
}
