//! Two runs over the same events give the same bytes: every plugin that was built in this tree, as
//! far as it takes the events.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use walmill::metrics::Metrics;
use walmill::plugin::bindings::{Batch, Column, Mode, Plan, Relation};
use walmill::plugin::{Allow, Config, Engine, Limits, Moment, Plugin, Registry, Scratch};

use crate::support::process::built_plugins;

/// Every component below the folder of built plugins.
fn built(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("built plugins").map(|entry| entry.expect("one")) {
        let path = entry.path();
        // What compilers and the host keep for themselves lies there, too.
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_other = matches!(name, "build" | "native" | "compiled");
        if path.is_dir() && !is_other {
            built(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "wasm") {
            found.push(path);
        }
    }
}

/// The columns that the examples ask for.
fn relation() -> Relation {
    let column = |name: &str, type_name: &str, tag, key| Column {
        name: name.into(),
        type_oid: 25,
        type_name: type_name.into(),
        tag,
        key,
    };
    Relation {
        id: 1,
        schema: "public".into(),
        table: "orders".into(),
        columns: vec![
            column("id", "int8", 2, true),
            column("status", "text", 16, false),
            column("email", "text", 16, false),
            column("quantity", "int8", 2, false),
            column("region", "text", 16, false),
            column("country", "text", 16, false),
        ],
        full_old_rows: false,
    }
}

const ROWS: u32 = 300;

fn texts(row: u32) -> [String; 4] {
    let status = ["paid", "new", "shipped"][row as usize % 3];
    let country = ["NZ", "DE"][row as usize % 2];
    [status.into(), format!("ada{row}@example.com"), format!("R{}", row % 5), country.into()]
}

/// Rows from `from` to `to`, as the plan wants them.
fn batch(plan: &Plan, from: u32, to: u32) -> Batch {
    let count = to - from;
    let mut batch = Batch {
        count,
        ops: vec![0; count as usize],
        relations: vec![1; count as usize],
        lsns: vec![],
        times: vec![],
        starts: vec![0],
        tags: vec![],
        data: vec![],
        heap: vec![],
    };
    if plan.envelope {
        batch.lsns = vec![256; count as usize];
        batch.times = vec![7; count as usize];
    }
    for row in from..to {
        let [status, email, region, country] = texts(row);
        for need in &plan.needs {
            let text = match need {
                1 => &status,
                2 => &email,
                4 => &region,
                5 => &country,
                number => {
                    batch.tags.push(2);
                    batch.data.push(u64::from(row) * u64::from(*number));
                    continue;
                }
            };
            batch.tags.push(16);
            batch.data.push((batch.heap.len() as u64) << 32 | text.len() as u64);
            batch.heap.extend_from_slice(text.as_bytes());
        }
        batch.starts.push(batch.tags.len() as u32);
    }
    batch
}

/// All answers of a new instance, as text, or why it takes no such events.
fn run(plugin: &Plugin) -> Result<String, String> {
    let state = Arc::new(Mutex::new(Scratch::default()));
    let said = |error: walmill::plugin::CallError| error.to_string();
    let mut instance = plugin.instantiate(0, 1, false, state).map_err(said)?;
    let plan = instance.on_relation(&relation()).map_err(said)?;
    let mut answers = format!("{plan:?}\n");
    if plan.mode != Mode::Call {
        return Ok(answers);
    }
    for from in (0..ROWS).step_by(100) {
        let moment = Moment::of_transaction(7_000_000);
        let outcome = match instance.process_at(&batch(&plan, from, from + 100), moment) {
            // It has asked for random numbers: one by one, as a pipeline would.
            Err(walmill::plugin::CallError::Asked(_)) => return one_by_one(plugin),
            outcome => outcome.map_err(said)?,
        };
        let _ = writeln!(answers, "{outcome:?}");
    }
    Ok(answers)
}

fn one_by_one(plugin: &Plugin) -> Result<String, String> {
    let state = Arc::new(Mutex::new(Scratch::default()));
    let said = |error: walmill::plugin::CallError| error.to_string();
    let mut instance = plugin.instantiate(0, 1, false, state).map_err(said)?;
    let plan = instance.on_relation(&relation()).map_err(said)?;
    let mut answers = format!("{plan:?}\n");
    for row in 0..ROWS {
        let moment = Moment::of_event(7_000_000, 256, row);
        let outcome = instance.process_at(&batch(&plan, row, row + 1), moment).map_err(said)?;
        let _ = writeln!(answers, "{outcome:?}");
    }
    Ok(answers)
}

#[test]
fn two_runs_over_the_same_events_give_the_same_answers_in_every_plugin_that_was_built() {
    let mut files = Vec::new();
    built(&built_plugins(), &mut files);
    assert!(files.len() >= 3, "{files:?}");
    let cache = tempfile::tempdir().expect("a folder");
    let engine = Engine::new(Some(cache.path())).expect("an engine");
    let mut answered = 0;
    for path in files {
        let config = Config {
            path: path.clone(),
            config: example(&path),
            limits: toml::from_str::<Limits>("deadline = \"20s\"").expect("limits"),
            allow: Allow { kv: true, ..Allow::default() },
        };
        let configs = BTreeMap::from([("guest".to_owned(), config)]);
        let registry = match Registry::open(&engine, configs, Arc::new(Metrics::new())) {
            Ok(registry) => registry,
            // Of those that need a config of their own, it is not known here.
            Err(errors) if errors[0].1.to_string().contains("refuses its config") => continue,
            Err(errors) => panic!("{errors:?}"),
        };
        let plugin = registry.snapshot().by_name["guest"].clone();
        assert!(plugin.is_deterministic());
        let first = run(&plugin);
        assert_eq!(first, run(&plugin), "{}", path.display());
        answered += usize::from(first.is_ok());
    }
    assert!(answered >= 3, "only {answered} plugins took the events");
}

/// The config of those that do not do without.
fn example(path: &Path) -> serde_json::Map<String, serde_json::Value> {
    let text = match path.file_stem().and_then(|name| name.to_str()) {
        Some("filter") => r#"{"where": "country == 'NZ'"}"#,
        Some("reshape") => r#"{"drop": ["email"], "rename": {"country": "land"}}"#,
        Some("route") => r#"{"column": "region", "prefix": "orders.", "default": "orders"}"#,
        _ => "{}",
    };
    serde_json::from_str(text).expect("a config")
}
