//! The data folder: made for us alone, locked against a second walmill, and marked with its layout.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::OpenError;

/// The layout that this version reads and writes.
pub(super) const LAYOUT: u32 = 2;
const LOCK: &str = "lock";
const MARKER: &str = "layout";
const DATABASE: &str = "db";

/// A data folder that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if there is none, locks it, and checks that it is a data folder of ours.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let unusable = |cause| OpenError::Unusable { path: path.into(), cause };
        make(path).map_err(unusable)?;
        let lock = lock(path)?;
        match read_marker(path).map_err(unusable)? {
            Some(LAYOUT) => {}
            Some(found) => {
                return Err(OpenError::Layout { path: path.into(), found, known: LAYOUT });
            }
            None => {
                check_empty(path).map_err(unusable)?;
                write_marker(path).context("mark it as a data folder").map_err(unusable)?;
            }
        }
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// Where the database lives.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where the folder is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that can still be written to its disk.
    pub(super) fn free_space(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

fn make(path: &Path) -> anyhow::Result<()> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            return Err(anyhow!("it is no folder; set `[store] path` to one"));
        }
        Ok(found) => return tighten(path, &found.permissions()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).context("look at it");
        }
        Err(_) => {}
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context("make it; give walmill the right to, or set `[store] path` elsewhere")
}

/// Rows of the database lie in there. Where the folder is another user's (a mounted volume), its
/// rights are that user's to choose.
fn tighten(path: &Path, found: &Permissions) -> anyhow::Result<()> {
    if found.mode() & 0o077 != 0
        && let Err(error) = fs::set_permissions(path, Permissions::from_mode(0o700))
    {
        tracing::warn!(path = %path.display(), "others can read the data folder: {error}");
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let unusable = |error: io::Error| OpenError::Unusable {
        path: path.into(),
        cause: anyhow::Error::new(error)
            .context("write in it; give walmill the right to, or set `[store] path` elsewhere"),
    };
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600);
    let file = file.open(path.join(LOCK)).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path.into())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

fn read_marker(path: &Path) -> anyhow::Result<Option<u32>> {
    match fs::read_to_string(path.join(MARKER)) {
        Ok(text) => {
            let layout = text.strip_prefix("walmill data folder, layout ").map(str::trim);
            let layout = layout.and_then(|number| number.parse().ok());
            layout.map(Some).ok_or_else(|| anyhow!("its file `{MARKER}` is none of walmill's"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("read its file `layout`"),
    }
}

/// A folder with someone else's files in it is most likely a mistake in the config.
fn check_empty(path: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(path).context("list it")? {
        let name = entry.context("list it")?.file_name();
        let ours = [LOCK, "layout.new", "lost+found"].iter().any(|known| name == *known);
        if !ours {
            let name = name.display();
            return Err(anyhow!(
                "it holds other files (`{name}`); set `[store] path` to an empty folder"
            ));
        }
    }
    Ok(())
}

fn write_marker(path: &Path) -> io::Result<()> {
    let new = path.join("layout.new");
    let mut file = File::create(&new)?;
    writeln!(file, "walmill data folder, layout {LAYOUT}")?;
    file.sync_all()?;
    fs::rename(&new, path.join(MARKER))?;
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        format!("{:#}", anyhow::Error::from(Folder::open(path).unwrap_err()))
    }

    #[test]
    fn a_new_folder_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let folder = Folder::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(folder.free_space().unwrap() > 0);
    }

    #[test]
    fn the_second_opener_is_told_that_it_is_locked_and_the_next_may_open() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path()).unwrap();
        assert!(matches!(Folder::open(dir.path()), Err(OpenError::Locked(_))));
        drop(first);
        Folder::open(dir.path()).unwrap();
    }

    #[test]
    fn what_is_no_data_folder_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("photo.jpg");
        fs::write(&file, "x").unwrap();
        assert!(refusal(&file).contains("it is no folder"), "{}", refusal(&file));
        assert!(
            refusal(dir.path()).contains("other files (`photo.jpg`)"),
            "{}",
            refusal(dir.path())
        );
        assert!(!dir.path().join(MARKER).exists());
        assert!(refusal(&file.join("below")).contains("data folder"), "a path below a file");
    }

    #[test]
    fn another_layout_is_refused_by_its_number() {
        let dir = tempfile::tempdir().unwrap();
        drop(Folder::open(dir.path()).unwrap());
        fs::write(dir.path().join(MARKER), "walmill data folder, layout 7\n").unwrap();
        assert!(matches!(Folder::open(dir.path()), Err(OpenError::Layout { found: 7, .. })));
        fs::write(dir.path().join(MARKER), "\u{0}\u{0}").unwrap();
        assert!(refusal(dir.path()).contains("none of walmill's"));
    }
}
