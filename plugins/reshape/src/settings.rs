//! The configuration, and what can be wrong with it before any table is known.

use std::collections::BTreeMap;

use serde::Deserialize;
use walmill_plugin::template::Template;
use walmill_plugin::{Config, Finding, Tables};

use crate::mask::Mask;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    tables: Tables,
    table: Option<String>,
    keep: Option<Vec<String>>,
    #[serde(default)]
    drop: Vec<String>,
    #[serde(default)]
    rename: BTreeMap<String, String>,
    #[serde(default)]
    mask: BTreeMap<String, Mask>,
    #[serde(default)]
    set: BTreeMap<String, String>,
    #[serde(default)]
    add: BTreeMap<String, String>,
    #[serde(default)]
    salt: String,
}

/// A configuration in which no two settings contradict each other.
#[derive(Debug)]
pub struct Settings {
    pub tables: Tables,
    pub table: Option<String>,
    pub keep: Option<Vec<String>>,
    pub drop: Vec<String>,
    pub rename: BTreeMap<String, String>,
    pub mask: BTreeMap<String, Mask>,
    pub set: BTreeMap<String, Template>,
    pub add: BTreeMap<String, Template>,
    pub salt: String,
}

impl Settings {
    pub fn read(config: &Config) -> Result<Self, Vec<Finding>> {
        let written: Written = config.parse()?;
        let mut findings = written.findings();
        let mut templates = |key, written: &BTreeMap<String, String>| {
            let mut read = BTreeMap::new();
            for (column, template) in written {
                match Template::parse(template) {
                    Ok(template) => drop(read.insert(column.clone(), template)),
                    Err(message) => findings.push(finding(&format!("{key}.{column}"), message)),
                }
            }
            read
        };
        let (set, add) = (templates("set", &written.set), templates("add", &written.add));
        if !findings.is_empty() {
            return Err(findings);
        }
        let Written { tables, table, keep, drop, rename, mask, salt, .. } = written;
        Ok(Self { tables, table, keep, drop, rename, mask, set, add, salt })
    }

    /// Every input column that is named somewhere.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        let keep = self.keep.iter().flatten();
        let changed = self.rename.keys().chain(self.mask.keys()).chain(self.set.keys());
        keep.chain(&self.drop).chain(changed)
    }
}

impl Written {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.keep.is_some() && !self.drop.is_empty() {
            findings
                .push(finding("drop", "`keep` already says which columns stay; use one of them"));
        }
        let gone = |column: &String| {
            self.drop.contains(column)
                || self.keep.as_ref().is_some_and(|kept| !kept.contains(column))
        };
        let changes = [
            ("rename", self.rename.keys().collect::<Vec<_>>()),
            ("mask", self.mask.keys().collect()),
            ("set", self.set.keys().collect()),
        ];
        for (key, columns) in changes {
            for column in columns.into_iter().filter(|&column| gone(column)) {
                let message = "this column is left out by `keep` or `drop`";
                findings.push(finding(&format!("{key}.{column}"), message));
            }
        }
        for column in self.set.keys().filter(|&column| self.mask.contains_key(column)) {
            let message = "this column is masked; a column is either masked or set";
            findings.push(finding(&format!("set.{column}"), message));
        }
        if !self.salt.is_empty() && !self.mask.values().any(|&mask| mask == Mask::Hash) {
            findings.push(finding("salt", "no column has the mask `hash`"));
        }
        if self.changes_nothing() {
            findings.push(finding(
                "",
                "nothing to do: give table, keep, drop, rename, mask, set or add",
            ));
        }
        findings
    }

    fn changes_nothing(&self) -> bool {
        self.table.is_none()
            && self.keep.is_none()
            && self.drop.is_empty()
            && self.rename.is_empty()
            && self.mask.is_empty()
            && self.set.is_empty()
            && self.add.is_empty()
    }
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
    fn contradictions_are_found_all_at_once() {
        check(
            r#"{"drop": ["a"], "mask": {"a": "hash", "b": "email"}, "set": {"b": "{x"}}"#,
            &[
                ("mask.a", "this column is left out by `keep` or `drop`"),
                ("set.b", "this column is masked; a column is either masked or set"),
                ("set.b", "`{` has no partner; double it to mean itself"),
            ],
        );
        check(
            r#"{"keep": ["a"], "drop": ["b"], "salt": "x"}"#,
            &[
                ("drop", "`keep` already says which columns stay; use one of them"),
                ("salt", "no column has the mask `hash`"),
            ],
        );
    }

    #[test]
    fn a_config_that_does_nothing_is_a_mistake() {
        check("{}", &[("", "nothing to do: give table, keep, drop, rename, mask, set or add")]);
    }

    #[test]
    fn a_misspelt_mask_is_told_the_right_one() {
        check(
            r#"{"mask": {"email": "emial"}}"#,
            &[(
                "mask.email",
                "unknown variant `emial`, expected one of `redact`, `null`, `email`, `last4`, \
                 `hash`; did you mean `email`?",
            )],
        );
    }
}
