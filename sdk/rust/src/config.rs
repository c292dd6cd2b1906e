//! The plugin's table in the configuration, and how to say what is wrong with it.

use serde::de::DeserializeOwned;

use crate::Finding;
use crate::bindings::exports::walmill::plugin::lifecycle::Setup;

/// What a plugin is told at its start.
#[derive(Debug)]
pub struct Config {
    /// The plugin's `config` table, as JSON.
    pub json: String,
    /// Which of the instances this is.
    pub worker: u32,
    /// How many instances share the work.
    pub workers: u32,
    /// What comes out is compared, not delivered.
    pub dry_run: bool,
}

impl Config {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { config, worker, workers, dry_run } = setup;
        Self { json: config, worker, workers, dry_run }
    }

    /// Reads the `config` table. A missing table is an empty one.
    ///
    /// # Errors
    /// The place in the table and what is wrong there. Give the type
    /// `#[serde(deny_unknown_fields)]`, and a misspelt key is found as well.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Vec<Finding>> {
        let json = if self.json.is_empty() { "{}" } else { &self.json };
        let mut reader = serde_json::Deserializer::from_str(json);
        serde_path_to_error::deserialize(&mut reader).map_err(|error| vec![finding(&error)])
    }
}

fn finding(error: &serde_path_to_error::Error<serde_json::Error>) -> Finding {
    let path = match error.path().to_string() {
        root if root == "." => String::new(),
        path => path,
    };
    // Line and column are those of JSON that nobody wrote.
    let message = error.inner().to_string();
    let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
    Finding { path, message: with_suggestion(message) }
}

/// serde lists what would have been right: the first name in backticks is the wrong one.
fn with_suggestion(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    let known_form = message.starts_with("unknown ");
    match names.next().filter(|_| known_form) {
        Some(wrong) => format!("{message}{}", did_you_mean(wrong, names)),
        None => message.to_owned(),
    }
}

/// `, did you mean …?` when one of the names is close to the wrong one, else nothing.
///
/// ```
/// # use walmill_plugin::did_you_mean;
/// assert_eq!(did_you_mean("contry", ["id", "country"]), "; did you mean `country`?");
/// assert_eq!(did_you_mean("colour", ["id", "country"]), "");
/// ```
pub fn did_you_mean<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let wrong: Vec<char> = wrong.to_lowercase().chars().collect();
    names
        .into_iter()
        .map(|name| (distance(&wrong, name), name))
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(distance, _)| distance <= wrong.len().div_ceil(3))
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

/// How many letters to insert, remove or replace (Levenshtein).
fn distance(wrong: &[char], name: &str) -> usize {
    let mut row: Vec<usize> = (0..=wrong.len()).collect();
    for (y, letter) in name.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], y + 1);
        for (x, &other) in wrong.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[x + 1];
            row[x + 1] = replaced.min(diagonal + 1).min(row[x] + 1);
        }
    }
    row[wrong.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Settings {
        column: String,
        #[serde(default)]
        rules: Vec<Rule>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Rule {
        Pass,
        Drop,
    }

    fn check(json: &str, path: &str, message: &str) {
        let config = Config { json: json.into(), worker: 0, workers: 1, dry_run: false };
        let findings = config.parse::<Settings>().unwrap_err();
        let found: Vec<_> = findings.iter().map(|f| (&*f.path, &*f.message)).collect();
        assert_eq!(found, [(path, message)]);
    }

    #[test]
    fn findings_name_the_place() {
        check("", "", "missing field `column`");
        check(r#"{"column": 3}"#, "column", "invalid type: integer `3`, expected a string");
        check(
            r#"{"column": "a", "rules": ["pass", "dorp"]}"#,
            "rules[1]",
            "unknown variant `dorp`, expected `pass` or `drop`; did you mean `drop`?",
        );
    }

    #[test]
    fn a_misspelt_key_is_told_the_right_one() {
        check(
            r#"{"colunm": "a"}"#,
            "colunm",
            "unknown field `colunm`, expected `column` or `rules`; did you mean `column`?",
        );
    }
}
