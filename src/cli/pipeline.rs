//! `walmill pipeline`: what a person tells a pipeline that runs.

use clap::{Args, Subcommand};

use super::client::Client;
use super::{ConfigArguments, Failure, wait};

/// `walmill pipeline`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let a pipeline go on whose tables are defined otherwise now.
    AcceptSchema(AcceptSchema),
}

#[derive(Debug, Args)]
struct AcceptSchema {
    /// The pipeline's name.
    name: String,
    #[command(flatten)]
    config: ConfigArguments,
    /// Print what was accepted as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::AcceptSchema(arguments) => accept_schema(arguments),
    }
}

fn accept_schema(arguments: &AcceptSchema) -> Result<(), Failure> {
    let client = Client::new(&arguments.config.load()?.config)?;
    let accept = ["api", "v1", "pipelines", &arguments.name, "accept-schema"];
    let answer = wait(client.post(&accept, &[]))?;
    if arguments.json {
        println!("{answer:#}");
        return Ok(());
    }
    for change in answer["accepted"].as_array().into_iter().flatten() {
        let text = |key: &str| change[key].as_str().unwrap_or_default().to_owned();
        println!("{}: {} (at {})", text("table"), text("change"), text("event"));
    }
    Ok(())
}
