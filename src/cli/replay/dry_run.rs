//! `walmill replay … --plugin … --dry-run`: what a replay would change with another version.

use std::path::Path;

use super::super::client::Client;
use super::super::{Failure, comparison, file};
use super::Ask;
use crate::config::Config;
use crate::config::finding::Finding;
use crate::model::plugin::Tried;
use crate::model::shadow::ShadowReport;

/// The version that is tried.
#[derive(Debug, PartialEq, Eq)]
enum Version<'a> {
    /// A file, for the plugin of this name, or for the only one of the pipeline.
    File(Option<&'a str>, &'a str),
    /// One of a plugin's history.
    Known(&'a str, &'a str),
}

impl<'a> Version<'a> {
    /// A file's name may have any sign in it, so only a plugin's name makes the difference.
    fn read(text: &'a str, is_plugin: impl Fn(&str) -> bool) -> Self {
        match (text.split_once('@'), text.split_once('=')) {
            (Some((name, version)), _) if is_plugin(name) => Self::Known(name, version),
            (_, Some((name, file))) if is_plugin(name) => Self::File(Some(name), file),
            _ => Self::File(None, text),
        }
    }
}

pub(super) async fn run(client: &Client, config: &Config, ask: &Ask) -> Result<(), Failure> {
    let text = ask.plugin.as_deref().unwrap_or_default();
    let version = Version::read(text, |name| config.plugins.contains_key(name));
    let (_, pipeline) = ask.part.named();
    let examples = ask.examples.map(|examples| examples.to_string());
    let (plugin, digest, bytes) = match version {
        Version::Known(name, digest) => (Some(name), Some(digest), None),
        Version::File(name, path) => (name, None, Some(file::read(Path::new(path))?)),
    };
    let parameters = [
        ("pipeline", Some(pipeline)),
        ("plugin", plugin),
        ("version", digest),
        ("from", ask.from.as_deref()),
        ("to", ask.to.as_deref()),
        ("examples", examples.as_deref()),
    ];
    let parameters: Vec<(&str, &str)> =
        parameters.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let answer = client.try_out(&["api", "v1", "replay", "dry-run"], &parameters, bytes).await?;
    if ask.json {
        println!("{answer:#}");
        return Ok(());
    }
    let tried: Tried = serde_json::from_value(answer).map_err(|error| {
        let message = format!("an answer that is none of walmill's: {error}");
        Failure::run_time(Finding::error("bad-answer", "server.listen", message))
    })?;
    print!("{}", shown(tried));
    Ok(())
}

fn shown(tried: Tried) -> String {
    let Tried { plugin, version, in_force, comparison } = tried;
    let place = |place: &Option<String>| place.clone().unwrap_or_default();
    let span = match comparison.events {
        0 => String::new(),
        _ => format!(", from {} to {}", place(&comparison.first), place(&comparison.last)),
    };
    let (pipeline, details) = (&comparison.pipeline, comparison::details(&comparison, "  "));
    let title = format!("pipeline {pipeline} with {plugin} {version} instead of {in_force}{span}");
    let report = ShadowReport { pipelines: vec![comparison], note: None };
    format!("{title}: {}\n{details}", report.summary())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_file_unless_a_plugin_of_the_config_is_named() {
        let read = |text| Version::read(text, |name| name == "redact");
        assert_eq!(read("new.wasm"), Version::File(None, "new.wasm"));
        assert_eq!(read("redact=a=b.wasm"), Version::File(Some("redact"), "a=b.wasm"));
        assert_eq!(read("other=b.wasm"), Version::File(None, "other=b.wasm"));
        assert_eq!(read("redact@0a1b2c3d"), Version::Known("redact", "0a1b2c3d"));
        assert_eq!(read("plugins@work/new.wasm"), Version::File(None, "plugins@work/new.wasm"));
    }
}
