//! A version of the world that is not there, beside those that are: what it takes to add one.

mod next;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::super::guests::{Folder, Guest, PASS, batch, config, relation};
use super::super::{Config, Engine, NoState, Registry};
use super::*;
use crate::metrics::Metrics;

static BOTH: [World; 2] = [next::WORLD, v0_1::WORLD];

/// As its next version would be built: other types of `describe` and `process`, another clock.
fn of_next(guest: Guest) -> Vec<u8> {
    let text = guest
        .text()
        .replace("lifecycle@0.1.0", "lifecycle@0.2.0")
        .replace("transform@0.1.0", "transform@0.2.0");
    wat::parse_str(text).unwrap()
}

const ASKS: Guest = Guest {
    imports: r#"(import "walmill:plugin/clock@0.1.0" "now" (func $now (result i64)))"#,
    process: "(if (i64.ne (call $now) (i64.const 7)) (then unreachable))",
    ..PASS
};

const ASKS_NEXT: Guest = Guest {
    imports: r#"(import "walmill:plugin/clock@0.2.0" "now" (func $now (result i64)))"#,
    // Nanoseconds; and the new parameter is there, behind the batch.
    process: "(if (i64.ne (call $now) (i64.const 7000)) (then unreachable))
        (if (i32.ne (i32.load offset=68 (local.get 0)) (i32.const 1)) (then unreachable))",
    ..PASS
};

#[test]
fn plugins_of_two_versions_run_side_by_side() {
    let folder = Folder::new();
    let plugin = |name: &str, bytes: &[u8]| {
        let path = folder.join(name).with_extension("wasm");
        std::fs::write(&path, bytes).unwrap();
        (name.to_owned(), Config { path, ..config() })
    };
    let configs = BTreeMap::from([
        plugin("old", &wat::parse_str(ASKS.text()).unwrap()),
        plugin("new", &of_next(ASKS_NEXT)),
    ]);
    let engine = Engine::serving(&BOTH, None, None).unwrap();
    let registry = Registry::open(&engine, configs, Arc::new(Metrics::new()))
        .unwrap_or_else(|errors| panic!("{errors:?}"));
    let plugins = registry.snapshot();
    for name in ["old", "new"] {
        let plugin = &plugins.by_name[name];
        assert_eq!(plugin.description().name, "guest");
        let mut instance = plugin.instantiate(0, 1, false, Arc::new(Mutex::new(NoState))).unwrap();
        instance.on_relation(&relation(1)).unwrap();
        assert_eq!(instance.process(&batch(&[0, 1]), 7).unwrap().verdicts, [0, 0], "{name}");
    }
}

#[test]
fn a_version_that_is_not_served_is_named_with_what_is() {
    let engine = Engine::new(None).unwrap();
    let error = super::super::component::load(&engine, "guest", &config(), &of_next(ASKS_NEXT));
    let error = error.err().unwrap().to_string();
    assert!(error.contains("walmill:plugin/clock@0.2.0") && error.contains("@0.1"), "{error}");
}

#[test]
fn another_patch_of_a_version_is_served_by_it() {
    for (id, served) in [
        ("walmill:plugin/log@0.1.0", true),
        ("walmill:plugin/log@0.1.7", true),
        ("walmill:plugin/log@0.1", true),
        ("walmill:plugin/log@0.10.0", false),
        ("walmill:plugin/log@0.2.0", false),
        ("walmill:plugin/log", false),
        ("other:plugin/log@0.1.0", false),
    ] {
        assert_eq!(interface(WORLDS, id).is_some(), served, "{id}");
    }
}
