//! The database, and how its log gets to disk without anybody waiting for that.
//!
//! The database's own sync holds its writer's lock until the disk has answered, and so every write,
//! and every event on its way to a client, would wait for the disk, too. So its log is synced here
//! through a descriptor of our own, while writes go on.
//!
//! That is as good: a sync is of a file, whoever opened it. What was written before it lies in the
//! newest file, or in older ones, each of which the database syncs whole before it begins the next.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fjall::{Database, PersistMode};

use super::wal;

/// A database with its log's newest file.
#[derive(Clone)]
pub(super) struct Disk {
    db: Database,
    log: Arc<Mutex<Newest>>,
}

/// The file that the database writes to.
struct Newest {
    folder: PathBuf,
    /// Kept open, so that the kernel tells us, too, of what it could not write.
    file: Option<(PathBuf, File)>,
    /// A sync failed: nobody can say any more what is on disk.
    failed: bool,
}

#[expect(clippy::disallowed_methods, reason = "this is what is used instead")]
impl Disk {
    /// The database in `folder`.
    pub(super) fn new(db: Database, folder: &Path) -> Self {
        let newest = Newest { folder: folder.into(), file: None, failed: false };
        Self { db, log: Arc::new(Mutex::new(newest)) }
    }

    pub(super) fn db(&self) -> &Database {
        &self.db
    }

    /// Gives what was written to the kernel, which takes no longer than a write. Fails if the
    /// database has failed before.
    pub(super) fn hand_over(&self) -> fjall::Result<()> {
        self.db.persist(PersistMode::Buffer)
    }

    /// Returns once everything that was written before is on disk. Writes go on meanwhile.
    ///
    /// # Errors
    /// It is not on disk, and neither is what any later sync is asked for.
    pub(super) fn sync(&self) -> fjall::Result<()> {
        self.hand_over()?;
        self.newest().sync().map_err(|error| self.spread(error))?;
        // The database's worker syncs, too. If it failed just before, ours may have found nothing
        // left to write and succeeded; this asks whether it did.
        self.hand_over()
    }

    /// Makes the database hear of a failure: the kernel tells it once to each descriptor. It takes
    /// no more writes then.
    fn spread(&self, error: io::Error) -> fjall::Error {
        match self.db.persist(PersistMode::SyncAll) {
            Ok(()) => fjall::Error::Io(error),
            Err(known) => known,
        }
    }

    fn newest(&self) -> MutexGuard<'_, Newest> {
        // A panic leaves it as it was before the call.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newest {
    fn sync(&mut self) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier sync failed"));
        }
        let synced = self.open().and_then(File::sync_data);
        self.failed = synced.is_err();
        synced
    }

    /// The newest file, opened if it is another than before.
    fn open(&mut self) -> io::Result<&File> {
        loop {
            let newest = wal::files(&self.folder)?.pop();
            let path = newest.ok_or_else(|| io::Error::other("the database has no log"))?;
            let known = self.file.take().filter(|(known, _)| *known == path);
            let file = match known {
                Some((_, file)) => file,
                None => match File::open(&path) {
                    // It was the newest a moment ago, and is written out to tables since.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    opened => opened?,
                },
            };
            return Ok(&self.file.insert((path, file)).1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database;

    fn disk() -> (tempfile::TempDir, Disk) {
        let folder = tempfile::tempdir().unwrap();
        let db = database::open(folder.path()).unwrap();
        let disk = Disk::new(db, folder.path());
        (folder, disk)
    }

    #[test]
    fn what_was_written_before_a_sync_is_in_the_newest_file() {
        let (folder, disk) = disk();
        let entries = disk.db().keyspace("entries", database::small).unwrap();
        entries.insert("key", b"what is looked for").unwrap();
        disk.sync().unwrap();
        let newest = wal::files(folder.path()).unwrap().pop().unwrap();
        let bytes = std::fs::read(&newest).unwrap();
        let text = b"what is looked for";
        assert!(bytes.windows(text.len()).any(|window| window == text));
        assert_eq!(disk.newest().file.as_ref().unwrap().0, newest);
    }

    #[test]
    fn a_sync_follows_the_log_to_its_next_file() {
        let (folder, disk) = disk();
        disk.sync().unwrap();
        let first = disk.newest().file.as_ref().unwrap().0.clone();
        let next = folder.path().join("9.jnl");
        std::fs::copy(&first, &next).unwrap();
        disk.sync().unwrap();
        assert_eq!(disk.newest().file.as_ref().unwrap().0, next);
    }

    #[test]
    fn writes_go_on_while_a_sync_waits_for_the_disk() {
        let (_folder, disk) = disk();
        let entries = disk.db().keyspace("entries", database::small).unwrap();
        // As it is held while the disk is asked.
        let syncing = disk.newest();
        entries.insert("key", b"value").unwrap();
        disk.hand_over().unwrap();
        assert_eq!(entries.get("key").unwrap().unwrap(), b"value");
        drop(syncing);
        disk.sync().unwrap();
    }

    #[test]
    fn after_a_sync_that_failed_none_succeeds() {
        let (_folder, disk) = disk();
        disk.newest().failed = true;
        assert!(disk.sync().is_err());
        assert!(disk.sync().is_err());
    }
}
