//! Transactions that are not decided yet, each in a file of its own until it commits or is rolled
//! back: what PostgreSQL sends of an open transaction must not fill the memory, and does not belong
//! in the journal.
//!
//! A file is a row of pieces, each behind its length and checksum. It is open only while a piece is
//! written, so that any number of transactions need no more than one file descriptor. Nothing is
//! synced: what a crash leaves is thrown away, and PostgreSQL sends it again. Only a file that is
//! sealed (that of a prepared transaction, whose PREPARE may be confirmed) is on disk for good.

mod piece;

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoreError;
use crate::model::{ByteSize, Lsn};
pub use piece::Pieces;

/// What a transaction's files are called behind its number: what it changed, …
const DATA: &str = "spill";
/// … what stands beside that once it is prepared, …
const SEAL: &str = "sealed";
/// … where it has committed, …
const MARK: &str = "committed";
/// … and what of these two is not whole yet.
const DRAFT: &str = "draft";

/// Syncs what the store was given.
pub(super) type Sync = Arc<dyn Fn() -> Result<(), StoreError> + Send + std::marker::Sync>;

/// The folder of the files. Cloning shares it.
#[derive(Clone)]
pub struct Spills {
    folder: PathBuf,
    min_free: ByteSize,
    sync_store: Sync,
    /// Held while seals come and go: one is made on a thread of its own, and must not be overtaken.
    sealing: Arc<Mutex<()>>,
}

/// A prepared transaction whose file is there.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its number.
    pub xid: u32,
    /// What it was sealed with.
    pub note: Vec<u8>,
    /// Where it committed, if it has begun to go to the journal.
    pub committed: Option<Lsn>,
}

/// Why a transaction could not be kept, or read back.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// There is too little room on the disk.
    #[error("the disk of {folder} has {free} MiB free, less than `[store] min_free` = {min_free}")]
    Full {
        /// Where.
        folder: PathBuf,
        /// MiB that are free.
        free: u64,
        /// What has to be.
        min_free: ByteSize,
    },
    /// The file system refused.
    #[error("{doing} {path}: {error}")]
    Failed {
        /// What was to be done with the file.
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// What was read is not what was written.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Spills {
    /// Makes the folder, or empties it but for what is sealed: the rest will be sent again.
    ///
    /// # Errors
    /// See [`SpillError`], here and below.
    pub(crate) fn open(
        folder: &Path,
        min_free: ByteSize,
        sync_store: Sync,
    ) -> Result<Self, SpillError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(failed("make", folder))?;
        // What is sealed in it must not go with its name.
        folder.parent().map_or(Ok(()), sync)?;
        let sealing = Arc::default();
        let spills = Self { folder: folder.into(), min_free, sync_store, sealing };
        spills.clear()?;
        Ok(spills)
    }

    /// Removes the files of all transactions that are not sealed.
    pub fn clear(&self) -> Result<(), SpillError> {
        let _sealing = self.sealing();
        let files = self.files()?;
        let sealed = |name: &str| name.strip_suffix(SEAL).map(str::to_owned);
        let sealed: HashSet<String> = files.iter().filter_map(|name| sealed(name)).collect();
        for name in files {
            let kept = [DATA, SEAL, MARK].iter().any(|kind| {
                name.strip_suffix(kind).is_some_and(|transaction| sealed.contains(transaction))
            });
            if !kept {
                remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    fn sealing(&self) -> MutexGuard<'_, ()> {
        self.sealing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> Result<Vec<String>, SpillError> {
        let entries = fs::read_dir(&self.folder).map_err(failed("list", &self.folder))?;
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
        };
        let names: io::Result<Vec<String>> = entries.map(name).collect();
        names.map_err(failed("list", &self.folder))
    }

    /// Begins the file of a transaction with its first piece. One that was sealed under that number
    /// comes again.
    pub fn start(&self, xid: u32, piece: &[u8]) -> Result<(), SpillError> {
        self.check_room()?;
        let _sealing = self.sealing();
        if self.path(xid, SEAL).exists() {
            self.remove_all(xid)?;
        }
        piece::write(&self.path(xid, DATA), piece, OpenOptions::new().create(true).truncate(true))
    }

    /// Adds a piece to a transaction's file.
    pub fn append(&self, xid: u32, piece: &[u8]) -> Result<(), SpillError> {
        self.check_room()?;
        piece::write(&self.path(xid, DATA), piece, OpenOptions::new().append(true))
    }

    /// Leaves the journal and everything else on the disk the room that they need.
    fn check_room(&self) -> Result<(), SpillError> {
        let disk = rustix::fs::statvfs(&self.folder);
        let disk =
            disk.map_err(|error| failed("look at the disk of", &self.folder)(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= self.min_free.bytes() {
            return Ok(());
        }
        let (folder, min_free) = (self.folder.clone(), self.min_free);
        Err(SpillError::Full { folder, free: free >> 20, min_free })
    }

    /// Reads a transaction's file from its start.
    pub fn read(&self, xid: u32) -> Result<Pieces, SpillError> {
        Pieces::open(self.path(xid, DATA))
    }

    /// Removes the file of a transaction that is not sealed, if there is one.
    pub fn remove(&self, xid: u32) -> Result<(), SpillError> {
        remove(&self.path(xid, DATA))
    }

    /// Seals a transaction's file with a note. When this returns, both are on disk, and so is
    /// everything that the store was given before.
    pub fn seal(&self, xid: u32, note: &[u8]) -> Result<(), SpillError> {
        let _sealing = self.sealing();
        (self.sync_store)()?;
        sync(&self.path(xid, DATA))?;
        self.put(xid, SEAL, note)
    }

    /// Puts a small file in place, on disk as a whole or not at all.
    fn put(&self, xid: u32, kind: &str, content: &[u8]) -> Result<(), SpillError> {
        let draft = self.path(xid, DRAFT);
        piece::write(&draft, content, OpenOptions::new().create(true).truncate(true))?;
        sync(&draft)?;
        fs::rename(&draft, self.path(xid, kind)).map_err(failed("rename", &draft))?;
        sync(&self.folder)
    }

    /// The transactions that are sealed.
    pub fn sealed(&self) -> Result<Vec<Sealed>, SpillError> {
        let number = |name: String| name.strip_suffix(SEAL)?.strip_suffix('.')?.parse().ok();
        let numbers = self.files()?.into_iter().filter_map(number);
        numbers.map(|xid| self.read_seal(xid)).collect()
    }

    fn read_seal(&self, xid: u32) -> Result<Sealed, SpillError> {
        let note = piece::read_one(self.path(xid, SEAL))?;
        let mark = self.path(xid, MARK);
        let committed = match mark.exists() {
            true => <[u8; 8]>::try_from(piece::read_one(mark)?).ok(),
            false => None,
        };
        Ok(Sealed { xid, note, committed: committed.map(|lsn| Lsn(u64::from_be_bytes(lsn))) })
    }

    /// Notes where a sealed transaction has committed, before it goes to the journal: once it is
    /// there, nobody will ask for its file again.
    pub fn mark_committed(&self, xid: u32, commit: Lsn) -> Result<(), SpillError> {
        let _sealing = self.sealing();
        self.put(xid, MARK, &commit.0.to_be_bytes())
    }

    /// Removes a sealed transaction for good.
    pub fn remove_sealed(&self, xid: u32) -> Result<(), SpillError> {
        let _sealing = self.sealing();
        self.remove_all(xid)
    }

    fn remove_all(&self, xid: u32) -> Result<(), SpillError> {
        // Without its seal the rest is thrown away whenever that is found.
        for kind in [SEAL, MARK, DATA] {
            remove(&self.path(xid, kind))?;
        }
        sync(&self.folder)
    }

    fn path(&self, xid: u32, kind: &str) -> PathBuf {
        self.folder.join(format!("{xid}.{kind}"))
    }
}

/// Makes a file, or the names in a folder, last.
fn sync(path: &Path) -> Result<(), SpillError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path))
}

fn remove(path: &Path) -> Result<(), SpillError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SpillError + 'a {
    move |error| SpillError::Failed { doing, path: path.into(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spills(folder: &Path) -> Spills {
        Spills::open(folder, ByteSize::new(0), Arc::new(|| Ok(()))).unwrap()
    }

    fn pieces(spills: &Spills, xid: u32) -> Result<Vec<Vec<u8>>, SpillError> {
        let (mut reader, mut piece, mut pieces) = (spills.read(xid)?, Vec::new(), Vec::new());
        while reader.next(&mut piece)? {
            pieces.push(piece.clone());
        }
        Ok(pieces)
    }

    #[test]
    fn pieces_come_back_in_order_and_transactions_apart() {
        let dir = tempfile::tempdir().unwrap();
        let spills = spills(dir.path());
        spills.start(1, b"a").unwrap();
        spills.start(2, b"x").unwrap();
        spills.append(1, &[7; 300_000]).unwrap();
        spills.append(1, b"").unwrap();
        assert_eq!(pieces(&spills, 1).unwrap(), [b"a".to_vec(), vec![7; 300_000], Vec::new()]);
        spills.start(1, b"anew").unwrap();
        assert_eq!(pieces(&spills, 1).unwrap(), [b"anew"]);
        spills.remove(1).unwrap();
        spills.remove(1).unwrap();
        assert!(spills.read(1).is_err());
        assert_eq!(pieces(&spills, 2).unwrap(), [b"x"]);
    }

    #[test]
    fn what_was_left_is_gone_when_the_folder_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        spills(dir.path()).start(1, b"a").unwrap();
        let spills = spills(dir.path());
        assert!(matches!(spills.read(1), Err(SpillError::Failed { doing: "open", .. })));
    }

    #[test]
    fn a_damaged_file_is_an_error_wherever_the_damage_is() {
        let dir = tempfile::tempdir().unwrap();
        let spills = spills(dir.path());
        spills.start(1, b"some bytes").unwrap();
        let path = spills.path(1, DATA);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(pieces(&spills, 1).is_err(), "byte {at}");
            if at > 0 {
                fs::write(&path, &whole[..at]).unwrap();
                assert!(pieces(&spills, 1).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn what_is_sealed_stays_with_its_note_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let first = spills(dir.path());
        for xid in [1, 2, 3] {
            first.start(xid, b"changes").unwrap();
        }
        first.seal(1, b"note").unwrap();
        first.seal(2, b"").unwrap();
        first.mark_committed(2, Lsn(7)).unwrap();
        // As if it had ended in the middle of a seal.
        fs::rename(first.path(2, SEAL), first.path(3, DRAFT)).unwrap();
        first.seal(2, b"").unwrap();
        let second = spills(dir.path());
        let mut sealed = second.sealed().unwrap();
        sealed.sort_by_key(|sealed| sealed.xid);
        let expected = [(1, b"note".to_vec(), None), (2, Vec::new(), Some(Lsn(7)))];
        let expected = expected.map(|(xid, note, committed)| Sealed { xid, note, committed });
        assert_eq!(sealed, expected);
        assert_eq!(pieces(&second, 1).unwrap(), [b"changes"]);
        assert!(second.read(3).is_err());
        // A seal does not outlive the bytes that it was put under.
        second.start(1, b"again").unwrap();
        assert_eq!(pieces(&spills(dir.path()), 2).unwrap(), [b"changes"]);
        assert!(second.read(1).is_err());
        second.remove_sealed(2).unwrap();
        assert_eq!(second.files().unwrap(), [""; 0]);
    }

    #[test]
    fn too_little_room_is_said_before_it_is_used_up() {
        let dir = tempfile::tempdir().unwrap();
        let spills =
            Spills::open(dir.path(), ByteSize::new(u64::MAX), Arc::new(|| Ok(()))).unwrap();
        let error = spills.start(1, b"a").unwrap_err();
        assert!(error.to_string().contains("less than `[store] min_free`"), "{error}");
    }
}
