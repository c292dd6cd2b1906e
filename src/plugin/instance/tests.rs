mod hostile;

use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use super::super::guests::{
    FINDINGS, FOREVER, Folder, Guest, MEMORY_BOMB, PASS, TRAP_ON_TRUNCATE, batch, config, relation,
};
use super::super::{Allow, Config, Engine, NoState, Reason, Registry, Scratch, StateError};
use super::*;
use crate::metrics::Metrics;
use crate::plugin::bindings::Mode;

#[test]
fn a_guest_without_a_word_passes_everything() {
    let mut instance = PASS.start();
    let plan = instance.on_relation(&relation(1)).unwrap();
    assert_eq!((plan.mode, plan.needs, plan.shapes.len()), (Mode::Call, vec![], 0));
    let outcome = instance.process(&batch(&[0, 1, 2]), 0).unwrap();
    assert_eq!(outcome.verdicts, [0, 0, 0]);
}

/// Starts the guest and runs a truncate through it, and says how that fails and what follows.
fn check(guest: Guest, expected: Expect) {
    let mut instance = guest.start();
    let error = instance
        .on_relation(&relation(1))
        .and_then(|_| instance.process(&batch(&[3]), 0))
        .unwrap_err();
    let next = instance.process(&batch(&[0]), 0).err().map_or("alive".into(), |e| e.to_string());
    expected.assert_eq(&format!("{error}\n{next}"));
}

#[test]
fn a_trap_ends_the_instance_and_names_the_functions_it_happened_in() {
    let guest = Guest {
        fields: "(func $inner unreachable) (func $outer (call $inner))",
        process: "(call $outer)",
        ..PASS
    };
    check(
        guest,
        expect![[r#"
            wasm trap: wasm `unreachable` instruction executed in inner < outer < process
            the instance is dead, since it trapped: wasm trap: wasm `unreachable` instruction executed in inner < outer < process"#]],
    );
}

#[test]
fn a_plugin_may_trap_on_one_event_and_a_fresh_instance_goes_on() {
    let plugin = Guest { process: TRAP_ON_TRUNCATE, ..PASS }.load(config());
    let start = || plugin.instantiate(0, 1, false, Arc::new(Mutex::new(NoState))).unwrap();
    let mut instance = start();
    instance.on_relation(&relation(1)).unwrap();
    assert!(instance.process(&batch(&[0]), 0).is_ok());
    assert!(matches!(instance.process(&batch(&[3, 0]), 0), Err(CallError::Trap(_))));
    assert!(!instance.is_alive());
    let mut fresh = start();
    fresh.on_relation(&relation(1)).unwrap();
    assert!(fresh.process(&batch(&[0]), 0).is_ok());
}

#[test]
fn an_endless_loop_ends_at_the_deadline() {
    check(
        Guest { process: FOREVER, ..PASS },
        expect![[r#"
            took more than 50ms of processor time: raise `plugins.guest.limits.deadline`
            the instance is dead, since it took more than 50ms of processor time: raise `plugins.guest.limits.deadline`"#]],
    );
}

#[test]
fn endless_recursion_ends_at_the_stack_s_end() {
    let guest = Guest {
        fields: "(func $down (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))",
        process: "(drop (call $down (i32.const 0)))",
        ..PASS
    };
    let mut instance = guest.start();
    instance.on_relation(&relation(1)).unwrap();
    let error = instance.process(&batch(&[3]), 0).unwrap_err().to_string();
    assert!(error.starts_with("wasm trap: call stack exhausted in down < down"), "{error}");
}

#[test]
fn a_memory_bomb_ends_at_the_limit() {
    check(
        Guest { process: MEMORY_BOMB, ..PASS },
        expect![[r#"
            used more than 16MiB of memory: raise `plugins.guest.limits.memory`
            the instance is dead, since it used more than 16MiB of memory: raise `plugins.guest.limits.memory`"#]],
    );
}

#[test]
fn a_guest_that_does_without_the_memory_it_was_refused_lives_on() {
    let process = "(drop (memory.grow (i32.const 60000)))";
    let mut instance = Guest { process, ..PASS }.start();
    instance.on_relation(&relation(1)).unwrap();
    assert!(instance.process(&batch(&[0]), 0).is_ok());
}

#[test]
fn tables_cannot_grow_without_end() {
    let guest = Guest {
        fields: "(table $t 0 funcref)",
        process: "(if (i32.ne (table.grow $t (ref.null func) (i32.const 100000000)) (i32.const -1))
                    (then unreachable))",
        ..PASS
    };
    let mut instance = guest.start();
    instance.on_relation(&relation(1)).unwrap();
    assert!(instance.process(&batch(&[0]), 0).is_ok());
}

#[test]
fn handing_over_too_much_ends_the_instance() {
    // 20,000 reasons, which are all the same 64 KiB.
    let process = "(local.set $n (i32.const 300000))
        (loop $more
          (i32.store (local.get $n) (i32.const 131072))
          (i32.store offset=4 (local.get $n) (i32.const 65536))
          (local.set $n (i32.add (local.get $n) (i32.const 8)))
          (br_if $more (i32.lt_u (local.get $n) (i32.const 460000))))
        (i32.store (i32.const 1364) (i32.const 300000))
        (i32.store (i32.const 1368) (i32.const 20000))";
    check(
        Guest { process, ..PASS },
        expect![[r#"
            handed over more than 64MiB in one call: raise `plugins.guest.limits.output`
            the instance is dead, since it handed over more than 64MiB in one call: raise `plugins.guest.limits.output`"#]],
    );
}

#[test]
fn a_list_outside_of_the_guest_s_memory_ends_the_instance() {
    check(
        Guest { process: "(i32.store (i32.const 1288) (i32.const -1))", ..PASS },
        expect![[r#"
            list pointer/length out of bounds of memory
            the instance is dead, since it trapped: list pointer/length out of bounds of memory"#]],
    );
}

#[test]
fn an_answer_that_does_not_hold_together_fails_the_call_only() {
    check(
        Guest { process: "(i32.store (i32.const 1288) (i32.const 7))", ..PASS },
        expect![[r#"
            returned a wrong outcome: 7 verdicts for 1 events
            returned a wrong outcome: 7 verdicts for 1 events"#]],
    );
}

#[test]
fn what_the_plugin_says_about_its_failure_is_passed_on_without_control_characters() {
    let guest = Guest {
        fields: r#"(data (i32.const 512) "no\1b[2J such\0a")"#,
        process: "(i32.store8 (i32.const 1280) (i32.const 1))
            (i32.store (i32.const 1284) (i32.const 512)) (i32.store (i32.const 1288) (i32.const 12))",
        ..PASS
    };
    check(
        guest,
        expect![[r#"
            no\u{1b}[2J such\n
            no\u{1b}[2J such\n"#]],
    );
}

/// How loading the guest fails.
fn refused(guest: Guest, config: Config) -> Reason {
    let folder = Folder::new();
    let path = folder.join("guest.wasm");
    std::fs::write(&path, guest.bytes()).unwrap();
    let configs = BTreeMap::from([("guest".to_owned(), Config { path, ..config })]);
    let opened = Registry::open(&Engine::new(None).unwrap(), configs, Arc::new(Metrics::new()));
    opened.err().unwrap().remove(0).1.reason
}

#[test]
fn limits_hold_at_every_way_into_the_guest() {
    let start = "(func $main (loop $forever (br $forever))) (start $main)";
    for (call, guest) in [
        ("start", Guest { fields: start, ..PASS }),
        ("describe", Guest { describe: FOREVER, ..PASS }),
        ("init", Guest { init: FOREVER, ..PASS }),
        // The config is the first text that is written into the guest.
        ("init", Guest { realloc: FOREVER, ..PASS }),
    ] {
        match refused(guest, config()) {
            Reason::Call { call: found, error: CallError::Deadline { .. } } => {
                assert_eq!(found, call);
            }
            other => panic!("{call}: {other}"),
        }
    }
    let mut instance = Guest { on_relation: FOREVER, ..PASS }.start();
    let error = instance.on_relation(&relation(1)).unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
}

#[test]
fn a_trap_in_the_start_function_and_too_large_a_memory_are_told_apart() {
    let trap = Guest { fields: "(func $main unreachable) (start $main)", ..PASS };
    assert!(matches!(
        refused(trap, config()),
        Reason::Call { call: "start", error: CallError::Trap(_) }
    ));
    let small = Config { limits: toml::from_str("memory = \"64KiB\"").unwrap(), ..config() };
    assert!(matches!(
        refused(PASS, small),
        Reason::Call { call: "start", error: CallError::Memory { .. } }
    ));
}

#[test]
fn findings_name_the_key() {
    expect!["`init` failed: refuses its config: `columns[2]`: no such column"]
        .assert_eq(&refused(FINDINGS, config()).to_string());
}

/// Reads the key `k` in `process`, and sets it to `v`; traps if the answer is not what is said.
const KV: Guest = Guest {
    imports: r#"(import "walmill:plugin/kv@0.1.0" "get" (func $get (param i32 i32 i32)))
                (import "walmill:plugin/kv@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))"#,
    fields: r#"(data (i32.const 512) "kv")"#,
    // get: result at 1600: ok at 0, some at 4, bytes at 8 and 12
    process:
        "(call $set (i32.const 512) (i32.const 1) (i32.const 513) (i32.const 1) (i32.const 1632))
        (if (i32.load8_u (i32.const 1632)) (then unreachable))
        (call $get (i32.const 512) (i32.const 1) (i32.const 1600))
        (if (i32.load8_u (i32.const 1600)) (then unreachable))
        (if (i32.ne (i32.load8_u (i32.load (i32.const 1608))) (i32.const 118)) (then unreachable))",
    ..PASS
};

#[test]
fn keyed_state_is_there_where_it_is_granted() {
    let granted = Config { allow: Allow { kv: true, ..Allow::default() }, ..config() };
    let plugin = KV.load(granted);
    let state = Arc::new(Mutex::new(Scratch::default()));
    let mut instance = plugin.instantiate(0, 1, false, state.clone()).unwrap();
    instance.on_relation(&relation(1)).unwrap();
    instance.process(&batch(&[0]), 0).unwrap();
    assert_eq!(state.lock().unwrap().get("k"), Ok(Some(b"v".to_vec())));
    expect!["uses `kv`, which is not granted; if it may, set `plugins.guest.allow.kv = true`"]
        .assert_eq(&refused(KV, config()).to_string());
}

#[test]
fn keys_and_values_are_bounded() {
    let process = "(call $set (i32.const 131072) (i32.const 1025) (i32.const 0) (i32.const 0) (i32.const 1632))
        (if (i32.ne (i32.load (i32.const 1632)) (i32.const 1)) (then unreachable))
        (if (i32.load8_u (i32.const 1636)) (then unreachable))
        (drop (memory.grow (i32.const 32)))
        (call $set (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1048577) (i32.const 1632))
        (if (i32.ne (i32.load (i32.const 1632)) (i32.const 1)) (then unreachable))
        (if (i32.load8_u (i32.const 1636)) (then unreachable))";
    let plugin = Guest { process, ..KV }
        .load(Config { allow: Allow { kv: true, ..Allow::default() }, ..config() });
    let state = Arc::new(Mutex::new(Scratch::default()));
    let mut instance = plugin.instantiate(0, 1, false, state).unwrap();
    instance.on_relation(&relation(1)).unwrap();
    instance.process(&batch(&[0]), 0).unwrap();
}

#[test]
fn a_plugin_s_error_from_the_state_is_an_answer_not_a_trap() {
    struct Full;
    impl State for Full {
        fn get(&mut self, _: &str) -> Result<Option<Vec<u8>>, StateError> {
            Err(StateError::Unavailable("disk".into()))
        }
        fn set(&mut self, _: &str, _: Vec<u8>) -> Result<(), StateError> {
            Err(StateError::Quota)
        }
        fn delete(&mut self, _: &str) -> Result<(), StateError> {
            Ok(())
        }
    }
    // Quota is case 1 of the error.
    let process =
        "(call $set (i32.const 512) (i32.const 1) (i32.const 513) (i32.const 1) (i32.const 1632))
        (if (i32.ne (i32.load8_u (i32.const 1636)) (i32.const 1)) (then unreachable))
        (call $get (i32.const 512) (i32.const 1) (i32.const 1600))
        (if (i32.ne (i32.load8_u (i32.const 1604)) (i32.const 2)) (then unreachable))";
    let plugin = Guest { process, ..KV }
        .load(Config { allow: Allow { kv: true, ..Allow::default() }, ..config() });
    let mut instance = plugin.instantiate(0, 1, false, Arc::new(Mutex::new(Full))).unwrap();
    instance.on_relation(&relation(1)).unwrap();
    instance.process(&batch(&[0]), 0).unwrap();
}

#[test]
fn the_clock_says_what_the_call_was_given() {
    let guest = Guest {
        imports: r#"(import "walmill:plugin/clock@0.1.0" "now" (func $now (result i64)))"#,
        process: "(if (i64.ne (call $now) (i64.const 1234567)) (then unreachable))",
        ..PASS
    };
    let plugin = guest.load(config());
    assert!(plugin.imports_clock());
    assert!(!PASS.load(config()).imports_clock());
    let mut instance = plugin.instantiate(0, 1, false, Arc::new(Mutex::new(NoState))).unwrap();
    instance.on_relation(&relation(1)).unwrap();
    assert!(instance.process(&batch(&[0]), 1_234_567).is_ok());
    assert!(instance.process(&batch(&[0]), 7).is_err());
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_flood_is_cut_off_and_cannot_draw_on_a_terminal() {
    let guest = Guest {
        imports: r#"(import "walmill:plugin/log@0.1.0" "log" (func $log (param i32 i32 i32)))"#,
        fields: r#"(data (i32.const 512) "\1b[31mred\0afake line")"#,
        process: "(loop $more
              (call $log (i32.const 4) (i32.const 512) (i32.const 18))
              (local.set $n (i32.add (local.get $n) (i32.const 1)))
              (br_if $more (i32.lt_u (local.get $n) (i32.const 5000))))",
        ..PASS
    };
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut instance = guest.start();
        instance.on_relation(&relation(1)).unwrap();
        instance.process(&batch(&[0]), 0).unwrap();
    });
    let bytes = lines.0.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("more than 20 lines per second: raise `plugins.guest.limits.log_lines`"));
    let shown = text.lines().filter(|line| line.contains("red\\nfake line")).count();
    assert!((100..1_000).contains(&shown), "{shown}");
    assert!(!text.contains('\u{1b}') && !text.lines().any(|line| line.starts_with("fake")));
}

#[test]
fn calls_are_counted_by_how_they_end() {
    let folder = Folder::new();
    let path = folder.join("guest.wasm");
    std::fs::write(&path, Guest { process: TRAP_ON_TRUNCATE, ..PASS }.bytes()).unwrap();
    let metrics = Arc::new(Metrics::new());
    let configs = BTreeMap::from([("guest".to_owned(), Config { path, ..config() })]);
    let registry = Registry::open(&Engine::new(None).unwrap(), configs, metrics.clone()).unwrap();
    let plugin = registry.snapshot().by_name["guest"].clone();
    let mut instance = plugin.instantiate(0, 1, false, Arc::new(Mutex::new(NoState))).unwrap();
    instance.on_relation(&relation(1)).unwrap();
    instance.process(&batch(&[0]), 0).unwrap();
    instance.process(&batch(&[3]), 0).unwrap_err();
    let text = metrics.encode().unwrap();
    for line in [
        "walmill_plugin_calls_total{name=\"guest\",outcome=\"ok\"} 2",
        "walmill_plugin_calls_total{name=\"guest\",outcome=\"trap\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
}
