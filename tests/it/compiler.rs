//! Files made to hurt whoever compiles them: each is refused, or compiles within its bounds, in a
//! process of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use walmill::metrics::Metrics;
use walmill::plugin::{Config, Engine, Limits, Reason, Registry};

use crate::hostile::{ARMED, Guest, wasm};

fn engine() -> Engine {
    Engine::compiling_with(env!("CARGO_BIN_EXE_walmill").into(), None).expect("an engine")
}

fn load(engine: &Engine, bytes: &[u8], limits: &str) -> Result<(), Reason> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("guest.wasm");
    std::fs::write(&path, bytes).expect("write");
    let limits: Limits = toml::from_str(limits).expect("limits");
    let config = Config { limits, ..Config::new(path, Default::default()) };
    let configs = BTreeMap::from([("guest".to_owned(), config)]);
    match Registry::open(engine, configs, Arc::new(Metrics::new())) {
        Ok(_) => Ok(()),
        Err(mut errors) => Err(errors.remove(0).1.reason),
    }
}

/// A plugin with these fields in its module.
fn with(fields: impl Into<String>) -> Vec<u8> {
    wasm(Guest { fields: fields.into().leak(), ..ARMED })
}

/// As [`with`], and with nothing that `with` needs.
fn beside(fields: &str) -> Vec<u8> {
    with(format!("(global $armed (mut i32) (i32.const 0)) {fields}"))
}

const SMALL: &str =
    "compile_time = \"20s\"\ncompile_memory = \"1GiB\"\nmemory = \"16MiB\"\ndeadline = \"50ms\"";

/// A section of a core module by its bytes.
fn section(id: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.push(id);
    let mut length = payload.len();
    while length > 0x7f {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(payload);
    bytes
}

fn repeat(count: usize, line: &str) -> String {
    line.repeat(count)
}

/// Every value lives until the end, so that the register allocator has all of them to think of.
fn register_torture(values: usize) -> String {
    let mut code = String::from("(func (param i64) (result i64)");
    for at in 0..values {
        let _ = write!(code, "(local $v{at} i64)");
    }
    for at in 0..values {
        let from = at.saturating_sub(1);
        let _ = write!(
            code,
            "(local.set $v{at} (i64.add (i64.mul (local.get 0) (local.get $v{from})) (i64.const {at})))"
        );
        if at % 16 == 15 {
            let _ = write!(
                code,
                "(if (i64.eqz (local.get $v{at})) (then (local.set 0 (local.get $v{})))) ",
                at / 2
            );
        }
    }
    code.push_str("(local.get 0)");
    for at in 0..values {
        let _ = write!(code, "(i64.xor (local.get $v{at}))");
    }
    code.push(')');
    code
}

#[test]
fn every_hostile_file_is_refused_or_compiles_within_its_bounds() {
    let engine = engine();
    let good = beside("");
    let mut files: Vec<(&str, Vec<u8>, Option<&str>)> = vec![
        ("empty", vec![], Some("empty")),
        ("one byte", vec![0], Some("not a WebAssembly binary")),
        ("text", b"hello".to_vec(), Some("something else")),
        ("a program", b"\x7fELF\x02\x01\x01\0".to_vec(), Some("native program")),
        ("zip", b"PK\x03\x04".to_vec(), Some("zip")),
        ("magic only", b"\0asm".to_vec(), Some("unknown version")),
        ("wrong version", b"\0asm\x07\0\0\0".to_vec(), Some("unknown version")),
        ("no exports", b"\0asm\x01\0\0\0".to_vec(), Some("does not export")),
        ("no exports, component", b"\0asm\x0d\0\x01\0".to_vec(), Some("does not export")),
        ("truncated", good[..good.len() / 2].to_vec(), Some("")),
        (
            "a section of 4 GiB",
            b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x0f".to_vec(),
            Some("damaged"),
        ),
        ("4 Gi types", section(1, b"\xff\xff\xff\xff\x0f"), Some("")),
        ("overlong number", section(1, b"\x80\x80\x80\x80\x80\x80\x00"), Some("damaged")),
        ("a name that is no UTF-8", section(7, b"\x01\x02\xff\xfe\x00\x00"), Some("damaged")),
        ("200,000 types", beside(&repeat(200_000, "(type (func (param i32)))")), None),
        ("50,001 locals", beside(&format!("(func {})", repeat(50_001, "(local i32)"))), Some("")),
        (
            "100,000 blocks",
            beside(&format!("(func {}{})", repeat(100_000, "block "), repeat(100_000, "end "))),
            None,
        ),
        (
            "a table of jumps",
            beside(&format!(
                "(func (param i32) (br_table {} 0 (local.get 0)))",
                repeat(200_000, "0 ")
            )),
            None,
        ),
        ("65,536 pages", beside("(memory 65536)"), Some("")),
        ("a table of 4 Gi", beside("(table 4294967295 funcref)"), Some("limits.table")),
        (
            "90 tables of 100,000",
            beside(&repeat(90, "(table 100000 funcref)")),
            Some("limits.table"),
        ),
        ("1,000 memories", beside(&repeat(1_000, "(memory 1)")), Some("")),
        ("data out of bounds", beside("(data (i32.const 2000000000) \"x\")"), Some("start")),
        ("start traps", beside("(func $s unreachable) (start $s)"), Some("start")),
        ("start loops", beside("(func $s (loop $l (br $l))) (start $s)"), Some("limits.deadline")),
        ("start recurses", beside("(func $s (call $s)) (start $s)"), Some("call stack exhausted")),
        ("8 MB of data", beside(&format!("(data \"{}\")", "x".repeat(8 << 20))), None),
        (
            "a large custom section",
            section(0, &[&[4][..], b"name", &vec![0; 20 << 20]].concat()),
            Some(""),
        ),
        (
            "3 GiB of it claimed",
            b"\0asm\x01\0\0\0\x00\xff\xff\xff\xff\x0b".to_vec(),
            Some("damaged"),
        ),
    ];
    let mut nested = wat::parse_str("(component)").expect("text");
    for _ in 0..200 {
        let mut outer = b"\0asm\x0d\0\x01\0".to_vec();
        outer.push(4);
        let mut length = nested.len();
        while length > 0x7f {
            outer.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend_from_slice(&nested);
        nested = outer;
    }
    files.push(("200 nested components", nested, Some("")));
    let many = format!("(component {})", repeat(1_001, "(core module)"));
    files.push(("1,001 modules", wat::parse_str(many).expect("text"), Some("")));
    for bit in (0..40).map(|n| n * 1_009) {
        let mut turned = good.clone();
        let at = bit % (turned.len() * 8);
        turned[at / 8] ^= 1 << (at % 8);
        files.push(("a bit turned", turned, None));
    }
    for (name, bytes, expected) in files {
        match (load(&engine, &bytes, SMALL), expected) {
            (Ok(()), Some(expected)) => panic!("{name} loads; expected: {expected}"),
            (Ok(()), None) => {}
            (Err(error), expected) => {
                let error = error.to_string();
                assert!(error.contains(expected.unwrap_or_default()), "{name}: {error}");
            }
        }
    }
}

#[test]
fn a_good_plugin_is_compiled_by_the_other_process_once() {
    let cache = tempfile::tempdir().expect("a folder");
    let program = env!("CARGO_BIN_EXE_walmill").into();
    let engine = Engine::compiling_with(program, Some(cache.path())).expect("an engine");
    load(&engine, &beside(""), SMALL).expect("it loads");
    // With what is in the cache, nothing needs to be compiled.
    let nobody = Engine::compiling_with("/nowhere".into(), Some(cache.path())).expect("an engine");
    load(&nobody, &beside(""), SMALL).expect("it loads");
    let error = load(&nobody, &beside("(func)"), SMALL).unwrap_err();
    assert!(matches!(&error, Reason::Compiler(what) if what.contains("/nowhere")), "{error}");
}

#[test]
fn what_takes_too_long_or_too_much_memory_to_compile_names_the_bound() {
    let engine = engine();
    let hard = beside(&repeat(60, &register_torture(2_500)));
    let error = load(&engine, &hard, "compile_time = \"1s\"").unwrap_err();
    assert!(matches!(error, Reason::CompileTime { .. }), "{error}");
    assert!(error.to_string().contains("raise `plugins.guest.limits.compile_time`"), "{error}");
    let error = load(&engine, &hard, "compile_memory = \"64MiB\"").unwrap_err();
    assert!(matches!(error, Reason::CompileMemory { .. }), "{error}");
    assert!(error.to_string().contains("raise `plugins.guest.limits.compile_memory`"), "{error}");
    // The next one is not worse off.
    load(&engine, &beside(""), SMALL).expect("it loads");
}
