//! The fuzz targets' corpus, run through the same functions as by the fuzzer (`scripts/fuzz`).

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::Path;

/// A target's name, what it calls, and how much of a corpus it has at least.
type Target = (&'static str, fn(&[u8]), usize);

const TARGETS: [Target; 4] = [
    ("message", targets::message, 30),
    ("stream", targets::stream, 20),
    ("block", targets::block, 15),
    ("value", targets::value, 30),
];

#[test]
fn every_input_that_a_fuzzer_kept_is_taken() {
    for (name, target, least) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
        let inputs = std::fs::read_dir(&folder).expect("a corpus");
        let mut count = 0;
        for input in inputs {
            let path = input.expect("an input").path();
            println!("{}", path.display());
            target(&std::fs::read(&path).expect("an input"));
            count += 1;
        }
        assert!(count >= least, "only {count} inputs in {}", folder.display());
    }
}
