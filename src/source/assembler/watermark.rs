//! Backfills' chunks in the stream: between a low and a high watermark the keys of what changes
//! are noted, and behind the high one the chunk's rows come that did not change meanwhile.
//!
//! The watermarks are logical messages that walmill writes into the server's log. A chunk is read
//! in a snapshot that is taken between the two writes, so a row in it is at least as new as
//! everything that the stream has brought before the low watermark, with one exception: a
//! transaction becomes visible to snapshots only some time after its commit is in the log, and much
//! later where it waits for a synchronous standby. So the transactions that were committed before
//! the low watermark are noted, too, and when the chunk's snapshot did not see one of them, the
//! chunk is taken again. What commits between the watermarks, seen by the snapshot or not, the
//! stream brings itself: its keys are left out of the chunk. What commits behind the high one comes
//! behind the chunk.

mod ask;

use std::collections::HashMap;

use tokio::sync::oneshot;
use xxhash_rust::xxh3::Xxh3;

use super::AssembleError;
use super::tables::Tables;
use crate::model::backfill::Backfill;
use crate::model::{Lsn, Relation, RelationId};
use crate::pgoutput::{self, Message, OldKind, Tuple, Value};
use crate::store::journal::{Append, Block};
pub(super) use ask::is_ours;
pub(in crate::source) use ask::{Ask, Chunk, ChunkId, Keyed, Mark, Outcome, PREFIX, Seen};

/// Keys that are noted at most: 16 bytes each.
const KEYS: usize = 500_000;
/// Transactions that are noted at most: 4 bytes each.
const COMMITS: usize = 1 << 20;

/// What is noted.
#[derive(Default)]
pub(super) struct Watermarks {
    /// Transactions that committed, since that was asked for, and that no snapshot of ours saw.
    commits: Option<Vec<u32>>,
    window: Option<Window>,
    moved: Option<Moved>,
    /// A backfill whose chunk is on its way, and the chunk's place.
    settled: Option<(Lsn, Box<Backfill>)>,
    /// So that nobody can choose keys that look the same.
    seed: u64,
}

/// Keys of rows that changed, and how.
type Touched = HashMap<u128, Change>;

/// What the stream says of a row that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// All of it.
    Whole,
    /// Not the large values that stayed as they were: they must come from the chunk after all.
    InPart,
}

/// Rows of the table at hand that came to another key, and not whole: such a row may have been
/// behind the last key that was read, and now be before it.
struct Moved {
    table: Keyed,
    keys: Vec<Vec<String>>,
}

struct Window {
    id: ChunkId,
    outcome: oneshot::Sender<Outcome>,
    /// How many of the noted transactions came before the low watermark; `None` before that.
    low: Option<usize>,
    touched: Touched,
    /// The names of the key's columns that `touched` is about.
    key: Option<Vec<String>>,
    spoiled: Option<Outcome>,
    chunk: Option<Box<Chunk>>,
}

/// A chunk's rows that are to be placed.
pub(super) struct Placing {
    chunk: Box<Chunk>,
    touched: Touched,
    moved: Vec<Vec<String>>,
    outcome: oneshot::Sender<Outcome>,
    seed: u64,
}

impl Watermarks {
    pub(super) fn new() -> Self {
        Self { seed: rand::random(), ..Self::default() }
    }

    /// Does what a backfill asks.
    pub(super) fn ask(&mut self, ask: Ask) {
        // Who asked may have gone: then nobody reads the answer.
        match ask {
            Ask::Note(done) => {
                (self.commits, self.window) = (Some(Vec::new()), None);
                let _ = done.send(());
            }
            Ask::Open { id, table, outcome, done } => {
                self.window = Some(Window {
                    id,
                    outcome,
                    low: None,
                    touched: Touched::new(),
                    key: None,
                    spoiled: None,
                    chunk: None,
                });
                if self.moved.as_ref().is_none_or(|moved| moved.table != table) {
                    self.moved = Some(Moved { table, keys: Vec::new() });
                }
                let _ = done.send(());
            }
            Ask::Read(id, chunk, done) => {
                if let Some(window) = self.window.as_mut().filter(|window| window.id == id) {
                    window.chunk = Some(chunk);
                }
                let _ = done.send(());
            }
            Ask::Rest(done) => {
                (self.commits, self.window, self.moved) = (None, None, None);
                let _ = done.send(());
            }
        }
    }

    /// The connection is gone: what came between the watermarks will come again, in part or not.
    pub(super) fn disconnect(&mut self) {
        // The backfill learns of it, since nobody is left to tell it an outcome.
        self.window = None;
    }

    /// A transaction has committed.
    pub(super) fn committed(&mut self, xid: u32) {
        // 0 is none: a message that belongs to no transaction.
        let Some(commits) = self.commits.as_mut().filter(|_| xid != 0) else { return };
        if commits.len() >= COMMITS {
            // What was noted is void; the backfill asks anew when it finds that out.
            self.commits = None;
            return;
        }
        commits.push(xid);
    }

    /// Whether changes are to be noted.
    pub(super) fn are_on(&self) -> bool {
        self.moved.is_some()
    }

    /// Notes a change of the journal's form, which names a definition by its number.
    pub(super) fn note_replayed(
        &mut self,
        message: &[u8],
        tables: &Tables,
    ) -> Result<(), AssembleError> {
        if !self.are_on() {
            return Ok(());
        }
        let message = pgoutput::decode(message)?;
        let numbered = |id| tables.numbered(RelationId(id));
        match message {
            Message::Insert { relation, .. }
            | Message::Update { relation, .. }
            | Message::Delete { relation, .. } => self.note(numbered(relation), &message),
            Message::Truncate { relations, .. } => {
                relations.iter().for_each(|id| self.emptied(numbered(id)));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a definition may be of the table at hand: one that is not known may be.
    fn concerns(&self, relation: Option<&Relation>) -> bool {
        let table = self.moved.as_ref().map(|moved| moved.table.oid);
        relation.is_none_or(|relation| Some(relation.oid) == table)
    }

    /// A row has changed.
    pub(super) fn note(&mut self, relation: Option<&Relation>, message: &Message<'_>) {
        match relation {
            Some(relation) if self.concerns(Some(relation)) => self.changed(relation, message),
            Some(_) => {}
            None => self.emptied(None),
        }
    }

    fn changed(&mut self, relation: &Relation, message: &Message<'_>) {
        let (old, new) = match message {
            Message::Insert { new, .. } => (None, Some(*new)),
            Message::Update { old, new, .. } => (*old, Some(*new)),
            Message::Delete { old, .. } => (Some(*old), None),
            _ => return,
        };
        // With the whole old row, a value that was not sent again is known.
        let whole = old.is_some_and(|old| old.kind == OldKind::Full);
        let in_part = |new: &Tuple<'_>| !whole && new.iter().any(|value| value == Value::Unchanged);
        let change =
            if new.is_some_and(|new| in_part(&new)) { Change::InPart } else { Change::Whole };
        if let (Some(moved), Some(_), Some(new), Change::InPart) =
            (&mut self.moved, old, new, change)
        {
            moved.note(relation, new);
        }
        let old = old.map(|old| (old.tuple, Change::Whole));
        let new = new.map(|new| (new, change));
        if let Some(window) = &mut self.window {
            old.into_iter().chain(new).for_each(|row| window.note(relation, row, self.seed));
        }
    }

    /// A table was emptied.
    pub(super) fn emptied(&mut self, relation: Option<&Relation>) {
        if !self.concerns(relation) {
            return;
        }
        if let Some(window) = self.window.as_mut().filter(|window| window.low.is_some()) {
            window.spoiled = Some(Outcome::TableChanged);
        }
    }

    /// One of our messages has come. With a high watermark, the chunk that is to be placed there.
    pub(super) fn reached(&mut self, content: &[u8]) -> Option<Placing> {
        let (mark, id) = ChunkId::read(content)?;
        if self.window.as_ref()?.id != id {
            return None;
        }
        match mark {
            Mark::Low => {
                let noted = self.commits.as_ref().map_or(0, Vec::len);
                self.window.as_mut()?.low = Some(noted);
                None
            }
            Mark::High => self.close(),
        }
    }

    fn close(&mut self) -> Option<Placing> {
        let Window { low, touched, outcome, spoiled, chunk, key, .. } = self.window.take()?;
        let (low, chunk) = (low?, chunk?);
        let wrong = match self.unseen(low, &chunk.seen) {
            wrong @ Some(_) => wrong,
            None if key.is_some_and(|key| key != key_names(&chunk.relation)) => {
                Some(Outcome::TableChanged)
            }
            None => spoiled,
        };
        if let Some(wrong) = wrong {
            let _ = outcome.send(wrong);
            return None;
        }
        let moved = self.moved.as_mut().map(|moved| std::mem::take(&mut moved.keys));
        let moved = moved.unwrap_or_default();
        Some(Placing { chunk, touched, moved, outcome, seed: self.seed })
    }

    /// A transaction from before the low watermark that the snapshot did not see. Those that it saw
    /// are seen by every later one, and forgotten.
    fn unseen(&mut self, low: usize, seen: &Seen) -> Option<Outcome> {
        // Without notes nothing is known of what was before.
        let Some(commits) = self.commits.as_mut() else { return Some(Outcome::NotesLost) };
        let unseen = commits.iter().take(low).find(|xid| !seen.saw(**xid)).copied();
        commits.retain(|xid| !seen.saw(*xid));
        unseen.map(Outcome::Unseen)
    }

    /// The chunk's rows are a transaction that commits there.
    pub(super) fn settle(&mut self, placed: Placed) {
        let Placed { commit, rows, again, mut backfill, outcome } = placed;
        backfill.rows_sent += rows;
        backfill.again = again;
        backfill.chunk_done();
        let commit = (rows > 0).then_some(commit);
        if let Some(commit) = commit {
            self.settled = Some((commit, backfill.clone()));
        }
        let _ = outcome.send(Outcome::Settled(commit, backfill));
    }

    /// A block as it goes to the journal: with the backfill, where it ends its chunk.
    pub(super) fn send_off(&mut self, block: Block) -> Append {
        let ends = |(commit, _): &mut (Lsn, Box<Backfill>)| {
            block.complete && (block.first..=block.last).contains(commit)
        };
        match self.settled.take_if(ends) {
            Some((_, backfill)) => Append::Chunk(block, backfill),
            None => Append::Block(block),
        }
    }
}

impl Moved {
    fn note(&mut self, relation: &Relation, row: Tuple<'_>) {
        let value = |name: &String| {
            let mut columns = relation.columns.iter().zip(row.iter());
            match columns.find(|(column, _)| column.name == *name)?.1 {
                Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
                _ => None,
            }
        };
        let key: Option<Vec<String>> = self.table.primary_key.iter().map(value).collect();
        // More than that is no use to note: they would not fit into a chunk either.
        if let Some(key) = key.filter(|_| self.keys.len() < KEYS / 10) {
            self.keys.push(key);
        }
    }
}

impl Window {
    /// Notes that a row of this key has changed.
    fn note(&mut self, relation: &Relation, (row, change): (Tuple<'_>, Change), seed: u64) {
        if self.low.is_none() || self.spoiled.is_some() {
            return;
        }
        if !self.is_about(relation) {
            return self.spoiled = Some(Outcome::TableChanged);
        }
        match key_of(relation, row, seed) {
            Some(_) if self.touched.len() >= KEYS => self.spoiled = Some(Outcome::TooMany),
            Some(key) => {
                self.touched.insert(key, change);
            }
            // A key that is not said could be any.
            None => self.spoiled = Some(Outcome::TableChanged),
        }
    }

    /// Whether the table still has the key that was noted so far.
    fn is_about(&mut self, relation: &Relation) -> bool {
        let same = |key: &Vec<String>| {
            let names = relation.columns.iter().filter(|column| column.key);
            names.map(|column| &column.name).eq(key)
        };
        match &self.key {
            Some(key) => same(key),
            None => {
                self.key = Some(key_names(relation));
                true
            }
        }
    }
}

fn key_names(relation: &Relation) -> Vec<String> {
    let key = relation.columns.iter().filter(|column| column.key);
    key.map(|column| column.name.clone()).collect()
}

/// A row's key as one number; `None` where a part of it was not sent. Text is compared, which both
/// sides get from the same output functions; a key whose text changes is logged as changed.
fn key_of(relation: &Relation, tuple: Tuple<'_>, seed: u64) -> Option<u128> {
    let mut hash = Xxh3::with_seed(seed);
    for (_, value) in relation.columns.iter().zip(tuple).filter(|(column, _)| column.key) {
        match value {
            Value::Text(bytes) | Value::Binary(bytes) => {
                hash.update(&bytes.len().to_be_bytes());
                hash.update(bytes);
            }
            Value::Null => hash.update(&usize::MAX.to_be_bytes()),
            Value::Unchanged => return None,
        }
    }
    Some(hash.digest128())
}

/// Rows that were placed.
pub(super) struct Placed {
    commit: Lsn,
    rows: u64,
    again: Vec<Vec<String>>,
    backfill: Box<Backfill>,
    outcome: oneshot::Sender<Outcome>,
}

impl Placing {
    /// Hands the messages of the rows that did not change to `place`, as a transaction that commits
    /// there.
    pub(super) fn place(self, commit: Lsn, mut place: impl FnMut(&[u8])) -> Placed {
        let Self { chunk, touched, moved: mut again, outcome, seed } = self;
        let mut rows = 0;
        for message in frames(&chunk.frames) {
            let Ok(Message::Row { new, .. }) = pgoutput::decode(message) else { continue };
            let change = key_of(&chunk.relation, new, seed).map(|key| touched.get(&key));
            match change {
                Some(None) => {
                    place(message);
                    rows += 1;
                }
                Some(Some(Change::Whole)) => {}
                Some(Some(Change::InPart)) | None => again.push(primary_key(&chunk, new)),
            }
        }
        Placed { commit, rows, again, backfill: chunk.backfill, outcome }
    }
}

fn primary_key(chunk: &Chunk, row: Tuple<'_>) -> Vec<String> {
    let value = |at: &usize| match row.iter().nth(*at) {
        Some(Value::Text(text)) => String::from_utf8_lossy(text).into_owned(),
        // No column of a primary key is NULL.
        _ => String::new(),
    };
    chunk.primary_key.iter().map(value).collect()
}

/// The messages in frames.
fn frames(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, behind) = frames.split_first_chunk()?;
        let (message, rest) = behind.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        frames = rest;
        Some(message)
    })
}

#[cfg(test)]
mod tests;
