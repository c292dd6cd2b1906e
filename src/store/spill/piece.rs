//! The pieces that a file is made of, each behind its length and checksum.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::{SpillError, failed};

/// Length and checksum of a piece.
const HEAD: usize = 4 + 8;
/// The last piece of a file that ends with a note: where that begins.
const END: u64 = HEAD as u64 + 8;

/// Writes a piece to a file that is opened like this.
pub(super) fn write(path: &Path, piece: &[u8], how: &mut OpenOptions) -> Result<(), SpillError> {
    let mut head = [0; HEAD];
    // A piece holds one message of at most 1 GiB, or several that are small.
    head[..4].copy_from_slice(&u32::try_from(piece.len()).unwrap_or(u32::MAX).to_be_bytes());
    head[4..].copy_from_slice(&xxh3_64(piece).to_be_bytes());
    let mut write = || -> io::Result<()> {
        let mut file = how.write(true).mode(0o600).open(path)?;
        file.write_all(&head)?;
        file.write_all(piece)
    };
    write().map_err(failed("write", path))
}

/// Ends a file with a note.
pub(super) fn end(path: &Path, note: &[u8]) -> Result<(), SpillError> {
    let start = fs::metadata(path).map_err(failed("look at", path))?.len();
    write(path, note, OpenOptions::new().append(true))?;
    write(path, &start.to_be_bytes(), OpenOptions::new().append(true))
}

/// Opens a file that ends with a note; that, and the pieces before it.
pub(super) fn open_ended(path: PathBuf) -> Result<(Vec<u8>, Pieces), SpillError> {
    let mut pieces = Pieces::open(path)?;
    let end = pieces.left.checked_sub(END).ok_or_else(|| pieces.damaged())?;
    let start = pieces.only(end..pieces.left)?;
    let start = start.try_into().map(u64::from_be_bytes).map_err(|_| pieces.damaged())?;
    let note = pieces.only(start..end)?;
    pieces.go_to(0..start)?;
    Ok((note, pieces))
}

/// Reads a file of one piece.
pub(super) fn read_one(path: PathBuf) -> Result<Vec<u8>, SpillError> {
    let mut pieces = Pieces::open(path)?;
    pieces.only(0..pieces.left)
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
    pub(super) fn open(path: PathBuf) -> Result<Self, SpillError> {
        let file = File::open(&path).map_err(failed("open", &path))?;
        let left = file.metadata().map_err(failed("open", &path))?.len();
        Ok(Self { file: BufReader::new(file), left, path })
    }

    /// What is read next is this part of the file.
    fn go_to(&mut self, part: Range<u64>) -> Result<(), SpillError> {
        self.left = part.end.checked_sub(part.start).ok_or_else(|| self.damaged())?;
        let gone = self.file.seek(SeekFrom::Start(part.start));
        gone.map(drop).map_err(failed("read", &self.path))
    }

    /// The piece that is all of this part of the file.
    fn only(&mut self, part: Range<u64>) -> Result<Vec<u8>, SpillError> {
        self.go_to(part)?;
        let mut piece = Vec::new();
        match self.next(&mut piece)? && self.left == 0 {
            true => Ok(piece),
            false => Err(self.damaged()),
        }
    }

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
        // No more than the file has.
        piece.reserve_exact(usize::try_from(len).unwrap_or(0));
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
