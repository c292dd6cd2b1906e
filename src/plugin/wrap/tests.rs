use std::sync::{Arc, Mutex};

use super::super::guests::{Guest, PASS, batch, config, load, relation};
use super::super::world::WORLDS;
use super::super::{Allow, Config, NoState};
use super::*;

#[test]
fn the_adapter_s_binary_is_made_from_its_text() {
    let text = include_str!("preview1.wat");
    let binary = wat::parse_str(text).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/plugin/wrap/preview1.wasm");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &binary).unwrap();
    }
    assert!(binary == ADAPTER, "UPDATE_EXPECT=1 makes preview1.wasm anew");
}

/// Uses most of preview 1, and traps where it is told something else than nothing.
const PREVIEW1_GUEST: Guest = Guest {
    imports: r#"
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open" (func $open
          (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#,
    fields: r#"(data (i32.const 512) "h\c3\a9llo\0aab\ff") (data (i32.const 600) "\00\02\00\00\07\00\00\00\07\02\00\00\03\00\00\00")"#,
    process: "
        (drop (call $write (i32.const 1) (i32.const 600) (i32.const 2) (i32.const 700)))
        ;; the official adapter takes one piece at a time
        (if (i32.lt_u (i32.load (i32.const 700)) (i32.const 7)) (then unreachable))
        (drop (call $args (i32.const 704) (i32.const 708)))
        (if (i32.load (i32.const 704)) (then unreachable))
        (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 720)))
        (if (i64.ne (i64.load (i32.const 720)) (i64.const 7000000000)) (then unreachable))
        (drop (call $random (i32.const 736) (i32.const 13)))
        (if (i64.eqz (i64.load (i32.const 736))) (then unreachable))
        (if (i32.load8_u (i32.const 749)) (then unreachable))
        (if (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 512) (i32.const 1)
            (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 760)))
          (then unreachable))
        (drop (call $env (i32.const 704) (i32.const 708)))
        ;; a drop for every variable that there is
        (memory.fill (i32.const 131072) (i32.load (i32.const 704)) (i32.load (local.get 0)))",
    ..PASS
};

fn variables(allow: Allow) -> u8 {
    let plugin = PREVIEW1_GUEST.load(Config { allow, ..config() });
    let state = Arc::new(Mutex::new(NoState));
    let mut instance = plugin.instantiate(0, 1, false, state).unwrap();
    instance.on_relation(&relation(1)).unwrap();
    instance.process(&batch(&[0]), 7_000_000).unwrap().verdicts[0]
}

#[test]
fn a_module_on_preview_1_finds_an_empty_world_the_commit_time_and_random_numbers() {
    assert_eq!(variables(Allow::default()), 0);
}

#[test]
fn a_module_on_preview_1_finds_the_variable_that_was_granted_to_it() {
    // The test's runner sets it.
    let env = vec!["CARGO_MANIFEST_DIR".to_owned()];
    assert_eq!(variables(Allow { env, ..Allow::default() }), 1);
}

#[test]
fn a_module_may_say_that_its_strings_are_in_utf_16() {
    // `describe` tells its name and version in UTF-16: twice the bytes, the same count.
    let text = PASS.text();
    let utf16 = text.replace("\"guest1.0\"", "\"g\\00u\\00e\\00s\\00t\\001\\00.\\000\\00\"");
    let utf16 = utf16.replace("(i32.const 1032) (i32.const 21)", "(i32.const 1032) (i32.const 26)");
    let with = |says: &str| {
        let section = format!("(module (@custom \"walmill:string-encoding\" \"{says}\")");
        let module = wat::parse_str(utf16.replacen("(module", &section, 1)).unwrap();
        wrap(&WORLDS[0], Role::Transform, Preview1::Empty, module)
    };
    assert!(with("utf-16").is_ok());
    assert!(with("latin-1").unwrap_err().to_string().contains("neither `utf-8` nor `utf-16`"));
    let plugin = load(&with("utf-16").unwrap(), config());
    let description = plugin.description();
    assert_eq!((description.name.as_str(), description.version.as_str()), ("guest", "1.0"));
}
