//! `walmill dev`: runs a config and watches the sources of its plugins. A change is built, tested
//! and swapped in, and what it makes of the last events stands beside what was made of them before.
//!
//! A plugin has sources where a `plugin.toml` beside or above its file names that file as what its
//! build leaves. What runs is a copy, which is replaced when the golden cases have passed: so a
//! build that is half done, or wrong, never gets near the stream.

mod shadow;
mod sources;
mod tap;

use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::Duration;

use clap::Args;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{ConfigArguments, Failure, LogFormat, print_findings, run, start_log};
use crate::app::{self, AppError, Ready};
use crate::config::finding::Finding;
use crate::config::{Config, Loaded};
use sources::{Source, Sources};

/// How long a shutdown may take.
const GRACE: Duration = Duration::from_secs(5);

/// `walmill dev`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Don't show events.
    #[arg(long)]
    no_tap: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    start_log(Some(LogFormat::Text));
    let loaded = arguments.config.load()?;
    print_findings(&loaded.warnings);
    let copies = tempfile::Builder::new().prefix("walmill-dev-").tempdir().map_err(|error| {
        Failure::environment(Finding::error("folder", "", format!("a folder for copies: {error}")))
    })?;
    let sources = find(&loaded.config, &copies)?;
    sources.iter().try_for_each(Source::prepare)?;
    let loaded = with_copies(arguments, &sources)?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::run_time(Finding::error("runtime", "", error.to_string())))?;
    let outcome = runtime.block_on(stream(arguments, loaded.config, sources));
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(copies);
    outcome
}

/// The plugins that have sources.
fn find(config: &Config, copies: &TempDir) -> Result<Vec<Source>, Failure> {
    let mut found = Vec::new();
    for (name, plugin) in &config.plugins {
        match Source::find(name, &plugin.path, copies.path())? {
            Some(source) => {
                println!("{name}: its sources are in {}", source.project.folder.display());
                found.push(source);
            }
            None => println!("{name}: no sources; {} is watched", plugin.path.display()),
        }
    }
    Ok(found)
}

/// The config, with the copies in place of what the builds leave.
fn with_copies(arguments: &Arguments, sources: &[Source]) -> Result<Loaded, Failure> {
    let ConfigArguments { config, set } = &arguments.config;
    let path = |source: &Source| {
        let path = toml::Value::from(source.copy.display().to_string());
        let name = toml::Value::from(source.name.as_str());
        format!("plugins.{name}.path={path}")
    };
    let set: Vec<String> = set.iter().cloned().chain(sources.iter().map(path)).collect();
    Config::load(config, &set).map_err(Failure::usage)
}

async fn stream(
    arguments: &Arguments,
    config: Config,
    sources: Vec<Source>,
) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    run::cancel_on_signal(&shutdown);
    let (tap, settings) = (!arguments.no_tap, config.clone());
    let (wake, woken) = channel();
    let folders: Vec<PathBuf> = sources.iter().flat_map(Source::folders).collect();
    let _notices = sources::watch(&folders, wake)?;
    let ready = move |Ready { address, store }: Ready| {
        println!("walmill runs at http://{address}; save a plugin's source to swap it in\n");
        if tap {
            tokio::spawn(tap::show(store));
        }
        let runtime = tokio::runtime::Handle::current();
        let sources = Sources { sources, settings, address, runtime };
        // It ends with the process: it may be waiting for a compiler.
        std::thread::spawn(move || sources.run(&woken));
    };
    app::run(config, shutdown, GRACE, ready).await.map_err(|error| match error {
        AppError::Config(findings) => Failure::usage(findings),
        AppError::Environment(finding) => Failure::environment(finding),
        AppError::RunTime(error) => {
            Failure::run_time(Finding::error("dev", "", format!("{error:#}")))
        }
    })
}
