//! `walmill bench`: what each part of the way costs, beside a consumer that throws the stream away.
//!
//! One PostgreSQL, one load, and a slot for each case that was made before the load; so every case
//! reads the same stream. Processor time is that of this process, and of the walsender beside it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::app::{self, Ready};
use crate::cluster::{Cluster, Options};
use crate::config::Config;
use crate::config::document::Document;
use crate::config::finding::Finding;
use crate::model::Lsn;
use crate::source::raw;
use crate::store::Store;

/// `walmill bench`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Rows to insert, in transactions of 1,000.
    #[arg(long, default_value_t = 200_000)]
    rows: u64,
    /// The folder with filter.wasm, reshape.wasm and route.wasm.
    #[arg(long, value_name = "FOLDER", env = "WALMILL_PLUGINS", default_value = "target/plugins")]
    plugins: PathBuf,
    /// Measure only this case, beside `raw`; can be given more than once.
    #[arg(long = "case", value_name = "NAME", value_parser = CASES.map(|(name, _)| name))]
    cases: Vec<String>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What is measured: a name, and the config of its one plugin.
const CASES: [(&str, Option<(&str, &str)>); 7] = [
    ("raw", None),
    ("journal", None),
    ("none", None),
    ("pass", Some(("filter", r#"{ ops = ["insert", "update", "delete"] }"#))),
    ("filter", Some(("filter", r#"{ where = "country == 'NZ'" }"#))),
    ("reshape", Some(("reshape", r#"{ mask = { email = "email" }, drop = ["note"] }"#))),
    ("route", Some(("route", r#"{ column = "country", prefix = "people." }"#))),
];
const SCHEMA: &str = "CREATE TABLE people (
    id bigint PRIMARY KEY, age integer NOT NULL, balance numeric(12,2) NOT NULL,
    name text NOT NULL, email text NOT NULL, country text NOT NULL, note text NOT NULL,
    active boolean NOT NULL, created_at timestamptz NOT NULL, profile jsonb NOT NULL);
    CREATE PUBLICATION bench FOR TABLE people;";
const LOAD: &str = "INSERT INTO people SELECT i, i % 90, (i % 100000) / 100.0, 'Name ' || i,
    'user' || i || '@example.com', (ARRAY['NZ', 'DE', 'US', 'JP'])[1 + i % 4],
    repeat('note ', 8), i % 2 = 0, now(), jsonb_build_object('a', i, 'b', repeat('x', 80))
    FROM generate_series($1::bigint, $2::bigint) i";
/// A case that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// What one case took.
#[derive(Debug, Serialize)]
struct Figures {
    case: &'static str,
    rows_per_second: f64,
    rows_per_cpu_second: f64,
    cpu_per_million: f64,
    walsender_cpu_per_million: f64,
    ratio_to_walsender: f64,
    ratio_to_raw: f64,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::run_time(Finding::error("runtime", "", error.to_string())))?;
    let figures = runtime
        .block_on(measure(arguments))
        .map_err(|error| Failure::run_time(Finding::error("bench", "", format!("{error:#}"))))?;
    if arguments.json {
        let rows = serde_json::json!({ "rows": figures });
        println!("{rows:#}");
        return Ok(());
    }
    println!(
        "{:<9}{:>10}{:>16}{:>14}{:>18}{:>14}{:>8}",
        "case",
        "rows/s",
        "rows/CPU-s",
        "CPU-s/M rows",
        "walsender CPU-s/M",
        "of walsender",
        "of raw"
    );
    for figures in figures {
        println!(
            "{:<9}{:>10.0}{:>16.0}{:>14.2}{:>18.2}{:>14.2}{:>8.1}",
            figures.case,
            figures.rows_per_second,
            figures.rows_per_cpu_second,
            figures.cpu_per_million,
            figures.walsender_cpu_per_million,
            figures.ratio_to_walsender,
            figures.ratio_to_raw
        );
    }
    Ok(())
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Figures>> {
    let options =
        Options::default().set("max_replication_slots", "20").set("max_wal_senders", "20");
    let cluster = Cluster::start(&options)?;
    let (database, connection) = tokio_postgres::connect(&cluster.url(), NoTls).await?;
    tokio::spawn(connection);
    database.batch_execute(SCHEMA).await?;
    for (case, _) in CASES {
        let create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
        database.execute(create, &[&format!("bench_{case}")]).await?;
    }
    let until = load(&database, arguments.rows).await?;
    let mut figures: Vec<Figures> = Vec::new();
    let chosen = |name: &str| {
        let cases = &arguments.cases;
        name == "raw" || cases.is_empty() || cases.iter().any(|case| case == name)
    };
    for (case, plugin) in CASES.into_iter().filter(|(name, _)| chosen(name)) {
        let bench = Bench { arguments, url: cluster.url(), database: &database, until };
        let raw = figures.first().map(|raw| raw.cpu_per_million);
        figures.push(bench.case(case, plugin, raw).await.with_context(|| case)?);
    }
    Ok(figures)
}

/// Inserts the rows, and one transaction more: the place before that one is the end of the load.
async fn load(database: &Client, rows: u64) -> anyhow::Result<Lsn> {
    let rows = i64::try_from(rows)?;
    let insert = database.prepare(LOAD).await?;
    for first in (1..=rows).step_by(1000) {
        database.execute(&insert, &[&first, &(first + 999).min(rows)]).await?;
    }
    let end = database.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?;
    database.execute(&insert, &[&(rows + 1), &(rows + 1)]).await?;
    Ok(end.get::<_, String>(0).parse()?)
}

struct Bench<'a> {
    arguments: &'a Arguments,
    url: String,
    database: &'a Client,
    until: Lsn,
}

impl Bench<'_> {
    async fn case(
        &self,
        case: &'static str,
        plugin: Option<(&str, &str)>,
        raw: Option<f64>,
    ) -> anyhow::Result<Figures> {
        let folder = tempfile::tempdir()?;
        let config = self.config(case, plugin, folder.path())?;
        let (began, cpu) = (Instant::now(), process_cpu());
        let walsender = match case {
            "raw" => self.raw(&config).await?,
            _ => self.walmill(config, case != "journal").await?,
        };
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), (process_cpu() - cpu).as_secs_f64());
        let rows = self.arguments.rows as f64;
        let cpu_per_million = cpu / rows * 1e6;
        let walsender_cpu_per_million = walsender / rows * 1e6;
        Ok(Figures {
            case,
            rows_per_second: rows / seconds,
            rows_per_cpu_second: rows / cpu,
            cpu_per_million,
            walsender_cpu_per_million,
            ratio_to_walsender: cpu_per_million / walsender_cpu_per_million,
            ratio_to_raw: cpu_per_million / raw.unwrap_or(cpu_per_million),
        })
    }

    fn config(
        &self,
        case: &str,
        plugin: Option<(&str, &str)>,
        folder: &Path,
    ) -> anyhow::Result<Config> {
        let mut text = format!(
            "[source]\nurl = '{}'\nslot = 'bench_{case}'\npublication = 'bench'\n\
             tables = ['public.people']\n[store]\npath = '{}'\n[server]\nlisten = '127.0.0.1:0'\n",
            self.url,
            folder.join("data").display()
        );
        if let Some((name, config)) = plugin {
            let path = std::path::absolute(self.arguments.plugins.join(format!("{name}.wasm")))?;
            text.push_str(&format!(
                "[plugins.guest]\npath = '{}'\nconfig = {config}\n",
                path.display()
            ));
        }
        if !matches!(case, "raw" | "journal") {
            let plugins = if plugin.is_some() { "['guest']" } else { "[]" };
            text.push_str(&format!(
                "[[pipeline]]\nname = 'people'\ntables = ['public.people']\n\
                 plugins = {plugins}\nstreams = ['people.*']\n"
            ));
        }
        match Config::parse(&Document::of(&text, "bench"), &[], &|_| None) {
            Ok(loaded) => Ok(loaded.config),
            Err(findings) => {
                bail!("{}", findings.iter().map(ToString::to_string).collect::<String>())
            }
        }
    }

    /// On a thread and a runtime of its own, as the source is: each wake-up that crosses threads
    /// is paid.
    async fn raw(&self, config: &Config) -> anyhow::Result<f64> {
        let (config, until) = (config.source.clone(), self.until);
        let (sender, mut done) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || -> anyhow::Result<u64> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let read = runtime.block_on(raw::read(&config, until)).map_err(anyhow::Error::msg);
            // Nobody listens after a failure.
            let _ = sender.send(());
            read
        });
        let mut walsender = 0.0_f64;
        while done.try_recv().is_err_and(|e| e == tokio::sync::oneshot::error::TryRecvError::Empty)
        {
            walsender = walsender.max(self.walsender_cpu().await?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        thread.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        Ok(walsender)
    }

    async fn walmill(&self, config: Config, pipeline: bool) -> anyhow::Result<f64> {
        let shutdown = CancellationToken::new();
        let (sender, ready) = tokio::sync::oneshot::channel();
        let running = tokio::spawn(app::run(config, shutdown.clone(), PATIENCE, move |ready| {
            // It is received below.
            let _ = sender.send(ready);
        }));
        let Ready { store, .. } = ready.await.context("walmill did not start")?;
        let deadline = Instant::now() + PATIENCE;
        let mut walsender = 0.0_f64;
        while !self.is_done(&store, pipeline)? {
            if Instant::now() > deadline {
                bail!("not done after {PATIENCE:?}");
            }
            walsender = walsender.max(self.walsender_cpu().await?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        walsender = walsender.max(self.walsender_cpu().await?);
        shutdown.cancel();
        running.await?.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        Ok(walsender)
    }

    fn is_done(&self, store: &Store, pipeline: bool) -> anyhow::Result<bool> {
        let reached = match pipeline {
            true => store.pipeline_cursor("people")?.unwrap_or_default().commit,
            false => store.last_commit(),
        };
        Ok(reached > self.until)
    }

    /// Processor seconds of the walsender that runs now, as Linux counts them.
    async fn walsender_cpu(&self) -> anyhow::Result<f64> {
        let pids = self.database.query("SELECT pid FROM pg_stat_replication", &[]).await?;
        let ticks = pids.iter().map(|row| ticks(row.get(0))).sum::<u64>();
        Ok(ticks as f64 / 100.0)
    }
}

/// User and system time of a process in hundredths of a second (proc(5), `stat`, fields 14 and 15);
/// 0 where there is no such file.
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // Processor time is never negative, and its nanoseconds are below a second.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
