use std::sync::Arc;
use std::thread;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::dead_letter::{By, DeadLetter};
use super::retention::{Reader, Retention, WhenFull};
use super::stream::Read;
use super::testing::*;
use super::*;
use crate::model::{Column, Kind, ReplicaIdentity};
use crate::store::journal::Append;

fn letter(event: &str) -> DeadLetter {
    DeadLetter {
        event: event.into(),
        by: By::Output { output: "hook".into(), stream: "s".into() },
        reason: "410 Gone".into(),
        time: 5,
        attempts: 3,
        retrying: false,
        tries: Vec::new(),
        change: None,
        key: None,
        payload: RawValue::from_string("{\"a\":1}".into()).unwrap(),
    }
}

fn places(stream: &Stream, mut after: Offset) -> Vec<(u64, u32)> {
    let mut found = Vec::new();
    loop {
        match stream.read(after).unwrap() {
            Read::Events(run) => {
                assert!(run.first <= run.last && run.last > after);
                let all = run.after(Offset::START).count();
                assert_eq!(all, run.count as usize);
                found.extend(run.after(after).map(|e| (e.offset.commit.0, e.offset.ordinal)));
                after = run.last;
            }
            Read::End => return found,
            Read::Gap { purged } => panic!("a gap up to {purged:?}"),
        }
    }
}

fn relation(oid: u32, column: &str) -> Relation {
    let column = Column {
        name: column.into(),
        type_oid: 20,
        type_mod: -1,
        type_name: "int8".into(),
        kind: Kind::Int,
        key: true,
    };
    Relation {
        oid,
        schema: "public".into(),
        table: "t".into(),
        identity: ReplicaIdentity::Default,
        columns: vec![column],
    }
}

#[test]
fn a_batch_is_there_as_a_whole_and_still_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let write = |key: &str, value: Option<&[u8]>| StateWrite {
        plugin: "count".into(),
        key: key.into(),
        value: value.map(<[u8]>::to_vec),
    };
    let store = open(dir.path());
    let (epoch, stream) = (store.epoch(), store.declare_stream("s", "p").unwrap());
    let mut head = stream.head();
    store
        .commit(Outcome { state: vec![write("gone", Some(b"x"))], ..outcome("p", 5, vec![]) })
        .unwrap();
    let batch = Outcome {
        // Twice the same key: the last counts.
        state: vec![write("a", Some(b"1")), write("a", Some(b"2")), write("gone", None)],
        dead_letters: vec![letter("0/A/0"), letter("0/A/1")],
        ..outcome(
            "p",
            10,
            vec![("s", events(10, 0..3)), ("t", events(10, 0..1)), ("s", events(10, 3..5))],
        )
    };
    store.commit(batch).unwrap();
    assert_eq!(*head.borrow_and_update(), Offset::new(Lsn(10), 4));
    store.save_checkpoint("hook", "s", Offset::new(Lsn(10), 1), vec![letter("0/A/9")]).unwrap();
    let check = |store: &Store| {
        assert_eq!(store.epoch(), epoch);
        assert_eq!(store.pipeline_cursor("p").unwrap(), Some(Offset::end_of(Lsn(10))));
        assert_eq!(store.pipeline_cursor("q").unwrap(), None);
        assert_eq!(store.plugin_state("count", "a").unwrap(), Some(b"2".to_vec()));
        assert_eq!(store.plugin_state("count", "gone").unwrap(), None);
        let letters = store.dead_letters(2).unwrap();
        let letters: Vec<_> = letters.iter().map(|(id, letter)| (*id, &*letter.event)).collect();
        assert_eq!(letters, [(3, "0/A/9"), (2, "0/A/1")]);
        assert_eq!(store.checkpoint("hook", "s").unwrap(), Some(Offset::new(Lsn(10), 1)));
        let s = store.stream("s").unwrap();
        assert_eq!(places(&s, Offset::START), [(10, 0), (10, 1), (10, 2), (10, 3), (10, 4)]);
        assert_eq!(s.owner(), "p");
        let names: Vec<_> = store.streams().iter().map(|s| s.name().to_owned()).collect();
        assert_eq!(names, ["s", "t"]);
    };
    check(&store);
    store.close().unwrap();
    drop((store, stream));
    check(&open(dir.path()));
}

#[test]
fn a_batch_that_does_not_follow_is_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(outcome("p", 10, vec![("s", events(10, 0..3))])).unwrap();
    let wrong = Outcome {
        dead_letters: vec![letter("x")],
        ..outcome("p", 20, vec![("a", events(20, 0..1)), ("s", events(10, 2..4))])
    };
    assert!(matches!(store.commit(wrong), Err(StoreError::OutOfOrder(_))));
    assert_eq!(store.pipeline_cursor("p").unwrap(), Some(Offset::end_of(Lsn(10))));
    assert!(store.dead_letters(9).unwrap().is_empty());
    assert_eq!(places(&store.stream("a").unwrap(), Offset::START), []);
}

#[test]
fn pipelines_commit_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let writers: Vec<_> = (0..4)
        .map(|n| {
            let store = store.clone();
            thread::spawn(move || {
                let (pipeline, stream) = (format!("p{n}"), format!("s{n}"));
                for commit in 1..=50 {
                    let dead_letters = vec![letter(&pipeline)];
                    let events = vec![(&*stream, events(commit, 0..2))];
                    store
                        .commit(Outcome { dead_letters, ..outcome(&pipeline, commit, events) })
                        .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let expected: Vec<_> = (1..=50).flat_map(|commit| [(commit, 0), (commit, 1)]).collect();
    let check = |store: &Store| {
        for n in 0..4 {
            let stream = store.stream(&format!("s{n}")).unwrap();
            assert_eq!(places(&stream, Offset::START), expected);
        }
        let letters = store.dead_letters(500).unwrap();
        let ids: Vec<_> = letters.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (1..=200).rev().collect::<Vec<_>>());
    };
    check(&store);
    store.close().unwrap();
    drop(store);
    check(&open(dir.path()));
}

#[test]
fn a_reader_that_waits_is_woken_by_what_it_then_finds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stream = store.declare_stream("s", "p").unwrap();
    let reader = thread::spawn(move || {
        let (mut head, mut found) = (stream.head(), Vec::new());
        let mut after = Offset::START;
        while found.len() < 300 {
            head.borrow_and_update();
            match stream.read(after).unwrap() {
                Read::Events(run) => {
                    found.extend(run.after(after).map(|event| event.offset.commit.0));
                    after = run.last;
                }
                Read::End => futures_util::FutureExt::now_or_never(head.changed())
                    .map_or_else(thread::yield_now, |changed| changed.unwrap()),
                Read::Gap { .. } => panic!("a gap"),
            }
        }
        found
    });
    for commit in 1..=300 {
        store.commit(outcome("p", commit, vec![("s", events(commit, 0..1))])).unwrap();
    }
    assert_eq!(reader.join().unwrap(), (1..=300).collect::<Vec<_>>());
}

#[test]
fn a_second_opener_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let second = Store::open(&config(dir.path()), Arc::new(Metrics::new()));
    assert!(matches!(second, Err(OpenError::Locked(_))));
    let (epoch, veil) = (store.epoch(), store.veil().clone());
    store.close().unwrap();
    drop(store);
    let again = open(dir.path());
    assert_eq!((again.epoch(), again.veil()), (epoch, &veil));
    let other = tempfile::tempdir().unwrap();
    assert_ne!(open(other.path()).veil(), &veil, "each store has a secret of its own");
}

#[test]
fn a_definition_keeps_its_number_and_a_changed_one_gets_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = store.intern_relation(&relation(7, "id")).unwrap();
    assert_eq!(store.intern_relation(&relation(7, "id")).unwrap(), first);
    let second = store.intern_relation(&relation(7, "key")).unwrap();
    assert_ne!(first, second);
    store.close().unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(*store.relation(first).unwrap().unwrap(), relation(7, "id"));
    assert_eq!(store.intern_relation(&relation(7, "key")).unwrap(), second);
    assert!(store.intern_relation(&relation(8, "id")).unwrap() > second);
    assert_eq!(store.relation(RelationId(99)).unwrap(), None);
}

#[test]
fn the_origin_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin {
        system_identifier: "7".into(),
        timeline: 1,
        slot: "walmill".into(),
        database: "app".into(),
    };
    let store = open(dir.path());
    assert_eq!(store.origin().unwrap(), None);
    store.set_origin(&origin).unwrap();
    store.close().unwrap();
    drop(store);
    assert_eq!(open(dir.path()).origin().unwrap(), Some(origin));
}

#[test]
fn the_config_is_read_as_documented() {
    let text = r#"
        path = "/var/lib/walmill"
        retention = { age = "2d", size = "1GiB" }
        when_full = "drop-oldest"
        min_free = "64MiB"
    "#;
    let config: Config = toml::from_str(text).unwrap();
    assert_eq!(config.retention.size, ByteSize::new(1 << 30));
    assert_eq!(config.when_full, WhenFull::DropOldest);
    assert_eq!(config.sync_interval, Period::from_millis(20));
    assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    for wrong in ["retention = { size = \"-1GiB\" }", "when_full = \"drop\"", "paht = \"x\""] {
        assert!(toml::from_str::<Config>(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_stream_reads_the_same_from_memory_and_from_disk(
        runs in prop::collection::vec((1_u64..4, 1_u32..5), 1..30),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (mut commit, mut ordinal, mut all) = (1, 0, vec![]);
        for (step, len) in runs {
            // A step of 1 goes on inside the same transaction.
            (commit, ordinal) = if step == 1 { (commit, ordinal) } else { (commit + step, 0) };
            let run = events(commit, ordinal..ordinal + len);
            all.extend((ordinal..ordinal + len).map(|ordinal| (commit, ordinal)));
            ordinal += len;
            store.commit(outcome("p", commit, vec![("s", run)])).unwrap();
        }
        let read = |store: &Store| -> Vec<_> {
            let stream = store.stream("s").unwrap();
            let mut starts = vec![Offset::START];
            starts.extend(all.iter().map(|(commit, ordinal)| Offset::new(Lsn(*commit), *ordinal)));
            starts.iter().map(|after| places(&stream, *after)).collect()
        };
        let from_memory = read(&store);
        for (skipped, found) in from_memory.iter().enumerate() {
            prop_assert_eq!(found, &all[skipped..]);
        }
        store.close().unwrap();
        drop(store);
        prop_assert_eq!(from_memory, read(&open(dir.path())));
    }
}

fn limited(path: &std::path::Path, size: u64, when_full: WhenFull) -> Config {
    let retention = Retention { size: ByteSize::new(size), ..Retention::default() };
    Config { retention, when_full, ..config(path) }
}

/// Twenty blocks of about 10 kB, at the commits 10, 20, … 200.
fn twenty() -> Vec<journal::Block> {
    (1..=20).map(|n| block(n * 10, n * 10, 10_000)).collect()
}

#[tokio::test]
async fn the_oldest_blocks_go_when_there_are_too_many_and_readers_see_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&limited(dir.path(), 100_000, WhenFull::Block));
    let journal = store.start_journal().unwrap();
    let mut reader = store.journal_reader(Offset::START);
    append(&store, &journal, &twenty()).await;
    store.retain_now().unwrap();
    let purged = store.journal_purged();
    assert!(purged >= Lsn(100) && purged < Lsn(200), "{purged}");
    let first = Lsn(purged.0 + 10);
    assert!(matches!(reader.next(), Ok(journal::Read::Gap { oldest }) if oldest == first));
    let left = rest(&mut reader);
    assert_eq!((left[0].first, left.last().unwrap().last), (first, Lsn(200)));
    close(store.clone(), journal).await;
    drop((store, reader));
    let store = open_with(&limited(dir.path(), 100_000, WhenFull::Block));
    assert_eq!(store.journal_purged(), purged);
    assert_eq!(rest(&mut store.journal_reader(Offset::end_of(purged))), left);
}

#[tokio::test]
async fn what_was_removed_is_gone_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&limited(dir.path(), 1 << 20, WhenFull::Block));
    let journal = store.start_journal().unwrap();
    for n in 1..=6 {
        let blocks: Vec<_> = (1..=10).map(|m| block(n * 100 + m, n * 100 + m, 100_000)).collect();
        append(&store, &journal, &blocks).await;
        store.inner.records.log.write_out().unwrap();
    }
    store.retain_now().unwrap();
    let left = store.inner.records.log.on_disk();
    assert!(left < 2_200_000, "{left} bytes are left of 6 MB");
    close(store, journal).await;
}

#[tokio::test]
async fn a_pipeline_that_is_behind_keeps_what_it_needs_and_holds_the_source_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&limited(dir.path(), 100_000, WhenFull::Block));
    store.declare_readers(vec![Reader::Pipeline("slow".into()), Reader::Pipeline("fast".into())]);
    let mut journal = store.start_journal().unwrap();
    let appender = journal.appender.clone();
    let source = tokio::spawn(async move {
        for block in twenty() {
            appender.send(Append::Block(block)).await.unwrap();
        }
    });
    let reason = journal.blocked.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(reason.contains("in the journal for pipeline"), "{reason}");
    assert!(store.last_commit() < Lsn(200));
    assert_eq!(store.journal_purged(), Lsn::ZERO);

    store.commit(outcome("fast", 90, vec![])).unwrap();
    store.commit(outcome("slow", 30, vec![])).unwrap();
    store.retain_now().unwrap();
    assert!(store.journal_purged() <= Lsn(30));
    for done in [100, 200] {
        store.commit(outcome("fast", done, vec![])).unwrap();
        store.commit(outcome("slow", done, vec![])).unwrap();
    }
    source.await.unwrap();
    visible(&store, Lsn(200)).await;
    journal.blocked.wait_for(Option::is_none).await.unwrap();
    close(store, journal).await;
}

#[tokio::test]
async fn drop_oldest_takes_from_a_pipeline_that_is_behind_and_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&limited(dir.path(), 100_000, WhenFull::DropOldest));
    store.declare_readers(vec![Reader::Pipeline("slow".into())]);
    let journal = store.start_journal().unwrap();
    append(&store, &journal, &twenty()).await;
    assert!(store.journal_purged() > Lsn::ZERO, "it made room by itself");
    let mut reader = store.journal_reader(Offset::START);
    assert!(matches!(reader.next(), Ok(journal::Read::Gap { .. })));
    assert_eq!(journal.blocked.borrow().as_ref(), None);
    close(store, journal).await;
}

#[tokio::test]
async fn a_transaction_larger_than_the_room_for_everything_passes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&limited(dir.path(), 20_000, WhenFull::Block));
    store.declare_readers(vec![Reader::Pipeline("p".into())]);
    let mut journal = store.start_journal().unwrap();
    let parts: Vec<_> = (0..50).map(|n| part(10, n, n == 49)).collect();
    append(&store, &journal, &parts).await;
    assert_eq!(rest(&mut store.journal_reader(Offset::START)), parts);
    journal.appender.send(Append::Block(block(20, 20, 9))).await.unwrap();
    journal.blocked.wait_for(Option::is_some).await.unwrap();
    store.commit(outcome("p", 10, vec![])).unwrap();
    visible(&store, Lsn(20)).await;
    store.retain_now().unwrap();
    assert_eq!(store.journal_purged(), Lsn(10));
    close(store, journal).await;
}

#[test]
fn old_events_go_except_those_that_an_output_has_not_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for commit in 1..=9 {
        let events = vec![("s", events(commit, 0..2)), ("free", events(commit, 0..1))];
        store.commit(outcome("p", commit, events)).unwrap();
    }
    let output = Reader::Output { output: "hook".into(), streams: vec!["s".parse().unwrap()] };
    store.declare_readers(vec![output]);
    let stream = store.stream("s").unwrap();
    let in_a_month = clock::now() + 30 * 86_400_000_000;
    store.inner.retain(in_a_month).unwrap();
    assert_eq!(stream.purged(), Offset::START, "no checkpoint: nothing was delivered");
    // In the middle of a run: the run stays.
    store.save_checkpoint("hook", "s", Offset::new(Lsn(4), 0), vec![]).unwrap();
    store.inner.retain(in_a_month).unwrap();
    assert_eq!(stream.purged(), Offset::new(Lsn(3), 1));
    assert_eq!(places(&stream, stream.purged())[0], (4, 0));
    let gap = stream.read(Offset::new(Lsn(2), 0)).unwrap();
    assert!(matches!(gap, Read::Gap { purged } if purged == stream.purged()));
    let free = store.stream("free").unwrap();
    assert_eq!(places(&free, free.purged()), [(9, 0)], "the newest run stays");
    store.close().unwrap();
    drop((store, stream, free));
    let stream = open(dir.path()).stream("s").unwrap();
    assert_eq!(stream.purged(), Offset::new(Lsn(3), 1));
    assert_eq!(places(&stream, stream.purged()).len(), 12);
}

#[test]
fn metrics_count_events_and_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new());
    let store = Store::open(&config(dir.path()), metrics.clone()).unwrap();
    let dead_letters = vec![letter("0/A/0")];
    let events = vec![("s", events(1, 0..3))];
    store.commit(Outcome { dead_letters, ..outcome("p", 1, events) }).unwrap();
    store.flush().unwrap();
    let text = metrics.encode().unwrap();
    for line in ["walmill_stream_events_total{name=\"s\"} 3", "walmill_dead_letters_total 1"] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    assert!(!text.contains("walmill_store_sync_seconds_count 0"), "{text}");
}
