//! One plugin in many languages, through the real host: each answers the same golden cases, those
//! of `examples/plugins/cases`. `scripts/build-examples` builds them; where a machine lacks a
//! language's compiler, its test says that it is skipped and why.

use std::fs;
use std::path::Path;

use walmill::plugin::Engine;

use crate::plugins::check_file;
use crate::support::process::built_plugins;

/// Checks the example in a language against some of the common cases.
fn check(language: &str, cases: &[&str]) {
    let built = built_plugins().join("examples");
    if let Ok(why) = fs::read_to_string(built.join(format!("{language}.skipped"))) {
        return eprintln!("skipped: {language}: {}", why.trim_end());
    }
    if !built.join(format!("{language}.wasm")).is_file() {
        return eprintln!("skipped: {language}: not built; scripts/build-examples {language}");
    }
    // What a compiler of ten seconds has made of a megabyte of interpreter is kept.
    let engine = Engine::new(Some(&built.join("compiled"))).expect("an engine");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/plugins/cases");
    for case in cases {
        let file = folder.join(format!("{case}.toml"));
        check_file(&engine, &format!("examples/{language}"), &file);
    }
}

/// A test per language: what it shows, the example's folder, the files with its cases.
macro_rules! languages {
    ($($test:ident($language:literal, $cases:expr);)+) => {
        $(#[test]
        fn $test() {
            check($language, &$cases);
        })+
    };
}

/// A language with an SDK, which reads configurations.
const WITH_CONFIG: [&str; 2] = ["orders", "orders-config"];

/// A language without one.
const WITHOUT_CONFIG: [&str; 1] = ["orders"];

languages! {
    assemblyscript_answers_as_all_do("assemblyscript", WITH_CONFIG);
    c_answers_as_all_do("c", WITH_CONFIG);
    cpp_answers_as_all_do("cpp", WITH_CONFIG);
    d_answers_as_all_do("d", WITHOUT_CONFIG);
    javascript_answers_as_all_do("javascript", WITH_CONFIG);
    nim_answers_as_all_do("nim", WITHOUT_CONFIG);
    python_answers_as_all_do("python", WITH_CONFIG);
    rust_answers_as_all_do("rust", WITH_CONFIG);
    typescript_answers_as_all_do("typescript", WITH_CONFIG);
    zig_answers_as_all_do("zig", WITH_CONFIG);
    webassembly_by_hand_is_a_filter("wat", ["../wat/tests/filter"]);
}
