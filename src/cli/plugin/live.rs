//! `walmill plugin ls`, `rollback`, `promote`, `push`, `pull`: the plugins of a walmill that runs.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::client::Client;
use super::super::replay::Rewind;
use super::super::{ConfigArguments, Failure, comparison, file, wait};
use crate::config::finding::Finding;
use crate::model::clock;
use crate::model::plugin::ReloadStatus;
use crate::model::shadow::ShadowReport;

/// Where plugins are in the admin API.
const PLUGINS: [&str; 3] = ["api", "v1", "plugins"];

/// `walmill plugin ls`
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Only this plugin, with its history and its shadow runs.
    name: Option<String>,
    #[command(flatten)]
    config: ConfigArguments,
    /// Print them as JSON, each with its history.
    #[arg(long)]
    json: bool,
}

/// `walmill plugin rollback`
#[derive(Debug, Args)]
pub(super) struct RollBack {
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    rewind: Rewind,
}

/// `walmill plugin promote`
#[derive(Debug, Args)]
pub(super) struct Change {
    /// The plugin's name in the config.
    name: String,
    /// The version: the first digits of its hash.
    version: Option<String>,
    #[command(flatten)]
    config: ConfigArguments,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// `walmill plugin push`
#[derive(Debug, Args)]
pub(super) struct Push {
    /// The plugin's name in the config.
    name: String,
    /// The `.wasm` file.
    file: PathBuf,
    #[command(flatten)]
    config: ConfigArguments,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// `walmill plugin pull`
#[derive(Debug, Args)]
pub(super) struct Pull {
    /// The plugin's name in the config.
    name: String,
    /// The version: the first digits of its hash. Without one, the version in force.
    version: Option<String>,
    /// Where to write the file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    config: ConfigArguments,
}

/// What is shown of a plugin.
#[derive(Debug, Deserialize)]
struct Shown {
    name: String,
    version: String,
    describes: String,
    path: String,
    note: Option<String>,
    history: Vec<ReloadStatus>,
}

pub(super) fn ls(arguments: &Ls) -> Result<(), Failure> {
    let client = Client::new(&arguments.config.load()?.config)?;
    let [api, version, plugins] = PLUGINS;
    let answer = match &arguments.name {
        None => wait(client.get(&PLUGINS))?,
        Some(name) => wait(client.get(&[api, version, plugins, name]))?,
    };
    if arguments.json {
        return print(&format!("{answer:#}\n"));
    }
    if arguments.name.is_some() {
        return print(&details(&read(answer)?));
    }
    let all: Vec<Shown> = read(answer["plugins"].clone())?;
    print(&all.iter().map(line).collect::<String>())
}

/// Takes a version back and, if that is asked for, has its pipelines go over what it spoilt.
pub(super) fn roll_back(arguments: &RollBack) -> Result<(), Failure> {
    let RollBack { change: asked, rewind } = arguments;
    change(asked, "rollback")?;
    let client = Client::new(&asked.config.load()?.config)?;
    wait(rewind.run(&client, &asked.name, asked.json))
}

pub(super) fn promote(arguments: &Change) -> Result<(), Failure> {
    change(arguments, "promote")
}

fn change(arguments: &Change, action: &str) -> Result<(), Failure> {
    let client = Client::new(&arguments.config.load()?.config)?;
    let [api, version, plugins] = PLUGINS;
    let address = [api, version, plugins, &arguments.name, action];
    let body = json!({ "version": arguments.version });
    let done = wait(client.post_body(&address, &body))?;
    report(&arguments.name, done, arguments.json)
}

pub(super) fn push(arguments: &Push) -> Result<(), Failure> {
    let bytes = file::read(&arguments.file)?;
    let client = Client::new(&arguments.config.load()?.config)?;
    let [api, version, plugins] = PLUGINS;
    let done = wait(client.put_file(&[api, version, plugins, &arguments.name], bytes))?;
    report(&arguments.name, done, arguments.json)
}

pub(super) fn pull(arguments: &Pull) -> Result<(), Failure> {
    let client = Client::new(&arguments.config.load()?.config)?;
    let [api, version, plugins] = PLUGINS;
    let address = [api, version, plugins, &arguments.name, "file"];
    let wanted = arguments.version.as_deref().map(|version| ("version", version));
    let bytes = wait(client.get_file(&address, wanted.as_slice()))?;
    std::fs::write(&arguments.output, bytes).map_err(|error| {
        let place = arguments.output.display().to_string();
        Failure::run_time(Finding::error("unwritable", place, error.to_string()))
    })
}

fn report(name: &str, done: Value, json: bool) -> Result<(), Failure> {
    if json {
        return print(&format!("{done:#}\n"));
    }
    let done: ReloadStatus = read(done)?;
    let shadow = done.shadow.as_ref().map(|report| format!("\n  shadow run: {}", report.summary()));
    let reason = done.reason.as_ref().map(|reason| format!("\n  {reason}"));
    print(&format!(
        "{name} {} is {}{}{}\n",
        done.version,
        done.outcome.words(),
        reason.unwrap_or_default(),
        shadow.unwrap_or_default()
    ))
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        let message = format!("an answer that is none of walmill's: {error}");
        Failure::run_time(Finding::error("bad-answer", "server.listen", message))
    })
}

fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Failure::run_time(Finding::error("stdout", "", error.to_string())))
}

fn line(plugin: &Shown) -> String {
    let Shown { name, version, describes, path, note, .. } = plugin;
    let note = note.as_ref().map(|note| format!("  {note}\n")).unwrap_or_default();
    format!("{name}  {version}  {describes}  {path}\n{note}")
}

/// A plugin with all that happened to it, newest first.
fn details(plugin: &Shown) -> String {
    let mut text = line(plugin);
    for entry in &plugin.history {
        let ReloadStatus { version, why, outcome, error, reason, .. } = entry;
        let ago = clock::now().saturating_sub(entry.time) / 1_000_000;
        text += &format!("\n{version}  {} s ago  {}: {}\n", ago, why.words(), outcome.words());
        for word in [error, reason].into_iter().flatten() {
            text += &format!("  {word}\n");
        }
        text += &entry.shadow.as_ref().map(shadow).unwrap_or_default();
    }
    text
}

fn shadow(report: &ShadowReport) -> String {
    let mut text = format!("  shadow run: {}\n", report.summary());
    for compared in &report.pipelines {
        text += &format!("    pipeline {}, {} events\n", compared.pipeline, compared.events);
        text += &comparison::details(compared, "      ");
    }
    text
}
