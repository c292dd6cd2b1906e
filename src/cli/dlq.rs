//! `walmill dlq`: looks at the dead letters of the walmill that runs, and says what becomes of
//! them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Client;
use super::{ConfigArguments, Failure, wait};
use crate::config::finding::Finding;

/// Between two looks at what is tried again.
const LOOK: Duration = Duration::from_millis(200);
/// Dead letters of one answer.
const PAGE: &str = "500";

/// `walmill dlq`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    config: ConfigArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List dead letters, the newest first.
    Ls {
        #[command(flatten)]
        which: Which,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one: the event, why it is here, and what was tried.
    Show {
        /// Its number.
        id: u64,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try some again: through the plugins as they are now, or to their output.
    Retry {
        #[command(flatten)]
        which: Chosen,
        /// How long to wait for what comes of it; 0 asks for it only.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        wait: u64,
        /// Print what came of it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Forget some for good.
    Drop {
        #[command(flatten)]
        which: Chosen,
        /// Print how many it were as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write all that fit, each as one line of JSON.
    Export {
        #[command(flatten)]
        which: Which,
        /// To this file; to stdout without it.
        #[arg(short, long, value_name = "FILE")]
        output_file: Option<PathBuf>,
    },
}

/// Which letters are meant: those that fit everything that is given.
#[derive(Debug, Default, Args)]
struct Which {
    /// That this pipeline set aside.
    #[arg(long)]
    pipeline: Option<String>,
    /// That this plugin failed on.
    #[arg(long)]
    plugin: Option<String>,
    /// That the plugin failed on in this version.
    #[arg(long)]
    version: Option<String>,
    /// That this output gave up.
    #[arg(long)]
    output: Option<String>,
    /// From this stream.
    #[arg(long)]
    stream: Option<String>,
    /// Of the event with this id.
    #[arg(long)]
    event: Option<String>,
    /// Whose reason has this in it.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Letters by number, by filter, or all.
#[derive(Debug, Args)]
struct Chosen {
    /// Their numbers.
    ids: Vec<u64>,
    #[command(flatten)]
    which: Which,
    /// All of them.
    #[arg(long)]
    all: bool,
}

impl Which {
    fn pairs(&self) -> Vec<(&'static str, &str)> {
        let Self { pipeline, plugin, version, output, stream, event, reason } = self;
        let all = [
            ("pipeline", pipeline),
            ("plugin", plugin),
            ("version", version),
            ("output", output),
            ("stream", stream),
            ("event", event),
            ("reason", reason),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

impl Chosen {
    /// As the API takes it.
    fn body(&self) -> Result<Value, Failure> {
        let mut body: serde_json::Map<String, Value> =
            self.which.pairs().into_iter().map(|(name, text)| (name.into(), text.into())).collect();
        if !self.ids.is_empty() {
            body.insert("ids".into(), json!(self.ids));
        }
        if self.all {
            body.insert("all".into(), json!(true));
        }
        if body.is_empty() {
            let message = "no dead letter is named";
            let finding = Finding::error("which", "", message)
                .suggest("give numbers, a filter such as `--plugin NAME`, or `--all`");
            return Err(Failure::usage(vec![finding]));
        }
        Ok(Value::Object(body))
    }
}

const DLQ: [&str; 3] = ["api", "v1", "dlq"];

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.config.load()?.config)?;
    wait(async {
        match &arguments.command {
            Command::Ls { which, limit, json } => ls(&client, which, *limit, *json).await,
            Command::Show { id, json } => show(&client, *id, *json).await,
            Command::Retry { which, wait, json } => retry(&client, which, *wait, *json).await,
            Command::Drop { which, json } => {
                let [api, version, dlq] = DLQ;
                let answer = client.post_body(&[api, version, dlq, "drop"], &which.body()?).await?;
                match json {
                    true => println!("{answer:#}"),
                    false => println!("{} dropped", letters(answer["dropped"].as_u64())),
                }
                Ok(())
            }
            Command::Export { which, output_file } => export(&client, which, output_file).await,
        }
    })
}

/// `1 dead letter`, `7 dead letters`
fn letters(count: Option<u64>) -> String {
    match count.unwrap_or_default() {
        1 => "1 dead letter".into(),
        count => format!("{count} dead letters"),
    }
}

async fn ls(client: &Client, which: &Which, limit: u32, json: bool) -> Result<(), Failure> {
    let limit = limit.to_string();
    let mut pairs = which.pairs();
    pairs.push(("limit", &limit));
    let answer = client.get_with(&DLQ, &pairs).await?;
    if json {
        println!("{answer:#}");
        return Ok(());
    }
    let found = list(&answer);
    if found.is_empty() {
        println!("there is no dead letter");
    }
    found.iter().for_each(|letter| println!("{}", line(letter)));
    if !answer["below"].is_null() {
        eprintln!("there may be more: `--limit`, or `walmill dlq export`");
    }
    Ok(())
}

fn list(answer: &Value) -> Vec<Value> {
    answer["dead_letters"].as_array().cloned().unwrap_or_default()
}

/// A letter as one line.
fn line(letter: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let retrying = if letter["retrying"] == json!(true) { "  (is tried again)" } else { "" };
    let reason = text(&letter["reason"]);
    let reason = reason.lines().next().unwrap_or_default();
    format!("{}  {}  {}  {reason}{retrying}", letter["id"], text(&letter["event"]), by(letter))
}

/// Who set it aside.
fn by(letter: &Value) -> String {
    let by = &letter["by"];
    let text = |key: &str| by[key].as_str().unwrap_or_default().to_owned();
    match by["kind"].as_str() {
        Some("output") => format!("output {} ({})", text("output"), text("stream")),
        Some("plugin") => {
            format!("plugin {} {} in {}", text("plugin"), text("version"), text("pipeline"))
        }
        Some("route") => format!("route of {}", text("pipeline")),
        _ => format!("changed definition in {}", text("pipeline")),
    }
}

async fn show(client: &Client, id: u64, json: bool) -> Result<(), Failure> {
    let number = id.to_string();
    let [api, version, dlq] = DLQ;
    let letter = client.get(&[api, version, dlq, &number]).await?;
    if json {
        println!("{letter:#}");
        return Ok(());
    }
    println!("{}", line(&letter));
    println!("reason: {}", letter["reason"].as_str().unwrap_or_default());
    println!("tries: {}", letter["attempts"]);
    for attempt in letter["tries"].as_array().into_iter().flatten() {
        println!("- {} ({} ms)", attempt["error"].as_str().unwrap_or_default(), attempt["took_ms"]);
        for side in ["request", "response"].iter().filter(|side| attempt[*side].is_object()) {
            println!("  {side}: {}", attempt[*side]);
        }
    }
    println!("{:#}", letter["payload"]);
    Ok(())
}

async fn retry(client: &Client, which: &Chosen, limit: u64, json: bool) -> Result<(), Failure> {
    let [api, version, dlq] = DLQ;
    let answer = client.post_body(&[api, version, dlq, "retry"], &which.body()?).await?;
    let ids: Vec<u64> =
        answer["retrying"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let deadline = Instant::now() + Duration::from_secs(limit);
    let (mut gone, mut failed, mut waiting) = (0_u64, 0_u64, ids.len() as u64);
    while waiting > 0 && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        (gone, failed, waiting) = (0, 0, 0);
        let (there, retrying) = standing(client, &ids).await?;
        for id in &ids {
            match there.contains(id) {
                false => gone += 1,
                true if retrying.contains(id) => waiting += 1,
                true => failed += 1,
            }
        }
    }
    match json {
        true => println!("{:#}", json!({ "done": gone, "failed": failed, "waiting": waiting })),
        false if ids.is_empty() => println!("there is nothing to try again"),
        false => println!(
            "{}: {gone} gone through, {failed} failed again, {waiting} under way",
            letters(Some(ids.len() as u64))
        ),
    }
    if failed == 0 {
        return Ok(());
    }
    let finding =
        Finding::error("failed-again", "", format!("{} failed again", letters(Some(failed))));
    Err(Failure::run_time(finding.suggest("`walmill dlq ls` says why")))
}

/// Which of these letters are there, and which of those are still to be tried.
async fn standing(client: &Client, ids: &[u64]) -> Result<(Vec<u64>, Vec<u64>), Failure> {
    let (mut there, mut retrying) = (Vec::new(), Vec::new());
    let oldest = ids.iter().min().copied().unwrap_or_default();
    each(client, &Which::default(), |letter| {
        let id = letter["id"].as_u64().unwrap_or_default();
        there.push(id);
        if letter["retrying"] == json!(true) {
            retrying.push(id);
        }
        Ok(id > oldest)
    })
    .await?;
    Ok((there, retrying))
}

/// Does something with every letter that fits, the newest first, while it says to go on.
async fn each(
    client: &Client,
    which: &Which,
    mut with: impl FnMut(&Value) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut below = None::<String>;
    loop {
        let mut pairs = which.pairs();
        pairs.push(("limit", PAGE));
        pairs.extend(below.as_deref().map(|below| ("below", below)));
        let answer = client.get_with(&DLQ, &pairs).await?;
        for letter in list(&answer) {
            if !with(&letter)? {
                return Ok(());
            }
        }
        match answer["below"].as_u64() {
            Some(next) => below = Some(next.to_string()),
            None => return Ok(()),
        }
    }
}

async fn export(client: &Client, which: &Which, file: &Option<PathBuf>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let path = file.as_ref().map_or("stdout".into(), |path| path.display().to_string());
        Failure::run_time(Finding::error("write", path, error.to_string()))
    };
    let mut out: Box<dyn Write> = match file {
        Some(path) => Box::new(BufWriter::new(File::create(path).map_err(failed)?)),
        None => Box::new(std::io::stdout().lock()),
    };
    let mut count = 0_u64;
    each(client, which, |letter| {
        count += 1;
        writeln!(out, "{letter}").map(|()| true).map_err(failed)
    })
    .await?;
    out.flush().map_err(failed)?;
    eprintln!("{} exported", letters(Some(count)));
    Ok(())
}
