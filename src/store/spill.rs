//! Transactions that are not decided yet, each in a file of its own until it commits or is rolled
//! back: what PostgreSQL sends of an open transaction must not fill the memory, and does not belong
//! in the journal.
//!
//! A file is a row of pieces, each behind its length and checksum. It is open only while a piece is
//! written, so that any number of transactions need no more than one file descriptor. Nothing is
//! synced: what a crash leaves is thrown away, and PostgreSQL sends it again. Only a file that is
//! sealed (that of a prepared transaction, whose PREPARE may be confirmed) is on disk for good.
//!
//! PostgreSQL may send a sealed transaction once more, whole or only a part of it. That goes to a
//! file beside the sealed one, and takes its place in one step when it is sealed in its turn.

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

/// What a transaction's files are called behind its number: what came on this connection, …
const OPEN: &str = "open";
/// … all of it, once it is prepared, …
const SEALED: &str = "sealed";
/// … where it has committed, …
const MARK: &str = "committed";
/// … and that before it is whole.
const DRAFT: &str = "draft";

/// Syncs what the store was given.
pub(super) type Sync = Arc<dyn Fn() -> Result<(), StoreError> + Send + std::marker::Sync>;

/// The folder of the files. Cloning shares it.
#[derive(Clone)]
pub struct Spills {
    folder: PathBuf,
    min_free: ByteSize,
    sync_store: Sync,
    /// How often what is not sealed was thrown away. Held while seals come and go: one is made on a
    /// thread of its own, and must not be overtaken.
    sealing: Arc<Mutex<u64>>,
}

/// A prepared transaction whose file is there.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its number.
    pub xid: u32,
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
        let mut cleared = self.sealing();
        *cleared += 1;
        let files = self.files()?;
        let sealed = |name: &str| name.strip_suffix(SEALED).map(str::to_owned);
        let sealed: HashSet<String> = files.iter().filter_map(|name| sealed(name)).collect();
        for name in files {
            let kept = [SEALED, MARK].iter().any(|kind| {
                name.strip_suffix(kind).is_some_and(|transaction| sealed.contains(transaction))
            });
            if !kept {
                remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    fn sealing(&self) -> MutexGuard<'_, u64> {
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

    /// Begins the file of a transaction with its first piece. What is sealed under that number
    /// stays.
    pub fn start(&self, xid: u32, piece: &[u8]) -> Result<(), SpillError> {
        self.check_room()?;
        piece::write(&self.path(xid, OPEN), piece, OpenOptions::new().create(true).truncate(true))
    }

    /// Adds a piece to a transaction's file.
    pub fn append(&self, xid: u32, piece: &[u8]) -> Result<(), SpillError> {
        self.check_room()?;
        piece::write(&self.path(xid, OPEN), piece, OpenOptions::new().append(true))
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

    /// Reads the file of a transaction that is not sealed from its start.
    pub fn read(&self, xid: u32) -> Result<Pieces, SpillError> {
        Pieces::open(self.path(xid, OPEN))
    }

    /// What a sealed transaction was sealed with, and its file from its start.
    pub fn read_sealed(&self, xid: u32) -> Result<(Vec<u8>, Pieces), SpillError> {
        piece::open_ended(self.path(xid, SEALED))
    }

    /// Removes the file of a transaction that is not sealed, if there is one.
    pub fn remove(&self, xid: u32) -> Result<(), SpillError> {
        remove(&self.path(xid, OPEN))
    }

    /// What seals a transaction's file with a note, in place of what was sealed before. When it
    /// returns, both are on disk, and so is everything that the store was given before. If it runs
    /// too late, when all of that is thrown away, it does nothing.
    pub fn seal(
        &self,
        xid: u32,
        note: Vec<u8>,
    ) -> impl FnOnce() -> Result<(), SpillError> + Send + use<> {
        let (spills, cleared) = (self.clone(), *self.sealing());
        move || {
            let now = spills.sealing();
            match *now == cleared {
                true => spills.seal_now(xid, &note),
                false => Ok(()),
            }
        }
    }

    /// One rename makes it sealed: before it the old file holds, and behind it the new one does.
    fn seal_now(&self, xid: u32, note: &[u8]) -> Result<(), SpillError> {
        let open = self.path(xid, OPEN);
        piece::end(&open, note)?;
        sync(&open)?;
        (self.sync_store)()?;
        fs::rename(&open, self.path(xid, SEALED)).map_err(failed("rename", &open))?;
        sync(&self.folder)
    }

    /// The transactions that are sealed.
    pub fn sealed(&self) -> Result<Vec<Sealed>, SpillError> {
        let number = |name: String| name.strip_suffix(SEALED)?.strip_suffix('.')?.parse().ok();
        let numbers = self.files()?.into_iter().filter_map(number);
        numbers.map(|xid| Ok(Sealed { xid, committed: self.committed(xid)? })).collect()
    }

    fn committed(&self, xid: u32) -> Result<Option<Lsn>, SpillError> {
        let mark = self.path(xid, MARK);
        if !mark.exists() {
            return Ok(None);
        }
        let lsn = <[u8; 8]>::try_from(piece::read_one(mark)?).ok();
        Ok(lsn.map(|lsn| Lsn(u64::from_be_bytes(lsn))))
    }

    /// Notes where a sealed transaction has committed, before it goes to the journal: once it is
    /// there, nobody will ask for its file again.
    pub fn mark_committed(&self, xid: u32, commit: Lsn) -> Result<(), SpillError> {
        let _sealing = self.sealing();
        let (draft, mark) = (self.path(xid, DRAFT), self.path(xid, MARK));
        let commit = commit.0.to_be_bytes();
        piece::write(&draft, &commit, OpenOptions::new().create(true).truncate(true))?;
        sync(&draft)?;
        fs::rename(&draft, mark).map_err(failed("rename", &draft))?;
        sync(&self.folder)
    }

    /// Forgets where sealed transactions have committed: they may do so elsewhere.
    pub fn forget_commits(&self) -> Result<(), SpillError> {
        let _sealing = self.sealing();
        for name in self.files()?.into_iter().filter(|name| name.ends_with(MARK)) {
            remove(&self.folder.join(name))?;
        }
        sync(&self.folder)
    }

    /// Removes a sealed transaction for good.
    pub fn remove_sealed(&self, xid: u32) -> Result<(), SpillError> {
        let _sealing = self.sealing();
        // Without the first the other is thrown away whenever that is found.
        for kind in [SEALED, MARK] {
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
        all(spills.read(xid)?)
    }

    fn all(mut reader: Pieces) -> Result<Vec<Vec<u8>>, SpillError> {
        let (mut piece, mut pieces) = (Vec::new(), Vec::new());
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
        let path = spills.path(1, OPEN);
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

    /// The note and the pieces of a sealed transaction.
    fn sealed(spills: &Spills, xid: u32) -> Result<(Vec<u8>, Vec<Vec<u8>>), SpillError> {
        let (note, pieces) = spills.read_sealed(xid)?;
        Ok((note, all(pieces)?))
    }

    #[test]
    fn what_is_sealed_stays_with_its_note_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let first = spills(dir.path());
        for xid in [1, 2, 3] {
            first.start(xid, b"changes").unwrap();
        }
        first.append(1, b"more").unwrap();
        first.seal(1, b"note".to_vec())().unwrap();
        first.seal(2, Vec::new())().unwrap();
        first.mark_committed(2, Lsn(7)).unwrap();
        // As if it had ended in the middle of these.
        fs::write(first.path(3, DRAFT), b"dr").unwrap();
        first.start(1, b"aga").unwrap();
        let second = spills(dir.path());
        let mut found = second.sealed().unwrap();
        found.sort_by_key(|sealed| sealed.xid);
        let expected = [(1, None), (2, Some(Lsn(7)))];
        assert_eq!(found, expected.map(|(xid, committed)| Sealed { xid, committed }));
        let expected = (b"note".to_vec(), vec![b"changes".to_vec(), b"more".to_vec()]);
        assert_eq!(sealed(&second, 1).unwrap(), expected);
        assert_eq!(sealed(&second, 2).unwrap(), (Vec::new(), vec![b"changes".to_vec()]));
        assert!([1, 2, 3].iter().all(|xid| second.read(*xid).is_err()));
        second.forget_commits().unwrap();
        assert!(second.sealed().unwrap().iter().all(|sealed| sealed.committed.is_none()));
        second.remove_sealed(1).unwrap();
        second.remove_sealed(2).unwrap();
        assert_eq!(second.files().unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_sealed_holds_until_another_is_sealed_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let old = (b"old note".to_vec(), vec![b"old".to_vec()]);
        let new = (b"new note".to_vec(), vec![b"new".to_vec(), b"changes".to_vec()]);
        let first = spills(dir.path());
        first.start(1, b"old").unwrap();
        first.seal(1, old.0.clone())().unwrap();
        let again = |spills: &Spills| {
            spills.start(1, b"new").unwrap();
            spills.append(1, b"changes").unwrap();
            assert_eq!(sealed(spills, 1).unwrap(), old);
        };
        again(&first);
        first.remove(1).unwrap();
        assert_eq!(sealed(&first, 1).unwrap(), old);
        // It ends when everything is done but for the one step that counts.
        let sync = || Err(StoreError::OutOfOrder(String::new()));
        let ends = Spills::open(dir.path(), ByteSize::new(0), Arc::new(sync)).unwrap();
        again(&ends);
        assert!(ends.seal(1, new.0.clone())().is_err());
        assert_eq!(sealed(&ends, 1).unwrap(), old);
        let second = spills(dir.path());
        assert_eq!(sealed(&second, 1).unwrap(), old);
        again(&second);
        second.seal(1, new.0.clone())().unwrap();
        assert_eq!(sealed(&spills(dir.path()), 1).unwrap(), new);
    }

    #[test]
    fn a_seal_that_comes_too_late_seals_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let spills = spills(dir.path());
        spills.start(1, b"whole").unwrap();
        let late = spills.seal(1, Vec::new());
        spills.clear().unwrap();
        spills.start(1, b"a part").unwrap();
        late().unwrap();
        assert_eq!(spills.sealed().unwrap(), []);
        assert_eq!(pieces(&spills, 1).unwrap(), [b"a part"]);
    }

    #[test]
    fn a_damaged_seal_is_an_error_wherever_the_damage_is() {
        let dir = tempfile::tempdir().unwrap();
        let spills = spills(dir.path());
        spills.start(1, b"some bytes").unwrap();
        spills.seal(1, b"note".to_vec())().unwrap();
        let path = spills.path(1, SEALED);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(sealed(&spills, 1).is_err(), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(sealed(&spills, 1).is_err(), "cut at {at}");
        }
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
