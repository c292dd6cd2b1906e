//! What the store's tests are told with.

use std::path::Path;
use std::sync::Arc;

use super::{Config, Outcome, Store};
use crate::metrics::Metrics;
use crate::model::event::{Events, EventsBuilder};
use crate::model::{Lsn, Offset, Period};
use crate::store::journal::{Append, Block, Journal, Read, Reader};

pub(super) fn config(path: &Path) -> Config {
    Config { path: path.into(), sync_interval: Period::from_millis(1), ..Config::default() }
}

pub(super) fn open(path: &Path) -> Store {
    open_with(&config(path))
}

pub(super) fn open_with(config: &Config) -> Store {
    Store::open(config, Arc::new(Metrics::new())).unwrap()
}

/// Bytes that do not compress and say which commit they belong to.
pub(super) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}

/// Transactions that committed from `first` to `last`.
pub(super) fn block(first: u64, last: u64, len: usize) -> Block {
    Block {
        first: Lsn(first),
        part: 0,
        ordinal: 0,
        last: Lsn(last),
        complete: true,
        end: Lsn(last + 1),
        time: i64::try_from(last).unwrap(),
        frames: bytes(last, len).into(),
        tables: Vec::new(),
    }
}

/// A part of a large transaction, of ten changes each.
pub(super) fn part(commit: u64, part: u32, complete: bool) -> Block {
    let frames = bytes(commit + u64::from(part), 1000).into();
    Block { part, ordinal: part * 10, complete, frames, ..block(commit, commit, 0) }
}

/// Sends blocks and waits until readers see the last of them.
pub(super) async fn append(store: &Store, journal: &Journal, blocks: &[Block]) {
    for block in blocks {
        journal.appender.send(Append::Block(block.clone())).await.unwrap();
    }
    let last = blocks.iter().rfind(|block| block.complete).unwrap().last;
    visible(store, last).await;
}

pub(super) async fn visible(store: &Store, commit: Lsn) {
    let mut reader = store.journal_reader(Offset::START);
    reader.visible().wait_for(|visible| *visible >= commit).await.unwrap();
}

pub(super) async fn durable(journal: &mut Journal, position: Lsn) {
    journal.durable.wait_for(|durable| durable.lsn() >= position).await.unwrap();
}

/// Ends the journal's thread, with everything sent on disk, and closes the store.
pub(super) async fn close(store: Store, journal: Journal) {
    drop(journal.appender);
    journal.done.await.unwrap().unwrap();
    store.close().unwrap();
}

/// Every block that the reader finds up to the end.
pub(super) fn rest(reader: &mut Reader) -> Vec<Block> {
    let mut blocks = Vec::new();
    loop {
        match reader.next().unwrap() {
            Read::Block(block) => blocks.push(block),
            Read::End => return blocks,
            Read::Gap { oldest } => panic!("a gap up to {oldest}"),
        }
    }
}

/// One run of events at these places of a commit.
pub(super) fn events(commit: u64, ordinals: std::ops::Range<u32>) -> Events {
    let mut run = EventsBuilder::default();
    for ordinal in ordinals {
        let offset = Offset::new(Lsn(commit), ordinal);
        let json = format!("{{\"id\":\"{commit}/{ordinal}\"}}");
        run.push(offset, |key| key.extend(b"public.t/1"), |to| to.extend(json.as_bytes()));
    }
    run.finish()
}

pub(super) fn outcome(pipeline: &str, commit: u64, events: Vec<(&str, Events)>) -> Outcome {
    Outcome {
        pipeline: pipeline.into(),
        cursor: Offset::end_of(Lsn(commit)),
        events: events.into_iter().map(|(stream, run)| (stream.to_owned(), run)).collect(),
        ..Outcome::default()
    }
}
