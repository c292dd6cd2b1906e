//! `walmill plugin call`: what a plugin makes of one event.

use std::io::Read as _;
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
    /// Take the next event of this stream of a walmill that runs.
    #[arg(long, value_name = "STREAM", conflicts_with = "event")]
    next: Option<String>,
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
    let wrong = |why: String| Failure::usage(vec![Finding::error("event", arguments.from(), why)]);
    let given = Given::parse(&text).map_err(wrong)?;
    let cases = cases(&subject)?;
    let config = arguments.with.clone();
    let config = config.or_else(|| cases.iter().find_map(File::config).cloned());
    let plugin = load(&engine()?, &subject.name, &subject.file, &config.unwrap_or_default())
        .map_err(|error| refused(&error))?;
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
    answer.iter().for_each(|answer| print(answer, arguments.json));
    Ok(())
}

impl Arguments {
    fn from(&self) -> String {
        match &self.next {
            Some(stream) => format!("stream {stream}"),
            None if self.event == Path::new("-") => "stdin".into(),
            None => self.event.display().to_string(),
        }
    }

    fn event(&self) -> Result<String, Failure> {
        if let Some(stream) = &self.next {
            return self.next_of(stream);
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
            Failure::usage(vec![Finding::error("event", self.from(), message)])
        })
    }

    fn next_of(&self, stream: &str) -> Result<String, Failure> {
        let client = Client::new(&self.config.load()?.config)?;
        let parameters = [("after", "latest"), ("limit", "1"), ("wait", "30s")];
        let page = wait(client.get_with(&["v1", "streams", stream, "events"], &parameters))?;
        match page["events"].get(0) {
            Some(event) => Ok(event.to_string()),
            None => {
                let message = "nothing came within 30 seconds";
                Err(Failure::run_time(Finding::error("no-event", self.from(), message)))
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
