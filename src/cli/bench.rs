//! `walmill bench`: what each part of the way costs, beside a reader that throws the stream away.
//!
//! One PostgreSQL, one load, and a slot that was made before the load: every case reads from a copy
//! of it, so every case reads the same stream. Each runs this program as a process of its own, so
//! that processor time and memory are the case's alone; who receives the events is not counted.

mod bars;
mod cases;
mod growth;
mod latency;
mod load;
mod process;
mod progress;
mod receiver;
mod report;
mod slot;
mod usage;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use serde_json::json;
use tokio_postgres::Client;

use super::Failure;
use crate::config::Config;
use crate::config::finding::Finding;
use crate::model::Lsn;
use crate::source::raw;
use cases::{CASES, Case, Output, Part};
use load::Load;
pub(super) use process::READER;
use process::{Process, free_port};
use progress::Progress;
use receiver::{Receiver, Unready};
use report::{Row, Run};
use slot::COPY;

/// `walmill bench`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Changes to make: inserts in transactions of 1, 100 and 100,000 rows, updates, deletes.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// Measure each case so often, and print the median; once unless said, five times with --bars.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,
    /// Measure only these cases, with commas between, beside `raw`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    cases: Vec<Case>,
    /// The folder of the sample plugins, as `scripts/build-plugins` leaves it (filter.wasm, …), and
    /// below it examples/rust.wasm and examples/javascript.wasm.
    #[arg(long, value_name = "FOLDER", env = "WALMILL_PLUGINS", default_value = "target/plugins")]
    plugins: PathBuf,
    /// Measure how long a row takes from its commit to a client instead, beside LISTEN/NOTIFY, also
    /// while plugins are swapped.
    #[arg(long, conflicts_with_all = ["rows", "repeat", "cases"])]
    latency: bool,
    /// With --latency: how long each rate is written.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "latency",
          value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Measure what is promised, and fail when a bar is missed.
    #[arg(long, conflicts_with_all = ["cases", "latency"])]
    bars: bool,
    #[command(flatten)]
    growth: growth::Arguments,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn repeat(&self) -> u32 {
        self.repeat.unwrap_or(if self.bars { ROUNDS_OF_BARS } else { 1 })
    }
}

/// The reader that throws away, as `walmill bench` starts it.
#[derive(Debug, Args)]
pub(super) struct ReaderArguments {
    config: PathBuf,
    /// Changes after which it has read everything.
    changes: u64,
}

/// What a bar says is the median of so many.
const ROUNDS_OF_BARS: u32 = 5;
/// Between two looks at how far a case is.
const GLANCE: Duration = Duration::from_millis(20);
/// Without any progress for so long, a case hangs.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let failed = |error| Failure::run_time(Finding::error("bench", "", format!("{error:#}")));
    let runtime = tokio::runtime::Runtime::new().map_err(|error| failed(error.into()))?;
    let Figures { text, missed } = runtime.block_on(figures(arguments)).map_err(failed)?;
    // A closed stdout is no reason to complain.
    let _ = std::io::stdout().write_all(text.as_bytes());
    match missed {
        0 => Ok(()),
        missed => Err(failed(anyhow!("{missed} of the bars are missed: see the table"))),
    }
}

/// What is printed.
async fn figures(arguments: &Arguments) -> anyhow::Result<Figures> {
    ensure!(cfg!(target_os = "linux"), "it reads what processes use from /proc: it needs Linux");
    let mut missed = 0;
    let (told, text) = if arguments.latency {
        let latencies = latency::measure(&arguments.plugins, arguments.seconds).await?;
        (json!({ "latency": latencies }), latency::table(&latencies))
    } else if arguments.growth.growth {
        let tables = growth::measure(&arguments.growth, &arguments.plugins).await?;
        (json!({ "growth": tables }), growth::markdown(&tables))
    } else if arguments.bars {
        let rounds = measure(arguments).await?;
        let judged = bars::judge(&rounds);
        missed = bars::missed(&judged);
        let rows = medians(&rounds);
        let text = format!("{}\n{}", report::table(&rows), bars::table(&judged));
        (json!({ "bars": judged, "rows": rows }), text)
    } else {
        let rows = medians(&measure(arguments).await?);
        (json!({ "rows": rows }), report::table(&rows))
    };
    let text = if arguments.json { format!("{told:#}\n") } else { text };
    Ok(Figures { text, missed })
}

/// What a bench has to say.
struct Figures {
    text: String,
    /// How many bars.
    missed: usize,
}

fn medians(rounds: &[Vec<Row>]) -> Vec<Row> {
    rounds.iter().filter_map(|rows| Row::median(rows)).collect()
}

/// Reads, says so, and stays connected until its input ends: the walsender is looked at meanwhile.
pub(super) fn read(arguments: &ReaderArguments) -> Result<(), Failure> {
    let loaded = Config::load(&arguments.config, &[]).map_err(Failure::usage)?;
    super::wait(async {
        let failed = |error: String| Failure::run_time(Finding::error("bench", "", error));
        let mut reader = raw::Reader::open(&loaded.config.source).await.map_err(failed)?;
        reader.read(arguments.changes).await.map_err(failed)?;
        println!("done");
        let ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ended.map(drop).map_err(|error| failed(error.to_string()))
    })
}

/// The runs of each case.
async fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Vec<Row>>> {
    let (cluster, database) = slot::server().await?;
    database.batch_execute(load::SCHEMA).await?;
    slot::make(&database, load::SLOT).await?;
    let load = Load::new(arguments.rows);
    eprintln!("Making {} changes …", load.changes());
    let until = load.make(&database).await.context("make the changes")?;
    let bench = Bench { arguments, url: cluster.url(), database: &database, load, until };
    bench.rounds().await
}

/// What all cases have in common.
struct Bench<'a> {
    arguments: &'a Arguments,
    url: String,
    database: &'a Client,
    load: Load,
    /// The end of the load lies behind it.
    until: Lsn,
}

impl Bench<'_> {
    /// Round by round, so that what changes on the machine meanwhile changes all cases alike.
    async fn rounds(&self) -> anyhow::Result<Vec<Vec<Row>>> {
        let cases = self.chosen();
        let mut runs: Vec<Vec<Row>> = vec![Vec::new(); cases.len()];
        for _ in 0..self.arguments.repeat() {
            let mut raw = None;
            for (case, rows) in cases.iter().zip(&mut runs) {
                let changes = self.load.changes();
                let Some(run) = self.case(case).await.with_context(|| case.name)? else { continue };
                let row = Row::new(case, changes, &run, raw);
                raw = raw.or(Some(row.cpu_per_million()));
                rows.push(row);
            }
        }
        Ok(runs)
    }

    /// The cases that were asked for and can be run; those that can't are named.
    fn chosen(&self) -> Vec<Case> {
        let asked = &self.arguments.cases;
        let named = |case: &Case| asked.iter().any(|asked| asked.name == case.name);
        let all = asked.is_empty() && !self.arguments.bars;
        let barred = |case: &Case| self.arguments.bars && bars::CASES.contains(&case.name);
        let chosen = |case: &Case| case.part == Part::Raw || all || named(case) || barred(case);
        let mut cases: Vec<_> = CASES.into_iter().filter(chosen).collect();
        cases.retain(|case| match case.missing(&self.arguments.plugins) {
            None => true,
            Some(file) => {
                skip(case, &format!("there is no {}: see --plugins", file.display()));
                false
            }
        });
        cases
    }

    /// Nothing, when this machine lacks what it takes.
    async fn case(&self, case: &Case) -> anyhow::Result<Option<Run>> {
        let mut receiver = match Receiver::start(case.output).await {
            Ok(receiver) => receiver,
            Err(Unready::Missing(why)) => {
                skip(case, why);
                return Ok(None);
            }
            Err(Unready::Failed(error)) => return Err(error),
        };
        eprintln!("{} …", case.name);
        let copy = "SELECT pg_copy_logical_replication_slot($1, $2)";
        self.database.execute(copy, &[&load::SLOT, &COPY]).await?;
        let port = free_port()?;
        let plugins = std::path::absolute(&self.arguments.plugins)?;
        let parts = [source(&self.url, port), case.pipeline(&plugins), receiver.config()].concat();
        let mut process = match case.part {
            Part::Raw => Process::reader(&parts, self.load.changes())?,
            Part::Journal | Part::Pipeline(_) => Process::walmill(&parts)?,
        };
        let walsender = slot::walsender(self.database, &mut process).await?;
        let (began, before) = (Instant::now(), usage::of(process.id())?);
        receiver.connect(port, case.streams()).await?;
        let mut progress = Progress {
            case,
            process: &mut process,
            receiver: &mut receiver,
            database: self.database,
            port,
            load: self.load,
            until: self.until,
        };
        progress.end().await?;
        let seconds = began.elapsed().as_secs_f64();
        let (after, walsender) = (usage::of(progress.process.id())?, usage::cpu(walsender)?);
        let events = progress.count().await?;
        process.stop().await?;
        let received = receiver.finish().await?;
        if case.output != Output::None {
            ensure!(received == events, "{received} events were received, and {events} sent");
        }
        slot::discard(self.database).await?;
        Ok(Some(Run {
            seconds,
            cpu: after.cpu - before.cpu,
            walsender,
            peak: after.peak,
            written: after.written,
            events,
        }))
    }
}

/// The config of the source and the server.
fn source(url: &str, port: u16) -> String {
    format!(
        "[source]\nurl = '{url}'\nslot = '{COPY}'\npublication = 'walmill_bench'\n\
         [server]\nlisten = '127.0.0.1:{port}'\n"
    )
}

fn skip(case: &Case, why: &str) {
    eprintln!("skipped: {}: {why}", case.name);
}
