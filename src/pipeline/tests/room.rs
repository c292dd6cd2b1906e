//! How much is made at once: a batch of several changes has a bound, whatever plugins make of each.

use super::super::rows::{Batch, Cell, Row, Span, Tables, Transaction};
use super::super::stage::{Report, Stage, StageError};
use super::limits::SPLITS;
use super::plans::OneStream;
use super::*;
use crate::model::Op;

/// Bytes of a title. A change is split in a thousand rows with it, so seven are too much.
const TITLE: usize = 10_500;

/// One call for each transaction, since it can ask for the time.
fn splits() -> Guest {
    let imports = r#"(import "walmill:plugin/clock@0.1.0" "now" (func (result i64)))"#;
    Guest { imports, ..SPLITS }
}

/// What the plugin makes of so many transactions of one change.
fn run(changes: u32, whole: bool) -> (Result<Report, StageError>, usize) {
    let folder = Folder::new();
    let config = StoreConfig { path: folder.join("data"), ..StoreConfig::default() };
    let store = Store::open(&config, Arc::new(Metrics::new())).expect("a store");
    let mut stage = Stage::new(splits().load(plugin_config()), store);
    let mut tables = Tables::default();
    let table = tables.add(7, posts());
    let mut batch = Batch::behind(Offset::START);
    batch.whole = whole;
    let title = batch.add_buffer(Bytes::from(vec![b'x'; TITLE])).expect("the first");
    for transaction in 0..changes {
        let commit = Lsn(u64::from(transaction) + 1);
        batch.transactions.push(Transaction { commit, time: 0, xid: 1, ends: true });
        let new = batch.add_cells([Cell::NULL, Cell::text(title, 0, TITLE)]);
        batch.rows.push(Row {
            transaction,
            ordinal: 0,
            emit: 0,
            op: Op::Insert,
            table,
            new,
            old: Span::NONE,
            hidden_key: Span::NONE,
            hidden_old: Span::NONE,
            stream: 0,
        });
    }
    let report = stage.run(&mut batch, &mut tables, &mut OneStream);
    (report, batch.rows.len())
}

#[test]
fn a_plugin_that_makes_too_much_of_a_batch_has_it_read_again_unless_it_is_of_one_change() {
    let (report, rows) = run(3, false);
    assert_eq!((report.expect("little").failures.len(), rows), (0, 3_000));
    let (report, _) = run(30, false);
    assert!(matches!(report, Err(StageError::TooMuch)), "{report:?}");
    // Nothing smaller can be read; then a chain has the room of a few calls.
    let (report, rows) = run(8, true);
    assert_eq!((report.expect("one change").failures.len(), rows), (0, 8_000));
    let (report, _) = run(30, true);
    let failures = report.expect("one change").failures;
    let reason = failures.last().map(|failure| failure.reason.as_str());
    assert_eq!(
        reason,
        Some(
            "plugins made more than 256MiB of one change: raise `plugins.guest.limits.output`, or \
             have them make less"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_events_of_a_batch_of_which_plugins_make_too_much_come() {
    let mut house = House::new();
    let title = "x".repeat(TITLE);
    for id in 0..7 {
        let change = house.insert(id, &title);
        house.commit(&[change], 1).await;
    }
    house.run(&house.plugin(&splits()), config(OnError::DeadLetter)).await;
    let stream = house.store.stream("posts").expect("the stream");
    let (mut events, mut after) = (0, Offset::START);
    while let Read::Events(run) = stream.read(after).expect("a read") {
        events += run.after(after).count();
        after = run.last;
    }
    assert_eq!(events, 7_000);
    assert!(house.store.dead_letters(10).expect("dead letters").is_empty());
}

#[test]
fn buffers_that_are_empty_take_no_place_and_one_without_a_place_is_noticed() {
    let mut batch = Batch::behind(Offset::START);
    for _ in 0..100_000 {
        assert!(batch.add_buffer(Bytes::new()).is_some());
    }
    assert!(!batch.is_heavier_than(usize::MAX));
    let placed = (0..100_000).filter(|_| batch.add_buffer(Bytes::from_static(b"x")).is_some());
    assert_eq!(placed.count(), 1 << 16);
    assert!(batch.has_overflowed() && batch.is_heavier_than(usize::MAX));
}
