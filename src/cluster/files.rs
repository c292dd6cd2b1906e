//! The cluster's files: whose they are, and the copy of a fresh one that saves most of the wait.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};

/// The user that the server runs as, when this process is root: PostgreSQL refuses to run as root.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunAs {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl RunAs {
    /// `postgres`, else `nobody`; `None` when this process is not root.
    pub(super) fn needed() -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let user = Self::named(&users, "postgres").or_else(|| Self::named(&users, "nobody"));
        user.map(Some).ok_or_else(|| {
            io::Error::other("PostgreSQL refuses to run as root, and there is no user `nobody`")
        })
    }

    fn named(users: &str, name: &str) -> Option<Self> {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Self { uid, gid })
        })
    }
}

/// Gives a file or folder to the server's user.
pub(super) fn give(path: &Path, user: Option<RunAs>) -> io::Result<()> {
    match user {
        Some(RunAs { uid, gid }) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// Makes a folder that only its owner can enter.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Writes a file that only the server's user can read.
pub(super) fn write_private(path: &Path, content: &[u8], user: Option<RunAs>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    give(path, user)
}

/// Copies a folder with all that is in it to a new place, and gives it to the server's user.
pub(super) fn copy(from: &Path, to: &Path, user: Option<RunAs>) -> io::Result<()> {
    make_private(to)?;
    give(to, user)?;
    for entry in fs::read_dir(from)? {
        let (entry, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if entry.is_dir() {
            copy(&entry, &target, user)?;
        } else {
            match fs::copy(&entry, &target) {
                Ok(_) => give(&target, user)?,
                // A running server removes files that it needs no more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The folder for things that take time to make and can be made again. `None` where it cannot be
/// trusted: what another user could write to is never run from.
pub(super) fn cache() -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let folder = match std::env::var_os("WALMILL_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::temp_dir().join(format!("walmill-cache-{uid}")),
    };
    fs::create_dir_all(folder.parent()?).ok()?;
    let _ = make_private(&folder);
    let found = fs::symlink_metadata(&folder).ok()?;
    let others_write = found.permissions().mode() & 0o022 != 0;
    (found.is_dir() && found.uid() == uid && !others_write).then_some(folder)
}
