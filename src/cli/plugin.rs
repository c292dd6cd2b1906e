//! `walmill plugin`: plugins while they are written, and those in force in a walmill that runs.

mod bench;
mod build;
mod call;
mod inspect;
mod live;
mod load;
mod new;
mod project;
mod test;

use clap::{Args, Subcommand};

use super::Failure;
pub(super) use build::build;
pub(super) use project::Project;
pub(super) use test::test;

/// `walmill plugin`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a project to start from.
    New(new::Arguments),
    /// Build a project, and load what that leaves.
    Build(build::Arguments),
    /// Run a project's golden cases.
    Test(test::Arguments),
    /// Ask a plugin about one event.
    Call(call::Arguments),
    /// Measure what an event costs in a plugin.
    Bench(bench::Arguments),
    /// Say what a plugin's file is and what it needs.
    Inspect(inspect::Arguments),
    /// List the plugins in force in a walmill that runs.
    Ls(live::Ls),
    /// Put an earlier version in force: one that is named, or the last good one.
    Rollback(live::RollBack),
    /// Put the version in force that waits for a person's word.
    Promote(live::Change),
    /// Send a file to a walmill that runs, as a plugin's next version.
    Push(live::Push),
    /// Fetch a version's file from a walmill that runs.
    Pull(live::Pull),
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::New(arguments) => new::run(arguments),
        Command::Build(arguments) => build::run(arguments),
        Command::Test(arguments) => test::run(arguments),
        Command::Call(arguments) => call::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Ls(arguments) => live::ls(arguments),
        Command::Rollback(arguments) => live::roll_back(arguments),
        Command::Promote(arguments) => live::promote(arguments),
        Command::Push(arguments) => live::push(arguments),
        Command::Pull(arguments) => live::pull(arguments),
    }
}
