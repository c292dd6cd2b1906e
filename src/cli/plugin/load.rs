//! Plugins loaded as a stream would load them, for commands that try them out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use toml::Table;

use super::super::Failure;
use super::project::Project;
use crate::config::finding::Finding;
use crate::plugin::registry::load_alone;
use crate::plugin::{Config, Engine, LoadError, Plugin, Reason};

/// Which plugin: a project's or a file.
#[derive(Debug, Args)]
pub(super) struct PluginArguments {
    /// The plugin: a `.wasm` file, or a folder with `plugin.toml` that has been built.
    #[arg(default_value = ".")]
    plugin: PathBuf,
}

/// A plugin's file, and the project that it comes from.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) project: Option<Project>,
}

impl PluginArguments {
    pub(super) fn open(&self) -> Result<Subject, Failure> {
        if !self.plugin.is_dir() {
            let name = self.plugin.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Subject { name, file: self.plugin.clone(), project: None });
        }
        Subject::of(Project::open(&self.plugin)?)
    }
}

impl Subject {
    /// What a project's build has left.
    pub(super) fn of(project: Project) -> Result<Self, Failure> {
        let file = project.output();
        if !file.is_file() {
            let finding = Finding::error("not-built", file.display().to_string(), "is not there");
            return Err(Failure::usage(vec![finding.suggest("`walmill plugin build` makes it")]));
        }
        Ok(Self { name: project.about.name.clone(), file, project: Some(project) })
    }
}

/// An engine that keeps compiled code among the user's caches.
pub(in crate::cli) fn engine() -> Result<Engine, Failure> {
    let home = |name: &str| std::env::var_os(name).filter(|home| !home.is_empty());
    let cache = home("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(home("HOME")?).join(".cache")));
    let compiled = cache.map(|cache| cache.join("walmill/compiled"));
    let engine = match &compiled {
        // Without a cache it works as well, and slower.
        Some(folder) if std::fs::create_dir_all(folder).is_ok() => Engine::new(Some(folder)),
        _ => Engine::new(None),
    };
    engine.map_err(|error| Failure::run_time(Finding::error("engine", "", format!("{error:#}"))))
}

/// Loads the file with a config. State is granted: what is tried keeps it in memory only.
pub(in crate::cli) fn load(
    engine: &Engine,
    name: &str,
    file: &Path,
    config: &Table,
) -> Result<Arc<Plugin>, LoadError> {
    let table = serde_json::to_value(config).unwrap_or_default();
    let config = table.as_object().cloned().unwrap_or_default();
    let mut config = Config::new(file.into(), config);
    config.allow.kv = true;
    load_alone(engine, name, config)
}

/// Why a plugin does not load, as a finding.
pub(in crate::cli) fn refused(error: &LoadError) -> Failure {
    let place = error.path.display().to_string();
    Failure::run_time(Finding::error("plugin", place, error.reason.to_string()))
}

/// Whether all that is wrong is its config.
pub(in crate::cli) fn wants_config(reason: &Reason) -> bool {
    use crate::plugin::CallError;
    matches!(reason, Reason::Call { error: CallError::Findings(_), .. })
}
