//! Streams of messages, and the blocks that come of them.

mod prepared;
mod streamed;

use std::path::Path;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::blocks::PART;
use super::*;
use crate::model::{ByteSize, Relation};
use crate::store::journal::TableUse;

const TABLE: u32 = 0x4001;
const TIME: i64 = 1_700_000_000_000_000;

/// An assembler that numbers definitions in the order of their first use.
fn assembler(last_commit: u64) -> (Assembler, Arc<Mutex<Vec<Relation>>>) {
    let interned = Arc::new(Mutex::new(Vec::new()));
    let relations = Arc::clone(&interned);
    let folder = tempfile::tempdir().unwrap();
    let spills = spills(folder.path());
    let intern = move |relation: &Relation| {
        // It is there for as long as the assembler is.
        assert!(folder.path().is_dir());
        let mut relations: std::sync::MutexGuard<'_, Vec<Relation>> = relations.lock().unwrap();
        relations.push(relation.clone());
        Ok(RelationId(u32::try_from(relations.len()).unwrap()))
    };
    let definitions = Definitions::new(Vec::new(), resolve(&interned));
    let assembler = Assembler::new(Lsn(last_commit), definitions, Box::new(intern), spills);
    (assembler.unwrap(), interned)
}

/// What the numbers stand for.
fn resolve(interned: &Arc<Mutex<Vec<Relation>>>) -> schema::Resolve {
    let relations = Arc::clone(interned);
    Box::new(move |id| {
        let relations: std::sync::MutexGuard<'_, Vec<Relation>> = relations.lock().unwrap();
        Ok(relations.get(id.0 as usize - 1).cloned().map(Arc::new))
    })
}

fn spills(folder: &Path) -> Spills {
    Spills::open(folder, ByteSize::new(0), Arc::new(|| Ok(()))).unwrap()
}

fn relation(identity: u8, columns: &[(&str, bool)]) -> Vec<u8> {
    let mut message = b"R\0\0\x40\x01public\0posts\0".to_vec();
    message.push(identity);
    message.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for (name, key) in columns {
        message.push(u8::from(*key));
        message.extend(name.bytes());
        message.extend(b"\0\0\0\0\x14\xFF\xFF\xFF\xFF");
    }
    message
}

fn insert(value: &str) -> Vec<u8> {
    let mut message = b"I\0\0\x40\x01N\0\x01t".to_vec();
    message.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
    message.extend(value.bytes());
    message
}

fn lone_message(lsn: u64) -> Vec<u8> {
    let mut message = b"M\0".to_vec();
    message.extend(lsn.to_be_bytes());
    message.extend(b"p\0\0\0\0\x01x");
    message
}

impl Assembler {
    fn feed(&mut self, message: &[u8]) {
        assert_eq!(self.push(message, TIME).unwrap(), Step::Done);
    }

    fn described(mut self) -> Self {
        self.feed(&relation(b'd', &[("id", true)]));
        self
    }

    fn transaction(&mut self, commit: u64, values: &[&str]) {
        self.feed(&frame::begin(Lsn(commit), TIME, 7));
        values.iter().for_each(|value| self.feed(&insert(value)));
        self.feed(&frame::commit(Lsn(commit), Lsn(commit + 5), TIME));
    }

    fn drain(&mut self) -> Vec<Block> {
        std::iter::from_fn(|| self.take_block().unwrap()).collect()
    }
}

/// A block as a line: where it stands, and its messages.
fn shown(block: &Block) -> String {
    let Block { first, part, ordinal, last, complete, end, frames, .. } = block;
    let mut messages = Vec::new();
    let mut rest = &frames[..];
    while let Some((len, behind)) = rest.split_first_chunk() {
        let (message, behind) = behind.split_at(u32::from_be_bytes(*len) as usize);
        rest = behind;
        if let Some((before, after)) = frame::read_redefined(message) {
            messages.push(format!("redefined {before} {after}"));
            continue;
        }
        messages.push(match pgoutput::decode(message).unwrap() {
            Message::Begin { final_lsn, .. } => format!("begin {}", final_lsn.0),
            Message::Commit { commit_lsn, .. } => format!("commit {}", commit_lsn.0),
            Message::Insert { relation, new } => format!("insert {relation} {new:?}"),
            Message::Truncate { relations, .. } => format!("truncate {relations:?}"),
            other => format!("{other:?}"),
        });
    }
    let place = format!("{}..{} end {}", first.0, last.0, end.0);
    format!("{place} part {part} from {ordinal} complete {complete}: {}", messages.join(", "))
}

#[test]
fn transactions_of_one_read_share_a_block() {
    let mut assembler = assembler(0).0.described();
    assembler.transaction(100, &["1"]);
    assembler.transaction(200, &["2"]);
    assembler.feed(&frame::begin(Lsn(300), TIME, 7));
    let blocks: Vec<String> = assembler.drain().iter().map(shown).collect();
    assert_eq!(
        blocks,
        ["100..200 end 205 part 0 from 0 complete true: begin 100, insert 1 [\"1\"], commit 100, \
          begin 200, insert 1 [\"2\"], commit 200"]
    );
    assembler.feed(&insert("3"));
    assembler.feed(&frame::commit(Lsn(300), Lsn(305), TIME));
    assert_eq!(
        shown(&assembler.take_block().unwrap().unwrap()),
        "300..300 end 305 part 0 from 0 complete true: begin 300, insert 1 [\"3\"], commit 300"
    );
}

#[test]
fn a_large_transaction_comes_in_parts_that_each_begin_with_its_begin() {
    let mut assembler = assembler(0).0.described();
    assembler.transaction(100, &["1"]);
    let large = "x".repeat(PART / 2 + 1);
    assembler.transaction(200, &[&large, &large, &large, &large, "last"]);
    assembler.transaction(300, &["3"]);
    let blocks = assembler.drain();
    let places: Vec<_> = blocks
        .iter()
        .map(|b| (b.first.0, b.part, b.ordinal, b.complete, b.end.0, b.frames.len() > PART))
        .collect();
    assert_eq!(
        places,
        [
            (100, 0, 0, true, 105, false),
            (200, 0, 0, false, 200, true),
            (200, 1, 2, false, 200, true),
            (200, 2, 4, true, 205, false),
            (300, 0, 0, true, 305, false),
        ]
    );
    assert!(shown(&blocks[3]).ends_with("begin 200, insert 1 [\"last\"], commit 200"));
}

#[test]
fn what_the_journal_has_is_skipped_and_its_end_can_be_confirmed() {
    let mut assembler = assembler(100).0.described();
    assembler.transaction(100, &["old"]);
    assert!(!assembler.has_block());
    assert_eq!(assembler.idle(), Some(Lsn(105)));
    assembler.feed(&lone_message(90));
    assert!(!assembler.has_block());
    assembler.transaction(101, &["new"]);
    assert_eq!(assembler.idle(), None);
    assert_eq!(assembler.drain().len(), 1);
}

#[test]
fn an_empty_transaction_leaves_only_its_place() {
    let mut assembler = assembler(0).0;
    assembler.transaction(100, &[]);
    assert!(!assembler.has_block());
    assert_eq!(assembler.idle(), Some(Lsn(105)));
}

#[test]
fn a_position_is_idle_only_with_nothing_in_flight() {
    let mut assembler = assembler(0).0.described();
    assembler.reached(Lsn(50));
    assert_eq!(assembler.idle(), Some(Lsn(50)));
    assembler.feed(&frame::begin(Lsn(100), TIME, 7));
    assert_eq!(assembler.idle(), None);
    assembler.reached(Lsn(90));
    assert_eq!(assembler.idle(), None);
    assembler.feed(&insert("1"));
    assembler.feed(&frame::commit(Lsn(100), Lsn(105), TIME));
    assembler.reached(Lsn(110));
    assert_eq!(assembler.idle(), None, "a block has to go first");
    assembler.drain();
    assert_eq!(assembler.idle(), Some(Lsn(110)));
    assembler.handed_on(Lsn(110));
    assert_eq!(assembler.idle(), None, "it is no news");
}

#[test]
fn a_broken_connection_takes_the_open_transaction_with_it() {
    let mut assembler = assembler(0).0.described();
    assembler.transaction(100, &["1"]);
    assembler.feed(&frame::begin(Lsn(200), TIME, 7));
    assembler.feed(&insert("half"));
    assembler.disconnect();
    let again = assembler.push(&insert("x"), TIME);
    assert!(matches!(again, Err(AssembleError::UnknownRelation(TABLE))), "{again:?}");
    let mut assembler = assembler.described();
    assembler.transaction(100, &["1"]);
    assembler.transaction(200, &["whole"]);
    assert_eq!(
        assembler.drain().iter().map(shown).collect::<Vec<_>>(),
        ["100..200 end 205 part 0 from 0 complete true: begin 100, insert 1 [\"1\"], commit 100, \
          begin 200, insert 2 [\"whole\"], commit 200"]
    );
}

#[test]
fn a_lone_message_is_a_transaction_of_its_own() {
    let mut assembler = assembler(0).0;
    assembler.feed(&lone_message(70));
    let block = assembler.take_block().unwrap().unwrap();
    assert_eq!((block.first, block.last, block.end), (Lsn(69), Lsn(69), Lsn(70)));
    assert_eq!((block.time, assembler.take_counts().changes), (TIME, 1));
}

#[test]
fn a_lone_message_does_not_take_the_place_of_the_commit_behind_it() {
    let mut assembler = assembler(0).0.described();
    assembler.feed(&lone_message(100));
    assembler.transaction(100, &["kept"]);
    let changes = assembler.take_counts().changes;
    let blocks = assembler.drain();
    let last = blocks.last().unwrap();
    assert_eq!((changes, last.last, last.end), (2, Lsn(100), Lsn(105)));
}

#[test]
fn truncate_takes_an_ordinal_for_each_table() {
    let mut assembler = assembler(0).0.described();
    assembler.feed(&frame::begin(Lsn(100), TIME, 7));
    assembler.feed(b"T\0\0\0\x02\0\0\0\x40\x01\0\0\x40\x01");
    assembler.feed(&insert(&"x".repeat(PART)));
    assembler.feed(&frame::commit(Lsn(100), Lsn(105), TIME));
    let blocks = assembler.drain();
    assert!(shown(&blocks[0]).contains("truncate [1, 1]"), "{}", shown(&blocks[0]));
    assert_eq!(blocks[1].ordinal, 3);
}

#[test]
fn a_definition_gets_a_number_when_it_is_used_and_a_new_one_when_it_changed() {
    let (assembler, interned) = assembler(0);
    let mut assembler = assembler.described();
    assert_eq!(interned.lock().unwrap().len(), 0);
    assembler.transaction(100, &["1"]);
    assembler.feed(&relation(b'd', &[("id", true)]));
    assembler.transaction(200, &["1"]);
    assert_eq!(interned.lock().unwrap().len(), 1);
    assembler.feed(&relation(b'd', &[("id", true), ("note", false)]));
    assembler.transaction(300, &["1"]);
    let interned = interned.lock().unwrap();
    assert_eq!(interned.iter().map(|r| r.columns.len()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(interned[0].to_string(), "public.posts");
}

#[test]
fn a_changed_definition_takes_an_ordinal_and_is_stored_with_the_end_of_its_transaction() {
    let mut assembler = assembler(0).0.described();
    assembler.transaction(100, &["1"]);
    let first = assembler.drain();
    assert_eq!(first[0].tables, [TableUse { oid: TABLE, relation: Some(RelationId(1)) }]);
    for round in 0..2 {
        assembler.feed(&relation(b'd', &[("id", true), ("note", false)]));
        assembler.feed(&frame::begin(Lsn(200), TIME, 7));
        (0..3).for_each(|_| assembler.feed(&insert(&"x".repeat(PART / 2 + 1))));
        if round == 0 {
            // What came of it comes again, here under another number.
            assert_eq!(assembler.drain()[0].tables, []);
            assembler.disconnect();
        }
    }
    assembler.feed(&frame::commit(Lsn(200), Lsn(205), TIME));
    let blocks = assembler.drain();
    assert!(shown(&blocks[0]).contains(": begin 200, redefined 1 3, insert 3 "));
    assert_eq!((blocks.len(), blocks[1].ordinal), (2, 3));
    assert_eq!(blocks[1].tables, [TableUse { oid: TABLE, relation: Some(RelationId(3)) }]);
    assembler.transaction(300, &["3"]);
    let last = assembler.drain().remove(0);
    assert!(shown(&last).contains(": begin 300, insert 3 "), "{}", shown(&last));
    assert_eq!(last.tables, []);
}

#[test]
fn a_key_that_the_stream_does_not_say_is_asked_for() {
    let keys = |identity, flags: bool, primary: &[&str]| -> Vec<bool> {
        let (mut assembler, interned) = assembler(0);
        let described = relation(identity, &[("a", flags), ("b", flags)]);
        assert_eq!(assembler.push(&described, TIME).unwrap(), Step::PrimaryKey(TABLE));
        let primary: Vec<String> = primary.iter().map(|&name| name.into()).collect();
        assembler.set_primary_key(&primary);
        assembler.transaction(100, &["1"]);
        let interned = interned.lock().unwrap();
        interned[0].columns.iter().map(|column| column.key).collect()
    };
    assert_eq!(keys(b'f', true, &["b"]), [false, true]);
    assert_eq!(keys(b'f', true, &[]), [true, true]);
    assert_eq!(keys(b'n', false, &["a"]), [true, false]);
    let (assembler, interned) = assembler(0);
    let mut assembler = assembler;
    assembler.feed(&relation(b'd', &[("a", false), ("b", false)]));
    assembler.transaction(100, &["1"]);
    assert!(interned.lock().unwrap()[0].columns.iter().all(|column| column.key));
}

#[test]
fn messages_out_of_place_are_errors() {
    let mut assembler = assembler(0).0.described();
    assert!(matches!(assembler.push(&insert("1"), TIME), Err(AssembleError::Outside(_))));
    let commit = frame::commit(Lsn(1), Lsn(2), TIME);
    assert!(matches!(assembler.push(&commit, TIME), Err(AssembleError::Outside(_))));
    let begin = frame::begin(Lsn(1), TIME, 1);
    assembler.feed(&begin);
    assert!(matches!(assembler.push(&begin, TIME), Err(AssembleError::Nested)));
    assembler.feed(b"A\0\0\0\x01\0\0\0\x02");
    assert!(matches!(assembler.push(b"?", TIME), Err(AssembleError::Decode(_))));
}

proptest! {
    /// However the stream is cut, and wherever the connection breaks, every change comes once.
    #[test]
    fn every_change_comes_once_and_in_order(
        sizes in prop::collection::vec((1_usize..4, 1_usize..400_000), 1..8),
        breaks in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        greedy: bool,
    ) {
        let mut messages = Vec::new();
        for (index, (changes, size)) in sizes.iter().enumerate() {
            let commit = Lsn(100 * (index as u64 + 1));
            messages.push(frame::begin(commit, TIME, 7).to_vec());
            messages.extend((0..*changes).map(|_| insert(&"x".repeat(*size))));
            messages.push(frame::commit(commit, Lsn(commit.0 + 5), TIME).to_vec());
        }
        let mut assembler = assembler(0).0;
        let mut blocks = Vec::new();
        let ends = breaks.iter().map(|at| at.index(messages.len())).chain([messages.len()]);
        for end in ends {
            assembler.disconnect();
            assembler.feed(&relation(b'd', &[("id", true)]));
            for message in &messages[..end] {
                assembler.feed(message);
                if greedy || assembler.is_full() {
                    blocks.extend(assembler.drain());
                }
            }
        }
        blocks.extend(assembler.drain());
        // As the journal does: the first part again replaces what there is of a transaction.
        let mut changes: Vec<(Lsn, u32)> = Vec::new();
        for block in blocks {
            if block.part == 0 {
                changes.retain(|(commit, _)| *commit < block.first);
            }
            let mut ordinal = block.ordinal;
            for line in shown(&block).split(", ").map(|m| m.rsplit(": ").next().unwrap_or(m)) {
                match line.split(' ').collect::<Vec<_>>()[..] {
                    ["begin", commit] => {
                        let commit = Lsn(commit.parse().unwrap());
                        if commit != block.first { ordinal = 0; }
                        changes.push((commit, u32::MAX));
                    }
                    ["insert", ..] => {
                        let commit = changes.last().unwrap().0;
                        changes.push((commit, ordinal));
                        ordinal += 1;
                    }
                    _ => {}
                }
            }
        }
        changes.retain(|(_, ordinal)| *ordinal != u32::MAX);
        let expected: Vec<(Lsn, u32)> = sizes.iter().enumerate().flat_map(|(index, (changes, _))| {
            (0..u32::try_from(*changes).unwrap()).map(move |n| (Lsn(100 * (index as u64 + 1)), n))
        }).collect();
        prop_assert_eq!(changes, expected);
    }
}
