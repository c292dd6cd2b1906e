//! `walmill plugin build`: runs the project's commands, and loads what they leave.

use std::time::Instant;

use clap::Args;
use toml::Table;

use super::super::Failure;
use super::load::{Subject, engine, load, refused, wants_config};
use super::project::{Project, ProjectArguments};
use crate::plugin::Version;

/// `walmill plugin build`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    project: ProjectArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let project = arguments.project.open()?;
    println!("{}", build(&project)?);
    Ok(())
}

/// Builds the project and loads its plugin, as a stream would; what was built, in a line.
pub(in crate::cli) fn build(project: &Project) -> Result<String, Failure> {
    let began = Instant::now();
    project.build()?;
    let subject = Subject::of(project.clone())?;
    match load(&engine()?, &subject.name, &subject.file, &Table::new()) {
        Ok(_) => {}
        // What it says about an empty config is no fault of the build.
        Err(error) if wants_config(&error.reason) => {}
        Err(error) => return Err(refused(&error)),
    }
    let bytes = std::fs::read(&subject.file).unwrap_or_default();
    Ok(format!(
        "{} ({}): {}, {} KiB, version {}, in {:.1} s",
        subject.name,
        project.about.language,
        subject.file.display(),
        bytes.len() / 1024,
        Version::of(&bytes),
        began.elapsed().as_secs_f64()
    ))
}
