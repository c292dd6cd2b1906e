//! Notices changed files and offers them to the registry.
//!
//! Folders are watched, not files: a file that is replaced by renaming another over it, or by
//! turning a symlink (as Kubernetes does), is another file afterwards. What counts is the content:
//! it is read once and told apart by its hash. A file caught half-written fails to load, and is
//! offered again when its writer goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use notify_debouncer_full::notify::event::{AccessKind, AccessMode};
use notify_debouncer_full::notify::{EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tracing::warn;

use super::error::Reason;
use super::{Registry, Version};

/// How long a folder must be quiet before its files are read.
const SETTLE: Duration = Duration::from_millis(100);
/// Between two looks without any notice: network file systems and folders that were replaced give
/// none.
const LOOK: Duration = Duration::from_secs(2);
/// The clock of a file system may be this coarse: a file changed more recently can change again
/// and look the same.
const COARSEST: Duration = Duration::from_secs(3);

type Notices = Debouncer<RecommendedWatcher, RecommendedCache>;

/// Watches the plugins' files until it is dropped.
pub struct Watch {
    notices: Option<Notices>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts watching, on a thread of its own, where changed plugins are compiled, too.
    ///
    /// # Errors
    /// A folder is missing or cannot be watched.
    pub fn start(registry: Registry) -> anyhow::Result<Self> {
        // One waiting notice is enough: it makes the watch look at everything.
        let (wake, woken) = sync_channel(1);
        let notices = notices(&registry, wake)?;
        let looker = Looker { registry, seen: BTreeMap::new() };
        let thread = thread::Builder::new()
            .name("plugin-watch".into())
            .spawn(move || looker.run(&woken))
            .context("start the thread that watches plugins")?;
        Ok(Self { notices: Some(notices), thread: Some(thread) })
    }
}

impl Drop for Watch {
    /// Waits for a plugin that is being compiled.
    fn drop(&mut self) {
        // With the notices goes the sender, whose end the thread hears.
        if let Some(notices) = self.notices.take() {
            notices.stop();
        }
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            warn!("the thread that watched plugins panicked: {panic:?}");
        }
    }
}

fn notices(registry: &Registry, wake: SyncSender<()>) -> anyhow::Result<Notices> {
    let handler = move |result: DebounceEventResult| {
        // Errors, too, are a reason to look: notices may have been lost.
        if result.map_or(true, |events| events.iter().any(|event| is_change(event.kind))) {
            // When it is full, the look that is due will see this change.
            let _ = wake.try_send(());
        }
    };
    let mut notices = new_debouncer(SETTLE, None, handler).context("watch plugins")?;
    for (name, path) in registry.files() {
        for folder in folders(&path) {
            notices.watch(&folder, RecursiveMode::NonRecursive).with_context(|| {
                format!(
                    "plugin {name}: folder {} cannot be watched; it must be there before walmill \
                     starts",
                    folder.display()
                )
            })?;
        }
    }
    Ok(notices)
}

/// Our own reading gives notices, too; they must not make us read again.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// The file's folder and, for a symlink, the folder of what it points to.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let folder = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let absolute = |folder: PathBuf| fs::canonicalize(&folder).unwrap_or(folder);
    [folder(path), folder(&target)].map(absolute).into()
}

struct Looker {
    registry: Registry,
    seen: BTreeMap<String, Seen>,
}

/// A file as it was at the last look.
#[derive(Default)]
struct Seen {
    fingerprint: Option<Fingerprint>,
    /// What it held, or why that is not known.
    content: Option<Result<Version, String>>,
}

impl Looker {
    fn run(mut self, woken: &Receiver<()>) {
        loop {
            match woken.recv_timeout(LOOK) {
                Ok(()) => self.seen.values_mut().for_each(|seen| seen.fingerprint = None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            for (name, path) in self.registry.files() {
                self.look(&name, &path);
            }
        }
    }

    fn look(&mut self, name: &str, path: &Path) {
        // Before reading: what changes in between looks different the next time.
        let fingerprint = Fingerprint::of(path);
        let seen = self.seen.entry(name.into()).or_default();
        if fingerprint.is_some() && fingerprint == seen.fingerprint {
            return;
        }
        seen.fingerprint = fingerprint;
        let bytes = self.registry.read(name);
        let content = match &bytes {
            Ok(bytes) => Ok(Version::of(bytes)),
            Err(error) => Err(error.to_string()),
        };
        if seen.content.as_ref() == Some(&content) {
            return;
        }
        match bytes {
            // Whatever comes of it is logged there.
            Ok(bytes) => {
                let offered = self.registry.offer(name, bytes);
                if offered.is_err_and(|error| matches!(error.reason, Reason::CutShort)) {
                    // Nothing was decided: the next look offers it again.
                    seen.fingerprint = None;
                    return;
                }
            }
            Err(error) => warn!(plugin = name, "the version in force stays: {error}"),
        }
        seen.content = Some(content);
    }
}

/// What tells without reading that a file has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    file: (u64, u64),
    size: u64,
    modified: SystemTime,
}

impl Fingerprint {
    /// None for a file that has changed so recently that it may change again unnoticed.
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let modified = meta.modified().ok()?;
        let settled = modified.elapsed().is_ok_and(|age| age > COARSEST);
        settled.then(|| Self { file: (meta.dev(), meta.ino()), size: meta.len(), modified })
    }
}

#[cfg(test)]
mod tests;
