//! `walmill plugin call`: what a plugin makes of one event.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use toml::Table;

use super::super::client::Client;
use super::super::{ConfigArguments, Failure, start_log, wait};
use super::load::{PluginArguments, Subject, engine, load, refused};
use crate::config::finding::Finding;
use crate::plugin::CallError;
use crate::plugin::golden::{Answer, File, Format, Given, Trial, shown};

/// `walmill plugin call`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    plugin: PluginArguments,
    /// A file with the event, as JSON: a change as in a golden case, or an event of a stream.
    /// `-` is stdin.
    #[arg(long, value_name = "FILE", default_value = "-")]
    event: PathBuf,
    /// Take the next change that comes to this pipeline of a walmill that runs.
    #[arg(long, value_name = "PIPELINE", conflicts_with = "event")]
    next: Option<String>,
    /// With `--next`, the change to begin with: an LSN, a time, an event's id, `earliest`.
    #[arg(long, value_name = "PLACE", requires = "next", default_value = "latest")]
    from: String,
    /// Write the change and the answer to a new file of golden cases, `NAME.json`.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// The plugin's config, as TOML: `--with 'country = "NZ"'`. A project's first golden case has
    /// one, which is taken otherwise.
    #[arg(long, value_name = "TOML")]
    with: Option<Table>,
    #[command(flatten)]
    config: ConfigArguments,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    // The plugin's own lines go there.
    start_log(None);
    let subject = arguments.plugin.open()?;
    let text = arguments.event()?;
    let wrong = |why: String| Failure::usage(vec![Finding::error("event", arguments.place(), why)]);
    let given = Given::parse(&text).map_err(wrong)?;
    let cases = cases(&subject)?;
    let config = arguments.with.clone();
    let config = config.or_else(|| cases.iter().find_map(File::config).cloned());
    let config = config.unwrap_or_default();
    let plugin =
        load(&engine()?, &subject.name, &subject.file, &config).map_err(|error| refused(&error))?;
    let relation = given.relation(&cases);
    let bound = relation.bind(given.has_full_old_row()).map_err(wrong)?;
    let failed = |error: CallError| {
        let message = format!("does not take {}: {error}", relation.table);
        Failure::run_time(Finding::error("plugin", subject.name.as_str(), message))
    };
    let mut trial = Trial::start(&plugin, bound).map_err(failed)?;
    let answer = trial
        .run(std::slice::from_ref(&given.change))
        .map_err(|why| Failure::run_time(Finding::error("plugin", subject.name.as_str(), why)))?;
    for answer in &answer {
        print(answer, arguments.json);
        if let Some(file) = &arguments.save {
            save(file, &given.case(relation, (&config, trial.plan()), answer))?;
        }
    }
    Ok(())
}

/// Only into a new file: what is expected was perhaps written by hand.
fn save(file: &Path, case: &str) -> Result<(), Failure> {
    let place = || file.display().to_string();
    if Format::of(file) != Format::Json {
        let finding = Finding::error("not-json", place(), "cases are written as JSON");
        return Err(Failure::usage(vec![finding.suggest("give it a name that ends in .json")]));
    }
    let unwritable = |error: std::io::Error| {
        Failure::run_time(Finding::error("unwritable", place(), error.to_string()))
    };
    let mut file = std::fs::File::create_new(file).map_err(unwritable)?;
    file.write_all(case.as_bytes()).map_err(unwritable)
}

impl Arguments {
    fn place(&self) -> String {
        match &self.next {
            Some(pipeline) => format!("pipeline {pipeline}"),
            None if self.event == Path::new("-") => "stdin".into(),
            None => self.event.display().to_string(),
        }
    }

    fn event(&self) -> Result<String, Failure> {
        if let Some(pipeline) = &self.next {
            return self.next_of(pipeline);
        }
        let read = match self.event.to_str() {
            Some("-") => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map(|_| text)
            }
            _ => std::fs::read_to_string(&self.event),
        };
        read.map_err(|error| {
            let message = format!("cannot be read: {error}");
            Failure::usage(vec![Finding::error("event", self.place(), message)])
        })
    }

    fn next_of(&self, pipeline: &str) -> Result<String, Failure> {
        let client = Client::new(&self.config.load()?.config)?;
        let parameters = [("from", self.from.as_str()), ("limit", "1"), ("wait", "30s")];
        let address = ["api", "v1", "pipelines", pipeline, "changes"];
        let page = wait(client.get_with(&address, &parameters))?;
        match page["changes"].get(0) {
            Some(change) => Ok(change.to_string()),
            None => {
                let message = "nothing came within 30 seconds";
                Err(Failure::run_time(Finding::error("no-event", self.place(), message)))
            }
        }
    }
}

/// The cases of the plugin's project, which know its tables' types and a config.
pub(super) fn cases(subject: &Subject) -> Result<Vec<File>, Failure> {
    let Some(project) = &subject.project else { return Ok(Vec::new()) };
    let parse = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        text.and_then(|text| File::parse(&text, Format::of(&path))).map_err(|why| {
            Failure::usage(vec![Finding::error("cases", path.display().to_string(), why)])
        })
    };
    project.cases()?.into_iter().map(parse).collect()
}

fn print(answer: &Answer, as_json: bool) {
    let verdict = answer.verdict();
    if as_json {
        let mut shown = json!(answer);
        shown["verdict"] = verdict.into();
        return println!("{shown:#}");
    }
    println!("verdict  {verdict}");
    let out = answer.out.as_ref();
    let route = out.and_then(|out| out.as_str()).and_then(|out| out.strip_prefix("to "));
    println!("route    {}", answer.to.as_deref().or(route).unwrap_or("the default"));
    match out {
        Some(toml::Value::String(out)) => {
            if let Some(reason) = out.strip_prefix("reject: ") {
                println!("reason   {reason}");
            }
        }
        Some(row) => {
            if let Some(table) = &answer.table {
                println!("table    {table}");
            }
            println!("row      {}", shown(row));
        }
        None => {}
    }
}
