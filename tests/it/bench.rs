//! `walmill bench`, small: what it says has the shape that programs read, and every event is
//! accounted for. How long anything takes is no matter here.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::process::built_plugins;

const ROWS: u64 = 1_000;
/// A fourth of 800 inserts and 150 updates, and the 50 deletes, of which only the key is known.
const ONE_REGION: u64 = 200 + 37 + 50;

fn bench(plugins: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walmill"));
    command.arg("bench").arg("--plugins").arg(plugins).args(arguments);
    command.output().expect("run walmill bench")
}

/// The rows that it printed, by their case.
fn rows(output: &Output) -> Vec<(String, Value)> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = told["rows"].as_array().expect("rows").clone();
    rows.into_iter().map(|row| (row["case"].as_str().expect("a name").to_owned(), row)).collect()
}

#[test]
fn a_bench_counts_every_change_and_every_event() {
    let cases = "journal,pipeline,filter,three,filter-ws,three-ws,filter-webhook,pipeline-nats";
    let size = ROWS.to_string();
    let output = bench(&built_plugins(), &["--json", "--rows", &size, "--cases", cases]);
    let rows = rows(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    let with_nats = !said.contains("skipped: pipeline-nats: there is no nats-server on the PATH");
    for (case, row) in &rows {
        let figures = [
            "rows_per_second",
            "cpu_per_million",
            "walsender_cpu_per_million",
            "ratio_to_walsender",
            "ratio_to_raw",
        ];
        for figure in figures {
            assert!(row[figure].as_f64().is_some_and(|figure| figure >= 0.0), "{figure}: {row}");
        }
        assert!(row["peak_memory_bytes"].as_u64().is_some_and(|peak| peak > 0), "{row}");
        assert!(row["bytes_written"].is_u64(), "{row}");
        assert_eq!(row["changes"], ROWS, "{case}");
    }
    let told = |(case, row): &(String, Value)| {
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        let plugins = row["plugins"].as_u64().expect("a number");
        let events = row["events"].as_u64().expect("a number");
        (case.clone(), plugins, text("language"), text("output").expect("an output"), events)
    };
    let wanted = [
        ("raw", 0, "none", ROWS),
        ("journal", 0, "none", ROWS),
        ("pipeline", 0, "none", ROWS),
        ("filter", 1, "none", ONE_REGION),
        ("three", 3, "none", ONE_REGION),
        ("filter-ws", 1, "websocket", ONE_REGION),
        ("three-ws", 3, "websocket", ONE_REGION),
        ("filter-webhook", 1, "webhook", ONE_REGION),
        ("pipeline-nats", 0, "nats", ROWS),
    ];
    let wanted = wanted.into_iter().filter(|(case, ..)| with_nats || *case != "pipeline-nats");
    let wanted = wanted.map(|(case, plugins, output, events)| {
        let language = (plugins > 0).then(|| "rust".to_owned());
        (case.to_owned(), plugins, language, output.to_owned(), events)
    });
    assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
}

#[test]
fn a_case_that_cannot_be_run_is_skipped_and_said() {
    let empty = tempfile::tempdir().expect("a folder");
    let arguments = ["--json", "--rows", "10", "--cases", "journal,filter,orders-js"];
    let output = bench(empty.path(), &arguments);
    let cases: Vec<_> = rows(&output).into_iter().map(|(case, _)| case).collect();
    assert_eq!(cases, ["raw", "journal"]);
    let said = String::from_utf8_lossy(&output.stderr);
    for (case, file) in [("filter", "filter.wasm"), ("orders-js", "javascript.wasm")] {
        let line = said.lines().find(|line| line.starts_with(&format!("skipped: {case}: ")));
        assert!(line.is_some_and(|line| line.contains(file)), "{said}");
    }
}

#[test]
fn a_case_that_nobody_knows_is_refused_with_those_there_are() {
    let output = bench(&built_plugins(), &["--cases", "jornal"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("there are raw, journal, pipeline"), "{said}");
}
