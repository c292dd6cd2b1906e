//! `walmill plugin inspect`: what a plugin's file is, without running it.

use clap::Args;

use super::super::Failure;
use super::load::PluginArguments;
use crate::config::finding::Finding;
use crate::plugin::summary::Summary;

/// `walmill plugin inspect`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    plugin: PluginArguments,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let subject = arguments.plugin.open()?;
    let place = subject.file.display().to_string();
    let bytes = std::fs::read(&subject.file).map_err(|error| {
        let message = format!("cannot be read: {error}");
        Failure::usage(vec![Finding::error("unreadable", &place, message)])
    })?;
    let summary = Summary::of(&bytes).map_err(|reason| {
        Failure::run_time(Finding::error("plugin", &place, reason.to_string()))
    })?;
    if arguments.json {
        let shown = serde_json::json!(summary);
        println!("{shown:#}");
        return Ok(());
    }
    let list = |items: &[String]| match items {
        [] => "nothing".to_owned(),
        items => items.join("\n           "),
    };
    println!("file       {place} ({}, {} bytes)", summary.form, summary.size);
    println!("world      {}", summary.world);
    println!("language   {}", summary.language.as_deref().unwrap_or("it doesn't say"));
    println!("digest     {}", summary.digest);
    println!("imports    {}", list(&summary.imports));
    println!("exports    {}", list(&summary.exports));
    println!("must have  {}", list(&summary.needs));
    Ok(())
}
