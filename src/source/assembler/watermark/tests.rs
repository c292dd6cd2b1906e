use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::*;
use crate::model::backfill::BackfillState;
use crate::model::{Column, Kind, ReplicaIdentity};
use crate::source::snapshot::copy::append_row;

const ID: ChunkId = ChunkId { run: 7, count: 3 };

#[test]
fn our_messages_are_known_of_every_run_and_others_are_not_ours() {
    for mark in [Mark::Low, Mark::High] {
        assert_eq!(ChunkId::read(ID.message(mark).as_bytes()), Some((mark, ID)));
    }
    assert!(is_ours("walmill", ID.message(Mark::Low).as_bytes()));
    assert!(!is_ours("other", ID.message(Mark::Low).as_bytes()));
    for content in ["", "hello", "backfill low", "backfill low 1 2 3", "backfill up 1 2"] {
        assert!(!is_ours("walmill", content.as_bytes()), "{content}");
    }
}

#[test]
fn a_snapshot_saw_what_had_ended_before_it() {
    let seen = Seen::read("4294967290:4294967300:4294967290,4294967298").unwrap();
    assert_eq!(seen.xmin, 4_294_967_290);
    // Behind the turn of the 32 bits: 2 is 4294967298.
    for (xid, saw) in [(4_294_967_289, true), (4_294_967_290, false), (1, true), (2, false)] {
        assert_eq!(seen.saw(xid), saw, "{xid}");
    }
    assert!(!seen.saw(4));
    assert!(Seen::read("10:10:").unwrap().saw(9));
    assert!(!Seen::read("10:10:").unwrap().saw(10));
    assert_eq!(Seen::read("10:x:"), None);
}

fn relation() -> Relation {
    let column = |name: &str, key| Column {
        name: name.into(),
        type_oid: 25,
        type_mod: -1,
        type_name: "text".into(),
        kind: Kind::Text,
        key,
    };
    Relation {
        oid: 5,
        schema: "public".into(),
        table: "t".into(),
        identity: ReplicaIdentity::Default,
        columns: vec![column("id", true), column("note", false)],
    }
}

/// A tuple of `id` and `note`; `~` stands for a value that was not sent again.
fn tuple(values: [&str; 2]) -> Vec<u8> {
    let mut bytes = vec![0, 2];
    for value in values {
        if value == "~" {
            bytes.push(b'u');
            continue;
        }
        bytes.push(b't');
        bytes.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value.as_bytes());
    }
    bytes
}

fn update(old: Option<[&str; 2]>, new: [&str; 2]) -> Vec<u8> {
    let mut message = b"U\0\0\0\x05".to_vec();
    if let Some(old) = old {
        message.push(b'K');
        message.extend(tuple(old));
    }
    message.push(b'N');
    message.extend(tuple(new));
    message
}

/// Watermarks with a chunk of the rows 1 to 4 between them.
struct Bench {
    watermarks: Watermarks,
    outcome: oneshot::Receiver<Outcome>,
}

impl Bench {
    fn new(before: &[u32]) -> Self {
        let mut watermarks = Watermarks::new();
        let done = || oneshot::channel().0;
        watermarks.ask(Ask::Note(done()));
        before.iter().for_each(|xid| watermarks.committed(*xid));
        let (sender, outcome) = oneshot::channel();
        let table = Keyed { oid: 5, primary_key: vec!["id".into()] };
        watermarks.ask(Ask::Open { id: ID, table, outcome: sender, done: done() });
        Self { watermarks, outcome }
    }

    fn low(&mut self) {
        assert!(self.watermarks.reached(ID.message(Mark::Low).as_bytes()).is_none());
    }

    fn change(&mut self, message: &[u8]) {
        let message = pgoutput::decode(message).unwrap();
        self.watermarks.note(Some(&relation()), &message);
        // Another table's changes are of no account.
        let other = Relation { oid: 6, ..relation() };
        self.watermarks.note(Some(&other), &pgoutput::decode(&update(None, ["4", "x"])).unwrap());
    }

    /// The rows that are placed, and the outcome.
    fn high(mut self, seen: &str) -> (Vec<String>, Outcome) {
        let mut frames = BytesMut::new();
        for id in 1..=4 {
            append_row(&mut frames, format!("{id}\told").as_bytes(), RelationId(9), 2).unwrap();
        }
        let names = ("public".to_owned(), "t".to_owned());
        let chunk = Chunk {
            frames: frames.freeze(),
            relation: relation(),
            seen: Seen::read(seen).unwrap(),
            primary_key: vec![0],
            backfill: Box::new(Backfill { at_end: true, ..Backfill::new(1, names, None) }),
        };
        self.watermarks.ask(Ask::Read(ID, Box::new(chunk), oneshot::channel().0));
        let mut rows = Vec::new();
        if let Some(placing) = self.watermarks.reached(ID.message(Mark::High).as_bytes()) {
            let placed = placing.place(Lsn(900), |message| {
                let Ok(Message::Row { new, .. }) = pgoutput::decode(message) else { panic!() };
                rows.push(format!("{:?}", new.iter().next().unwrap()));
            });
            self.watermarks.settle(placed);
        }
        (rows, self.outcome.try_recv().expect("an outcome"))
    }
}

fn settled(outcome: Outcome) -> (Option<Lsn>, Box<Backfill>) {
    match outcome {
        Outcome::Settled(commit, backfill) => (commit, backfill),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rows_that_changed_between_the_watermarks_are_left_out() {
    let mut bench = Bench::new(&[]);
    bench.change(&update(None, ["1", "before the low one"]));
    bench.low();
    bench.change(&update(None, ["2", "new"]));
    // A key that changes is two keys.
    bench.change(&update(Some(["3", "~"]), ["30", "new"]));
    let (rows, outcome) = bench.high("100:100:");
    assert_eq!(rows, ["\"1\"", "\"4\""]);
    let (commit, backfill) = settled(outcome);
    assert_eq!(
        (commit, backfill.rows_sent, backfill.state),
        (Some(Lsn(900)), 2, BackfillState::Done)
    );
}

#[test]
fn rows_that_the_stream_has_in_part_only_are_read_again() {
    let mut bench = Bench::new(&[]);
    bench.low();
    bench.change(&update(None, ["2", "~"]));
    bench.change(&update(None, ["3", "~"]));
    bench.change(&update(None, ["3", "all of it"]));
    bench.change(&update(Some(["4", "~"]), ["40", "~"]));
    let (rows, outcome) = bench.high("100:100:");
    assert_eq!(rows, ["\"1\""]);
    let (_, backfill) = settled(outcome);
    assert_eq!(backfill.again, [["40"], ["2"]].map(|key| key.map(str::to_owned).to_vec()));
    assert_eq!(backfill.state, BackfillState::Running);
}

#[test]
fn a_row_that_moved_before_the_low_watermark_is_read_again_too() {
    let mut bench = Bench::new(&[]);
    bench.change(&update(Some(["70", "~"]), ["0", "~"]));
    bench.low();
    let (rows, outcome) = bench.high("100:100:");
    assert_eq!(rows.len(), 4);
    assert_eq!(settled(outcome).1.again, [["0".to_owned()]]);
}

#[test]
fn a_commit_that_the_snapshot_did_not_see_makes_the_chunk_void() {
    let mut bench = Bench::new(&[50, 60]);
    bench.low();
    bench.watermarks.committed(70);
    assert_eq!(bench.high("60:100:60").1, Outcome::Unseen(60));
    // Behind the low watermark the stream's keys are known, whatever the snapshot saw.
    let mut bench = Bench::new(&[50, 60]);
    bench.low();
    bench.watermarks.committed(70);
    assert_eq!(bench.high("70:100:70").0.len(), 4);
    // A number that the snapshot had not come to yet.
    let mut bench = Bench::new(&[100]);
    bench.low();
    assert_eq!(bench.high("100:100:").1, Outcome::Unseen(100));
}

#[test]
fn an_emptied_table_and_another_key_make_the_chunk_void() {
    let mut bench = Bench::new(&[]);
    bench.low();
    bench.watermarks.emptied(Some(&Relation { oid: 6, ..relation() }));
    bench.watermarks.emptied(Some(&relation()));
    assert_eq!(bench.high("100:100:").1, Outcome::TableChanged);
    let mut bench = Bench::new(&[]);
    bench.low();
    bench.change(&update(None, ["2", "new"]));
    let mut other = relation();
    other.columns[1].key = true;
    bench.watermarks.note(Some(&other), &pgoutput::decode(&update(None, ["2", "x"])).unwrap());
    assert_eq!(bench.high("100:100:").1, Outcome::TableChanged);
}

#[test]
fn a_chunk_whose_rows_all_changed_is_no_transaction() {
    let mut bench = Bench::new(&[]);
    bench.low();
    for id in ["1", "2", "3", "4"] {
        bench.change(&update(None, [id, "new"]));
    }
    let (rows, outcome) = bench.high("100:100:");
    assert!(rows.is_empty());
    assert_eq!(settled(outcome).0, None);
}

#[test]
fn a_lost_connection_closes_the_window() {
    let mut bench = Bench::new(&[]);
    bench.low();
    bench.watermarks.disconnect();
    assert!(bench.watermarks.reached(ID.message(Mark::High).as_bytes()).is_none());
    assert!(bench.outcome.try_recv().is_err());
}

#[test]
fn the_backfill_goes_with_the_block_that_ends_its_chunk() {
    let mut bench = Bench::new(&[]);
    bench.low();
    let names = ("public".to_owned(), "t".to_owned());
    bench.watermarks.settled = Some((Lsn(900), Box::new(Backfill::new(1, names, None))));
    let block = |first: u64, last: u64, complete| Block {
        first: Lsn(first),
        part: 0,
        ordinal: 0,
        last: Lsn(last),
        complete,
        end: Lsn(last),
        time: 0,
        tables: Vec::new(),
        frames: Bytes::new(),
    };
    for before in [block(100, 899, true), block(900, 900, false)] {
        assert!(matches!(bench.watermarks.send_off(before), Append::Block(_)));
    }
    assert!(matches!(bench.watermarks.send_off(block(900, 950, true)), Append::Chunk(..)));
    assert!(matches!(bench.watermarks.send_off(block(951, 960, true)), Append::Block(_)));
}

#[test]
fn a_change_of_an_unknown_definition_makes_the_chunk_void() {
    let mut bench = Bench::new(&[]);
    bench.low();
    bench.watermarks.note(None, &pgoutput::decode(&update(None, ["2", "x"])).unwrap());
    assert_eq!(bench.high("100:100:").1, Outcome::TableChanged);
}
