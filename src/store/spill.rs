//! Transactions that are not decided yet, each in a file of its own until it commits or is rolled
//! back: what PostgreSQL sends of an open transaction must not fill the memory, and does not belong
//! in the journal.
//!
//! A file is a row of pieces, each behind its length and checksum. It is open only while a piece is
//! written, so that any number of transactions need no more than one file descriptor. Nothing is
//! synced: what a crash leaves is thrown away, and PostgreSQL sends it again. Only a file that is
//! sealed (that of a prepared transaction, whose PREPARE may be confirmed) is on disk for good.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::model::ByteSize;

/// Length and checksum of a piece.
const HEAD: usize = 4 + 8;
/// What a transaction's file is called behind its number.
const DATA: &str = "spill";

/// The folder of the files.
#[derive(Debug, Clone)]
pub struct Spills {
    folder: PathBuf,
    min_free: ByteSize,
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
        #[source]
        error: io::Error,
    },
    /// What was read is not what was written.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl Spills {
    /// Makes the folder, or empties it: what is in there will be sent again.
    ///
    /// # Errors
    /// See [`SpillError`], here and below.
    pub fn open(folder: &Path, min_free: ByteSize) -> Result<Self, SpillError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(failed("make", folder))?;
        let spills = Self { folder: folder.into(), min_free };
        spills.clear()?;
        Ok(spills)
    }

    /// Removes the files of all transactions.
    pub fn clear(&self) -> Result<(), SpillError> {
        let reading = failed("list", &self.folder);
        for entry in fs::read_dir(&self.folder).map_err(reading)? {
            let path = entry.map_err(failed("list", &self.folder))?.path();
            remove(&path)?;
        }
        Ok(())
    }

    /// Begins the file of a transaction with its first piece.
    pub fn start(&self, xid: u32, piece: &[u8]) -> Result<(), SpillError> {
        self.write(xid, piece, OpenOptions::new().create(true).truncate(true))
    }

    /// Adds a piece to a transaction's file.
    pub fn append(&self, xid: u32, piece: &[u8]) -> Result<(), SpillError> {
        self.write(xid, piece, OpenOptions::new().append(true))
    }

    fn write(&self, xid: u32, piece: &[u8], how: &mut OpenOptions) -> Result<(), SpillError> {
        self.check_room()?;
        let path = self.path(xid);
        let mut head = [0; HEAD];
        // A piece holds one message of at most 1 GiB, or several that are small.
        head[..4].copy_from_slice(&u32::try_from(piece.len()).unwrap_or(u32::MAX).to_be_bytes());
        head[4..].copy_from_slice(&xxh3_64(piece).to_be_bytes());
        let mut write = || -> io::Result<()> {
            let mut file = how.write(true).mode(0o600).open(&path)?;
            file.write_all(&head)?;
            file.write_all(piece)
        };
        write().map_err(failed("write", &path))
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
        let path = self.path(xid);
        let file = File::open(&path).map_err(failed("open", &path))?;
        let left = file.metadata().map_err(failed("open", &path))?.len();
        Ok(Pieces { file: BufReader::new(file), left, path })
    }

    /// Removes a transaction's file, if there is one.
    pub fn remove(&self, xid: u32) -> Result<(), SpillError> {
        remove(&self.path(xid))
    }

    fn path(&self, xid: u32) -> PathBuf {
        self.folder.join(format!("{xid}.{DATA}"))
    }
}

/// A transaction's file, piece by piece.
#[derive(Debug)]
pub struct Pieces {
    file: BufReader<File>,
    /// Bytes that have not been read.
    left: u64,
    path: PathBuf,
}

impl Pieces {
    /// Puts the next piece in place of what `piece` holds; false at the end.
    pub fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool, SpillError> {
        piece.clear();
        if self.left == 0 {
            return Ok(false);
        }
        let mut head = [0; HEAD];
        self.left = self.left.checked_sub(HEAD as u64).ok_or_else(|| self.damaged())?;
        self.file.read_exact(&mut head).map_err(failed("read", &self.path))?;
        let (len, sum) = head.split_at(4);
        let len = len.iter().fold(0, |len, byte| len << 8 | u64::from(*byte));
        self.left = self.left.checked_sub(len).ok_or_else(|| self.damaged())?;
        let reading = (&mut self.file).take(len).read_to_end(piece);
        reading.map_err(failed("read", &self.path))?;
        if piece.len() as u64 != len || xxh3_64(piece).to_be_bytes() != sum {
            return Err(self.damaged());
        }
        Ok(true)
    }

    /// What is in the file makes no sense.
    pub fn damaged(&self) -> SpillError {
        SpillError::Damaged { path: self.path.clone() }
    }
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
        Spills::open(folder, ByteSize::new(0)).unwrap()
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
        let path = spills.path(1);
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
    fn too_little_room_is_said_before_it_is_used_up() {
        let dir = tempfile::tempdir().unwrap();
        let spills = Spills::open(dir.path(), ByteSize::new(u64::MAX)).unwrap();
        let error = spills.start(1, b"a").unwrap_err();
        assert!(error.to_string().contains("less than `[store] min_free`"), "{error}");
    }
}
