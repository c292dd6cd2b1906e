//! `walmill plugin`: plugins while they are written, and those in force in a walmill that runs.

mod live;

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
    Ls(live::Ls),
    /// Put an earlier version in force: one that is named, or the last good one.
    Rollback(live::Change),
    /// Put the version in force that waits for a person's word.
    Promote(live::Change),
    /// Send a file to a walmill that runs, as a plugin's next version.
    Push(live::Push),
    /// Fetch a version's file from a walmill that runs.
    Pull(live::Pull),
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Ls(arguments) => live::ls(arguments),
        Command::Rollback(arguments) => live::roll_back(arguments),
        Command::Promote(arguments) => live::promote(arguments),
        Command::Push(arguments) => live::push(arguments),
        Command::Pull(arguments) => live::pull(arguments),
    }
}
