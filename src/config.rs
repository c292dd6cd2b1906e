//! `walmill.toml` as one checked value.
//!
//! Each module owns its section, in types that cannot hold nonsense; here they are gathered, and
//! what only shows when sections are seen together is checked: names that nobody has, names twice.

pub mod document;
pub mod finding;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_spanned::Spanned;
use toml::de::DeTable;

use crate::{output, pipeline, plugin, server, source, store};
use document::{Document, interpolate, locate};
use finding::{Finding, did_you_mean};

/// Everything that a user can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[source]`
    pub source: source::Config,
    /// `[store]`
    #[serde(default)]
    pub store: store::Config,
    /// `[server]`
    #[serde(default)]
    pub server: server::Config,
    /// `[plugins.NAME]`
    #[serde(default)]
    pub plugins: BTreeMap<String, plugin::Config>,
    /// `[[pipeline]]`
    #[serde(default, rename = "pipeline")]
    pub pipelines: Vec<pipeline::Config>,
    /// `[[output.KIND]]`
    #[serde(default, rename = "output")]
    pub outputs: output::Config,
    /// Where it was read from, for those who read it again.
    #[serde(skip)]
    pub origin: Option<Origin>,
}

/// Where a config was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// A file or a folder.
    pub path: PathBuf,
    /// `key=value` from the command line over it.
    pub set: Vec<String>,
}

/// A config that can be run, and what is odd about it.
#[derive(Debug)]
pub struct Loaded {
    /// The config; its paths are relative to the current folder.
    pub config: Config,
    /// Things that work, but perhaps not as meant.
    pub warnings: Vec<Finding>,
}

impl Config {
    /// Reads a file or a folder, with `key=value` from the command line over it.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn load(path: &Path, set: &[String]) -> Result<Loaded, Vec<Finding>> {
        let document = Document::read(path).map_err(|finding| vec![finding])?;
        let mut loaded = Self::parse(&document, set, &|name| std::env::var(name).ok())?;
        loaded.config.origin = Some(Origin { path: path.to_owned(), set: set.to_vec() });
        Ok(loaded)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn parse(
        document: &Document,
        set: &[String],
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Loaded, Vec<Finding>> {
        let mut table =
            DeTable::parse(document.text()).map_err(|error| vec![syntax(document, &error)])?;
        let overrides: Vec<String> = set.iter().map(|set| as_toml(set)).collect();
        for (text, set) in overrides.iter().zip(set) {
            let over = DeTable::parse(text).map_err(|error| {
                // What is behind the key may be a secret.
                let key = set.split_once('=').map_or("", |(key, _)| key);
                let message = format!("`--set {key}=…`: {}", error.message());
                vec![Finding::error("syntax", "--set", message).suggest("write --set key=value")]
            })?;
            merge(table.get_mut(), over.into_inner());
        }
        let missing = interpolate(table.get_mut(), document, lookup);
        if !missing.is_empty() {
            return Err(missing);
        }
        let spans = table.clone();
        let reader = toml::de::Deserializer::from(table);
        let mut config: Self = serde_path_to_error::deserialize(reader)
            .map_err(|error| vec![invalid(document, &spans, &error)])?;
        config.resolve(&document.folder());
        let check = Check { config: &config, document, spans: &spans, findings: Vec::new() };
        let findings = check.run();
        if findings.iter().any(|finding| finding.severity == finding::Severity::Error) {
            return Err(findings);
        }
        Ok(Loaded { config, warnings: findings })
    }

    /// Paths in the config are relative to the config's folder.
    fn resolve(&mut self, folder: &Path) {
        let resolve = |path: &mut PathBuf| {
            if path.is_relative() {
                *path = folder.join(&*path);
            }
        };
        resolve(&mut self.store.path);
        self.plugins.values_mut().for_each(|plugin| resolve(&mut plugin.path));
        self.server.paths().for_each(resolve);
    }
}

/// `key=value` as TOML; a value that is none is a string.
fn as_toml(set: &str) -> String {
    match set.split_once('=') {
        Some((key, value)) if DeTable::parse(&format!("v={value}")).is_err() => {
            format!("{key}={}", toml::Value::String(value.into()))
        }
        _ => set.into(),
    }
}

fn merge<'a>(under: &mut DeTable<'a>, over: DeTable<'a>) {
    for (key, value) in over {
        let both_tables = under
            .get(key.get_ref().as_ref())
            .is_some_and(|old| old.get_ref().is_table() && value.get_ref().is_table());
        if !both_tables {
            under.insert(key, value);
            continue;
        }
        if let (Some(old), toml::de::DeValue::Table(new)) =
            (under.get_mut(key.get_ref().as_ref()), value.into_inner())
            && let toml::de::DeValue::Table(old) = old.get_mut()
        {
            merge(old, new);
        }
    }
}

fn syntax(document: &Document, error: &toml::de::Error) -> Finding {
    let place = error.span().map(|span| document.place(span.start)).unwrap_or_default();
    Finding::error("syntax", place, error.message().to_owned())
}

/// A value that its module does not take, or a key that nobody knows.
fn invalid(
    document: &Document,
    spans: &Spanned<DeTable<'_>>,
    error: &serde_path_to_error::Error<toml::de::Error>,
) -> Finding {
    let path = error.path().to_string();
    let inner = error.inner();
    let span: Range<usize> = inner.span().unwrap_or_else(|| locate(spans, &path));
    let place = format!("{} {path}", document.place(span.start));
    let message = inner.message();
    match unknown_key(message) {
        Some((key, known)) => {
            let finding = Finding::error("unknown-key", place, format!("unknown key `{key}`"));
            match did_you_mean(key, known.iter().copied()) {
                Some(meant) => finding.suggest(format!("did you mean `{meant}`?")),
                None => finding.suggest(format!("known here: {}", known.join(", "))),
            }
        }
        None => Finding::error("invalid-value", place, message.to_owned()),
    }
}

/// Takes serde's "unknown field `x`, expected one of `a`, `b`" apart.
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let key = quoted.next()?;
    Some((key, quoted.collect()))
}

/// What only shows when sections are seen together.
struct Check<'a> {
    config: &'a Config,
    document: &'a Document,
    spans: &'a Spanned<DeTable<'a>>,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn run(mut self) -> Vec<Finding> {
        self.names();
        self.pipelines();
        self.outputs();
        self.findings
    }

    fn place(&self, path: &str) -> String {
        format!("{} {path}", self.document.place(locate(self.spans, path).start))
    }

    fn error(&mut self, code: &'static str, path: &str, message: String, help: Option<String>) {
        let finding =
            Finding { suggestion: help, ..Finding::error(code, self.place(path), message) };
        self.findings.push(finding);
    }

    fn warning(&mut self, code: &'static str, path: &str, message: String, help: String) {
        let finding = Finding::warning(code, self.place(path), message).suggest(help);
        self.findings.push(finding);
    }

    fn names(&mut self) {
        let config = self.config;
        let mut seen = HashSet::new();
        for (at, pipeline) in config.pipelines.iter().enumerate() {
            let path = format!("pipeline[{at}].name");
            if !pipeline::valid_name(&pipeline.name) {
                let message = format!(
                    "`{}` is no pipeline name: letters, digits, `.`, `_`, `-`, at most 200",
                    pipeline.name
                );
                self.error("bad-name", &path, message, None);
            }
            if !seen.insert(pipeline.name.as_str()) {
                let message = format!("there are two pipelines `{}`", pipeline.name);
                self.error("duplicate-name", &path, message, Some("rename one of them".into()));
            }
        }
        let mut seen = HashSet::new();
        for output in config.outputs.sections() {
            if !seen.insert(output.name) {
                let message = format!("there are two outputs `{}`", output.name);
                let path = format!("output.{}[{}].name", output.kind, output.index);
                let help = "rename one: an output's checkpoint is kept under its name".to_owned();
                self.error("duplicate-name", &path, message, Some(help));
            }
        }
    }

    fn pipelines(&mut self) {
        let config = self.config;
        let mut used = HashSet::new();
        for (at, pipeline) in config.pipelines.iter().enumerate() {
            if pipeline.tables.is_empty() && pipeline.messages.is_empty() {
                let path = format!("pipeline[{at}]");
                let message = format!("pipeline `{}` takes no table and no message", pipeline.name);
                let help = "add `tables = [\"public.*\"]`".to_owned();
                self.error("empty-pipeline", &path, message, Some(help));
            }
            for (index, table) in pipeline.tables.iter().enumerate() {
                let covered = table.literal().is_none_or(|(schema, name)| {
                    config.source.tables.iter().any(|pattern| pattern.matches(schema, name))
                });
                if !covered {
                    let path = format!("pipeline[{at}].tables[{index}]");
                    let message = format!("the source does not publish `{table}`");
                    let help = format!("add \"{table}\" to `source.tables`");
                    self.error("unknown-table", &path, message, Some(help));
                }
            }
            for (index, name) in pipeline.plugins.iter().enumerate() {
                let again = !used.insert(name.as_str());
                let path = format!("pipeline[{at}].plugins[{index}]");
                if let Some(plugin) = config.plugins.get(name) {
                    if again && plugin.allow.kv {
                        self.shared_state(&path, name);
                    }
                    continue;
                }
                let help = match did_you_mean(name, config.plugins.keys().map(String::as_str)) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("add a section `[plugins.{name}]` with its `path`"),
                };
                self.error("unknown-plugin", &path, format!("no plugin `{name}`"), Some(help));
            }
        }
        for (at, rule) in config.server.auth.rules.iter().enumerate() {
            let Some(name) = &rule.authorizer else { continue };
            used.insert(name.as_str());
            if !config.plugins.contains_key(name) {
                let path = format!("server.auth.rules[{at}].authorizer");
                let names = config.plugins.keys().map(String::as_str);
                let help =
                    did_you_mean(name, names).map(|meant| format!("did you mean `{meant}`?"));
                self.error("unknown-plugin", &path, format!("no plugin `{name}`"), help);
            }
        }
        for name in config.plugins.keys().filter(|name| !used.contains(name.as_str())) {
            let message = format!("no pipeline runs the plugin `{name}`");
            let help = "add it to a pipeline's `plugins`, or remove its section".to_owned();
            self.warning("unused-plugin", &format!("plugins.{name}"), message, help);
        }
        let makes_requests =
            |(_, plugin): &(&String, &plugin::Config)| !plugin.allow.is_deterministic();
        for (name, _) in config.plugins.iter().filter(makes_requests) {
            let message = format!("plugin `{name}` may make requests, so a replay may differ");
            let help = "take `http` out of its `allow`, if it does without".to_owned();
            self.warning("not-deterministic", &format!("plugins.{name}.allow.http"), message, help);
        }
        if config.pipelines.is_empty() {
            let message = "there is no pipeline, so nothing comes out".to_owned();
            let help = "add a `[[pipeline]]` with a `name` and `tables`".to_owned();
            self.warning("no-pipeline", "", message, help);
        }
    }

    /// Outputs that read streams which no pipeline can make.
    /// Each place in a chain would read what the other is about to write, and overwrite it.
    fn shared_state(&mut self, path: &str, name: &str) {
        let message = format!(
            "plugin `{name}` keeps state (`allow.kv`), so it can stand in one place only, and it \
             stands in another already"
        );
        let help = format!(
            "add a second section, `[plugins.{name}-2]` with the same `path`, and name that here: \
             its state is its own"
        );
        self.error("shared-state", path, message, Some(help));
    }

    fn outputs(&mut self) {
        let config = self.config;
        for output in config.outputs.sections() {
            for (index, wanted) in output.streams.iter().enumerate() {
                let made = config.pipelines.iter().any(|pipeline| {
                    wanted.matches(&pipeline.name)
                        || pipeline.streams.iter().any(|stream| {
                            wanted.matches(stream.as_str()) || stream.matches(wanted.as_str())
                        })
                });
                if !made {
                    let path = format!("output.{}[{}].streams[{index}]", output.kind, output.index);
                    let message = format!("no pipeline makes a stream `{wanted}`");
                    let names = config.pipelines.iter().map(|pipeline| pipeline.name.as_str());
                    let help = did_you_mean(wanted.as_str(), names)
                        .map(|meant| format!("did you mean `{meant}`?"));
                    self.error("unknown-stream", &path, message, help);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
