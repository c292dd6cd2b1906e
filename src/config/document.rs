//! The text of a config, one file or a folder of them, with every place in it known by file, line
//! and column; and `${VAR}` inside its strings.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::Finding;

/// A config larger than this is no config.
const MAX_SIZE: u64 = 4 << 20;

/// The text of all files, one behind the other.
#[derive(Debug)]
pub struct Document {
    text: String,
    /// Where each file starts.
    files: Vec<(usize, PathBuf)>,
}

impl Document {
    /// Reads a file, or every `*.toml` of a folder in the order of their names.
    ///
    /// # Errors
    /// What cannot be read, and why.
    pub fn read(path: &Path) -> Result<Self, Finding> {
        let mut document = Self { text: String::new(), files: Vec::new() };
        if path.is_dir() {
            let unreadable = |error| unreadable(path, &error);
            let mut paths = Vec::new();
            for entry in std::fs::read_dir(path).map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    paths.push(path);
                }
            }
            paths.sort();
            if paths.is_empty() {
                let message = "the config folder has no `.toml` file";
                return Err(Finding::error("no-config", path.display().to_string(), message)
                    .suggest("make one with `walmill init`"));
            }
            for path in paths {
                document.add(path)?;
            }
        } else {
            document.add(path.to_owned())?;
        }
        Ok(document)
    }

    /// A config that is in no file.
    #[must_use]
    pub fn of(text: &str, name: &str) -> Self {
        Self { text: text.into(), files: vec![(0, name.into())] }
    }

    fn add(&mut self, path: PathBuf) -> Result<(), Finding> {
        let place = || path.display().to_string();
        let meta = std::fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
        if !meta.is_file() {
            return Err(Finding::error("no-file", place(), "the config is no regular file"));
        }
        if meta.len() > MAX_SIZE {
            let message = format!("the config has {} bytes; 4 MiB are the most", meta.len());
            return Err(Finding::error("too-large", place(), message));
        }
        let bytes = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let message = format!("the config is not UTF-8 (byte {at})");
            Finding::error("not-utf8", place(), message).suggest("save the file as UTF-8")
        })?;
        self.files.push((self.text.len(), path));
        self.text.push_str(text.strip_prefix('\u{feff}').unwrap_or(&text));
        self.text.push('\n');
        Ok(())
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The folder that paths in the config are relative to.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        let first = self.files.first().and_then(|(_, path)| path.parent());
        first.map(Path::to_owned).unwrap_or_default()
    }

    /// `file:line:column` of a place in the text.
    #[must_use]
    pub fn place(&self, at: usize) -> String {
        let file = self.files.iter().rev().find(|(start, _)| *start <= at);
        let Some((start, path)) = file else { return String::new() };
        let before = &self.text.as_bytes()[*start..at.min(self.text.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = 1 + before.len() - memchr::memrchr(b'\n', before).map_or(0, |nl| nl + 1);
        format!("{}:{line}:{column}", path.display())
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Finding {
    let place = path.display().to_string();
    let finding =
        Finding::error("unreadable", place, format!("the config cannot be read: {error}"));
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            finding.suggest("make one with `walmill init`, or name it with `--config`")
        }
        _ => finding,
    }
}

/// The place of a path like `pipeline[1].plugins[0]` in a parsed document: of its value, or of the
/// longest part of the path that is there.
#[must_use]
pub fn locate(table: &Spanned<DeTable<'_>>, path: &str) -> Range<usize> {
    let mut span = table.span();
    let mut rest = path;
    let mut value: Option<&Spanned<DeValue<'_>>> = None;
    while !rest.is_empty() {
        let next = if let Some(index) = rest.strip_prefix('[') {
            let Some((index, behind)) = index.split_once(']') else { break };
            rest = behind;
            index.parse::<usize>().ok().and_then(|index| value?.get_ref().as_array()?.get(index))
        } else {
            let key = rest.trim_start_matches('.');
            let end = key.find(['.', '[']).unwrap_or(key.len());
            rest = &key[end..];
            match value {
                None => table.get_ref().get(&key[..end]),
                Some(value) => value.get_ref().as_table().and_then(|t| t.get(&key[..end])),
            }
        };
        let Some(found) = next else { break };
        span = found.span();
        value = Some(found);
    }
    span
}

/// Replaces `${VAR}`, `${VAR:-default}` and `${VAR:?why}` in every string; `$${` is a plain `${`.
/// Gives a finding for each name that is missing, all at once.
pub fn interpolate(
    table: &mut DeTable<'_>,
    document: &Document,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let values: Vec<_> = table.iter_mut().map(|(_, value)| value).collect();
    for value in values {
        interpolate_value(value, document, lookup, &mut findings);
    }
    findings
}

fn interpolate_value(
    value: &mut Spanned<DeValue<'_>>,
    document: &Document,
    lookup: &dyn Fn(&str) -> Option<String>,
    findings: &mut Vec<Finding>,
) {
    let at = value.span().start;
    match value.get_mut() {
        DeValue::String(text) if text.contains("${") => match expand(text, lookup) {
            Ok(expanded) => *text = Cow::Owned(expanded),
            Err((name, why)) => {
                let message = why.unwrap_or_else(|| format!("the variable `{name}` is not set"));
                let finding = Finding::error("missing-variable", document.place(at), message)
                    .suggest(format!(
                        "set `{name}` in the environment, or give a default: `${{{name}:-…}}`"
                    ));
                findings.push(finding);
            }
        },
        DeValue::Array(items) => {
            for item in items.iter_mut() {
                interpolate_value(item, document, lookup, findings);
            }
        }
        DeValue::Table(table) => {
            let values: Vec<_> = table.iter_mut().map(|(_, value)| value).collect();
            for value in values {
                interpolate_value(value, document, lookup, findings);
            }
        }
        _ => {}
    }
}

/// The text with its variables put in, or the name that is missing and why that matters.
fn expand(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, (String, Option<String>)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some((inside, behind)) = rest[at + 2..].split_once('}') else {
            let why = "`${` without its `}`; write `$${` for a plain `${`".to_owned();
            return Err((String::new(), Some(why)));
        };
        rest = behind;
        let (name, default, why) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default), None),
            None => match inside.split_once(":?") {
                Some((name, why)) => (name, None, Some(why)),
                None => (inside, None, None),
            },
        };
        // As in a shell, a variable that is set but empty takes the default, too.
        match (lookup(name).filter(|value| !value.is_empty() || default.is_none()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                let why = why.map(|why| format!("the variable `{name}` is not set: {why}"));
                return Err((name.to_owned(), why));
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db".into()),
            "EMPTY" => Some(String::new()),
            "LOOP" => Some("${LOOP}".into()),
            _ => None,
        }
    }

    #[test]
    fn variables_have_values_defaults_and_reasons() {
        let expand = |text| expand(text, &lookup);
        assert_eq!(expand("a ${HOST} b"), Ok("a db b".into()));
        assert_eq!(expand("${NONE:-x}${EMPTY:-y}${EMPTY}"), Ok("xy".into()));
        assert_eq!(expand("$${HOST}"), Ok("${HOST}".into()));
        assert_eq!(expand("${LOOP}"), Ok("${LOOP}".into()), "a value is not expanded again");
        assert_eq!(expand("${NONE}"), Err(("NONE".into(), None)));
        let why = "the variable `NONE` is not set: ask ops".to_owned();
        assert_eq!(expand("${NONE:?ask ops}"), Err(("NONE".into(), Some(why))));
        assert!(expand("${HOST").is_err());
    }

    #[test]
    fn a_path_finds_its_line() {
        let document =
            Document::of("[[pipeline]]\nname = 'a'\n[[pipeline]]\nname = 'b'\n", "w.toml");
        let table = DeTable::parse(document.text()).expect("valid");
        let place = |path| document.place(locate(&table, path).start);
        assert_eq!(place("pipeline[1].name"), "w.toml:4:8");
        assert_eq!(place("pipeline[1].nothing"), "w.toml:3:1");
    }
}
