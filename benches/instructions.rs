//! How many instructions a row costs on four parts of its way, counted by callgrind, beside what
//! was recorded in `benches/instructions.toml`. Instructions do not depend on what else the machine
//! does, so a change of 5 % is one that the code made.
//!
//!     scripts/instructions             # fails where a figure is off by more than 5 %
//!     scripts/instructions --accept    # records the figures as they are now
//!
//! Each workload runs twice, with more rounds the second time; the difference is what they cost
//! without making ready.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

mod workloads;

use workloads::{ROWS, WORKLOADS};

/// Rounds before those that are counted: what is made once is made in them.
const WARM: usize = 1;
/// So many that the hash seeds in making ready, which change from run to run, do not matter.
const ROUNDS: usize = 9;
/// How far a figure may be from the recorded one.
const TOLERANCE: f64 = 0.05;

/// `benches/instructions.toml`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Recorded {
    /// What compiled walmill then; another compiler makes other instructions.
    compiler: String,
    /// Instructions per row, by workload.
    instructions: BTreeMap<String, f64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["run", name, rounds] => {
            run(name, rounds.parse().expect("how many rounds"));
            ExitCode::SUCCESS
        }
        // What `cargo bench` passes.
        rest => check(rest.contains(&"--accept")),
    }
}

fn run(name: &str, rounds: usize) {
    let (_, ready) = WORKLOADS.iter().find(|(own, _)| *own == name).expect("a workload");
    let mut round = ready().expect("what the workload needs");
    (0..rounds).for_each(|_| round());
}

fn check(accept: bool) -> ExitCode {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.toml");
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    let recorded: Recorded = toml::from_str(&recorded).unwrap_or_default();
    let compiler = compiler();
    let now: BTreeMap<_, _> = WORKLOADS
        .iter()
        .map(|(name, _)| {
            let (few, many) = (instructions(name, WARM), instructions(name, WARM + ROUNDS));
            ((*name).to_owned(), ((many - few) / (ROUNDS * ROWS) as f64).round())
        })
        .collect();
    println!("{:<10} {:>12} {:>12} {:>9}", "workload", "recorded", "now", "change");
    let mut off = Vec::new();
    for (name, now) in &now {
        let before = recorded.instructions.get(name).copied();
        let change = before.map_or(f64::INFINITY, |before| now / before - 1.0);
        let shown = before.map_or("-".into(), |before| before.to_string());
        println!("{name:<10} {shown:>12} {now:>12} {:>8.1}%", change * 100.0);
        if change.abs() > TOLERANCE {
            off.push(name.as_str());
        }
    }
    if accept {
        let recorded = Recorded { compiler, instructions: now };
        let text = toml::to_string(&recorded).expect("a document");
        let text =
            format!("# Instructions per row; `scripts/instructions --accept` writes this.\n{text}");
        fs::write(&path, text).expect("a writable checkout");
        println!("recorded in benches/instructions.toml");
        return ExitCode::SUCCESS;
    }
    if off.is_empty() {
        return ExitCode::SUCCESS;
    }
    if recorded.compiler != compiler {
        println!(
            "not compared: the figures were recorded with {}, this is {compiler}",
            recorded.compiler
        );
        return ExitCode::SUCCESS;
    }
    println!(
        "{} changed by more than {} %. If that is as it should be: scripts/instructions --accept",
        off.join(", "),
        TOLERANCE * 100.0
    );
    ExitCode::FAILURE
}

/// All instructions of this program, running so many rounds of a workload.
fn instructions(name: &str, rounds: usize) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let counted = folder.path().join("callgrind.out");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", counted.display()))
        .arg(std::env::current_exe().expect("this program"))
        .args(["run", name, &rounds.to_string()])
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .status()
        .expect("valgrind, which is needed for this");
    assert!(status.success(), "{name} under callgrind: {status}");
    let counted = fs::read_to_string(&counted).expect("what callgrind writes");
    let total = counted.lines().find_map(|line| line.strip_prefix("summary: "));
    total.and_then(|total| total.trim().parse().ok()).expect("callgrind's sum")
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().expect("rustc");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
