//! What a backfill and the stream say to each other: the watermarks' messages, a chunk that was
//! read, and what became of it.

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::model::backfill::Backfill;
use crate::model::{Lsn, Relation};

/// The prefix of walmill's own messages.
pub(in crate::source) const PREFIX: &str = "walmill";
/// Which of a chunk's two messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum Mark {
    Low,
    High,
}

/// A chunk's number: a random one of this run, and a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) struct ChunkId {
    pub(in crate::source) run: u64,
    pub(in crate::source) count: u64,
}

impl ChunkId {
    /// What its message says.
    pub(in crate::source) fn message(self, mark: Mark) -> String {
        let word = match mark {
            Mark::Low => "low",
            Mark::High => "high",
        };
        format!("backfill {word} {:016x} {}", self.run, self.count)
    }

    /// Reads such a message, of whichever run.
    pub(super) fn read(content: &[u8]) -> Option<(Mark, Self)> {
        let mut words = std::str::from_utf8(content).ok()?.strip_prefix("backfill ")?.split(' ');
        let mark = match words.next()? {
            "low" => Mark::Low,
            "high" => Mark::High,
            _ => return None,
        };
        let run = u64::from_str_radix(words.next()?, 16).ok()?;
        let count = words.next()?.parse().ok()?;
        words.next().is_none().then_some((mark, Self { run, count }))
    }
}

/// Whether a message is one of ours, and never an event.
pub(in crate::source) fn is_ours(prefix: &str, content: &[u8]) -> bool {
    prefix == PREFIX && ChunkId::read(content).is_some()
}

/// What was committed, as one snapshot of the server saw it (`pg_snapshot`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) struct Seen {
    /// The first transaction that had not ended, and all behind it that is not named.
    xmax: u32,
    /// The ones before it that had not ended.
    running: Vec<u32>,
    /// Everything before this one had ended. The whole number: transactions are counted beyond the
    /// 32 bits of a transaction's own number.
    pub(in crate::source) xmin: u64,
}

impl Seen {
    /// Reads `xmin:xmax:xid,xid,…`.
    pub(in crate::source) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let xmin = parts.next()?.parse().ok()?;
        let xmax: u64 = parts.next()?.parse().ok()?;
        let running = parts.next()?.split(',').filter(|xid| !xid.is_empty());
        // The stream knows the lower half only.
        let running = running.map(|xid| xid.parse().map(|xid: u64| xid as u32).ok());
        Some(Self { xmax: xmax as u32, running: running.collect::<Option<_>>()?, xmin })
    }

    /// Whether it saw what this transaction did.
    pub(super) fn saw(&self, xid: u32) -> bool {
        // Transaction numbers go round; half of them lie before any other.
        let before = (xid.wrapping_sub(self.xmax) as i32) < 0;
        before && !self.running.contains(&xid)
    }
}

/// A chunk that was read.
#[derive(Debug)]
pub(in crate::source) struct Chunk {
    /// Its rows, as frames.
    pub(in crate::source) frames: Bytes,
    /// Their table, as the frames say it.
    pub(in crate::source) relation: Relation,
    pub(in crate::source) seen: Seen,
    /// Where in the frames' rows its primary key is.
    pub(in crate::source) primary_key: Vec<usize>,
    /// The backfill as it is behind it, but for the rows that are left out.
    pub(in crate::source) backfill: Box<Backfill>,
}

/// What became of a chunk.
#[derive(Debug, PartialEq)]
pub(in crate::source) enum Outcome {
    /// It is a transaction at this place, which goes to the journal together with the backfill. No
    /// place: each of its rows has changed meanwhile, so the stream has them.
    Settled(Option<Lsn>, Box<Backfill>),
    /// This transaction's commit came before the low watermark, and the snapshot did not see it.
    Unseen(u32),
    /// More changed between the watermarks than is noted.
    TooMany,
    /// More was committed since the chunk before than is noted: the notes begin anew.
    NotesLost,
    /// The table was emptied or changed between the watermarks.
    TableChanged,
}

/// A table and the columns of its primary key, in the key's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) struct Keyed {
    pub(in crate::source) oid: u32,
    pub(in crate::source) primary_key: Vec<String>,
}

/// What a backfill asks of the stream. Each is done when its answer comes.
#[derive(Debug)]
pub(in crate::source) enum Ask {
    /// Note the transactions that commit from now on. A chunk that is not placed by now never will
    /// be.
    Note(oneshot::Sender<()>),
    /// A low watermark will come, for this table.
    Open { id: ChunkId, table: Keyed, outcome: oneshot::Sender<Outcome>, done: oneshot::Sender<()> },
    /// The chunk is read, and the high watermark will come.
    Read(ChunkId, Box<Chunk>, oneshot::Sender<()>),
    /// Note nothing any more.
    Rest(oneshot::Sender<()>),
}
