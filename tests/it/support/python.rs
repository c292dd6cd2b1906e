//! What `scripts/install-python-tools` has put on this machine.

use std::path::PathBuf;

/// The folder of one of its tools. Where it is not there it says that the test is skipped; the test
/// then ends.
pub fn tool(name: &str) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("WALMILL_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("walmill")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/walmill")));
    let folder = cache.map(|cache| cache.join(name)).filter(|folder| folder.is_dir());
    if folder.is_none() {
        println!("skipped: no {name} here (scripts/install-python-tools says why)");
    }
    folder
}
