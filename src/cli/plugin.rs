//! `walmill plugin`: plugins while they are written, and those in force in a walmill that runs.

mod ls;

use clap::{Args, Subcommand};

use super::Failure;

/// `walmill plugin`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the plugins in force in a walmill that runs.
    Ls(ls::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Ls(arguments) => ls::run(arguments),
    }
}
