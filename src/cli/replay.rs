//! `walmill replay`: asks the walmill that runs to go over what it has done again, or what that
//! would change.

mod dry_run;

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
    /// Change nothing: show what another version of a plugin would make of it.
    #[arg(long, requires = "plugin", conflicts_with_all = ["output", "no_wait"])]
    dry_run: bool,
    /// That version: its file (`new.wasm`, or `NAME=new.wasm` where the pipeline runs several
    /// plugins), or one of the plugin's history (`NAME@0a1b2c3d`).
    #[arg(long, value_name = "VERSION")]
    plugin: Option<String>,
    /// How many differences are shown.
    #[arg(long, value_name = "NUMBER", requires = "dry_run")]
    examples: Option<usize>,
    /// Print the replay, or what the dry run showed, as JSON.
    #[arg(long)]
    json: bool,
}

/// What goes over again at once, behind a change that mends something.
#[derive(Debug, Args)]
pub(super) struct Rewind {
    /// Have each pipeline that runs it replay from here on: an LSN, a time, an event's id, …
    #[arg(long, value_name = "PLACE")]
    replay_from: Option<String>,
}

impl Rewind {
    /// Replays each pipeline that runs the plugin, one after the other.
    pub(super) async fn run(
        &self,
        client: &Client,
        plugin: &str,
        json: bool,
    ) -> Result<(), Failure> {
        let Some(from) = &self.replay_from else { return Ok(()) };
        let answer = client.get(&["api", "v1", "pipelines"]).await?;
        let all = answer["pipelines"].as_array().cloned().unwrap_or_default();
        for pipeline in all {
            let plugins = pipeline["plugins"].as_array().cloned().unwrap_or_default();
            if let Some(name) =
                pipeline["name"].as_str().filter(|_| plugins.contains(&json!(plugin)))
            {
                let body = json!({ "pipeline": name, "from": from });
                go_over(client, ("pipeline", name), &body, &Manner { wait: true, json }).await?;
            }
        }
        Ok(())
    }
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
    let config = arguments.config.load()?.config;
    let client = Client::new(&config)?;
    wait(async {
        match &arguments.command {
            None if arguments.ask.dry_run => dry_run::run(&client, &config, &arguments.ask).await,
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
    if let Some(plugin) = &ask.plugin {
        let message = "a replay runs through the plugins in force";
        let finding = Finding::error("not-in-force", "--plugin", message).suggest(format!(
            "see what it would change with --dry-run; put it in force first with `walmill plugin \
             push` or `walmill plugin rollback`: {plugin}"
        ));
        return Err(Failure::usage(vec![finding]));
    }
    let (kind, name) = ask.part.named();
    let mut body = json!({ kind: name, "from": ask.from });
    if let Some(to) = &ask.to {
        body["to"] = json!(to);
    }
    let manner = Manner { wait: !ask.no_wait, json: ask.json };
    go_over(client, (kind, name), &body, &manner).await
}

/// How a replay is asked for.
struct Manner {
    wait: bool,
    json: bool,
}

/// Asks for a replay, and follows it to its end.
async fn go_over(
    client: &Client,
    (kind, name): (&str, &str),
    body: &Value,
    manner: &Manner,
) -> Result<(), Failure> {
    let answer = client.post_body(&REPLAY, body).await?;
    let mut replay = replays(&answer).first().cloned().unwrap_or_default();
    let id = replay["id"].clone();
    if !manner.json {
        eprintln!("{}", line(&replay));
    }
    while manner.wait && matches!(replay["state"].as_str(), Some("asked" | "running")) {
        tokio::time::sleep(LOOK).await;
        let all = replays(&client.get(&REPLAY).await?);
        match all.into_iter().find(|now| now[kind] == name && now["id"] == id) {
            Some(now) => replay = now,
            None => break,
        }
    }
    match manner.json {
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
