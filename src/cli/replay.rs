//! `walmill replay`: asks the walmill that runs to go over what it has done again.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Client;
use super::{ConfigArguments, Failure, wait};
use crate::config::finding::Finding;

/// Between two looks at a replay that is watched.
const LOOK: Duration = Duration::from_millis(300);

/// `walmill replay`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    config: ConfigArguments,
}

#[derive(Debug, Args)]
struct Ask {
    #[command(flatten)]
    part: Part,
    /// Where to begin: an LSN, a time, an event's id, a cursor, or `earliest`.
    #[arg(long, value_name = "PLACE", required = true)]
    from: Option<String>,
    /// Where to end, with it; where the pipeline or the output stands if it is left out.
    #[arg(long, value_name = "PLACE")]
    to: Option<String>,
    /// Ask for it, and do not wait for its end.
    #[arg(long)]
    no_wait: bool,
    /// Print the replay as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Part {
    /// Run the journal through this pipeline's plugins, as they are now.
    #[arg(long)]
    pipeline: Option<String>,
    /// Deliver what is in the streams to this output.
    #[arg(long)]
    output: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List each pipeline's and output's last replay.
    Ls {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// End one where it is; what is new goes on.
    Cancel {
        #[command(flatten)]
        part: Part,
    },
}

const REPLAY: [&str; 3] = ["api", "v1", "replay"];

impl Part {
    fn named(&self) -> (&'static str, &str) {
        match (&self.pipeline, &self.output) {
            (Some(name), _) => ("pipeline", name),
            (None, name) => ("output", name.as_deref().unwrap_or_default()),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.config.load()?.config)?;
    wait(async {
        match &arguments.command {
            None => ask(&client, &arguments.ask).await,
            Some(Command::Ls { json }) => {
                let answer = client.get(&REPLAY).await?;
                if *json {
                    println!("{answer:#}");
                } else {
                    replays(&answer).iter().for_each(|replay| println!("{}", line(replay)));
                }
                Ok(())
            }
            Some(Command::Cancel { part }) => {
                let ([api, version, replay], (kind, name)) = (REPLAY, part.named());
                let address = [api, version, replay, kind, name, "cancel"];
                let answer = client.post(&address, &[]).await?;
                replays(&answer).iter().for_each(|replay| println!("{}", line(replay)));
                Ok(())
            }
        }
    })
}

async fn ask(client: &Client, ask: &Ask) -> Result<(), Failure> {
    let (kind, name) = ask.part.named();
    let mut body = json!({ kind: name, "from": ask.from });
    if let Some(to) = &ask.to {
        body["to"] = json!(to);
    }
    let answer = client.post_body(&REPLAY, &body).await?;
    let mut replay = replays(&answer).first().cloned().unwrap_or_default();
    let id = replay["id"].clone();
    if !ask.json {
        eprintln!("{}", line(&replay));
    }
    while !ask.no_wait && matches!(replay["state"].as_str(), Some("asked" | "running")) {
        tokio::time::sleep(LOOK).await;
        let all = replays(&client.get(&REPLAY).await?);
        match all.into_iter().find(|now| now[kind] == name && now["id"] == id) {
            Some(now) => replay = now,
            None => break,
        }
    }
    match ask.json {
        true => println!("{replay:#}"),
        false => println!("{}", line(&replay)),
    }
    match replay["state"].as_str() {
        Some("failed" | "cancelled") => {
            let message = format!("the replay of {kind} `{name}` did not come to its end");
            let why = replay["why"].as_str().unwrap_or("somebody ended it").to_owned();
            Err(Failure::run_time(Finding::error("not-done", name, message).suggest(why)))
        }
        _ => Ok(()),
    }
}

fn replays(answer: &Value) -> Vec<Value> {
    answer["replays"].as_array().cloned().unwrap_or_default()
}

/// A replay as one line.
fn line(replay: &Value) -> String {
    let text = |key: &str| replay[key].as_str().unwrap_or_default().to_owned();
    let (kind, name) = match replay["pipeline"].as_str() {
        Some(name) => ("pipeline", name.to_owned()),
        None => ("output", text("output")),
    };
    let events = match kind {
        "pipeline" => format!("  {} events", replay["events"]),
        _ => String::new(),
    };
    let commit = |key: &str| {
        let text = text(key);
        text.splitn(3, '/').take(2).collect::<Vec<_>>().join("/")
    };
    format!(
        "{kind} {name}  {}  from {} to {}, at {}{events}",
        text("state"),
        commit("from"),
        commit("to"),
        commit("at")
    )
}
