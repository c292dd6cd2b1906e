//! A look at the database's own log before the database reads it.
//!
//! What was written but not synced may come back from a power cut in any shape: cut short, or with
//! holes where pages never reached the disk. The database handles a cut end, but refuses to open
//! on a hole, and where a single byte of an older file is wrong it silently forgets all that
//! follows in it. So the newest file is cut here behind its last whole batch, and an older file
//! (they were synced whole before the next was begun) that is not whole is an error.
//!
//! Cutting is safe: had something confirmed to PostgreSQL been cut off, the journal's position
//! would lie before the slot's, and the source refuses to go on from there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8; 4] = b"FJL\x03";

/// Checks every file of the log in `database`, and cuts the newest behind its last whole batch.
pub(super) fn repair(database: &Path) -> anyhow::Result<()> {
    let mut files = files(database).context("list the database's log")?;
    let Some(newest) = files.pop() else { return Ok(()) };
    for path in files {
        let scan = scan(&path).with_context(|| format!("read {}", path.display()))?;
        if !scan.clean {
            return Err(anyhow!(
                "{} is damaged at byte {}: what follows in it was synced and cannot be read; \
                 restore the folder from a copy, or move it away and start with a new slot",
                path.display(),
                scan.valid
            ));
        }
    }
    let scan = scan(&newest).with_context(|| format!("read {}", newest.display()))?;
    if !scan.clean {
        tracing::warn!(file = %newest.display(), at = scan.valid, "cut a half-written end");
        let file = OpenOptions::new().write(true).open(&newest).context("cut the log's end")?;
        file.set_len(scan.valid).and_then(|()| file.sync_all()).context("cut the log's end")?;
    }
    Ok(())
}

/// The log's files, oldest first.
pub(super) fn files(database: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(database) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl"));
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// What a file of the log holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Bytes up to the end of the last whole batch.
    pub(super) valid: u64,
    /// Whether nothing but the zeros of space set aside is behind that.
    pub(super) clean: bool,
}

/// Reads a file of the log up to its first batch that is not whole.
pub(super) fn scan(path: &Path) -> io::Result<Scan> {
    let file = File::open(path)?;
    let mut reader = Batches { left: file.metadata()?.len(), file: BufReader::new(file) };
    let mut valid = 0;
    let clean = loop {
        match reader.batch() {
            Ok(Batch::Whole { bytes }) => valid += bytes,
            Ok(Batch::End) => break true,
            Ok(Batch::Zero) => break reader.only_zeros()?,
            Ok(Batch::Broken) => break false,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break false,
            Err(error) => return Err(error),
        }
    };
    Ok(Scan { valid, clean })
}

enum Batch {
    Whole {
        bytes: u64,
    },
    End,
    /// A zero where a batch would begin.
    Zero,
    Broken,
}

struct Batches<R> {
    file: R,
    left: u64,
}

impl<R: Read> Batches<R> {
    fn batch(&mut self) -> io::Result<Batch> {
        if self.left == 0 {
            return Ok(Batch::End);
        }
        let before = self.left;
        match self.array()? {
            [START] => {}
            [0] => return Ok(Batch::Zero),
            [_] => return Ok(Batch::Broken),
        }
        // How many writes, then the batch's sequence number.
        let [a, b, c, d, ..] = self.array::<12>()?;
        let mut hash = Xxh3::new();
        for _ in 0..u32::from_le_bytes([a, b, c, d]) {
            if !self.item(&mut hash)? {
                return Ok(Batch::Broken);
            }
        }
        let end = self.array::<13>()?;
        let whole =
            end[0] == END && end[1..9] == hash.digest().to_le_bytes() && end[9..] == *TRAILER;
        Ok(if whole { Batch::Whole { bytes: before - self.left } } else { Batch::Broken })
    }

    /// One write of a batch; false if it is none.
    fn item(&mut self, hash: &mut Xxh3) -> io::Result<bool> {
        let [tag] = self.array()?;
        hash.update(&[tag]);
        match tag {
            // The keyspace's number.
            CLEAR => hash.update(&self.array::<8>()?),
            // Kind, compression, keyspace, and the lengths of key, value and stored value.
            ITEM => {
                let head = self.array::<20>()?;
                hash.update(&head);
                let key = u16::from_le_bytes([head[10], head[11]]);
                let value = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
                self.hash(u64::from(key) + u64::from(value), hash)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    fn take(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact(bytes)?;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Ok(())
    }

    fn hash(&mut self, mut len: u64, hash: &mut Xxh3) -> io::Result<()> {
        if len > self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut buffer = [0; 8192];
        while len > 0 {
            let part = buffer.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            self.take(&mut buffer[..part])?;
            hash.update(&buffer[..part]);
            len -= part as u64;
        }
        Ok(())
    }

    fn only_zeros(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 8192];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(true),
                read if buffer[..read].iter().any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }
}
