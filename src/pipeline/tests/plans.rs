//! What a plugin answers about a table, over restarts of its instance and from reader to reader.

use super::super::rows::{Batch, Row, Span, Tables, Transaction};
use super::super::stage::{Routes, Stage};
use super::*;
use crate::model::Op;
use crate::model::event::Order;
use crate::store::dead_letter::Filter;

/// No other stream is asked for.
pub(super) struct OneStream;

impl Routes for OneStream {
    fn stream(&mut self, name: &str) -> Result<u32, String> {
        Err(format!("no stream {name}"))
    }
}

/// A column `title`, which is the input's, and two shapes of it.
const SHAPES: &str = r#"(data (i32.const 512) "title")
    (data (i32.const 532) "\00\02\00\00\05\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00")
    (data (i32.const 600) "\00\00\00\00\00\00\00\00\00\00\00\00\14\02\00\00\01\00\00\00")
    (data (i32.const 620) "\00\00\00\00\00\00\00\00\00\00\00\00\14\02\00\00\01\00\00\00")"#;

#[test]
fn a_plugin_that_is_started_again_and_again_makes_its_tables_once() {
    let folder = Folder::new();
    let config = StoreConfig { path: folder.join("data"), ..StoreConfig::default() };
    let store = Store::open(&config, Arc::new(Metrics::new())).expect("a store");
    let guest = Guest {
        fields: format!("(func $bad unreachable){ON_ANY_TRUNCATE}{SHAPES}").leak(),
        on_relation: "(i32.store (i32.const 1172) (i32.const 600)) (i32.store (i32.const 1176) (i32.const 2))",
        process: SCAN,
        ..PASS
    };
    let mut stage = Stage::new(guest.load(plugin_config()), store);
    let mut tables = Tables::default();
    let table = tables.add(7, posts());
    for _ in 0..5 {
        let mut batch = Batch::behind(Offset::START);
        batch.transactions.push(Transaction { commit: Lsn(1), time: 0, xid: 1, ends: true });
        let row = |ordinal| Row {
            transaction: 0,
            ordinal,
            emit: 0,
            op: if ordinal == 1 { Op::Truncate } else { Op::Insert },
            table,
            new: Span::NONE,
            old: Span::NONE,
            hidden_key: Span::NONE,
            hidden_old: Span::NONE,
            stream: 0,
        };
        batch.rows.extend((0..3).map(row));
        let report = stage.run(&mut batch, &mut tables, &mut OneStream).expect("it starts");
        assert_eq!((report.failures.len(), batch.rows.len()), (1, 2));
        // PostgreSQL's, and one for each shape.
        assert_eq!(tables.count(), 3);
    }
}

/// Has one more shape each time that it is asked, and makes rows of the last.
const FICKLE: Guest = Guest {
    on_relation: "(global.set $asked (i32.add (global.get $asked) (i32.const 1)))
        (i32.store (i32.const 1172) (i32.const 600))
        (i32.store (i32.const 1176) (global.get $asked))",
    process: "(i32.store8 (i32.const 131072) (i32.const 2))
        (i32.store (i32.const 1300) (i32.const 140000)) (i32.store (i32.const 1304) (i32.const 1))
        (i32.store (i32.const 1308) (i32.const 140004)) (i32.store (i32.const 1312) (i32.const 1))
        (i32.store (i32.const 140000) (i32.const 0))
        (i32.store (i32.const 140004) (i32.sub (global.get $asked) (i32.const 1)))",
    ..PASS
};

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_the_same_for_every_reader_and_announced_once() {
    let mut house = House::new();
    for _ in 0..2 {
        let change = house.truncate();
        house.commit(&[change], 1).await;
    }
    let registry = house.plugin(&failing("unreachable"));
    house.run(&registry, config(OnError::DeadLetter)).await;
    let fields = format!("(global $asked (mut i32) (i32.const 0)){SHAPES}").leak();
    registry.offer("guest", Guest { fields, ..FICKLE }.bytes()).expect("a version that loads");
    // Between the two letters, the pipeline itself meets the table.
    let change = house.insert(1, "x");
    house.commit(&[change], 1).await;
    let all = Filter { all: true, ..Filter::default() };
    house.store.retry_dead_letters(&all, |_| true).expect("they are marked");
    house.run(&registry, config(OnError::DeadLetter)).await;
    assert_eq!(house.ids(), ["0/100/0", "0/300/0", "0/200/0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_a_key_that_a_plugin_hides_stands_in_the_order_of_both_keys() {
    // All rows pass in the shape of `title` alone.
    let guest = Guest {
        fields: SHAPES,
        on_relation:
            "(i32.store (i32.const 1172) (i32.const 600)) (i32.store (i32.const 1176) (i32.const 1))
            (i32.store8 (i32.const 1180) (i32.const 1)) (i32.store (i32.const 1184) (i32.const 0))",
        ..PASS
    };
    let mut house = House::new();
    let changes = [house.insert(1, "x"), house.move_row(1, 2), house.insert(2, "x")];
    house.commit(&changes, 10).await;
    house.run(&house.plugin(&guest), config(OnError::DeadLetter)).await;
    let stream = house.store.stream("posts").expect("the stream");
    let Read::Events(events) = stream.read(Offset::START).expect("a read") else {
        panic!("no events")
    };
    let events: Vec<_> = events.after(Offset::START).collect();
    let [first, update, last] = events.as_slice() else { panic!("{} events", events.len()) };
    let (Order::Key(one), Order::Key(two)) = (first.order(), last.order()) else {
        panic!("inserts have one key")
    };
    assert!(one != two && one.starts_with(b"public.posts/~"), "the key is hidden");
    assert_eq!(update.order(), Order::Keys { new: two, old: one });
}
