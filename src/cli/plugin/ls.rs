//! `walmill plugin ls`: which version of each plugin is in force.

use clap::Args;

use super::super::client::Client;
use super::super::{ConfigArguments, Failure, wait};

/// Where plugins are in the admin API.
const PLUGINS: [&str; 3] = ["api", "v1", "plugins"];

/// `walmill plugin ls`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print them as JSON, each with its history.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.config.load()?.config)?;
    let answer = wait(client.get(&PLUGINS))?;
    if arguments.json {
        println!("{answer:#}");
        return Ok(());
    }
    for plugin in answer["plugins"].as_array().into_iter().flatten() {
        let text = |key: &str| plugin[key].as_str().unwrap_or_default().to_owned();
        println!("{}  {}  {}  {}", text("name"), text("version"), text("describes"), text("path"));
    }
    Ok(())
}
