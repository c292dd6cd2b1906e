//! Guests that lie, trap where nobody would, and take what they can get.

use super::*;

#[test]
fn a_table_bomb_ends_at_the_limit() {
    let guest = Guest {
        fields: "(table $t 0 funcref)",
        process: "(loop $more
            (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
            unreachable",
        ..PASS
    };
    check(
        guest,
        expect![[r#"
            used more than 200000 table elements: raise `plugins.guest.limits.table`
            the instance is dead, since it used more than 200000 table elements: raise `plugins.guest.limits.table`"#]],
    );
    let huge = Guest { fields: "(table 4294967295 funcref)", ..PASS };
    assert!(matches!(
        refused(huge, config()),
        Reason::Call { call: "start", error: CallError::Table { .. } }
    ));
}

#[test]
fn an_allocator_that_traps_ends_the_instance() {
    // From the first batch on.
    let guest = Guest {
        fields: "(global $armed (mut i32) (i32.const 0))",
        on_relation: "(global.set $armed (i32.const 1))",
        realloc: "(if (global.get $armed) (then unreachable))",
        ..PASS
    };
    check(
        guest,
        expect![[r#"
            wasm trap: wasm `unreachable` instruction executed in realloc
            the instance is dead, since it trapped: wasm trap: wasm `unreachable` instruction executed in realloc"#]],
    );
    // An address beyond its memory.
    let guest = Guest {
        fields: "(global $armed (mut i32) (i32.const 0))",
        on_relation: "(global.set $armed (i32.const 1))",
        realloc: "(if (global.get $armed) (then (return (i32.const -16))))",
        ..PASS
    };
    let mut instance = guest.start();
    instance.on_relation(&relation(1)).unwrap();
    assert!(matches!(instance.process(&batch(&[0]), 0), Err(CallError::Trap(_))));
    let trap = Guest { realloc: "unreachable", ..PASS };
    assert!(matches!(
        refused(trap, config()),
        Reason::Call { call: "init", error: CallError::Trap(_) }
    ));
}

#[test]
fn describe_may_trap_lie_and_shout_and_is_only_refused_or_cut_short() {
    let describe = "unreachable";
    let reason = refused(Guest { describe, ..PASS }, config());
    expect!["`describe` failed: wasm trap: wasm `unreachable` instruction executed in describe"]
        .assert_eq(&reason.to_string());
    // A name that is no UTF-8.
    let describe = "(i32.store8 (i32.const 16) (i32.const 255))";
    let reason = refused(Guest { describe, ..PASS }, config());
    assert!(reason.to_string().contains("utf-8"), "{reason}");
    // A name of 400 kB, of which the last are beyond its memory, and one that is all there.
    let describe = "(i32.store (i32.const 1028) (i32.const 600000))";
    assert!(matches!(refused(Guest { describe, ..PASS }, config()), Reason::Call { .. }));
    let describe = "(i32.store (i32.const 1024) (i32.const 200000))
        (i32.store (i32.const 1028) (i32.const 300000))";
    let plugin = Guest { describe, ..PASS }.load(config());
    let name = &plugin.description().name;
    assert!(name.starts_with("\\u{0}") && name.len() < 1_000, "{} bytes", name.len());
}

#[test]
fn texts_that_are_no_utf_8_end_the_instance_wherever_they_come_from() {
    let log = Guest {
        imports: r#"(import "walmill:plugin/log@0.1.0" "log" (func $log (param i32 i32 i32)))"#,
        process: "(i32.store8 (i32.const 900) (i32.const 255))
            (call $log (i32.const 4) (i32.const 900) (i32.const 1))",
        ..PASS
    };
    let error = Guest {
        process:
            "(i32.store8 (i32.const 900) (i32.const 192))
            (i32.store8 (i32.const 1280) (i32.const 1))
            (i32.store (i32.const 1284) (i32.const 900)) (i32.store (i32.const 1288) (i32.const 1))",
        ..PASS
    };
    let route = Guest {
        process: "(i32.store (i32.const 900) (i32.const 910)) (i32.store (i32.const 904) (i32.const 2))
            (i32.store8 (i32.const 910) (i32.const 237)) (i32.store8 (i32.const 911) (i32.const 160))
            (i32.store (i32.const 1356) (i32.const 900)) (i32.store (i32.const 1360) (i32.const 1))",
        ..PASS
    };
    for guest in [log, error, route] {
        let mut instance = guest.start();
        instance.on_relation(&relation(1)).unwrap();
        let error = instance.process(&batch(&[0]), 0).unwrap_err().to_string();
        assert!(error.contains("utf-8"), "{error}");
        assert!(!instance.is_alive());
    }
}

#[test]
fn gigantic_strings_are_cut_short_or_end_the_instance() {
    let says = |length: &'static str| Guest { process: length, ..PASS };
    // An error of 7 MB, within the limits: what is kept of it is a line.
    let error = says(
        "(drop (memory.grow (i32.const 120)))
        (memory.fill (i32.const 131072) (i32.const 65) (i32.const 7000000))
        (i32.store8 (i32.const 1280) (i32.const 1))
        (i32.store (i32.const 1284) (i32.const 131072)) (i32.store (i32.const 1288) (i32.const 7000000))",
    );
    let mut instance = error.start();
    instance.on_relation(&relation(1)).unwrap();
    let said = instance.process(&batch(&[0]), 0).unwrap_err().to_string();
    assert!(said.len() < 2_000 && said.ends_with("(6999000 bytes more)"), "{} bytes", said.len());
    // One of 4 GiB, of which nothing is there.
    let error = says(
        "(i32.store8 (i32.const 1280) (i32.const 1))
        (i32.store (i32.const 1284) (i32.const 16)) (i32.store (i32.const 1288) (i32.const -1))",
    );
    let mut instance = error.start();
    instance.on_relation(&relation(1)).unwrap();
    assert!(matches!(instance.process(&batch(&[0]), 0), Err(CallError::Trap(_))));
}
