//! `walmill output`: the outputs of a walmill that runs.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::Client;
use super::{ConfigArguments, Failure, wait};

/// `walmill output`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the outputs, with what stands in their way.
    Ls {
        #[command(flatten)]
        config: ConfigArguments,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let an output deliver again whose receiver had said that it wants no more.
    Enable {
        /// The output's name.
        name: String,
        #[command(flatten)]
        config: ConfigArguments,
        /// Print the answer as JSON.
        #[arg(long)]
        json: bool,
    },
}

const OUTPUTS: [&str; 3] = ["api", "v1", "outputs"];

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Ls { config, json } => {
            let client = Client::new(&config.load()?.config)?;
            let answer = wait(client.get(&OUTPUTS))?;
            if *json {
                println!("{answer:#}");
            } else {
                answer["outputs"].as_array().into_iter().flatten().for_each(show);
            }
        }
        Command::Enable { name, config, json } => {
            let client = Client::new(&config.load()?.config)?;
            let [api, version, outputs] = OUTPUTS;
            let answer = wait(client.post(&[api, version, outputs, name, "enable"], &[]))?;
            match json {
                true => println!("{answer:#}"),
                false => println!("output {name} is enabled"),
            }
        }
    }
    Ok(())
}

fn show(output: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, kind, target) =
        (text(&output["name"]), text(&output["kind"]), text(&output["target"]));
    let counts = format!("{} delivered, {} failed", output["delivered"], output["failed"]);
    println!("{name}  {kind}  {target}  {counts}");
    if output["disabled"].is_object() {
        println!(
            "  disabled until `walmill output enable {name}`: {}",
            text(&output["disabled"]["why"])
        );
    } else if output["error"].is_string() {
        println!("  {}", text(&output["error"]));
    }
}
