//! The world as walmill sees it: a disk that loses what was not synced when the power is cut, and a
//! wall clock that jumps.
//!
//! `world.c` is compiled by the C compiler that the build needs anyway and loaded into walmill
//! before its libraries. It notes how far each file was written when it was synced. A power cut is
//! SIGKILL, and then each file loses what was written behind that: it is cut there, or half of it
//! stays, or zeros stand there, as file systems leave it. What was renamed stays renamed, also
//! without a sync of the folder.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};
use tempfile::TempDir;

/// What is loaded into walmill, and the files through which it is told.
pub struct World {
    folder: TempDir,
    data: PathBuf,
    clock: std::fs::File,
}

impl World {
    /// For a walmill with this data folder. Nothing where there is no C compiler.
    pub fn make(data: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("world.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/soak/world.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .args([source, "-ldl"])
            .output();
        match compiled {
            Err(error) => {
                println!("without power cuts and clock jumps: cc: {error}");
                return None;
            }
            Ok(output) => {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
        }
        let path = folder.path().join("clock");
        std::fs::write(&path, 0_i64.to_ne_bytes()).expect("write");
        let clock = std::fs::OpenOptions::new().write(true).open(path).expect("open");
        Some(Self { folder, data: data.to_owned(), clock })
    }

    /// What walmill is started with.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        let text = |path: &Path| path.to_str().expect("a UTF-8 path").to_owned();
        [
            ("LD_PRELOAD", text(&self.folder.path().join("world.so"))),
            ("SOAK_WORLD", text(self.folder.path())),
        ]
    }

    /// By so many seconds the wall clock is wrong from now on.
    pub fn set_clock(&self, seconds: i64) {
        let nanoseconds = seconds * 1_000_000_000;
        self.clock.write_all_at(&nanoseconds.to_ne_bytes(), 0).expect("set the clock");
    }

    /// Takes from the disk what was not synced; walmill was killed just before. How many bytes.
    pub fn cut_power(&self, random: &mut StdRng) -> u64 {
        let notes = self.folder.path().join("synced");
        let synced = ends(&std::fs::read_to_string(&notes).unwrap_or_default());
        let mut lost = 0;
        for path in files(&self.data).expect("list the data folder") {
            let end = synced.get(&identity(&path)).copied().unwrap_or(0);
            lost += forget(&path, end, random).expect("forget what was not synced");
        }
        // From here on, what is on the disk is what the disk has.
        let mut now = std::fs::File::create(notes).expect("begin anew");
        for path in files(&self.data).expect("list the data folder") {
            let length = path.metadata().expect("a file").len();
            writeln!(now, "{length} {}", identity(&path)).expect("write");
        }
        lost
    }
}

/// Where the synced part of each file ends: the last word counts.
fn ends(notes: &str) -> HashMap<String, u64> {
    let lines = notes.lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(|(end, file)| Some((file.into(), end.parse().ok()?))).collect()
}

/// A file's number and when it was made, as `world.c` writes them.
fn identity(path: &Path) -> String {
    let about = path.metadata().expect("a file");
    let made = about.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    let made = made.unwrap_or_default();
    format!("{} {} {}", about.ino(), made.as_secs(), made.subsec_nanos())
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => found.extend(files(&entry.path())?),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found.sort();
    Ok(found)
}

/// What lies behind `end` is gone: cut off, cut in two, or zeros.
fn forget(path: &Path, end: u64, random: &mut StdRng) -> io::Result<u64> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if length <= end {
        return Ok(0);
    }
    let way = random.next_u32() % 3;
    let from = if way == 1 { random.random_range(end..=length) } else { end };
    let mut lost = 0;
    let (mut at, mut buffer) = (from, vec![0; 1 << 20]);
    while at < length {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        // Space that was set aside holds zeros already.
        if buffer[..read].iter().any(|byte| *byte != 0) {
            lost += read as u64;
            file.write_all_at(&vec![0; read], at)?;
        }
        at += read as u64;
    }
    if way == 0 {
        file.set_len(end)?;
    }
    Ok(lost)
}
