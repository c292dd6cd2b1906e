//! What differs between two configs, in words and by name.

use crate::config::Config;
use crate::config::finding::Finding;
use crate::pipeline;

/// What differs between the config in force and another one.
pub(super) struct Diff {
    /// Sections that only a restart can change.
    fixed: Vec<&'static str>,
    pub(super) pipelines: Names,
    plugins: Names,
    outputs: Names,
}

/// Parts of one kind, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    added: Vec<String>,
    removed: Vec<String>,
    /// With what is different about each.
    changed: Vec<(String, String)>,
}

impl Names {
    /// Compares two lists of parts.
    fn between<T: PartialEq>(
        old: &[(String, T)],
        new: &[(String, T)],
        what: impl Fn(&T, &T) -> String,
    ) -> Self {
        let find =
            |list: &[(String, T)], name: &str| list.iter().position(|(known, _)| known == name);
        let mut names = Self::default();
        for (name, part) in new {
            match find(old, name).map(|at| &old[at].1) {
                None => names.added.push(name.clone()),
                Some(before) if before == part => {}
                Some(before) => names.changed.push((name.clone(), what(before, part))),
            }
        }
        let gone = old.iter().filter(|(name, _)| find(new, name).is_none());
        names.removed = gone.map(|(name, _)| name.clone()).collect();
        names
    }

    /// Those that run and have to stop.
    pub(super) fn stopping(&self) -> Vec<String> {
        let changed = self.changed.iter().map(|(name, _)| name);
        self.removed.iter().chain(changed).cloned().collect()
    }

    /// Whether this one is to be started, for the first time or again.
    pub(super) fn starts(&self, name: &str) -> bool {
        self.added.iter().chain(self.changed.iter().map(|(name, _)| name)).any(|n| n == name)
    }

    fn words<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = String> + 'a {
        let added = self.added.iter().map(move |name| format!("{kind} `{name}` added"));
        let removed = self.removed.iter().map(move |name| format!("{kind} `{name}` removed"));
        let changed = self.changed.iter().map(move |(name, what)| match what.as_str() {
            "" => format!("{kind} `{name}` changed"),
            what => format!("{kind} `{name}` changed: {what}"),
        });
        added.chain(removed).chain(changed)
    }
}

impl Diff {
    pub(super) fn between(old: &Config, new: &Config) -> Self {
        let fixed = [
            ("source", old.source != new.source),
            ("store", old.store != new.store),
            ("server", old.server != new.server),
        ];
        let by_name = |config: &Config| -> Vec<(String, pipeline::Config)> {
            config.pipelines.iter().map(|p| (p.name.clone(), p.clone())).collect()
        };
        let plugins = |config: &Config| -> Vec<_> {
            config.plugins.iter().map(|(name, plugin)| (name.clone(), plugin.clone())).collect()
        };
        Self {
            fixed: fixed.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect(),
            pipelines: Names::between(&by_name(old), &by_name(new), pipeline_words),
            plugins: Names::between(&plugins(old), &plugins(new), |_, _| String::new()),
            outputs: outputs(old, new),
        }
    }

    /// Everything that differs; nothing, if nothing does.
    pub(super) fn words(&self) -> Vec<String> {
        let fixed = self.fixed.iter().map(|section| format!("[{section}] changed"));
        fixed
            .chain(self.pipelines.words("pipeline"))
            .chain(self.plugins.words("plugin"))
            .chain(self.outputs.words("output"))
            .collect()
    }

    /// What stands in the way of doing it while walmill runs.
    pub(super) fn needs_restart(&self) -> Vec<Finding> {
        let finding = |section: &&'static str| {
            let message = format!("[{section}] cannot change while walmill runs");
            Finding::error("needs-restart", *section, message).suggest(
                "restart walmill for this, or change it back; nothing of this config is in force",
            )
        };
        self.fixed.iter().map(finding).collect()
    }
}

fn pipeline_words(old: &pipeline::Config, new: &pipeline::Config) -> String {
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    let plugins = match sorted(&old.plugins) == sorted(&new.plugins) {
        true => "the order of its plugins",
        false => "its plugins",
    };
    let differs = [
        ("its tables", old.tables != new.tables),
        ("its messages", old.messages != new.messages),
        (plugins, old.plugins != new.plugins),
        ("its streams", old.streams != new.streams),
        ("on_error", old.on_error != new.on_error),
        ("on_schema_change", old.on_schema_change != new.on_schema_change),
    ];
    let words: Vec<&str> =
        differs.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect();
    words.join(", ")
}

/// Outputs by name; what differs in which kind's section is for the kind to know.
fn outputs(old: &Config, new: &Config) -> Names {
    let names = |config: &Config| -> Vec<(String, ())> {
        config.outputs.sections().map(|output| (output.name.to_owned(), ())).collect()
    };
    let mut found = Names::between(&names(old), &names(new), |_, ()| String::new());
    if old.outputs != new.outputs {
        let changed = changed_outputs(old, new);
        found.changed = changed.into_iter().map(|name| (name, String::new())).collect();
    }
    found
}

/// Outputs that are in both configs, and differ.
fn changed_outputs(old: &Config, new: &Config) -> Vec<String> {
    let webhooks = &old.outputs.webhook;
    let changed = |config: &&crate::output::webhook::Config| {
        webhooks.iter().any(|old| old.name == config.name) && !webhooks.contains(config)
    };
    new.outputs.webhook.iter().filter(changed).map(|config| config.name.clone()).collect()
}
