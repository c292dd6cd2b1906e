//! What an event costs in a plugin: the real stage of a pipeline with the real host, by plugin and
//! size of the batch. Times are the thread's processor time, so that other work on the machine
//! counts less.
//!
//!     scripts/build-plugins && scripts/build-examples rust javascript
//!     WALMILL_PLUGINS=target/plugins cargo bench --bench boundary

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use walmill::metrics::Metrics;
use walmill::pipeline::boundary::Boundary;
use walmill::plugin::golden::CaseTable;
use walmill::plugin::registry::load_alone;
use walmill::plugin::{Config, Engine, Plugin};
use walmill::store::{self, Store};

/// The table of `walmill bench`, with what the example `orders` looks at.
const COLUMNS: [&str; 10] = [
    "id int8 key",
    "quantity int8",
    "balance numeric(12,2)",
    "status text",
    "email text",
    "country text",
    "region text",
    "active bool",
    "created_at timestamptz",
    "profile jsonb",
];
const ROWS: usize = 4096;
const SIZES: [usize; 3] = [1, 16, 256];

/// Processor time of the thread that calls.
struct ThreadTime;

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// A value as PostgreSQL writes it; the last column has so many bytes.
fn value(row: usize, column: usize, large: usize) -> Vec<u8> {
    let text = match column {
        0 => row.to_string(),
        1 => (row % 90).to_string(),
        2 => format!("{}.50", row % 1000),
        3 => "paid".into(),
        4 => format!("user{row}@example.com"),
        5 | 6 => ["NZ", "DE", "US", "JP"][row % 4].into(),
        7 => "t".into(),
        8 => "2026-11-24 03:07:13.25+00".into(),
        _ => format!("{{\"a\": {row}, \"b\": \"{}\"}}", "x".repeat(large)),
    };
    text.into_bytes()
}

fn folder() -> PathBuf {
    std::env::var_os("WALMILL_PLUGINS").map_or_else(|| "target/plugins".into(), PathBuf::from)
}

/// What has been compiled once is kept, so that a run for one plugin is a short one.
fn engine() -> Engine {
    Engine::new(Some(&folder().join("examples/compiled"))).expect("an engine")
}

/// A plugin of `scripts/build-plugins` or `scripts/build-examples`, if it has been built.
fn plugin(engine: &Engine, file: &str, config: &str) -> Option<Arc<Plugin>> {
    let path = folder().join(file).with_extension("wasm");
    if !path.is_file() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    let config: Config = toml::from_str(&format!("path = '{}'\nconfig = {config}", path.display()))
        .expect("a plugin's config");
    Some(load_alone(engine, "guest", config).unwrap_or_else(|error| panic!("{error}")))
}

/// A name, a file, a config.
const PLUGINS: [(&str, &str, &str); 6] = [
    ("filter", "filter", r#"{ where = "country == 'NZ'" }"#),
    ("pass", "filter", r#"{ where = "country != 'XX'" }"#),
    ("reshape", "reshape", r#"{ mask = { email = "email" }, drop = ["profile"] }"#),
    ("route", "route", r#"{ column = "country", prefix = "people." }"#),
    ("orders in Rust", "examples/rust", "{}"),
    ("orders in JavaScript", "examples/javascript", "{}"),
];

fn boundary(criterion: &mut Criterion<ThreadTime>) {
    let engine = engine();
    let (_folder, store) = open_store();
    for (name, file, config) in PLUGINS {
        let Some(plugin) = plugin(&engine, file, config) else { continue };
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(ROWS as u64));
        let mut rows = rows(&plugin, &store, 100);
        for size in SIZES {
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| rows.run(size).expect("an answer"));
            });
        }
        group.finish();
    }
}

/// The filter looks at one column; another has 100 bytes, or 100,000.
fn large_columns(criterion: &mut Criterion<ThreadTime>) {
    let engine = engine();
    let (_folder, store) = open_store();
    let Some(plugin) = plugin(&engine, "filter", PLUGINS[0].2) else { return };
    let mut group = criterion.benchmark_group("a column that the plugin does not ask for");
    group.throughput(Throughput::Elements(ROWS as u64));
    for bytes in [100, 100_000] {
        let mut rows = rows(&plugin, &store, bytes);
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter(|| rows.run(256).expect("an answer"));
        });
    }
    group.finish();
}

fn rows(plugin: &Arc<Plugin>, store: &Store, large: usize) -> Boundary {
    let columns = COLUMNS.map(str::to_owned).to_vec();
    let table = CaseTable { table: "public.people".into(), columns };
    let relation = table.bind(false).expect("a table");
    let value = |row, column| Some(value(row, column, large));
    let mut rows = Boundary::new(plugin.clone(), store.clone(), &relation, ROWS, value);
    let counts = rows.run(256).expect("an answer");
    assert_eq!(counts.failed, 0, "{counts:?}");
    rows
}

fn open_store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = store::Config { path: folder.path().join("data"), ..store::Config::default() };
    let store = Store::open(&config, Arc::new(Metrics::new())).expect("a store");
    (folder, store)
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ThreadTime);
    targets = boundary, large_columns
}
criterion_main!(benches);
