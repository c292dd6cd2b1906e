mod trials;

use std::fs;
use std::sync::Mutex;

use super::super::guests::{FINDINGS, Folder, Guest, PASS, batch, config, open, relation};
use super::super::{CallError, NoState};
use super::record::LONGEST_HISTORY;
use super::*;
use crate::model::plugin::PluginRecord;

/// Like [`PASS`], but another file; and it drops.
const DROP: Guest = Guest {
    process: "(memory.fill (i32.const 131072) (i32.const 1) (i32.load (local.get 0)))",
    ..PASS
};

fn registry(folder: &Folder) -> Registry {
    let path = folder.join("guest.wasm");
    fs::write(&path, PASS.bytes()).unwrap();
    open("guest", Config { path, ..config() })
}

fn verdict(registry: &Registry) -> u8 {
    let plugin = registry.snapshot().by_name["guest"].clone();
    let mut instance = plugin.instantiate(0, 1, false, Arc::new(Mutex::new(NoState))).unwrap();
    instance.on_relation(&relation(1)).unwrap();
    instance.process(&batch(&[0]), 0).unwrap().verdicts[0]
}

#[test]
fn a_good_version_is_put_in_force_and_everyone_hears_of_it() {
    let folder = Folder::new();
    let registry = registry(&folder);
    let (generation, statuses) = (registry.generation(), registry.statuses());
    let before = registry.snapshot();
    assert_eq!((verdict(&registry), before.generation), (0, 1));
    let version = registry.offer("guest", DROP.bytes()).unwrap();
    assert_eq!((verdict(&registry), registry.snapshot().generation), (1, 2));
    assert_eq!(before.by_name["guest"].version(), &Version::of(&PASS.bytes()));
    assert!(generation.has_changed().unwrap());
    let status = statuses.borrow()[0].clone();
    assert_eq!((status.version, status.generation), (version.to_string(), 2));
    assert_eq!(status.describes, "guest 1.0");
    assert_eq!(status.history.len(), 2);
    assert!(status.history.iter().all(|entry| entry.error.is_none()));
}

#[test]
fn the_same_content_again_changes_nothing() {
    let folder = Folder::new();
    let registry = registry(&folder);
    registry.offer("guest", PASS.bytes()).unwrap();
    assert_eq!(registry.snapshot().generation, 1);
    assert_eq!(registry.statuses().borrow()[0].history.len(), 1);
}

#[test]
fn a_bad_version_leaves_the_old_one_in_force_and_says_why() {
    let folder = Folder::new();
    let registry = registry(&folder);
    let trap = Guest { init: "unreachable", ..PASS };
    for bytes in [b"garbage".to_vec(), FINDINGS.bytes(), trap.bytes()] {
        registry.offer("guest", bytes).unwrap_err();
        assert_eq!((verdict(&registry), registry.snapshot().generation), (0, 1));
    }
    assert!(!registry.generation().has_changed().unwrap());
    let statuses = registry.statuses();
    let status = &statuses.borrow()[0];
    assert_eq!(status.version, Version::of(&PASS.bytes()).to_string());
    let errors: Vec<_> = status.history.iter().map(|entry| entry.error.as_deref()).collect();
    assert_eq!(
        errors,
        [
            Some("`init` failed: wasm trap: wasm `unreachable` instruction executed in init"),
            Some("`init` failed: refuses its config: `columns[2]`: no such column"),
            Some("not a WebAssembly binary: something else"),
            None
        ]
    );
    let text = registry.0.metrics.encode().unwrap();
    let line = "walmill_plugin_reloads_total{name=\"guest\",outcome=\"refused\"} 3";
    assert!(text.lines().any(|l| l == line), "{text}");
}

#[test]
fn a_version_that_does_not_take_a_relation_in_use_is_refused() {
    let folder = Folder::new();
    let registry = registry(&folder);
    verdict(&registry);
    let plan_of_nothing = Guest {
        on_relation:
            "(i32.store (i32.const 1160) (i32.const 900)) (i32.store (i32.const 1164) (i32.const 1))
                      (i32.store (i32.const 900) (i32.const 9))",
        ..PASS
    };
    let error = registry.offer("guest", plan_of_nothing.bytes()).unwrap_err().reason;
    assert!(matches!(&error, Reason::Relation { error: CallError::Failed(_), .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "does not take public.posts, which the version in force takes: \
         returned a wrong plan: `needs` has column 9 of 2"
    );
    assert_eq!(registry.snapshot().generation, 1);
}

#[test]
fn the_history_is_bounded() {
    let folder = Folder::new();
    let registry = registry(&folder);
    for n in 0..30_u8 {
        registry.offer("guest", vec![n]).unwrap_err();
    }
    let statuses = registry.statuses();
    assert_eq!(statuses.borrow()[0].history.len(), LONGEST_HISTORY);
    assert_eq!(statuses.borrow()[0].history[0].version, Version::of(&[29]).to_string());
}

#[test]
fn every_plugin_that_does_not_load_is_named_at_the_start() {
    let folder = Folder::new();
    fs::write(folder.join("bad.wasm"), b"bad").unwrap();
    let at = |file: &str| Config { path: folder.join(file), ..config() };
    let configs = BTreeMap::from([
        ("bad".to_owned(), at("bad.wasm")),
        ("folder".to_owned(), at("")),
        ("missing".to_owned(), at("missing.wasm")),
    ]);
    let opened = Registry::open(&Engine::new(None).unwrap(), configs, Arc::new(Metrics::new()));
    let errors: Vec<_> =
        opened.err().unwrap().into_iter().map(|(_, e)| e.reason.to_string()).collect();
    assert_eq!(
        errors,
        [
            "not a WebAssembly binary: something else",
            "not a regular file; `plugins.folder.path` must name a file that walmill can read",
            "No such file or directory (os error 2); `plugins.missing.path` must name a file that \
             walmill can read",
        ]
    );
}

#[test]
fn an_offer_for_a_plugin_that_is_not_configured_is_refused() {
    let folder = Folder::new();
    let error = registry(&folder).offer("other", PASS.bytes()).unwrap_err();
    assert!(matches!(error.reason, Reason::NotConfigured(_)));
}

/// Records of a run before.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<String, PluginRecord>>);

impl Memory for Kept {
    fn recall(&self, plugin: &str) -> Option<PluginRecord> {
        self.0.lock().unwrap().get(plugin).cloned()
    }

    fn keep(&self, plugin: &str, record: &PluginRecord) {
        self.0.lock().unwrap().insert(plugin.into(), record.clone());
    }
}

/// A registry as a new process has it.
fn started(folder: &Folder, memory: &Arc<Kept>) -> Registry {
    let cache = folder.join("compiled");
    let configs = BTreeMap::from([(
        "guest".to_owned(),
        Config { path: folder.join("guest.wasm"), ..config() },
    )]);
    let engine = Engine::new(Some(&cache)).unwrap();
    Registry::open_with(&engine, configs, Arc::new(Metrics::new()), memory.clone())
        .unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn in_force(registry: &Registry) -> Version {
    *registry.snapshot().by_name["guest"].version()
}

#[test]
fn what_was_uploaded_is_in_force_after_a_restart_until_the_file_changes() {
    let (folder, memory) = (Folder::new(), Arc::new(Kept::default()));
    let [pass, drop] = [PASS, DROP].map(|guest| guest.bytes());
    fs::write(folder.join("guest.wasm"), &pass).unwrap();
    started(&folder, &memory).offer_as("guest", &drop, Why::Upload).unwrap();
    let again = started(&folder, &memory);
    assert_eq!(in_force(&again), Version::of(&drop));
    assert_eq!(again.offer_as("guest", &pass, Why::File).unwrap(), Offered::Known);
    assert_eq!(again.statuses().borrow()[0].history.len(), 2, "a restart is no news");
    let third = Guest { process: "nop", ..PASS }.bytes();
    fs::write(folder.join("guest.wasm"), &third).unwrap();
    assert_eq!(in_force(&started(&folder, &memory)), Version::of(&third));
}

#[test]
fn the_file_takes_over_where_the_version_in_force_is_not_kept_any_more() {
    let (folder, memory) = (Folder::new(), Arc::new(Kept::default()));
    let [pass, drop] = [PASS, DROP].map(|guest| guest.bytes());
    fs::write(folder.join("guest.wasm"), &pass).unwrap();
    started(&folder, &memory).offer_as("guest", &drop, Why::Upload).unwrap();
    fs::remove_dir_all(folder.join("compiled")).unwrap();
    let again = started(&folder, &memory);
    assert_eq!(in_force(&again), Version::of(&pass));
    let status = again.statuses().borrow()[0].clone();
    let reason = status.history[0].reason.as_deref().unwrap_or_default();
    assert!(reason.contains("is not kept any more"), "{reason}");
    let error = again.roll_back("guest", Some(&Version::of(&drop).hex())).unwrap_err();
    assert_eq!(error.code, "unknown-version", "{error}");
}

#[test]
fn a_file_that_was_refused_is_tried_again_after_a_restart_beside_the_last_good_version() {
    let (folder, memory) = (Folder::new(), Arc::new(Kept::default()));
    fs::write(folder.join("guest.wasm"), PASS.bytes()).unwrap();
    let registry = started(&folder, &memory);
    fs::write(folder.join("guest.wasm"), b"garbage").unwrap();
    registry.offer_as("guest", b"garbage", Why::File).unwrap_err();
    assert_eq!(registry.offer_as("guest", b"garbage", Why::File).unwrap(), Offered::Known);
    let again = started(&folder, &memory);
    assert_eq!(in_force(&again), Version::of(&PASS.bytes()));
    again.offer_as("guest", b"garbage", Why::File).unwrap_err();
}

#[test]
fn a_bad_file_that_was_saved_while_walmill_was_down_does_not_keep_it_down() {
    let (folder, memory) = (Folder::new(), Arc::new(Kept::default()));
    fs::write(folder.join("guest.wasm"), PASS.bytes()).unwrap();
    drop(started(&folder, &memory));
    fs::write(folder.join("guest.wasm"), b"garbage").unwrap();
    let again = started(&folder, &memory);
    assert_eq!(in_force(&again), Version::of(&PASS.bytes()));
    let status = again.statuses().borrow()[0].clone();
    let refused = &status.history[0];
    assert_eq!(refused.digest, Version::of(b"garbage").hex());
    assert_eq!((refused.outcome, status.history.len()), (Outcome::Refused, 2));
    let note = status.note.unwrap_or_default();
    assert!(note.contains("was refused: ") && note.contains("stays in force"), "{note}");
    drop(again);
    // From now on the watch of its file offers it after each start, as ever.
    let again = started(&folder, &memory);
    assert_eq!(in_force(&again), Version::of(&PASS.bytes()));
    again.offer_as("guest", b"garbage", Why::File).unwrap_err();
    assert!(again.statuses().borrow()[0].note.as_ref().unwrap().contains("was refused: "));
    drop(again);
    fs::write(folder.join("guest.wasm"), DROP.bytes()).unwrap();
    let again = started(&folder, &memory);
    assert_eq!(in_force(&again), Version::of(&DROP.bytes()));
    assert_eq!(again.statuses().borrow()[0].note, None);
}

#[test]
fn a_version_is_named_by_digits_that_only_it_has() {
    let (folder, memory) = (Folder::new(), Arc::new(Kept::default()));
    fs::write(folder.join("guest.wasm"), PASS.bytes()).unwrap();
    let registry = started(&folder, &memory);
    registry.offer("guest", DROP.bytes()).unwrap();
    let code = |wish: Option<&str>| registry.roll_back("guest", wish).map_err(|error| error.code);
    assert_eq!(code(Some("ab")).unwrap_err(), "unknown-version");
    assert_eq!(code(Some("zzzz")).unwrap_err(), "unknown-version");
    assert_eq!(code(Some(&Version::of(&DROP.bytes()).hex())).unwrap_err(), "in-force");
    assert_eq!(registry.roll_back("gest", None).unwrap_err().code, "unknown-plugin");
    assert_eq!(code(None).unwrap().why, Why::RollBack);
    assert_eq!(in_force(&registry), Version::of(&PASS.bytes()));
    assert_eq!(code(None).unwrap_err(), "nothing-to-roll-back", "the other was taken back");
    assert_eq!(registry.promote("guest", None).unwrap_err().code, "nothing-waits");
    let (version, file) = registry.pull("guest", None).unwrap();
    assert_eq!((version, file), (Version::of(&PASS.bytes()).hex(), PASS.bytes()));
}
