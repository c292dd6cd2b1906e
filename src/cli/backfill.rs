//! `walmill backfill`: asks the walmill that runs to bring rows that are there into its stream.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::{ConfigArguments, Failure, wait};
use crate::config::finding::Finding;
use crate::model::backfill::{BackfillRequest, BackfillState, BackfillStatus};

/// Between two looks at a backfill that is watched.
const LOOK: Duration = Duration::from_millis(500);

/// `walmill backfill`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    config: ConfigArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Begin to bring the rows of tables into the stream.
    Start {
        /// A table, as `schema.table`; may be given more than once.
        #[arg(long, value_name = "TABLE", required = true)]
        table: Vec<String>,
        /// Only rows for which this SQL expression is true.
        #[arg(long = "where", value_name = "SQL")]
        filter: Option<String>,
        /// Show the progress until they are through.
        #[arg(long)]
        watch: bool,
    },
    /// List backfills, and how far they are.
    Ls {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stop one where it is.
    Pause(Which),
    /// Let one go on that is paused or has failed.
    Resume(Which),
    /// End one for good.
    Cancel(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// The backfill's number.
    id: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let walmill = Walmill(Client::new(&arguments.config.load()?.config)?);
    wait(async {
        match &arguments.command {
            Command::Start { table, filter, watch } => {
                let request = BackfillRequest { tables: table.clone(), filter: filter.clone() };
                let started = list(walmill.0.post_body(&BACKFILLS, &request).await?)?;
                for backfill in &started {
                    println!("backfill {} of {} begins", backfill.id, backfill.table);
                }
                if *watch { walmill.watch(&started).await } else { Ok(()) }
            }
            Command::Ls { json } => print_all(&walmill.list().await?, *json),
            Command::Pause(which) => walmill.act(which, "pause").await,
            Command::Resume(which) => walmill.act(which, "resume").await,
            Command::Cancel(which) => walmill.act(which, "cancel").await,
        }
    })
}

/// Where backfills are in the admin API.
const BACKFILLS: [&str; 3] = ["api", "v1", "backfills"];

/// The walmill that runs with this config.
struct Walmill(Client);

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
struct List {
    backfills: Vec<BackfillStatus>,
}

fn list(answer: serde_json::Value) -> Result<Vec<BackfillStatus>, Failure> {
    let list: List = serde_json::from_value(answer).map_err(|error| {
        let message = format!("an answer that is none of walmill's: {error}");
        Failure::run_time(Finding::error("bad-answer", "server.listen", message))
    })?;
    Ok(list.backfills)
}

impl Walmill {
    async fn list(&self) -> Result<Vec<BackfillStatus>, Failure> {
        list(self.0.get(&BACKFILLS).await?)
    }

    async fn act(&self, which: &Which, action: &str) -> Result<(), Failure> {
        let id = which.id.to_string();
        let [api, version, backfills] = BACKFILLS;
        let answer = self.0.post(&[api, version, backfills, &id, action], &[]).await?;
        for backfill in list(answer)? {
            println!("{}", line(&backfill));
        }
        Ok(())
    }

    /// Shows how these get on, until none of them goes on by itself.
    async fn watch(&self, started: &[BackfillStatus]) -> Result<(), Failure> {
        for backfill in started {
            let mut view = View::new(std::io::stderr().is_terminal());
            loop {
                let all = self.list().await?;
                let Some(now) = all.iter().find(|now| now.id == backfill.id) else { break };
                view.show(now);
                if now.state != BackfillState::Running {
                    view.end(now);
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        let all = self.list().await?;
        let done = |backfill: &BackfillStatus| {
            all.iter().any(|now| now.id == backfill.id && now.state == BackfillState::Done)
        };
        match started.iter().find(|backfill| !done(backfill)) {
            None => Ok(()),
            Some(backfill) => {
                let message = format!("backfill {} did not come to its end", backfill.id);
                let finding = Finding::error("not-done", backfill.table.clone(), message);
                Err(Failure::run_time(finding.suggest("`walmill backfill ls` says more")))
            }
        }
    }
}

/// How progress is shown: a bar on a terminal, a line now and then elsewhere.
enum View {
    Bar(ProgressBar),
    Lines {
        /// Tenths that were said.
        said: Option<u64>,
    },
}

impl View {
    fn new(terminal: bool) -> Self {
        if !terminal {
            return Self::Lines { said: None };
        }
        let bar = ProgressBar::new(0);
        let template = "{prefix} [{bar:30}] {human_pos}/{human_len} rows  {msg}";
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Self::Bar(bar)
    }

    fn show(&mut self, backfill: &BackfillStatus) {
        match self {
            Self::Bar(bar) => {
                bar.set_prefix(backfill.table.clone());
                bar.set_length(backfill.rows_total.max(backfill.rows_read));
                bar.set_position(backfill.rows_read);
                bar.set_message(pace(backfill));
            }
            Self::Lines { said } => {
                let tenth = backfill.rows_read * 10 / backfill.rows_total.max(1);
                if *said != Some(tenth) {
                    *said = Some(tenth);
                    eprintln!("{}", line(backfill));
                }
            }
        }
    }

    fn end(self, backfill: &BackfillStatus) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
        eprintln!("{}", line(backfill));
    }
}

/// A backfill as one line.
fn line(backfill: &BackfillStatus) -> String {
    let BackfillStatus { id, table, rows_read, rows_sent, rows_total, .. } = backfill;
    let state = format!("{:?}", backfill.state).to_lowercase();
    let filter = backfill.filter.as_ref().map(|filter| format!(" where {filter}"));
    format!(
        "{id}  {table}{}  {state}  {rows_read} of about {rows_total} rows read, {rows_sent} sent{}",
        filter.unwrap_or_default(),
        Some(pace(backfill))
            .filter(|pace| !pace.is_empty())
            .map_or(String::new(), |p| "  ".to_owned() + &p)
    )
}

/// How fast it is, when it will be through, and what it waits for.
fn pace(backfill: &BackfillStatus) -> String {
    let mut words = Vec::new();
    if backfill.state == BackfillState::Running {
        words.extend(backfill.rows_per_second.map(|rate| format!("{rate:.0} rows/s")));
        words.extend(backfill.eta_seconds.map(|eta| format!("{} left", duration(eta))));
    }
    words.extend(backfill.note.clone());
    words.join(", ")
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

fn print_all(backfills: &[BackfillStatus], json: bool) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = if json {
        let list = List { backfills: backfills.to_vec() };
        serde_json::to_writer_pretty(&mut stdout, &list)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(stdout))
    } else if backfills.is_empty() {
        writeln!(stdout, "there is no backfill; `walmill backfill start --table …` begins one")
    } else {
        backfills.iter().try_for_each(|backfill| writeln!(stdout, "{}", line(backfill)))
    };
    written.map_err(|error| Failure::run_time(Finding::error("stdout", "", error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::backfill::Backfill;

    #[test]
    fn a_line_says_how_far_it_is_and_how_long_it_takes() {
        let names = ("public".to_owned(), "orders".to_owned());
        let backfill = Backfill {
            rows_read: 3_000,
            rows_sent: 2_000,
            rows_total: 600_000,
            active_ms: 1_500,
            ..Backfill::new(7, names, Some("id > 5".into()))
        };
        assert_eq!(
            line(&(&backfill).into()),
            "7  public.orders where id > 5  running  3000 of about 600000 rows read, 2000 sent  \
             2000 rows/s, 4 min 59 s left"
        );
    }
}
