use std::fs;
use std::path::Path;

use super::*;
use crate::metrics::Metrics;
use crate::model::{ByteSize, Offset, Period};
use crate::store::testing::*;
use crate::store::{Config, OpenError, Store, wal};

fn spans(blocks: &[Block]) -> Vec<(u64, u32)> {
    blocks.iter().map(|block| (block.last.0, block.part)).collect()
}

#[tokio::test]
async fn what_is_sent_is_read_back_in_order_and_becomes_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut journal = store.start_journal().unwrap();
    assert_eq!(journal.durable.borrow().lsn(), Lsn::ZERO);
    let blocks = [block(10, 20, 100), block(30, 30, 70_000), block(40, 55, 0)];
    append(&store, &journal, &blocks).await;
    durable(&mut journal, Lsn(56)).await;
    assert_eq!(rest(&mut store.journal_reader(Offset::START)), blocks);
    journal.appender.send(Append::Idle(Lsn(900))).await.unwrap();
    durable(&mut journal, Lsn(900)).await;
    close(store, journal).await;

    let store = open(dir.path());
    let journal = store.start_journal().unwrap();
    assert_eq!(store.last_commit(), Lsn(55));
    assert_eq!(journal.durable.borrow().lsn(), Lsn(900), "the last position of the run before");
    assert_eq!(rest(&mut store.journal_reader(Offset::START)), blocks, "from disk");
}

#[tokio::test]
async fn a_reader_goes_on_behind_any_place_from_memory_and_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let journal = store.start_journal().unwrap();
    let blocks = [
        block(10, 20, 9),
        part(30, 0, false),
        part(30, 1, false),
        part(30, 2, false),
        part(30, 3, true),
        block(40, 50, 9),
    ];
    append(&store, &journal, &blocks).await;
    close(store.clone(), journal).await;
    for disk in [false, true] {
        if disk {
            drop(store);
            store = open(dir.path());
        }
        let all = spans(&blocks);
        for (after, first) in [
            (Offset::START, 0),
            (Offset::end_of(Lsn(5)), 0),
            (Offset::new(Lsn(10), 0), 0),
            (Offset::end_of(Lsn(10)), 0),
            (Offset::new(Lsn(20), 7), 0),
            (Offset::end_of(Lsn(20)), 1),
            (Offset::end_of(Lsn(29)), 1),
            (Offset::new(Lsn(30), 0), 1),
            (Offset::new(Lsn(30), 9), 1),
            (Offset::new(Lsn(30), 10), 2),
            (Offset::new(Lsn(30), 29), 3),
            (Offset::new(Lsn(30), 31), 4),
            (Offset::end_of(Lsn(30)), 5),
            (Offset::end_of(Lsn(45)), 5),
            (Offset::end_of(Lsn(50)), 6),
            (Offset::end_of(Lsn(99)), 6),
        ] {
            let found = spans(&rest(&mut store.journal_reader(after)));
            assert_eq!(found, all[first..], "behind {after:?}, disk {disk}");
        }
    }
}

#[tokio::test]
async fn a_transaction_is_seen_when_its_last_part_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut journal = store.start_journal().unwrap();
    append(&store, &journal, &[block(10, 10, 9)]).await;
    let mut reader = store.journal_reader(Offset::START);
    for part in [part(30, 0, false), part(30, 1, false)] {
        journal.appender.send(Append::Block(part)).await.unwrap();
    }
    // Durable behind the parts: they are written.
    durable(&mut journal, Lsn(11)).await;
    assert_eq!(spans(&rest(&mut reader)), [(10, 0)]);
    append(&store, &journal, &[part(30, 2, true)]).await;
    assert_eq!(spans(&rest(&mut reader)), [(30, 0), (30, 1), (30, 2)]);
    close(store, journal).await;
}

#[tokio::test]
async fn recovery_cuts_an_incomplete_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = store.start_journal().unwrap();
    append(&store, &journal, &[block(10, 10, 9)]).await;
    for part in [part(30, 0, false), part(30, 1, false)] {
        journal.appender.send(Append::Block(part)).await.unwrap();
    }
    close(store, journal).await;

    let store = open(dir.path());
    let mut journal = store.start_journal().unwrap();
    assert_eq!(store.last_commit(), Lsn(10));
    assert_eq!(journal.durable.borrow().lsn(), Lsn(11));
    // It comes again, cut otherwise: nothing of the first try is left.
    let again = [part(30, 0, false), part(30, 1, true), block(40, 40, 9)];
    append(&store, &journal, &again).await;
    durable(&mut journal, Lsn(41)).await;
    close(store, journal).await;
    let store = open(dir.path());
    let found = rest(&mut store.journal_reader(Offset::end_of(Lsn(10))));
    assert_eq!(found, again);
}

#[tokio::test]
async fn a_transaction_sent_again_replaces_the_parts_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = store.start_journal().unwrap();
    let sent = [part(30, 0, false), part(30, 1, false), part(30, 2, false)];
    for block in sent {
        journal.appender.send(Append::Block(block)).await.unwrap();
    }
    let again = [Block { frames: bytes(7, 10).into(), ..part(30, 0, false) }, part(30, 1, true)];
    append(&store, &journal, &again).await;
    assert_eq!(rest(&mut store.journal_reader(Offset::START)), again);
    close(store, journal).await;
    let store = open(dir.path());
    assert_eq!(rest(&mut store.journal_reader(Offset::START)), again, "from disk");
}

#[tokio::test]
async fn old_transactions_that_come_again_are_dropped_and_the_position_still_moves() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut journal = store.start_journal().unwrap();
    let blocks = [block(10, 20, 9), part(30, 0, false), part(30, 1, true)];
    append(&store, &journal, &blocks).await;
    for old in &blocks {
        journal.appender.send(Append::Block(old.clone())).await.unwrap();
    }
    journal.appender.send(Append::Idle(Lsn(500))).await.unwrap();
    durable(&mut journal, Lsn(500)).await;
    assert_eq!(rest(&mut store.journal_reader(Offset::START)), blocks);
    close(store, journal).await;
}

#[tokio::test]
async fn blocks_out_of_order_end_the_journal_with_an_error_and_are_not_written() {
    for wrong in
        [block(15, 30, 9), part(30, 1, true), Block { last: Lsn(35), ..part(30, 0, false) }]
    {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let journal = store.start_journal().unwrap();
        append(&store, &journal, &[block(10, 20, 9)]).await;
        journal.appender.send(Append::Block(wrong)).await.unwrap();
        let error = journal.done.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::OutOfOrder(_)), "{error}");
        assert_eq!(store.last_commit(), Lsn(20));
    }
}

#[tokio::test]
async fn a_place_is_not_durable_before_a_sync_that_began_after_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    // After the first sync the next is a century away.
    let config =
        Config { sync_interval: Period::from_millis(u64::MAX / 1_000_000), ..config(dir.path()) };
    let store = open_with(&config);
    let mut journal = store.start_journal().unwrap();
    append(&store, &journal, &[block(10, 10, 9)]).await;
    durable(&mut journal, Lsn(11)).await;
    append(&store, &journal, &[block(20, 20, 9)]).await;
    assert_eq!(spans(&rest(&mut store.journal_reader(Offset::START))), [(10, 0), (20, 0)]);
    assert_eq!(journal.durable.borrow().lsn(), Lsn(11), "seen by readers, but not durable");
    store.close().unwrap();
    assert_eq!(journal.durable.borrow_and_update().lsn(), Lsn(21), "the last sync is at the end");
}

#[tokio::test]
async fn a_full_disk_holds_the_journal_back_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { min_free: ByteSize::new(1 << 60), ..config(dir.path()) };
    let store = open_with(&config);
    let mut journal = store.start_journal().unwrap();
    journal.appender.send(Append::Block(block(10, 10, 9))).await.unwrap();
    let reason = journal.blocked.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(reason.contains("less than `[store] min_free`"), "{reason}");
    assert_eq!(store.last_commit(), Lsn::ZERO);
    // Letting go of it ends it, though the block is not stored: nobody was told that it is.
    drop(journal.appender);
    journal.done.await.unwrap().unwrap();
    assert_eq!(journal.durable.borrow().lsn(), Lsn::ZERO);
}

/// Copies a data folder as it is on disk now, with the database's newest log file given.
fn copy(from: &Path, to: &Path, log: (&Path, &[u8])) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path == log.0 {
            fs::write(target, log.1).unwrap();
        } else if path.is_dir() {
            copy(&path, &target, log);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// A store with one synced block, and others that were only written; a copy of its log's bytes,
/// and how many of them were synced.
async fn half_synced(path: &Path) -> (Vec<Block>, std::path::PathBuf, Vec<u8>, usize) {
    let config = Config { sync_interval: Period::from_millis(1 << 40), ..config(path) };
    let store = open_with(&config);
    let mut journal = store.start_journal().unwrap();
    let blocks = [
        block(10, 20, 5000),
        block(30, 30, 9000),
        part(40, 0, false),
        part(40, 1, true),
        block(50, 60, 40),
    ];
    append(&store, &journal, &blocks[..1]).await;
    durable(&mut journal, Lsn(21)).await;
    let newest = wal::files(&path.join("db")).unwrap().pop().unwrap();
    let synced = usize::try_from(wal::scan(&newest).unwrap().valid).unwrap();
    for block in &blocks[1..] {
        append_one(&store, &journal, block).await;
    }
    store.commit(outcome("p", 20, vec![("s", events(20, 0..3))])).unwrap();
    let written = usize::try_from(wal::scan(&newest).unwrap().valid).unwrap();
    let log = fs::read(&newest).unwrap()[..written].to_vec();
    (blocks.to_vec(), newest, log, synced)
}

async fn append_one(store: &Store, journal: &Journal, block: &Block) {
    journal.appender.send(Append::Block(block.clone())).await.unwrap();
    if block.complete {
        visible(store, block.last).await;
    }
}

/// Opens what a power cut left and checks that it is a beginning of what was written.
fn check_survivor(path: &Path, blocks: &[Block]) -> usize {
    let store = open(path);
    let found = rest(&mut store.journal_reader(Offset::START));
    assert_eq!(found, blocks[..found.len()], "nothing else, and nothing half");
    assert!(found.last().unwrap().complete);
    let position = crate::store::position::read(&store.inner.meta).unwrap();
    assert!(position >= Lsn(21), "durable is there");
    assert_eq!(position, found.last().unwrap().end, "and no more than what is there");
    match store.pipeline_cursor("p").unwrap() {
        Some(cursor) => {
            assert_eq!(cursor, Offset::end_of(Lsn(20)));
            assert_eq!(*store.stream("s").unwrap().head().borrow(), Offset::new(Lsn(20), 2));
        }
        None => assert!(store.stream("s").is_none_or(|s| *s.head().borrow() == Offset::START)),
    }
    found.len()
}

#[tokio::test]
async fn whatever_a_power_cut_leaves_of_the_unsynced_end_nothing_durable_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("store");
    let (blocks, newest, log, synced) = half_synced(&from).await;
    assert!(log.len() > synced + 10_000);
    let mut counts = Vec::new();
    let step = (log.len() - synced) / 40;
    for (run, cut) in (synced..=log.len()).rev().step_by(step).chain([synced]).enumerate() {
        let to = dir.path().join(format!("cut-{run}"));
        copy(&from, &to, (&newest, &log[..cut]));
        counts.push(check_survivor(&to, &blocks));
        fs::remove_dir_all(to).unwrap();
    }
    assert_eq!((counts[0], *counts.last().unwrap()), (5, 1), "all of it, and what was synced");
    // Pages reach the disk in any order: a hole, or rubbish, and whole batches behind it.
    for (run, hole) in (synced..log.len()).step_by(step * 2).enumerate() {
        for filler in [0, 0xA5] {
            let mut log = log.clone();
            let end = log.len().min(hole + 4096);
            log[hole..end].fill(filler);
            let to = dir.path().join(format!("hole-{run}-{filler}"));
            copy(&from, &to, (&newest, &log));
            check_survivor(&to, &blocks);
            fs::remove_dir_all(to).unwrap();
        }
    }
}

#[tokio::test]
async fn a_damaged_older_log_file_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("store");
    let (_, newest, log, _) = half_synced(&from).await;
    let to = dir.path().join("copy");
    copy(&from, &to, (&newest, &log));
    let newer = to.join("db/7.jnl");
    fs::write(newer, []).unwrap();
    let older = to.join("db").join(newest.file_name().unwrap());
    let mut bytes = log.clone();
    bytes[log.len() / 2] ^= 4;
    fs::write(older, bytes).unwrap();
    let error = Store::open(&config(&to), Metrics::new().into()).err().unwrap();
    assert!(matches!(error, OpenError::Unusable { .. }));
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains(".jnl is damaged at byte"), "{text}");
}

#[tokio::test]
async fn a_flipped_bit_in_a_block_is_loud_and_names_the_block() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = store.start_journal().unwrap();
    let blocks: Vec<_> = (1..=8).map(|n| block(n * 10, n * 10, 20_000)).collect();
    append(&store, &journal, &blocks).await;
    store.inner.records.log.write_out().unwrap();
    close(store, journal).await;

    let needle = &blocks[4].frames[9_000..9_016];
    let file = tables(&dir.path().join("db/keyspaces")).into_iter().find_map(|path| {
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(needle.len()).position(|window| window == needle)?;
        Some((path, bytes, at))
    });
    let (path, mut bytes, at) = file.expect("the block is in a file");
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();

    let store = open(dir.path());
    let mut reader = store.journal_reader(Offset::START);
    // The database looks ahead, so it is noticed before the block itself is reached.
    let mut read = 0;
    let error = loop {
        match reader.next() {
            Ok(Read::Block(block)) => assert_eq!(block, blocks[read]),
            Ok(other) => panic!("{other:?} behind {read} blocks"),
            Err(error) => break error,
        }
        read += 1;
    };
    assert!((1..=4).contains(&read), "{read}");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    let place = format!("a block at or soon behind {}", Lsn(blocks[read - 1].last.0 + 1));
    assert!(error.to_string().contains(&place), "{error}");
    assert!(reader.next().is_err(), "it is never skipped");
}

fn tables(path: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tables(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn a_block_that_vanished_is_noticed_by_whoever_reads_across_the_hole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = store.start_journal().unwrap();
    append(&store, &journal, &[block(10, 10, 9), block(20, 20, 9), block(30, 30, 9)]).await;
    close(store.clone(), journal).await;
    drop(store);
    let store = open(dir.path());
    let entries = store.inner.db.keyspace("journal", crate::store::database::blocks).unwrap();
    entries.remove(block::key(Lsn(20), 0).to_bytes()).unwrap();
    let mut reader = store.journal_reader(Offset::START);
    assert!(matches!(reader.next(), Ok(Read::Block(_))));
    let error = reader.next().unwrap_err().to_string();
    assert!(error.contains("a block between 0/A and 0/1E"), "{error}");
}
