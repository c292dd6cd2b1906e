//! Finds the PostgreSQL server programs of this machine.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ClusterError;

/// The variable that names the folder outright.
const VARIABLE: &str = "WALMILL_PG_BIN";

/// Folders with one PostgreSQL version each: what stands before and behind the version.
const VERSIONED: [(&str, &str); 7] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr/libexec/postgresql", ""),
    ("/usr", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
    ("/usr/local", "bin"),
];

/// The folder that holds `initdb` and `postgres`: the one that is named, or one that is found.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf, ClusterError> {
    let named = named.map(Path::to_owned).or_else(|| env::var_os(VARIABLE).map(PathBuf::from));
    if let Some(folder) = named {
        return if has_server(&folder) { Ok(folder) } else { Err(ClusterError::BadFolder(folder)) };
    }
    on_path()
        .or_else(by_pg_config)
        .or_else(newest_installed)
        .ok_or_else(|| ClusterError::Missing { install: install_command() })
}

fn has_server(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
}

fn on_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).find(|folder| has_server(folder))
}

fn by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    has_server(&folder).then_some(folder)
}

fn newest_installed() -> Option<PathBuf> {
    let folders = VERSIONED.iter().flat_map(|(parent, below)| {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        entries.filter_map(move |entry| {
            let version = version_in(&entry.file_name())?;
            let folder = entry.path().join(below);
            has_server(&folder).then_some((version, folder))
        })
    });
    folders.max().map(|(_, folder)| folder)
}

/// The version in a folder's name: `15`, `postgresql@17`, `pgsql-16`.
fn version_in(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?;
    let digits = ["postgresql@", "postgresql", "pgsql-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    digits.parse().ok()
}

/// The command that installs PostgreSQL here.
fn install_command() -> &'static str {
    if cfg!(target_os = "macos") {
        return "brew install postgresql@17";
    }
    install_for(&fs::read_to_string("/etc/os-release").unwrap_or_default())
}

fn install_for(os_release: &str) -> &'static str {
    let is = |wanted: &str| {
        os_release
            .lines()
            .filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")))
            .any(|ids| ids.trim_matches('"').split(' ').any(|id| id == wanted))
    };
    match () {
        () if is("debian") || is("ubuntu") => "sudo apt-get install postgresql",
        () if is("fedora") || is("rhel") => "sudo dnf install postgresql-server",
        () if is("suse") || is("opensuse") => "sudo zypper install postgresql-server",
        () if is("arch") => "sudo pacman -S postgresql",
        () if is("alpine") => "sudo apk add postgresql",
        () if is("freebsd") => "sudo pkg install postgresql17-server",
        () => "your package manager, package postgresql or postgresql-server",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_install_command_fits_the_system() {
        let command = |text| install_for(text);
        assert_eq!(command("NAME=x\nID=debian\n"), "sudo apt-get install postgresql");
        assert_eq!(
            command("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"),
            "sudo dnf install postgresql-server"
        );
    }

    #[test]
    fn versions_are_read_from_folder_names() {
        let version = |name: &str| version_in(OsStr::new(name));
        assert_eq!(version("15"), Some(15));
        assert_eq!(version("postgresql@17"), Some(17));
        assert_eq!(version("pgsql-16"), Some(16));
        assert_eq!(version("python@3"), None);
    }
}
