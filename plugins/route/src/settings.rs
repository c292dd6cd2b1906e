//! The configuration, and what can be wrong with it before any table is known.

use std::collections::BTreeMap;

use serde::Deserialize;
use walmill_plugin::template::Template;
use walmill_plugin::{Config, Finding, Tables};

use crate::stream::is_clean;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    tables: Tables,
    column: Option<String>,
    prefix: Option<String>,
    template: Option<String>,
    #[serde(default)]
    map: BTreeMap<String, String>,
    default: Option<String>,
    #[serde(default)]
    on_missing: OnMissing,
}

/// What becomes of an event when the column's value was not sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMissing {
    /// It goes where rows without a value go.
    #[default]
    Default,
    /// It goes to the dead letters.
    Reject,
}

/// A configuration that holds together.
#[derive(Debug)]
pub struct Settings {
    pub tables: Tables,
    /// The column whose values are looked up in `map`.
    pub column: Option<String>,
    pub map: BTreeMap<String, String>,
    /// The stream for values that `map` does not have.
    pub template: Option<Template>,
    /// The stream for everything else; the pipeline's own when there is none.
    pub default: Option<String>,
    pub on_missing: OnMissing,
}

impl Settings {
    pub fn read(config: &Config) -> Result<Self, Vec<Finding>> {
        let written: Written = config.parse()?;
        let mut findings = written.findings();
        let template = written.template().and_then(|(key, template)| {
            let template = Template::parse(&template).map_err(|message| finding(key, message));
            template.map_err(|finding| findings.push(finding)).ok()
        });
        if let Some(text) = template.iter().flat_map(Template::texts).find(|text| !is_clean(text)) {
            let key = if written.template.is_some() { "template" } else { "prefix" };
            findings.push(finding(key, no_name(text)));
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        let Written { tables, column, map, default, on_missing, .. } = written;
        Ok(Self { tables, column, map, template, default, on_missing })
    }
}

impl Written {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        match (&self.column, &self.template) {
            (None, None) => {
                let message = "missing: the column whose value chooses the stream";
                findings.push(finding("column", message));
            }
            (Some(_), None) if self.prefix.is_none() && self.map.is_empty() => {
                let message = "say which streams the values stand for, as in prefix = \"orders.\" \
                               or map = { NZ = \"orders.nz\" }";
                findings.push(finding("column", message));
            }
            (None, Some(_)) if !self.map.is_empty() => {
                findings.push(finding("column", "missing: the column that `map` is about"));
            }
            _ => {}
        }
        if self.prefix.is_some() && self.template.is_some() {
            findings.push(finding("prefix", "`template` already says it; use one of them"));
        }
        let streams = self.map.iter().map(|(value, stream)| (format!("map.{value}"), stream));
        let default = self.default.iter().map(|stream| ("default".to_owned(), stream));
        for (path, stream) in streams.chain(default) {
            if stream.is_empty() || stream.starts_with('.') || !is_clean(stream) {
                findings.push(finding(&path, no_name(stream)));
            }
        }
        findings
    }

    /// The template, and the key that it was written under.
    fn template(&self) -> Option<(&'static str, String)> {
        if let Some(template) = &self.template {
            return Some(("template", template.clone()));
        }
        let (prefix, column) = (self.prefix.as_ref()?, self.column.as_ref()?);
        let prefix = prefix.replace('{', "{{").replace('}', "}}");
        Some(("prefix", format!("{prefix}{{{column}}}")))
    }
}

fn no_name(text: &str) -> String {
    format!("`{text}` is no stream's name: letters, digits, `.`, `-` and `_`, no `.` at its start")
}

fn finding(path: &str, message: impl Into<String>) -> Finding {
    Finding { path: path.into(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &[(&str, &str)]) {
        let config = Config { json: json.into(), worker: 0, workers: 1, dry_run: false };
        let findings = Settings::read(&config).map(drop).unwrap_err();
        let found: Vec<_> = findings.iter().map(|f| (&*f.path, &*f.message)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        check("{}", &[("column", "missing: the column whose value chooses the stream")]);
        check(
            r#"{"template": "a.{b}", "map": {"x": "y"}}"#,
            &[("column", "missing: the column that `map` is about")],
        );
        check(
            r#"{"column": "region"}"#,
            &[(
                "column",
                "say which streams the values stand for, as in prefix = \"orders.\" or \
                 map = { NZ = \"orders.nz\" }",
            )],
        );
    }

    #[test]
    fn names_that_no_stream_can_have_are_found_all_at_once() {
        let no = |text| {
            format!(
                "`{text}` is no stream's name: letters, digits, `.`, `-` and `_`, no `.` at its start"
            )
        };
        check(
            r#"{"column": "a", "prefix": "my orders.", "map": {"x": "a b"}, "default": ".d"}"#,
            &[("map.x", &no("a b")), ("default", &no(".d")), ("prefix", &no("my orders."))],
        );
    }

    #[test]
    fn prefix_and_template_exclude_each_other() {
        check(
            r#"{"column": "a", "prefix": "p.", "template": "t.{a}"}"#,
            &[("prefix", "`template` already says it; use one of them")],
        );
    }
}
