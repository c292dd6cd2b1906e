use std::os::unix::fs::PermissionsExt;

use super::super::guests::{Folder, PASS, config};
use super::super::{Engine, component};
use super::*;

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

#[test]
fn compiled_code_is_kept_and_a_damaged_file_of_it_is_made_anew() {
    let folder = Folder::new();
    let cache = folder.join("cache");
    let load = || {
        let engine = Engine::new(Some(&cache)).unwrap();
        component::load(&engine, "guest", &config(), &PASS.component()).unwrap().version
    };
    let version = load();
    let [path] = files(&cache, "cwasm").try_into().unwrap();
    let good = fs::read(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(files(&cache, "wasm"), [cache.join(format!("{}.wasm", version.hex()))]);

    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    for bad in [&damaged, &good[..good.len() - 1], &good[..5], &[]] {
        fs::write(&path, bad).unwrap();
        let engine = Engine::new(Some(&cache)).unwrap();
        assert!(engine.cache().unwrap().get(engine.wasmtime(), &version).is_none());
        load();
        assert!(engine.cache().unwrap().get(engine.wasmtime(), &version).is_some());
    }
}

#[test]
fn a_kept_file_that_a_power_cut_left_half_is_kept_anew() {
    let folder = Folder::new();
    let engine = Engine::new(Some(&folder.join("cache"))).unwrap();
    let (cache, version) = (engine.cache().unwrap(), Version::of(b"new"));
    cache.keep(&version, b"new");
    assert_eq!(cache.kept(&version).as_deref(), Some(&b"new"[..]));
    for left in [&b"ne"[..], b"", b"\0\0\0"] {
        fs::write(cache.file(&version), left).unwrap();
        assert_eq!(cache.kept(&version), None);
        cache.keep(&version, b"new");
        assert_eq!(cache.kept(&version).as_deref(), Some(&b"new"[..]));
    }
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let folder = Folder::new();
    fs::set_permissions(&*folder, fs::Permissions::from_mode(0o777)).unwrap();
    let error = Engine::new(Some(&folder)).err().unwrap().to_string();
    assert!(error.contains("others may write") && error.contains("chmod 700"), "{error}");
}

#[test]
fn the_least_recently_used_go_first() {
    let folder = Folder::new();
    let engine = Engine::new(Some(&folder.join("cache"))).unwrap();
    let cache = engine.cache().unwrap();
    for n in 0..MOST_FILES + 3 {
        let path = cache.folder.join(format!("{n}.wasm"));
        let file = File::create(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64))
            .unwrap();
    }
    cache.keep(&Version::of(b"new"), b"new");
    let left = files(&cache.folder, "wasm");
    assert_eq!(left.len(), MOST_FILES);
    assert!(!left.contains(&cache.folder.join("3.wasm")));
    assert!(left.contains(&cache.folder.join("4.wasm")));
}
