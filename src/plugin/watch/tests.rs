use std::os::unix::fs::symlink;

use tokio::sync::watch::Receiver as Latest;

use super::super::guests::{Folder, Guest, PASS, config, open};
use super::super::{Config, Version};
use super::*;
use crate::model::status::PluginStatus;

/// The `n`th version: it differs from the others, and passes everything.
fn version(n: usize) -> Vec<u8> {
    const FIELDS: [&str; 4] = [
        r#"(data (i32.const 700) "0")"#,
        r#"(data (i32.const 700) "1")"#,
        r#"(data (i32.const 700) "2")"#,
        r#"(data (i32.const 700) "3")"#,
    ];
    Guest { fields: FIELDS[n], ..PASS }.bytes()
}

fn watched(path: PathBuf) -> (Registry, Watch, Latest<Vec<PluginStatus>>) {
    let registry = open("guest", Config { path, ..config() });
    let watch = Watch::start(registry.clone()).unwrap();
    let statuses = registry.statuses();
    (registry, watch, statuses)
}

/// Waits until the plugin's last offer was this content, and says whether it was taken.
fn offered(statuses: &mut Latest<Vec<PluginStatus>>, bytes: &[u8]) -> bool {
    let version = Version::of(bytes).to_string();
    let last = |all: &Vec<PluginStatus>| all[0].history[0].version == version;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let status = runtime.block_on(statuses.wait_for(last)).unwrap();
    status[0].history[0].error.is_none()
}

#[test]
fn a_file_renamed_over_the_plugin_s_is_put_in_force() {
    let folder = Folder::new();
    let path = folder.join("guest.wasm");
    fs::write(&path, version(0)).unwrap();
    let (_registry, _watch, mut statuses) = watched(path.clone());
    for n in [1, 2] {
        fs::write(folder.join("new"), version(n)).unwrap();
        fs::rename(folder.join("new"), &path).unwrap();
        assert!(offered(&mut statuses, &version(n)));
    }
}

#[test]
fn a_save_in_place_in_two_writes_ends_with_the_whole_file_in_force() {
    let folder = Folder::new();
    let path = folder.join("guest.wasm");
    fs::write(&path, version(0)).unwrap();
    let (_registry, _watch, mut statuses) = watched(path.clone());
    let new = version(1);
    let (first, _) = new.split_at(100);
    fs::write(&path, first).unwrap();
    assert!(!offered(&mut statuses, first));
    fs::write(&path, &new).unwrap();
    assert!(offered(&mut statuses, &new));
}

#[test]
fn a_symlink_turned_beneath_the_plugin_s_path_is_followed() {
    let folder = Folder::new();
    // As Kubernetes lays out a ConfigMap: file → ..data/file, ..data → a folder for each version.
    for n in [0, 1] {
        fs::create_dir(folder.join(n.to_string())).unwrap();
        fs::write(folder.join(format!("{n}/guest.wasm")), version(n)).unwrap();
    }
    symlink("0", folder.join("..data")).unwrap();
    symlink("..data/guest.wasm", folder.join("guest.wasm")).unwrap();
    let (_registry, _watch, mut statuses) = watched(folder.join("guest.wasm"));
    symlink("1", folder.join("..next")).unwrap();
    fs::rename(folder.join("..next"), folder.join("..data")).unwrap();
    assert!(offered(&mut statuses, &version(1)));
}

#[test]
fn a_deleted_file_leaves_its_plugin_in_force_and_may_come_back_changed() {
    let folder = Folder::new();
    let path = folder.join("guest.wasm");
    fs::write(&path, version(0)).unwrap();
    let (registry, _watch, mut statuses) = watched(path.clone());
    fs::remove_file(&path).unwrap();
    assert_eq!(registry.snapshot().by_name["guest"].version(), &Version::of(&version(0)));
    fs::write(&path, version(1)).unwrap();
    assert!(offered(&mut statuses, &version(1)));
}

#[test]
fn a_change_without_any_notice_is_seen_all_the_same() {
    let folder = Folder::new();
    let path = folder.join("plugins/guest.wasm");
    fs::create_dir(folder.join("plugins")).unwrap();
    fs::write(&path, version(0)).unwrap();
    let (_registry, _watch, mut statuses) = watched(path.clone());
    // The folder that is watched is another one from now on.
    fs::rename(folder.join("plugins"), folder.join("old")).unwrap();
    fs::create_dir(folder.join("plugins")).unwrap();
    fs::write(&path, version(1)).unwrap();
    assert!(offered(&mut statuses, &version(1)));
    fs::write(&path, version(2)).unwrap();
    assert!(offered(&mut statuses, &version(2)));
}

#[test]
fn a_fifo_in_the_plugin_s_place_does_not_hold_up_the_watch() {
    let folder = Folder::new();
    let path = folder.join("guest.wasm");
    fs::write(&path, version(0)).unwrap();
    let (_registry, _watch, mut statuses) = watched(path.clone());
    let fifo = folder.join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    fs::rename(&fifo, &path).unwrap();
    fs::write(folder.join("new"), version(1)).unwrap();
    fs::rename(folder.join("new"), &path).unwrap();
    assert!(offered(&mut statuses, &version(1)));
}

#[test]
fn a_missing_folder_is_an_error_at_the_start() {
    let folder = Folder::new();
    fs::create_dir(folder.join("plugins")).unwrap();
    fs::write(folder.join("plugins/guest.wasm"), version(0)).unwrap();
    let path = folder.join("plugins/guest.wasm");
    let registry = open("guest", Config { path, ..config() });
    fs::remove_dir_all(folder.join("plugins")).unwrap();
    let error = Watch::start(registry).err().unwrap().to_string();
    assert!(error.starts_with("plugin guest: folder ") && error.contains("plugins"), "{error}");
}
