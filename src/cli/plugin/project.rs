//! A plugin's project: a folder with `plugin.toml`, which says how it is built and tried.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde::Deserialize;

use super::super::Failure;
use crate::config::finding::Finding;
use crate::model::pattern::Glob;

/// Where the project is.
#[derive(Debug, Args)]
pub(super) struct ProjectArguments {
    /// The plugin's folder, with its `plugin.toml`.
    #[arg(default_value = ".")]
    project: PathBuf,
}

impl ProjectArguments {
    pub(super) fn open(&self) -> Result<Project, Failure> {
        Project::open(&self.project)
    }
}

/// A folder with `plugin.toml`.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Project {
    pub(in crate::cli) folder: PathBuf,
    pub(in crate::cli) about: About,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    plugin: About,
}

/// `[plugin]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct About {
    pub(in crate::cli) name: String,
    #[serde(default)]
    pub(in crate::cli) language: String,
    /// Shell commands, run in the folder, in order.
    #[serde(default)]
    build: Vec<String>,
    /// What they leave.
    output: PathBuf,
    /// What `walmill dev` watches.
    #[serde(default)]
    pub(in crate::cli) watch: Vec<PathBuf>,
    /// Golden cases: a path, with `*` in the name of the file.
    #[serde(default)]
    tests: Option<String>,
    #[serde(default)]
    needs: Vec<Need>,
}

/// A command that the build runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Need {
    command: String,
    hint: String,
}

impl Project {
    /// The name of the file that makes a folder a project.
    pub(in crate::cli) const FILE: &str = "plugin.toml";

    /// Reads the folder's `plugin.toml`.
    pub(in crate::cli) fn open(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(Self::FILE);
        let place = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let finding = Finding::error("no-project", &place, format!("cannot be read: {error}"));
            Failure::usage(vec![finding.suggest(
                "name the plugin's folder, or make one: `walmill plugin new -l rust NAME`",
            )])
        })?;
        let file: File = toml::from_str(&text).map_err(|error| {
            Failure::usage(vec![Finding::error("invalid", &place, error.to_string())])
        })?;
        Ok(Self { folder: folder.into(), about: file.plugin })
    }

    /// The `.wasm` file that the build leaves.
    pub(in crate::cli) fn output(&self) -> PathBuf {
        self.folder.join(&self.about.output)
    }

    /// The files with golden cases, by name.
    pub(in crate::cli) fn cases(&self) -> Result<Vec<PathBuf>, Failure> {
        let Some(tests) = &self.about.tests else { return Ok(Vec::new()) };
        let pattern = self.folder.join(tests);
        let (folder, name) = (pattern.parent(), pattern.file_name().and_then(|name| name.to_str()));
        let place = || format!("{} plugin.tests", self.folder.join(Self::FILE).display());
        let wrong = |why: String| Failure::usage(vec![Finding::error("tests", place(), why)]);
        let (Some(folder), Some(name)) = (folder, name) else {
            return Err(wrong(format!("`{tests}` names no files")));
        };
        let glob: Glob = name.parse().map_err(|error| wrong(format!("`{tests}`: {error}")))?;
        let unreadable = |error| wrong(format!("{} cannot be read: {error}", folder.display()));
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| glob.matches(name))
            {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Runs the build's commands; what they say goes to stderr.
    pub(in crate::cli) fn build(&self) -> Result<(), Failure> {
        self.look_for_needs()?;
        for command in &self.about.build {
            let status = Command::new("sh")
                .args(["-c", command])
                .current_dir(&self.folder)
                .stdin(Stdio::null())
                .stdout(std::io::stderr())
                .status()
                .map_err(|error| self.failed(command, &error.to_string()))?;
            if !status.success() {
                return Err(self.failed(command, &status.to_string()));
            }
        }
        let output = self.output();
        if output.is_file() {
            return Ok(());
        }
        let message = "the build left no such file".to_owned();
        Err(Failure::run_time(
            Finding::error("no-output", output.display().to_string(), message)
                .suggest("`output` in plugin.toml must name what the commands in `build` make"),
        ))
    }

    fn look_for_needs(&self) -> Result<(), Failure> {
        let missing = self.about.needs.iter().filter(|need| !is_on_path(&need.command));
        let finding = |need: &Need| {
            let message = format!("`{}` is not on the PATH", need.command);
            Finding::error("missing-tool", self.about.name.as_str(), message).suggest(&*need.hint)
        };
        match missing.map(finding).collect::<Vec<_>>() {
            none if none.is_empty() => Ok(()),
            findings => Err(Failure { code: 3, findings }),
        }
    }

    fn failed(&self, command: &str, how: &str) -> Failure {
        let message = format!("`{command}` failed ({how})");
        Failure::run_time(Finding::error("build", self.about.name.as_str(), message))
    }
}

fn is_on_path(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.contains('/') && Path::new(command).is_file()
        || std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
}
