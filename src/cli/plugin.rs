//! `walmill plugin`: plugins while they are written, and those in force in a walmill that runs.

mod bench;
mod build;
mod call;
mod inspect;
mod load;
mod ls;
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
    Ls(ls::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::New(arguments) => new::run(arguments),
        Command::Build(arguments) => build::run(arguments),
        Command::Test(arguments) => test::run(arguments),
        Command::Call(arguments) => call::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Ls(arguments) => ls::run(arguments),
    }
}
