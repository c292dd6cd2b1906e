//! Transactions that are prepared first.

use super::streamed::{aborted, of, start};
use super::*;

const XID: u32 = 10;

/// A message about the prepared transaction: tag, what stands before its LSNs, its LSNs.
fn about(tag: u8, flags: &[u8], lsns: [u64; 2]) -> Vec<u8> {
    let [at, end] = lsns.map(u64::to_be_bytes);
    let whole = frame::commit(Lsn(0), Lsn(0), TIME);
    let (time, xid) = (&whole[18..], XID.to_be_bytes());
    [&[tag], flags, &at, &end, time, &xid, b"gid\0"].concat()
}

fn begins() -> Vec<u8> {
    about(b'b', &[], [100, 105])
}

fn is_prepared() -> Vec<u8> {
    about(b'P', &[0], [100, 105])
}

fn commits() -> Vec<u8> {
    about(b'K', &[0], [200, 205])
}

fn rolls_back() -> Vec<u8> {
    let whole = frame::commit(Lsn(105), Lsn(205), TIME);
    [b"r\0", &whole[2..], &whole[18..], &XID.to_be_bytes(), b"gid\0"].concat()
}

/// An assembler on a folder that was there before.
fn on(folder: &Path, last_commit: u64) -> Assembler {
    let intern = Box::new(|_: &Relation| Ok(RelationId(1)));
    // A store knows a number from any run before.
    let (other, interned) = assembler(0);
    other.described().transaction(100, &["1"]);
    let definitions = Definitions::new(Vec::new(), resolve(&interned));
    let assembler = Assembler::new(Lsn(last_commit), definitions, intern, spills(folder));
    assembler.unwrap().described()
}

impl Assembler {
    fn prepare_with(&mut self, message: &[u8]) {
        assert_eq!(self.push(message, TIME).unwrap(), Step::Seal);
        assert_eq!(self.idle().filter(|lsn| *lsn >= Lsn(105)), None, "it is not on disk yet");
        self.seal()().unwrap();
        self.sealed();
        assert_eq!(self.idle(), Some(Lsn(105)));
    }

    fn prepared(&mut self) {
        self.feed(&begins());
        self.feed(&insert("1"));
        self.feed(&insert("2"));
        self.prepare_with(&is_prepared());
    }
}

/// The same transaction as it comes whole.
fn whole() -> Vec<Block> {
    let mut assembler = assembler(0).0.described();
    assembler.feed(&frame::begin(Lsn(200), TIME, XID));
    assembler.feed(&insert("1"));
    assembler.feed(&insert("2"));
    assembler.feed(&frame::commit(Lsn(200), Lsn(205), TIME));
    assembler.drain()
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn it_is_kept_until_it_commits_and_is_then_what_it_would_have_been_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = on(folder.path(), 0);
    assembler.prepared();
    assembler.transaction(150, &["beside"]);
    assert_eq!(assembler.drain().len(), 1);
    assembler.feed(&commits());
    // The table is known by the transaction beside.
    let known = whole().into_iter().map(|block| Block { tables: Vec::new(), ..block });
    assert_eq!(assembler.drain(), known.collect::<Vec<_>>());
    assembler.settle(Lsn(204)).unwrap();
    assert_eq!(files(folder.path()), 2, "the journal may not have it on disk yet");
    assembler.settle(Lsn(205)).unwrap();
    assert_eq!(files(folder.path()), 0);
}

#[test]
fn it_survives_an_end_between_any_two_steps() {
    let folder = tempfile::tempdir().unwrap();
    on(folder.path(), 0).prepared();
    // Sealed, and its PREPARE is confirmed: only its end comes.
    for _ in 0..2 {
        let mut assembler = on(folder.path(), 0);
        assembler.feed(&commits());
        assert_eq!(assembler.drain(), whole());
        // Here it ends before the journal has it on disk, and the commit comes again.
    }
    assert_eq!(files(folder.path()), 2);
    // The journal had it after all, and the commit is not confirmed.
    let mut assembler = on(folder.path(), 200);
    assert_eq!(files(folder.path()), 0);
    assembler.feed(&commits());
    assert_eq!((assembler.drain().len(), assembler.idle()), (0, Some(Lsn(205))));
}

#[test]
fn what_was_not_sealed_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = on(folder.path(), 0);
    assembler.feed(&begins());
    assembler.feed(&insert("1"));
    assembler.feed(&insert("2"));
    assert_eq!(assembler.push(&is_prepared(), TIME).unwrap(), Step::Seal);
    assembler.disconnect();
    assert_eq!(files(folder.path()), 0);
    // Twice: it was sealed, but not confirmed.
    let mut assembler = assembler.described();
    assembler.prepared();
    assembler.disconnect();
    let mut assembler = assembler.described();
    assembler.prepared();
    assembler.feed(&commits());
    assert_eq!(assembler.drain(), whole());
}

#[test]
fn one_that_is_rolled_back_goes_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = on(folder.path(), 0);
    assembler.prepared();
    assembler.feed(&rolls_back());
    assert_eq!((assembler.has_block(), assembler.idle()), (false, Some(Lsn(205))));
    assert_eq!(files(folder.path()), 0);
    assembler.feed(&rolls_back());
}

#[test]
fn one_that_came_in_blocks_is_kept_without_what_was_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = on(folder.path(), 0);
    assembler.feed(&start(XID, true));
    assembler.feed(&of(XID, &relation(b'd', &[("id", true)])));
    for (level, value) in [(XID, "1"), (11, "gone"), (12, "2")] {
        assembler.feed(&of(level, &insert(value)));
    }
    assembler.feed(b"E");
    assembler.feed(&aborted(XID, 11));
    assembler.prepare_with(&about(b'p', &[0], [100, 105]));
    let mut assembler = on(folder.path(), 0);
    assembler.feed(&commits());
    assert_eq!(assembler.drain(), whole());
}

/// A confirmed one comes again in blocks, of which nobody knows whether they are all of it.
fn comes_again(assembler: &mut Assembler, folder: &Path) {
    assembler.feed(&start(XID, true));
    assembler.feed(&of(XID, &relation(b'd', &[("id", true)])));
    assembler.feed(&of(XID, &insert("1")));
    assembler.feed(b"E");
    let is_there = |kind| folder.join(format!("{XID}.{kind}")).is_file();
    assert!(["open", "sealed"].into_iter().all(is_there));
}

#[test]
fn one_that_comes_again_without_its_prepare_is_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = on(folder.path(), 0);
    assembler.prepared();
    assembler.disconnect();
    let mut assembler = assembler.described();
    comes_again(&mut assembler, folder.path());
    assembler.disconnect();
    assert_eq!(files(folder.path()), 1, "what came again is gone with its connection");
    // Another process, and its commit.
    let mut assembler = on(folder.path(), 0);
    comes_again(&mut assembler, folder.path());
    assembler.feed(&commits());
    assert_eq!(assembler.drain(), whole());
    // The sealed file and where it committed.
    assert_eq!(files(folder.path()), 2);
    assembler.settle(Lsn(205)).unwrap();
    assert_eq!(files(folder.path()), 0);
    let more = assembler.push(&start(XID, false), TIME);
    assert!(matches!(more, Err(AssembleError::Outside(_))), "{more:?}");
}

#[test]
fn one_that_comes_again_without_its_prepare_may_be_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = on(folder.path(), 0);
    assembler.prepared();
    comes_again(&mut assembler, folder.path());
    // That ends the blocks; its own end is another message.
    assembler.feed(&aborted(XID, XID));
    assert_eq!(files(folder.path()), 1);
    comes_again(&mut assembler, folder.path());
    assembler.feed(&rolls_back());
    assert_eq!(files(folder.path()), 0);
    let more = assembler.push(&start(XID, false), TIME);
    assert!(matches!(more, Err(AssembleError::Outside(_))), "{more:?}");
}

#[test]
fn only_another_prepare_puts_what_comes_again_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    // It came with a level that was rolled back, and comes without.
    let mut assembler = on(folder.path(), 0);
    assembler.feed(&start(XID, true));
    assembler.feed(&of(XID, &relation(b'd', &[("id", true)])));
    for (level, value) in [(XID, "1"), (11, "gone"), (XID, "2")] {
        assembler.feed(&of(level, &insert(value)));
    }
    assembler.feed(b"E");
    assembler.feed(&aborted(XID, 11));
    assembler.prepare_with(&about(b'p', &[0], [100, 105]));
    let mut assembler = on(folder.path(), 0);
    assembler.feed(&begins());
    assembler.feed(&insert("1"));
    assembler.feed(&insert("2"));
    assert_eq!(assembler.push(&is_prepared(), TIME).unwrap(), Step::Seal);
    // It ends before that is sealed: the old file holds.
    let late = assembler.seal();
    assembler.disconnect();
    late().unwrap();
    let mut assembler = on(folder.path(), 0);
    assembler.feed(&commits());
    assert_eq!(assembler.drain(), whole());
    // The same once more, to its end.
    let mut assembler = on(folder.path(), 0);
    comes_again(&mut assembler, folder.path());
    assembler.feed(&start(XID, false));
    assembler.feed(&of(XID, &insert("2")));
    assembler.feed(b"E");
    assembler.prepare_with(&about(b'p', &[0], [100, 105]));
    let mut assembler = on(folder.path(), 0);
    assembler.feed(&commits());
    assert_eq!(assembler.drain(), whole());
}

#[test]
fn a_commit_on_a_timeline_that_was_left_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    for in_the_journal in [false, true] {
        let mut assembler = on(folder.path(), 0);
        assembler.prepared();
        assembler.feed(&commits());
        assert_eq!(assembler.drain(), whole());
        // The journal has it or has not, and there is a failover.
        assembler.timeline_moved(Lsn(if in_the_journal { 205 } else { 105 })).unwrap();
        assembler.disconnect();
        assert_eq!(files(folder.path()), usize::from(!in_the_journal));
        assembler.settle(Lsn(300)).unwrap();
        // Much has committed since, and the one that was prepared has not.
        let mut assembler = on(folder.path(), 300);
        assert_eq!(files(folder.path()), usize::from(!in_the_journal));
        if !in_the_journal {
            assembler.feed(&about(b'K', &[0], [400, 405]));
            assert_eq!(assembler.drain().len(), 1);
            assembler.settle(Lsn(405)).unwrap();
            assert_eq!(files(folder.path()), 0);
        }
    }
}

#[test]
fn nothing_that_was_prepared_stays_when_the_slot_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    on(folder.path(), 0).prepared();
    let mut assembler = on(folder.path(), 0);
    assembler.feed(&commits());
    assembler.drain();
    assembler.disconnect();
    assembler.slot_renewed().unwrap();
    assert_eq!(files(folder.path()), 0);
    let commit = assembler.push(&commits(), TIME);
    assert!(commit.is_ok(), "the journal was given it: {commit:?}");
    let commit = assembler.push(&about(b'K', &[0], [400, 405]), TIME);
    assert!(matches!(commit, Err(AssembleError::Unprepared(_))), "{commit:?}");
}

#[test]
fn an_empty_one_leaves_only_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = on(folder.path(), 0);
    assembler.feed(&begins());
    assembler.prepare_with(&is_prepared());
    assembler.feed(&commits());
    assert_eq!((assembler.drain().len(), assembler.idle()), (0, Some(Lsn(205))));
    assembler.settle(Lsn(205)).unwrap();
    assert_eq!(files(folder.path()), 0);
}

#[test]
fn one_whose_file_is_damaged_is_told_from_what_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    for damage in [&b"damaged"[..], b""] {
        let mut assembler = on(folder.path(), 0);
        assembler.prepared();
        let file = folder.path().join(format!("{XID}.sealed"));
        match damage {
            b"" => std::fs::remove_file(file).unwrap(),
            damage => std::fs::write(file, damage).unwrap(),
        }
        let error = match assembler.push(&commits(), TIME) {
            Ok(_) => assembler.take_block().unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(error, AssembleError::Sealed(_)), "{error}");
    }
}

#[test]
fn a_commit_of_one_that_is_not_here_is_an_error() {
    let mut assembler = assembler(0).0;
    let commit = assembler.push(&commits(), TIME);
    assert!(matches!(commit, Err(AssembleError::Unprepared(_))), "{commit:?}");
    assembler.disconnect();
    assert!(matches!(assembler.push(&is_prepared(), TIME), Err(AssembleError::Outside(_))));
    assembler.feed(&begins());
    assert!(matches!(assembler.push(&begins(), TIME), Err(AssembleError::Nested)));
}
