//! Transactions that come in blocks while they are open.

use super::super::streamed::PIECE;
use super::*;

/// The open transaction of most tests.
const XID: u32 = 10;

pub(super) fn start(xid: u32, first: bool) -> Vec<u8> {
    [b"S".as_slice(), &xid.to_be_bytes(), &[u8::from(first)]].concat()
}

/// A message inside a block, of this level.
pub(super) fn of(level: u32, message: &[u8]) -> Vec<u8> {
    [&message[..1], &level.to_be_bytes(), &message[1..]].concat()
}

pub(super) fn aborted(xid: u32, level: u32) -> Vec<u8> {
    [b"A".as_slice(), &xid.to_be_bytes(), &level.to_be_bytes()].concat()
}

fn committed(xid: u32, commit: u64) -> Vec<u8> {
    let whole = frame::commit(Lsn(commit), Lsn(commit + 5), TIME);
    [b"c".as_slice(), &xid.to_be_bytes(), &whole[1..]].concat()
}

fn message(content: &str) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap().to_be_bytes();
    [b"M\x01\0\0\0\0\0\0\0\x07p\0".as_slice(), &len, content.as_bytes()].concat()
}

impl Assembler {
    /// A block of [`XID`], with the levels of its messages.
    fn block(&mut self, first: bool, messages: &[(u32, Vec<u8>)]) {
        self.feed(&start(XID, first));
        messages.iter().for_each(|(level, message)| self.feed(&of(*level, message)));
        self.feed(b"E");
    }

    fn lines(&mut self) -> Vec<String> {
        self.drain().iter().map(shown).collect()
    }

    fn buffered(&self) -> usize {
        self.blocks.buffered() + self.streamed.buffered()
    }
}

fn described() -> (u32, Vec<u8>) {
    (XID, relation(b'd', &[("id", true)]))
}

#[test]
fn an_open_transaction_is_seen_when_it_has_committed_and_without_what_was_rolled_back() {
    let mut assembler = assembler(0).0.described();
    assembler.block(true, &[described(), (XID, insert("1")), (11, insert("savepoint"))]);
    assembler.transaction(100, &["short"]);
    assembler.feed(&aborted(XID, 11));
    assembler.block(false, &[(12, insert("2")), (13, insert("3"))]);
    assert_eq!(assembler.lines().len(), 1, "the short one is there, the open one is not");
    assembler.feed(&aborted(XID, 13));
    assembler.feed(&committed(XID, 200));
    assert!(assembler.is_full() && assembler.has_block());
    assert_eq!(
        assembler.lines(),
        ["200..200 end 205 part 0 from 0 complete true: begin 200, insert 1 [\"1\"], \
          insert 1 [\"2\"], commit 200"]
    );
    assert_eq!((assembler.is_full(), assembler.position()), (false, Lsn(205)));
    let Counts { transactions, changes, .. } = assembler.take_counts();
    assert_eq!((transactions, changes), (2, 3));
}

#[test]
fn what_is_rolled_back_as_a_whole_leaves_nothing() {
    let mut assembler = assembler(0).0.described();
    assembler.block(true, &[described(), (XID, insert("1")), (11, insert("2"))]);
    assembler.feed(&aborted(XID, 11));
    assembler.feed(&aborted(XID, XID));
    assert!(!assembler.has_block());
    let after = assembler.push(&committed(XID, 200), TIME);
    assert!(matches!(after, Err(AssembleError::Outside(_))), "{after:?}");

    // All of its changes were below savepoints, and all of them are gone.
    let mut assembler = super::assembler(0).0.described();
    assembler.block(true, &[described(), (11, insert("1")), (12, insert("2"))]);
    assembler.feed(&aborted(XID, 11));
    assembler.feed(&aborted(XID, 12));
    assembler.feed(&committed(XID, 200));
    assert_eq!(assembler.lines().len(), 0);
    assert_eq!(assembler.idle(), Some(Lsn(205)));
}

#[test]
fn a_block_without_a_change_and_an_abort_of_a_stranger_are_nothing() {
    let mut assembler = assembler(0).0;
    assembler.feed(&aborted(77, 77));
    assembler.feed(&aborted(77, 78));
    assembler.block(true, &[]);
    assembler.feed(&committed(XID, 200));
    assert!(!assembler.has_block());
    assert_eq!(assembler.idle(), Some(Lsn(205)));
}

#[test]
fn a_commit_that_the_journal_has_is_skipped() {
    let mut assembler = assembler(200).0.described();
    assembler.block(true, &[described(), (XID, insert("1"))]);
    assembler.feed(&committed(XID, 200));
    assert!(!assembler.has_block());
    assert_eq!(assembler.idle(), Some(Lsn(205)));
}

#[test]
fn a_position_may_be_confirmed_while_a_transaction_is_open() {
    let mut assembler = assembler(0).0.described();
    assembler.block(true, &[described(), (XID, insert("1"))]);
    assembler.reached(Lsn(300));
    assert_eq!(assembler.idle(), Some(Lsn(300)));
    assembler.feed(&committed(XID, 400));
    assert_eq!(assembler.idle(), None);
    assert_eq!(assembler.lines().len(), 1);
}

#[test]
fn a_broken_connection_takes_the_open_transactions_with_it_and_they_come_again() {
    let mut assembler = assembler(0).0.described();
    let large = insert(&"x".repeat(PART));
    let changes = [described(), (XID, large.clone()), (XID, large)];
    for part_of_it in [0, 1] {
        assembler.block(true, &changes);
        assembler.feed(&committed(XID, 200));
        let taken: Vec<Block> =
            (0..part_of_it).filter_map(|_| assembler.take_block().unwrap()).collect();
        assert!(taken.iter().all(|block| !block.complete));
        assembler.disconnect();
        assert!(!assembler.has_block());
    }
    assembler.feed(&start(XID, true));
    assembler.feed(&of(XID, &described().1));
    assembler.disconnect();
    assembler.block(true, &changes);
    assembler.feed(&committed(XID, 200));
    let parts: Vec<_> = assembler.drain().iter().map(|b| (b.part, b.complete)).collect();
    assert_eq!(parts, [(0, false), (1, false), (2, true)]);
}

#[test]
fn a_definition_holds_inside_its_transaction_and_for_all_once_that_has_committed() {
    let wide = relation(b'd', &[("id", true), ("note", false)]);
    let used = |decide: &[Vec<u8>]| -> String {
        let mut assembler = assembler(0).0.described();
        assembler.transaction(90, &["narrow"]);
        assembler.block(true, &[(11, wide.clone()), (XID, insert("1")), (11, insert("2"))]);
        assembler.transaction(100, &["narrow"]);
        decide.iter().for_each(|message| assembler.feed(message));
        let mut lines = assembler.lines().concat();
        assembler.transaction(300, &["after"]);
        lines.push_str(&assembler.lines().concat());
        let ids = lines.split("insert ").skip(1).filter_map(|insert| insert.split(' ').next());
        ids.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(used(&[committed(XID, 200)]), "1 1 2 2 2");
    // It came from a savepoint that was rolled back, and nothing newer was said.
    assert_eq!(used(&[aborted(XID, 11), committed(XID, 200)]), "1 1 2 2");
    assert_eq!(used(&[aborted(XID, XID)]), "1 1 1");
    // Something newer was said meanwhile, for all.
    let other = relation(b'd', &[("id", true), ("other", false)]);
    assert_eq!(used(&[other, committed(XID, 200)]), "1 1 2 2 3");
}

#[test]
fn a_definition_of_the_whole_does_not_hold_inside_an_open_transaction() {
    let mut assembler = assembler(0).0.described();
    assembler.feed(&start(XID, true));
    let change = assembler.push(&of(XID, &insert("1")), TIME);
    assert!(matches!(change, Err(AssembleError::UnknownRelation(TABLE))), "{change:?}");
}

#[test]
fn messages_are_kept_until_it_is_unclear_whose_they_are() {
    let mut assembler = assembler(0).0.described();
    assembler.block(true, &[described(), (XID, insert("1"))]);
    assembler.feed(&aborted(XID, 11));
    assembler.block(false, &[(XID, message("hi"))]);
    assembler.feed(&committed(XID, 200));
    assert!(assembler.lines()[0].contains("prefix: \"p\""));
    assert!(!assembler.wants_whole());

    assembler.block(true, &[described(), (XID, message("whose?")), (11, insert("1"))]);
    let aborted = assembler.push(&aborted(XID, 11), TIME);
    assert!(matches!(aborted, Err(AssembleError::Unclear(XID))), "{aborted:?}");
    assembler.disconnect();
    assert!(assembler.wants_whole());
}

#[test]
fn blocks_out_of_place_are_errors() {
    let wrong = |messages: &[&[u8]]| {
        let mut assembler = assembler(0).0.described();
        let (last, first) = messages.split_last().unwrap();
        first.iter().for_each(|message| assembler.feed(message));
        let error = assembler.push(last, TIME).unwrap_err();
        assert!(matches!(error, AssembleError::Outside(_) | AssembleError::Nested), "{error}");
    };
    let begin = frame::begin(Lsn(1), TIME, 1);
    wrong(&[b"E"]);
    wrong(&[&start(XID, false)]);
    wrong(&[&committed(XID, 5)]);
    wrong(&[&begin, &start(XID, true)]);
    wrong(&[&start(XID, true), &begin]);
    wrong(&[&start(XID, true), &start(11, true)]);
    wrong(&[&start(XID, true), &committed(XID, 5)]);
    wrong(&[&start(XID, true), &frame::commit(Lsn(1), Lsn(2), TIME)]);
}

#[test]
fn memory_is_bounded_however_large_an_open_transaction_is() {
    let mut assembler = assembler(0).0.described();
    let (row, mut most) = (insert(&"x".repeat(1000)), 0);
    assembler.block(true, &[described()]);
    for _ in 0..40 {
        assembler.feed(&start(XID, false));
        for _ in 0..1000 {
            assembler.feed(&of(XID, &row));
            most = most.max(assembler.buffered());
        }
        assembler.feed(b"E");
    }
    assembler.feed(&committed(XID, 200));
    assert!(assembler.take_counts().spilled > 40_000_000);
    assert_eq!(assembler.take_counts().spilled, 0);
    let (mut size, mut complete) = (0, false);
    while let Some(block) = assembler.take_block().unwrap() {
        most = most.max(assembler.buffered() + block.frames.len());
        size += block.frames.len();
        complete = block.complete;
    }
    assert!(complete && size > 40_000_000, "{size}");
    assert!(most < PART + 3 * PIECE, "{most} bytes in memory");
}

proptest! {
    /// The same blocks, so the same ids: whatever is rolled back, and however it is cut.
    #[test]
    fn a_transaction_is_the_same_whether_it_comes_whole_or_in_blocks(
        changes in prop::collection::vec((0_u32..5, 1_usize..200_000), 1..30),
        gone in prop::collection::hash_set(1_u32..5, 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let kept: Vec<_> = changes.iter().filter(|(level, _)| !gone.contains(level)).collect();
        let mut whole = assembler(0).0.described();
        whole.feed(&frame::begin(Lsn(200), TIME, XID));
        kept.iter().for_each(|(_, size)| whole.feed(&insert(&"x".repeat(*size))));
        whole.feed(&frame::commit(Lsn(200), Lsn(205), TIME));

        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(changes.len())).collect();
        cuts.extend([0, changes.len()]);
        cuts.sort_unstable();
        let mut streamed = assembler(0).0;
        streamed.block(true, &[described()]);
        for part in cuts.windows(2) {
            let block: Vec<_> = changes[part[0]..part[1]]
                .iter()
                .map(|(level, size)| (XID + level, insert(&"x".repeat(*size))))
                .collect();
            streamed.block(false, &block);
        }
        gone.iter().for_each(|level| streamed.feed(&aborted(XID, XID + level)));
        streamed.feed(&committed(XID, 200));
        prop_assert_eq!(streamed.drain(), whole.drain());
        prop_assert_eq!(streamed.idle(), whole.idle());
    }

    #[test]
    fn any_messages_in_any_order_are_taken_or_refused(
        messages in prop::collection::vec((0_usize..9, 10_u32..12, any::<bool>()), 1..40),
    ) {
        let mut assembler = assembler(0).0.described();
        for (at, (kind, xid, first)) in messages.into_iter().enumerate() {
            let commit = 100 * (at as u64 + 1);
            let message = match kind {
                0 | 1 => start(xid, first),
                2 | 3 => b"E".to_vec(),
                4 => committed(xid, commit),
                5 => aborted(xid, if first { xid } else { 77 }),
                6 => of(xid, &insert("1")),
                7 => of(xid, &described().1),
                _ => frame::begin(Lsn(commit), TIME, xid).to_vec(),
            };
            if assembler.push(&message, TIME).is_err() {
                assembler.disconnect();
            }
            assembler.drain();
        }
    }
}
