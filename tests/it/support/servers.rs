//! The second server that tests run on: PostgreSQL 18, beside the one that is installed.

use std::path::PathBuf;

use walmill::cluster::Options;

/// Options for a PostgreSQL 18 from `scripts/install-postgres-18`. Where there is none it says that
/// the test is skipped; the test then ends.
pub fn postgres_18() -> Option<Options> {
    let found = places().into_iter().find(|folder| folder.join("postgres").is_file());
    if found.is_none() {
        println!("skipped: no PostgreSQL 18 here (scripts/install-postgres-18 says why)");
    }
    found.map(|folder| Options { programs: Some(folder), ..Options::default() })
}

/// Where the script puts it, the variable first.
fn places() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("WALMILL_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("walmill")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/walmill")));
    let caches = cache.into_iter().chain([PathBuf::from("/var/cache/walmill")]);
    let installed = caches.map(|cache| cache.join("postgresql-18/bin"));
    variable("WALMILL_PG18_BIN").into_iter().chain(installed).collect()
}
