//! Plugins' sources: built, tried and put where the running walmill finds them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant, SystemTime};

use notify_debouncer_full::notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use serde_json::Value;

use super::super::client::Client;
use super::super::plugin::{Project, build, test};
use super::super::{Failure, print_findings};
use super::shadow;
use crate::config::Config;
use crate::config::finding::Finding;
use crate::plugin::Version;

/// How long sources must be quiet before they are built.
const SETTLE: Duration = Duration::from_millis(200);
/// A version that is not decided about by then is waiting for something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A plugin of the config, and where it is made.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) project: Project,
    /// What runs.
    pub(super) copy: PathBuf,
}

impl Source {
    /// Looks for a `plugin.toml` beside or above the plugin's file that names it.
    pub(super) fn find(name: &str, file: &Path, copies: &Path) -> Result<Option<Self>, Failure> {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.into());
        for folder in file.ancestors().skip(1) {
            if !folder.join(Project::FILE).is_file() {
                continue;
            }
            let project = Project::open(folder)?;
            if project.output() == file {
                let copy = copies.join(format!("{name}.wasm"));
                return Ok(Some(Self { name: name.into(), project, copy }));
            }
        }
        Ok(None)
    }

    /// Builds it for the start, and copies it.
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        println!("{}: building …", self.name);
        println!("{}", build(&self.project)?);
        self.put()
    }

    /// Puts what was built where the running walmill looks.
    fn put(&self) -> Result<(), Failure> {
        let fresh = self.copy.with_extension("new");
        std::fs::copy(self.project.output(), &fresh)
            .and_then(|_| std::fs::rename(&fresh, &self.copy))
            .map_err(|error| {
                let place = self.copy.display().to_string();
                Failure::environment(Finding::error("unwritable", place, error.to_string()))
            })
    }

    /// What is to be watched: what `plugin.toml` says, else all of the folder.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let folder = &self.project.folder;
        match self.project.about.watch.as_slice() {
            [] => vec![folder.clone()],
            watch => watch.iter().map(|path| folder.join(path)).collect(),
        }
    }

    /// The newest change among what is watched, as far as it is no build's.
    fn changed(&self) -> Option<SystemTime> {
        self.folders().iter().filter_map(|path| newest(path)).max()
    }
}

/// The newest change of a file, or in a folder; what tools keep for themselves doesn't count.
fn newest(path: &Path) -> Option<SystemTime> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if matches!(name, "target" | "build" | "dist" | "node_modules" | ".git" | "__pycache__") {
        return None;
    }
    if !path.is_dir() {
        return path.metadata().ok()?.modified().ok();
    }
    let entries = path.read_dir().ok()?.filter_map(Result::ok);
    entries.filter_map(|entry| newest(&entry.path())).max()
}

/// Wakes the receiver when something there changes, as long as it is kept.
pub(super) fn watch(
    paths: &[PathBuf],
    wake: Sender<()>,
) -> Result<Debouncer<RecommendedWatcher, RecommendedCache>, Failure> {
    let failed = |path: &Path, error: String| {
        let message = format!("cannot be watched: {error}");
        Failure::environment(Finding::error("watch", path.display().to_string(), message))
    };
    // Nobody listens once walmill ends.
    let handler = move |_: DebounceEventResult| _ = wake.send(());
    let mut notices = new_debouncer(SETTLE, None, handler)
        .map_err(|error| failed(Path::new("."), error.to_string()))?;
    for path in paths.iter().filter(|path| path.exists()) {
        notices
            .watch(path, RecursiveMode::Recursive)
            .map_err(|error| failed(path, error.to_string()))?;
    }
    Ok(notices)
}

/// All of them, while walmill runs.
pub(super) struct Sources {
    pub(super) sources: Vec<Source>,
    pub(super) settings: Config,
    /// Where walmill listens.
    pub(super) address: SocketAddr,
    pub(super) runtime: tokio::runtime::Handle,
}

impl Sources {
    /// Until nobody wakes it any more.
    pub(super) fn run(&self, woken: &Receiver<()>) {
        let changed = |source: &Source| (source.name.clone(), source.changed());
        let mut built: BTreeMap<_, _> = self.sources.iter().map(changed).collect();
        while woken.recv().is_ok() {
            for source in &self.sources {
                let now = source.changed();
                if built.insert(source.name.clone(), now) != Some(now) {
                    self.renew(source).unwrap_or_else(|failure| print_findings(&failure.findings));
                }
            }
        }
    }

    /// Builds, tests and swaps.
    fn renew(&self, source: &Source) -> Result<(), Failure> {
        println!("\n{}: a source has changed; building …", source.name);
        println!("{}", build(&source.project)?);
        let reports = test(&source.project)?;
        let (failed, all) = reports.count();
        if failed > 0 {
            print!("{}", reports.shown());
            println!("{}: {failed} of {all} cases fail; the version in force stays", source.name);
            return Ok(());
        }
        println!("{}: {all} cases pass", source.name);
        let bytes = std::fs::read(source.project.output()).unwrap_or_default();
        let (version, before) = (Version::of(&bytes).to_string(), self.history(source)?);
        let known = before.as_array().and_then(|history| history.first());
        if known.is_some_and(|known| known["version"] == version && known["error"].is_null()) {
            println!("{}: the build made the same file as before", source.name);
            return Ok(());
        }
        source.put()?;
        self.decided(source, &version, &before)
    }

    /// Waits until the running walmill has decided about the version, and shows how.
    fn decided(&self, source: &Source, version: &str, before: &Value) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let history = self.history(source)?;
            let last = history.as_array().and_then(|history| history.first());
            if let Some(last) = last.filter(|last| history != *before && last["version"] == version)
            {
                print!("{}", shadow::decision(&source.name, last));
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let message = "walmill has not decided about the new version yet";
        Err(Failure::run_time(Finding::error("undecided", &*source.name, message)))
    }

    /// What has happened to the plugin, newest first.
    fn history(&self, source: &Source) -> Result<Value, Failure> {
        let mut settings = self.settings.clone();
        settings.server.listen = self.address;
        let client = Client::new(&settings)?;
        let status = self.runtime.block_on(client.get(&["api", "v1", "plugins", &source.name]))?;
        Ok(status["history"].clone())
    }
}
