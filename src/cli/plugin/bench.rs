//! `walmill plugin bench`: what an event costs in a plugin, by the size of the batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use toml::Table;

use super::super::Failure;
use super::call::cases;
use super::load::{PluginArguments, Subject, load, refused};
use crate::config::finding::Finding;
use crate::metrics::Metrics;
use crate::pipeline::boundary::{Boundary, Counts};
use crate::plugin::bindings::Column;
use crate::plugin::golden::{CaseTable, File};
use crate::plugin::{Engine, Plugin};
use crate::store::{Config as StoreConfig, Store};

/// `walmill plugin bench`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    plugin: PluginArguments,
    /// The plugin's config, as TOML: `--with 'country = "NZ"'`. A project's first golden case has
    /// one, which is taken otherwise.
    #[arg(long, value_name = "TOML")]
    with: Option<Table>,
    /// A column of the table, as `'total numeric'` or `'id int8 key'`; can be given more than
    /// once. Otherwise the table is that of `walmill bench`: people, with ten columns.
    #[arg(long = "column", value_name = "COLUMN")]
    columns: Vec<String>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// The table that everything is measured with, unless another is given.
const PEOPLE: [&str; 10] = [
    "id int8 key",
    "age int4",
    "balance numeric(12,2)",
    "name text",
    "email text",
    "country text",
    "note text",
    "active bool",
    "created_at timestamptz",
    "profile jsonb",
];
const SIZES: [usize; 4] = [1, 16, 256, 4096];
/// Rows of one round.
const ROWS: usize = 4096;
const ROUNDS: usize = 15;

/// What an event took, in batches of one size.
#[derive(Debug, Serialize)]
struct Figures {
    batch: usize,
    /// Processor time of the thread; the median of several rounds.
    ns_per_event: f64,
}

/// How long the plugin took until it could be called, in milliseconds.
#[derive(Debug, Serialize)]
struct Loading {
    /// Compiled, as a version that is new.
    compiled_ms: f64,
    /// With what compiling it has left in the cache.
    cached_ms: f64,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let subject = arguments.plugin.open()?;
    let cases = cases(&subject)?;
    let config = arguments.with.clone();
    let config = config.or_else(|| cases.iter().find_map(File::config).cloned());
    let (plugin, loading) = load_twice(&subject, &config.unwrap_or_default())?;
    let columns = match arguments.columns.as_slice() {
        [] => PEOPLE.map(str::to_owned).to_vec(),
        columns => columns.to_vec(),
    };
    let table = CaseTable { table: "public.people".into(), columns };
    let (figures, counts) = measure(&plugin, &table)?;
    if arguments.json {
        let size = std::fs::metadata(&subject.file).map_or(0, |file| file.len());
        let shown = serde_json::json!({
            "table": table, "size": size, "load": loading, "figures": figures
        });
        println!("{shown:#}");
        return Ok(());
    }
    println!(
        "{}: one event is an insert into {} ({})",
        subject.name,
        table.table,
        table.columns.join(", ")
    );
    let Counts { emitted, dropped, failed } = counts;
    println!("of {ROWS} events {emitted} go on, {dropped} are dropped, {failed} fail");
    let Loading { compiled_ms, cached_ms } = loading;
    println!("loaded in {compiled_ms:.0} ms, from the cache in {cached_ms:.0} ms\n");
    println!("{:>6}{:>12}", "batch", "ns/event");
    figures.iter().for_each(|row| println!("{:>6}{:>12.0}", row.batch, row.ns_per_event));
    Ok(())
}

/// Loads the plugin with an empty cache, and once more.
fn load_twice(subject: &Subject, config: &Table) -> Result<(Arc<Plugin>, Loading), Failure> {
    let failed = |why: String| Failure::run_time(Finding::error("bench", &subject.name, why));
    let folder = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
    let engine = Engine::new(Some(folder.path())).map_err(|error| failed(format!("{error:#}")))?;
    let timed = || {
        let began = Instant::now();
        let plugin = load(&engine, &subject.name, &subject.file, config);
        let took = began.elapsed().as_secs_f64() * 1e3;
        plugin.map(|plugin| (plugin, took)).map_err(|error| refused(&error))
    };
    let (_, compiled_ms) = timed()?;
    let (plugin, cached_ms) = timed()?;
    Ok((plugin, Loading { compiled_ms, cached_ms }))
}

fn measure(plugin: &Arc<Plugin>, table: &CaseTable) -> Result<(Vec<Figures>, Counts), Failure> {
    let failed = |why: String| Failure::run_time(Finding::error("bench", plugin.name(), why));
    let relation = table.bind(false).map_err(failed)?;
    let folder = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
    let store = StoreConfig { path: folder.path().join("data"), ..StoreConfig::default() };
    let store = Store::open(&store, Arc::new(Metrics::new()))
        .map_err(|error| failed(format!("{:#}", anyhow::Error::from(error))))?;
    let columns = relation.columns.clone();
    let value = |row: usize, column: usize| Some(text(row, &columns[column]).into_bytes());
    let mut boundary = Boundary::new(plugin.clone(), store.clone(), &relation, ROWS, value);
    let mut round = |size| boundary.run(size).map_err(|error| failed(error.to_string()));
    let counts = round(256)?;
    if counts.failed == ROWS as u64 {
        return Err(failed(format!(
            "takes no event of this table ({}); name other columns with `--column`",
            table.columns.join(", ")
        )));
    }
    let mut figures = Vec::new();
    for batch in SIZES {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let began = thread_time();
            round(batch)?;
            times.push((thread_time() - began).as_nanos() as f64 / ROWS as f64);
        }
        times.sort_by(f64::total_cmp);
        figures.push(Figures { batch, ns_per_event: times[ROUNDS / 2] });
    }
    store.close().map_err(|error| failed(error.to_string()))?;
    Ok((figures, counts))
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// A value as PostgreSQL writes it.
fn text(row: usize, column: &Column) -> String {
    match (column.tag, column.name.as_str()) {
        (1, _) => if row.is_multiple_of(2) { "t" } else { "f" }.into(),
        (2, _) => row.to_string(),
        (3, _) => format!("{row}.5"),
        (4, _) => "2026-11-24 03:07:13.25+00".into(),
        (5, _) => "2026-11-24".into(),
        (6, _) => "03:07:13.25".into(),
        (17, _) => format!("{row}.00"),
        (18, _) => format!("{{\"a\": {row}, \"b\": \"{}\"}}", "x".repeat(100)),
        (19, _) => "\\x00ff".into(),
        (20, _) => "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11".into(),
        (21, _) => "{1,2,3}".into(),
        (_, "country" | "region") => ["NZ", "DE", "US", "JP"][row % 4].into(),
        (_, "email") => format!("user{row}@example.com"),
        (_, "status") => ["paid", "new"][row % 2].into(),
        (_, "note") => "note ".repeat(8),
        (_, name) => format!("{name} {row}"),
    }
}
