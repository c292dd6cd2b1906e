//! What becomes of a version when its shadow run is ended, when it was refused, and when the set of
//! plugins changes meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use super::*;
use crate::model::shadow::{Comparison, Tally};

/// A shadow run that, at first, ends only when it is told to.
struct Waits {
    begun: SyncSender<()>,
    first: AtomicBool,
}

impl Waits {
    fn on(registry: &Registry, shutdown: &CancellationToken) -> Receiver<()> {
        let (begun, waiting) = sync_channel(1);
        let waits = Arc::new(Self { begun, first: AtomicBool::new(true) });
        registry.rehearse_with(waits, shutdown.clone());
        waiting
    }
}

impl Rehearsal for Waits {
    fn rehearse(
        &self,
        _: &Plugins,
        _: &Arc<Plugin>,
        _: u32,
        cancel: &CancellationToken,
    ) -> ShadowReport {
        if self.first.swap(false, Ordering::Relaxed) {
            self.begun.send(()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(cancel.cancelled());
        }
        ShadowReport::default()
    }
}

/// A shadow run in which the new version breaks on every event.
struct Breaks;

impl Rehearsal for Breaks {
    fn rehearse(
        &self,
        _: &Plugins,
        _: &Arc<Plugin>,
        _: u32,
        _: &CancellationToken,
    ) -> ShadowReport {
        let after = Tally { failed: 100, ..Tally::default() };
        let comparison = Comparison { events: 100, after, ..Comparison::default() };
        ShadowReport { pipelines: vec![comparison], note: None }
    }
}

/// What comes of an offer whose shadow run is under way while `work` is done.
fn offered_during(
    registry: &Registry,
    waiting: &Receiver<()>,
    work: impl FnOnce(),
) -> Result<Offered, LoadError> {
    std::thread::scope(|scope| {
        let offer = scope.spawn(|| registry.offer_as("guest", &DROP.bytes(), Why::File));
        waiting.recv().unwrap();
        work();
        offer.join().unwrap()
    })
}

fn is_cut_short(offered: &Result<Offered, LoadError>) -> bool {
    offered.as_ref().is_err_and(|error| matches!(error.reason, Reason::CutShort))
}

fn house() -> (Folder, Arc<Kept>, Registry) {
    let (folder, memory) = (Folder::new(), Arc::new(Kept::default()));
    fs::write(folder.join("guest.wasm"), PASS.bytes()).unwrap();
    let registry = started(&folder, &memory);
    (folder, memory, registry)
}

#[test]
fn a_version_whose_shadow_run_a_shutdown_ends_is_not_decided_about_and_not_lost() {
    let (folder, memory, registry) = house();
    let shutdown = CancellationToken::new();
    let waiting = Waits::on(&registry, &shutdown);
    fs::write(folder.join("guest.wasm"), DROP.bytes()).unwrap();
    let offered = offered_during(&registry, &waiting, || shutdown.cancel());
    assert!(is_cut_short(&offered), "{offered:?}");
    assert_eq!(in_force(&registry), Version::of(&PASS.bytes()));
    assert_eq!(in_force(&started(&folder, &memory)), Version::of(&DROP.bytes()));
}

#[test]
fn a_reload_ends_a_shadow_run_and_the_version_is_tried_again_behind_it() {
    let (_folder, _memory, registry) = house();
    let waiting = Waits::on(&registry, &CancellationToken::new());
    let mut quiet = None;
    let offered = offered_during(&registry, &waiting, || quiet = Some(registry.quiet()));
    assert!(is_cut_short(&offered), "{offered:?}");
    let meanwhile = registry.offer_as("guest", &DROP.bytes(), Why::File);
    assert!(is_cut_short(&meanwhile), "{meanwhile:?}");
    drop(quiet);
    let behind = registry.offer_as("guest", &DROP.bytes(), Why::File).unwrap();
    assert!(matches!(behind, Offered::InForce(_)), "{behind:?}");
}

#[test]
fn a_roll_back_ends_the_shadow_run_of_its_plugin() {
    let (_folder, _memory, registry) = house();
    let third = Guest { process: "nop", ..PASS }.bytes();
    registry.offer("guest", third).unwrap();
    let waiting = Waits::on(&registry, &CancellationToken::new());
    let offered = offered_during(&registry, &waiting, || {
        registry.roll_back("guest", None).unwrap();
    });
    assert!(is_cut_short(&offered), "{offered:?}");
    assert_eq!(in_force(&registry), Version::of(&PASS.bytes()));
}

#[test]
fn a_version_that_its_shadow_run_refused_stays_out_over_restarts() {
    let (folder, memory, registry) = house();
    registry.rehearse_with(Arc::new(Breaks), CancellationToken::new());
    fs::write(folder.join("guest.wasm"), DROP.bytes()).unwrap();
    registry.offer_as("guest", &DROP.bytes(), Why::File).unwrap_err();
    for _ in 0..3 {
        // None of them lasts until the file is looked at.
        let again = started(&folder, &memory);
        assert_eq!(in_force(&again), Version::of(&PASS.bytes()));
    }
}

#[test]
fn versions_that_a_person_may_want_again_outlast_a_start_that_makes_room() {
    let (folder, memory, registry) = house();
    let [drop, third] = [DROP, Guest { process: "nop", ..PASS }].map(|guest| guest.bytes());
    registry.offer_as("guest", &drop, Why::Upload).unwrap();
    let cache = folder.join("compiled");
    let kept = cache.join(format!("{}.wasm", Version::of(&drop).hex()));
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    fs::File::options().write(true).open(kept).unwrap().set_modified(long_ago).unwrap();
    for other in 0..100 {
        fs::write(cache.join(format!("{other}.wasm")), b"of others").unwrap();
    }
    fs::write(folder.join("guest.wasm"), &third).unwrap();
    let again = started(&folder, &memory);
    assert_eq!(in_force(&again), Version::of(&third));
    again.roll_back("guest", Some(&Version::of(&drop).hex())).unwrap();
}

#[test]
fn a_version_that_is_taken_back_while_a_new_config_is_made_is_not_in_it() {
    let (folder, _memory, registry) = house();
    registry.offer_as("guest", &DROP.bytes(), Why::Upload).unwrap();
    let bad = registry.snapshot().by_name["guest"].clone();
    let mut changed = Config { path: folder.join("guest.wasm"), ..config() };
    changed.limits.log_lines = 7;
    let changed = BTreeMap::from([("guest".to_owned(), changed)]);
    let prepared = registry.prepare(&changed).unwrap_or_else(|errors| panic!("{errors:?}"));
    bad.count(100, 100);
    registry.note_failures(&bad, false);
    assert_eq!(in_force(&registry), Version::of(&PASS.bytes()));
    registry.apply(prepared);
    assert_eq!(in_force(&registry), Version::of(&PASS.bytes()));
    assert_eq!(registry.snapshot().by_name["guest"].limits().log_lines, 7);
}
