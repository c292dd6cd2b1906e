use expect_test::{Expect, expect};

use super::super::guests::{Guest, PASS, config};
use super::super::world::WORLDS;
use super::*;

fn wrapped() -> Vec<u8> {
    wrap::wrap(&WORLDS[0], Role::Transform, PASS.bytes()).unwrap()
}

fn check(bytes: &[u8], expected: Expect) {
    let engine = Engine::new(None).unwrap();
    let error = load(&engine, "guest", &config(), bytes).err().expect("it is refused");
    expected.assert_eq(&error.to_string());
}

#[test]
fn what_is_no_webassembly_is_named() {
    check(b"", expect!["plugin guest (guest.wasm): not a WebAssembly binary: empty"]);
    check(b"\0", expect!["plugin guest (guest.wasm): not a WebAssembly binary: something else"]);
    check(
        PASS.text().as_bytes(),
        expect![
            "plugin guest (guest.wasm): not a WebAssembly binary: WebAssembly text; make a binary of it with `wasm-tools parse`"
        ],
    );
    check(
        b"\x7fELF\x02\x01\x01",
        expect!["plugin guest (guest.wasm): not a WebAssembly binary: a native program"],
    );
}

#[test]
fn a_file_that_is_cut_short_is_refused_wherever_it_is_cut() {
    let engine = Engine::new(None).unwrap();
    for bytes in [PASS.bytes(), wrapped()] {
        for end in (0..bytes.len()).step_by(37) {
            assert!(load(&engine, "guest", &config(), &bytes[..end]).is_err(), "{end}");
        }
    }
}

#[test]
fn a_file_with_a_bit_turned_is_refused_or_loads_and_nothing_panics() {
    let engine = Engine::new(None).unwrap();
    let bytes = wrapped();
    for bit in (0..bytes.len() * 8).step_by(211) {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Err(error) = load(&engine, "guest", &config(), &changed) {
            assert!(!error.to_string().contains("the compiler gave up"), "{bit}: {error}");
        }
    }
}

#[test]
fn a_component_and_a_core_module_load_alike() {
    let engine = Engine::new(None).unwrap();
    let module = load(&engine, "guest", &config(), &PASS.bytes()).unwrap();
    let component = wrapped();
    let component = load(&engine, "guest", &config(), &component).unwrap();
    assert_ne!(module.version, component.version);
    assert_eq!(module.version, Version::of(&PASS.bytes()));
    assert_eq!(module.version.to_string().len(), 12);
}

#[test]
fn missing_exports_are_named() {
    let module = |text: &str| wat::parse_str(text).unwrap();
    check(
        &module("(module)"),
        expect![
            "plugin guest (guest.wasm): does not export `walmill:plugin/lifecycle@0.1.0#describe`, `walmill:plugin/lifecycle@0.1.0#init`, `walmill:plugin/transform@0.1.0#on-relation`, `walmill:plugin/transform@0.1.0#process`; a plugin is of the world `plugin` in wit/walmill.wit"
        ],
    );
    check(
        &module(&PASS.text().replace("transform@0.1.0#process", "transform@0.1.0#prozess")),
        expect![
            "plugin guest (guest.wasm): does not export `walmill:plugin/transform@0.1.0#process`; a plugin is of the world `plugin` in wit/walmill.wit"
        ],
    );
    check(
        &module("(component)"),
        expect![
            "plugin guest (guest.wasm): does not export `walmill:plugin/lifecycle@0.1.0`, `walmill:plugin/transform@0.1.0`; a plugin is of the world `plugin` in wit/walmill.wit"
        ],
    );
    check(
        &module(&PASS.text().replace("@0.1.0", "@0.2.0")),
        expect![
            "plugin guest (guest.wasm): does not export `walmill:plugin/lifecycle@0.1.0#describe`, `walmill:plugin/lifecycle@0.1.0#init`, `walmill:plugin/transform@0.1.0#on-relation`, `walmill:plugin/transform@0.1.0#process`; a plugin is of the world `plugin` in wit/walmill.wit"
        ],
    );
}

#[test]
fn imports_that_nobody_offers_are_named() {
    let wasi = r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32)))"#;
    check(
        &Guest { imports: wasi, ..PASS }.bytes(),
        expect![
            "plugin guest (guest.wasm): imports `wasi_snapshot_preview1`, which walmill does not offer; it offers log, clock, metrics and kv of `walmill:plugin@0.1`"
        ],
    );
    let component = r#"(component (import "wasi:filesystem/types@0.2.0" (instance)))"#;
    check(
        &wat::parse_str(component).unwrap(),
        expect![
            "plugin guest (guest.wasm): imports `wasi:filesystem/types@0.2.0`, which walmill does not offer; it offers log, clock, metrics and kv of `walmill:plugin@0.1`"
        ],
    );
    let kv = r#"(import "walmill:plugin/kv@0.1.0" "get" (func (param i32 i32 i32)))"#;
    check(
        &Guest { imports: kv, ..PASS }.bytes(),
        expect![
            "plugin guest (guest.wasm): uses `kv`, which is not granted; if it may, set `plugins.guest.allow.kv = true`"
        ],
    );
    let http = r#"(import "walmill:plugin/http@0.1.0" "get" (func (param i32 i32 i32)))"#;
    check(
        &Guest { imports: http, ..PASS }.bytes(),
        expect![
            "plugin guest (guest.wasm): imports `walmill:plugin/http@0.1.0`, which walmill does not offer; it offers log, clock, metrics and kv of `walmill:plugin@0.1`"
        ],
    );
}

#[test]
fn the_right_names_with_the_wrong_types_are_refused() {
    let module = PASS.text().replace(
        "transform@0.1.0#process\") (param i32) (result i32)",
        "transform@0.1.0#process\") (param i32 i32) (result i32)",
    );
    check(
        &wat::parse_str(module).unwrap(),
        expect![
            "plugin guest (guest.wasm): core module cannot be made a component: failed to decode world from module: module was not valid: failed to classify export `walmill:plugin/transform@0.1.0#process`: failed to validate export for `walmill:plugin/transform@0.1.0`: type mismatch for function `process`: expected `[I32] -> [I32]` but found `[I32, I32] -> [I32]`"
        ],
    );
    let component = r#"(component
        (instance $nothing)
        (export "walmill:plugin/lifecycle@0.1.0" (instance $nothing))
        (export "walmill:plugin/transform@0.1.0" (instance $nothing)))"#;
    check(
        &wat::parse_str(component).unwrap(),
        expect![
            "plugin guest (guest.wasm): does not fit the world `plugin` in wit/walmill.wit; build it against this version: instance export `walmill:plugin/lifecycle@0.1.0` does not have export `describe`"
        ],
    );
}

#[test]
fn a_file_that_is_too_large_is_refused_by_its_size() {
    let config = Config { limits: toml::from_str("file = \"1kB\"").unwrap(), ..config() };
    let engine = Engine::new(None).unwrap();
    let error = load(&engine, "guest", &config, &[0; 1_001]).err().unwrap();
    expect!["plugin guest (guest.wasm): 1001 bytes, more than the limit of 1kB; make it smaller or raise `plugins.guest.limits.file`"].assert_eq(&error.to_string());
}

#[test]
fn the_author_s_language_is_told_from_those_of_runtimes() {
    // One language field, as `producers` has it: name, version.
    let language = |name: &str| {
        let length = char::from(u8::try_from(name.len()).unwrap());
        format!("(@custom \"producers\" \"\\01\\08language\\01\\{:02x}{name}\\00\")", length as u8)
    };
    for (names, expected) in [
        (&["Rust"][..], Some("Rust")),
        (&["C11", "JavaScript"], Some("JavaScript")),
        (&["C_plus_plus_14", "Rust"], Some("C_plus_plus_14")),
        (&[], None),
    ] {
        let modules: String =
            names.iter().map(|name| format!("(core module {})", language(name))).collect();
        let component = wat::parse_str(format!("(component {modules})")).unwrap();
        assert_eq!(inspect::contents(&component).unwrap().language.as_deref(), expected);
    }
}
