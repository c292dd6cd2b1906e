//! What a plugin makes of an event follows from the event, however events are put into batches.

use super::*;

/// Adds a random number and the time to each event.
const DICE: Guest = Guest {
    imports: r#"
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))"#,
    fields: r#"(data (i32.const 512) "ndt")
        ;; `n`, a computed integer, and `t`, a computed timestamp
        (data (i32.const 532) "\00\02\00\00\01\00\00\00\01\00\00\00\02\00\00\00\00\00\00\00")
        (data (i32.const 552) "\02\02\00\00\01\00\00\00\01\00\00\00\04\00\00\00\00\00\00\00")
        (data (i32.const 600) "\00\00\00\00\00\00\00\00\00\00\00\00\14\02\00\00\02\00\00\00")"#,
    on_relation:
        "(i32.store (i32.const 1172) (i32.const 600)) (i32.store (i32.const 1176) (i32.const 1))",
    process: "
        (memory.fill (i32.const 131072) (i32.const 2) (i32.load (local.get 0)))
        (i32.store (i32.const 1300) (i32.const 140000))
        (i32.store (i32.const 1304) (i32.load (local.get 0)))
        (i32.store (i32.const 1308) (i32.const 145000))
        (i32.store (i32.const 1312) (i32.load (local.get 0)))
        (i32.store (i32.const 1324) (i32.const 150000))
        (i32.store (i32.const 1328) (i32.add (i32.load (local.get 0)) (i32.const 1)))
        (i32.store (i32.const 1332) (i32.const 160000))
        (i32.store (i32.const 1336) (i32.mul (i32.load (local.get 0)) (i32.const 2)))
        (i32.store (i32.const 1340) (i32.const 170000))
        (i32.store (i32.const 1344) (i32.mul (i32.load (local.get 0)) (i32.const 2)))
        (loop $next
          (i32.store (i32.add (i32.const 140000) (i32.mul (local.get $n) (i32.const 4))) (local.get $n))
          (i32.store (i32.add (i32.const 150004) (i32.mul (local.get $n) (i32.const 4)))
            (i32.mul (i32.const 2) (i32.add (local.get $n) (i32.const 1))))
          (i32.store16 (i32.add (i32.const 160000) (i32.mul (local.get $n) (i32.const 2)))
            (i32.const 0x0402))
          (drop (call $random
            (i32.add (i32.const 170000) (i32.mul (local.get $n) (i32.const 16))) (i32.const 6)))
          (drop (call $clock (i32.const 0) (i64.const 0)
            (i32.add (i32.const 170008) (i32.mul (local.get $n) (i32.const 16)))))
          (i64.store (i32.add (i32.const 170008) (i32.mul (local.get $n) (i32.const 16)))
            (i64.div_u
              (i64.load (i32.add (i32.const 170008) (i32.mul (local.get $n) (i32.const 16))))
              (i64.const 1000)))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $n) (i32.load (local.get 0)))))",
    ..PASS
};

/// 400 changes, in transactions of so many, read in runs of so many transactions at once.
async fn events(transaction: u32, run: usize) -> Vec<(String, Value)> {
    let mut house = House::new();
    let registry = house.plugin(&DICE);
    let ids: Vec<u32> = (0..400).collect();
    for transactions in ids.chunks(transaction as usize * run) {
        for transaction in transactions.chunks(transaction as usize) {
            let changes: Vec<_> = transaction.iter().map(|id| house.insert(*id, "x")).collect();
            house.commit(&changes, 50).await;
        }
        house.run(&registry, config(OnError::DeadLetter)).await;
    }
    let record = |event: Value| {
        (event["id"].as_str().expect("an id").to_owned(), event["data"]["record"].clone())
    };
    house.events().into_iter().map(record).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn random_numbers_and_the_time_are_the_event_s_own_in_whatever_batch_it_comes() {
    let at_once = events(4, 100).await;
    assert_eq!(at_once.len(), 400);
    assert_eq!(at_once, events(4, 1).await);
    assert_eq!(at_once, events(4, 7).await);
    let mut numbers: Vec<_> = at_once.iter().map(|(_, row)| row["n"].as_u64()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 400);
    assert!(
        at_once.iter().all(|(_, row)| row["t"]
            .as_str()
            .is_some_and(|t| t.starts_with("1970-01-01T00:00:01")))
    );
}
