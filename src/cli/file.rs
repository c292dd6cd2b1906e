//! Files that a command sends to the walmill that runs.

use std::io::Read as _;
use std::path::Path;

use super::Failure;
use crate::config::finding::Finding;

/// None is larger; a limit of its own is for walmill to check.
const LARGEST: u64 = 1 << 30;

/// Reads it as a whole.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: std::io::Error| {
        let place = path.display().to_string();
        Failure::usage(vec![Finding::error("unreadable", place, error.to_string())])
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}
