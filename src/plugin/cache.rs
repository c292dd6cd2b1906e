//! Compiled code on disk, by the hash of the file it was compiled from; and those files, so that a
//! version can be put in force again after its file was replaced.
//!
//! A file of compiled code is its own SHA-256, then wasmtime's artifact. The artifact is machine
//! code that will run outside the sandbox, so it is believed only if it is ours: in a folder that
//! nobody else may write to, under a name that says which wasmtime with which settings made it,
//! and whole.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use tracing::{debug, warn};
use wasmtime::component::Component;

use super::Version;
use super::world::WORLDS;

const DIGEST: usize = 32;
/// Files of each sort that are kept; the least recently used go first.
const MOST_FILES: usize = 64;

/// The folder.
pub(super) struct Cache {
    folder: PathBuf,
    /// Part of each file's name: artifacts of another wasmtime, other settings or another world
    /// are of no use.
    kind: String,
    /// Versions whose files stay, however old they are.
    protected: Mutex<HashSet<Version>>,
}

impl Cache {
    pub(super) fn open(folder: &Path, engine: &wasmtime::Engine) -> anyhow::Result<Self> {
        let folder = folder.to_path_buf();
        let what = || format!("plugin cache {}", folder.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(what)?;
        let meta = fs::metadata(&folder).with_context(what)?;
        ensure!(
            meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0,
            "{}: others may write to this folder, and what is in it is run; make it yours alone \
             with `chown` and `chmod 700`, or remove it",
            what()
        );
        let mut kind = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut kind);
        env!("CARGO_PKG_VERSION").hash(&mut kind);
        WORLDS.iter().for_each(|world| world.wit.hash(&mut kind));
        let kind = format!("{:016x}", kind.finish());
        Ok(Self { folder, kind, protected: Mutex::default() })
    }

    /// What was compiled from that version before, if it is there and whole.
    pub(super) fn get(&self, engine: &wasmtime::Engine, version: &Version) -> Option<Component> {
        let path = self.compiled(version);
        let bytes = fs::read(&path).ok()?;
        let (digest, artifact) = bytes.split_at_checked(DIGEST)?;
        if Sha256::digest(artifact).as_slice() != digest {
            warn!(path = %path.display(), "damaged compiled plugin; it is compiled anew");
            return None;
        }
        let component = revive(engine, artifact);
        if let Ok(file) = File::open(&path) {
            // Only the order of removal depends on it.
            let _ = file.set_modified(SystemTime::now());
        }
        component
            .inspect_err(|error| warn!(path = %path.display(), "compiled plugin: {error:#}"))
            .ok()
    }

    /// Keeps compiled code. Without it, the next start takes longer; so a failure is only logged.
    pub(super) fn put(&self, version: &Version, component: &Component) {
        match component.serialize() {
            Ok(artifact) => self.put_artifact(version, &artifact),
            Err(error) => warn!("keep compiled plugin: {error:#}"),
        }
    }

    /// See [`Cache::put`].
    pub(super) fn put_artifact(&self, version: &Version, artifact: &[u8]) {
        let digest = Sha256::digest(artifact);
        let written = self.write(&self.compiled(version), &[digest.as_slice(), artifact]);
        if let Err(error) = written {
            warn!(folder = %self.folder.display(), "keep compiled plugin: {error:#}");
        }
        self.prune("cwasm");
    }

    /// Keeps a file that a plugin was made from, on disk when this returns: what is known of a
    /// plugin is, too, and says that this version is in force.
    pub(super) fn keep(&self, version: &Version, bytes: &[u8]) {
        // One that is there may not be whole, from before files were synced.
        if self.kept(version).is_some() {
            return;
        }
        let path = self.file(version);
        let written = self.write(&path, &[bytes]).and_then(|()| {
            File::open(&path)?.sync_all()?;
            File::open(&self.folder)?.sync_all()
        });
        if let Err(error) = written {
            warn!(folder = %self.folder.display(), "keep plugin's file: {error:#}");
        }
        self.prune("wasm");
    }

    /// The file that a version was made from, if it is there and whole.
    pub(super) fn kept(&self, version: &Version) -> Option<Vec<u8>> {
        let bytes = fs::read(self.file(version)).ok()?;
        (Version::of(&bytes) == *version).then_some(bytes)
    }

    /// From now on these versions' files stay, in place of those named before.
    pub(super) fn protect(&self, versions: HashSet<Version>) {
        *self.protected.lock().unwrap_or_else(PoisonError::into_inner) = versions;
    }

    fn file(&self, version: &Version) -> PathBuf {
        self.folder.join(format!("{}.wasm", version.hex()))
    }

    fn is_protected(&self, path: &Path) -> bool {
        let version = path.file_stem().and_then(|stem| Version::from_hex(stem.to_str()?));
        let protected = self.protected.lock().unwrap_or_else(PoisonError::into_inner);
        version.is_some_and(|version| protected.contains(&version))
    }

    fn compiled(&self, version: &Version) -> PathBuf {
        self.folder.join(format!("{}-{}.cwasm", version.hex(), self.kind))
    }

    /// Writes a file that is there whole or not at all, but for a power cut: what that leaves of it
    /// does not match its digest.
    fn write(&self, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let written = parts.iter().try_for_each(|part| file.write_all(part));
        written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
            // Nothing reads it.
            let _ = fs::remove_file(&temporary);
        })
    }

    fn prune(&self, extension: &str) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .filter(|path| !self.is_protected(path))
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        files.sort_unstable();
        let surplus = files.len().saturating_sub(MOST_FILES);
        for (_, path) in &files[..surplus] {
            debug!(path = %path.display(), "least recently used");
            // Another process may have been faster.
            let _ = fs::remove_file(path);
        }
    }
}

/// A component from its machine code.
pub(super) fn revive(engine: &wasmtime::Engine, artifact: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` needs bytes that our own compiler made and that nobody changed. They
    // come from the process that compiles, which is this program, through a pipe that only it has;
    // or from a file that the cache wrote, whole by its digest, in a folder that nobody else can
    // write to (`Cache::open` has checked it). And they are in our memory, so they cannot change
    // between the check and their use, as a mapped file could. wasmtime itself refuses artifacts
    // of another version or other settings.
    #[allow(unsafe_code, reason = "see above")]
    unsafe {
        Component::deserialize(engine, artifact)
    }
}

#[cfg(test)]
mod tests;
