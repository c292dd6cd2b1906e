//! The receiving half of a running stream: reads, assembles, and hands blocks to the journal as it
//! has room.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::assembler::watermark::Ask;
use super::assembler::{AssembleError, Assembler, Step};
use super::config::Config;
use super::database::Database;
use super::fault::Fault;
use super::feedback::Progress;
use super::gather::Gather;
use super::wire::{ServerError, Wire, broken, server_error};
use crate::metrics::Metrics;
use crate::model::{Lsn, clock};
use crate::store::journal::{Append, Durable};
use crate::store::spill::SpillError;

/// Between two positions that are handed on without a change.
const IDLE: Duration = Duration::from_secs(1);
/// The same, when the server asks: one that shuts down waits for its last position.
const IDLE_ASKED: Duration = Duration::from_millis(200);
/// How long a silent server is believed in, at least.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same, for a server that never gives up itself.
const PATIENCE_FOR_EVER: Duration = Duration::from_secs(60);

/// What is to be done where the server cannot send open transactions.
const WHOLE: &str = "nothing: walmill asks for whole transactions from now on";

/// How a stream ends.
pub(super) enum End {
    /// We were asked to.
    Shutdown,
    /// The journal takes no more; it says why itself.
    JournalClosed,
}

/// A running stream.
pub(super) struct Stream<'a, R> {
    pub(super) wire: Wire<R>,
    pub(super) assembler: &'a mut Assembler,
    pub(super) appender: &'a mpsc::Sender<Append>,
    /// What backfills ask of the assembler.
    pub(super) asks: &'a mut mpsc::Receiver<Ask>,
    pub(super) database: &'a Database,
    pub(super) config: &'a Config,
    pub(super) progress: Arc<Progress>,
    pub(super) durable: watch::Receiver<Durable>,
    pub(super) metrics: &'a Metrics,
    /// A server that is silent for so long is gone.
    pub(super) patience: Duration,
    /// When the next position may be handed on without a change.
    pub(super) next_idle: Instant,
    /// Messages that have come were left where they are until a replay is done.
    pub(super) paused: bool,
    pub(super) gather: Gather,
}

/// How long a server that gives up on us after so long may be silent itself.
pub(super) fn patience(wal_sender_timeout: Option<Duration>) -> Duration {
    wal_sender_timeout.map_or(PATIENCE_FOR_EVER, |limit| (limit * 2).max(PATIENCE))
}

impl<R: AsyncRead + Unpin> Stream<'_, R> {
    /// Runs until `shutdown`, or until something breaks.
    pub(super) async fn run(&mut self, shutdown: &CancellationToken) -> Result<End, Fault> {
        loop {
            if self.paused && !self.assembler.is_replaying() {
                self.take_in().await?;
            }
            let idle = self.assembler.idle();
            tokio::select! {
                // In this order: what has come is taken in before what came earlier is handed on,
                // so that blocks grow with the load.
                biased;
                () = shutdown.cancelled() => return Ok(End::Shutdown),
                Some(ask) = self.asks.recv() => self.assembler.ask(ask),
                filled = timeout(self.patience, self.gather.fill(&mut self.wire)), if !self.assembler.is_full() => {
                    let silent = |_| Fault::silent("receive", self.patience);
                    filled.map_err(silent)?.map_err(|error| Fault::broken("receive", &error))?;
                    self.take_in().await?;
                }
                // The server hears from the feedback task for as long as this waits.
                room = self.appender.reserve(), if self.assembler.has_block() => {
                    let Ok(room) = room else { return Ok(End::JournalClosed) };
                    if let Some(append) = self.assembler.take_append().map_err(misassembled)? {
                        room.send(append);
                    }
                }
                () = sleep_until(self.next_idle), if idle.is_some() => {
                    self.hand_on(idle.unwrap_or_default());
                }
            }
        }
    }

    /// Hands on a position, if the journal has room: if not, there is enough to confirm anyway.
    fn hand_on(&mut self, position: Lsn) {
        self.next_idle = Instant::now() + IDLE;
        if self.appender.try_send(Append::Idle(position)).is_ok() {
            self.assembler.handed_on(position);
        }
    }

    /// Takes every whole message that has come, or those up to a commit whose transaction lies in
    /// a file.
    async fn take_in(&mut self) -> Result<(), Fault> {
        let received = clock::now();
        let wrong = |error| Fault::broken("receive", &error);
        self.paused = false;
        let mut messages = 0;
        while !self.paused
            && let Some((tag, body)) = self.wire.take().map_err(wrong)?
        {
            messages += 1;
            match (tag, body.split_first()) {
                (b'd', Some((b'w', data))) => {
                    // Start and end in the log, and the time it was sent.
                    let Some((head, message)) = data.split_first_chunk::<24>() else {
                        return Err(wrong(broken("a short message in the stream")));
                    };
                    self.progress.receive(lsn(head));
                    self.metrics.source_received.inc_by(message.len() as u64);
                    let step = self.assembler.push(message, received).map_err(misassembled)?;
                    self.follow(step).await?;
                    self.paused = self.assembler.is_replaying();
                }
                (b'd', Some((b'k', data))) => {
                    let (Some(head), Some(asks)) = (data.first_chunk::<8>(), data.get(16)) else {
                        return Err(wrong(broken("a short keepalive")));
                    };
                    let (end, asks) = (lsn(head), *asks != 0);
                    self.progress.receive(end);
                    self.assembler.reached(end);
                    if asks {
                        self.next_idle = self.next_idle.min(Instant::now() + IDLE_ASKED);
                        self.progress.asked.notify_one();
                    }
                }
                (b'E', _) => {
                    let error = server_error(body);
                    return Err(self.stopped(&error));
                }
                (b'c' | b'C', _) => {
                    return Err(Fault::away("the server ended the stream", "see the server's log"));
                }
                _ => {}
            }
        }
        self.gather.came(messages);
        self.count();
        self.assembler.settle(self.durable.borrow().lsn()).map_err(misassembled)
    }

    /// The server ended the stream with an error.
    fn stopped(&mut self, error: &ServerError) -> Fault {
        let slot = self.config.slot.as_str();
        // PostgreSQL can stumble over open transactions alone: where a savepoint that changed a
        // table was rolled back, it looks for the table that was never there, again and again.
        if error.is_internal() && self.config.streaming && !self.assembler.wants_whole() {
            self.assembler.ask_for_whole();
            return Fault::away(format!("stream from slot `{slot}`: {error}"), WHOLE);
        }
        Fault::stopped(error, &self.config.url, slot)
    }

    /// Does what a message leaves to do.
    async fn follow(&mut self, step: Step) -> Result<(), Fault> {
        match step {
            Step::Done => {}
            Step::PrimaryKey(table) => {
                let key = self.database.primary_key(table).await?;
                self.assembler.set_primary_key(&key);
            }
            Step::Array(of) => {
                let array = self.database.array(of).await?;
                self.assembler.set_array(of, array);
            }
            Step::Seal => {
                let lost = |error| Fault::broken("keep a prepared transaction", &error);
                let sealed = spawn_blocking(self.assembler.seal()).await;
                let sealed = sealed.map_err(|error| lost(io::Error::other(error)))?;
                sealed.map_err(|error| misassembled(error.into()))?;
                self.assembler.sealed();
            }
        }
        Ok(())
    }

    fn count(&mut self) {
        let counts = self.assembler.take_counts();
        self.metrics.source_transactions.inc_by(counts.transactions);
        self.metrics.source_changes.inc_by(counts.changes);
        self.metrics.source_spilled.inc_by(counts.spilled);
        if let Some(time) = counts.commit_time {
            self.progress.commit(time);
        }
    }
}

/// Reads to the end of a stream that we ended, so that the server takes our last word in.
pub(super) async fn drain<R: AsyncRead + Unpin>(wire: &mut Wire<R>) {
    while wire.fill().await.is_ok() {
        while let Ok(Some((tag, _))) = wire.take() {
            if matches!(tag, b'C' | b'E' | b'Z') {
                return;
            }
        }
    }
}

fn lsn<const N: usize>(head: &[u8; N]) -> Lsn {
    let first = head.first_chunk().copied().unwrap_or_default();
    Lsn(u64::from_be_bytes(first))
}

/// What the assembler could not do, as the source says it.
pub(super) fn misassembled(error: AssembleError) -> Fault {
    match error {
        AssembleError::Store(error) | AssembleError::Spill(SpillError::Store(error)) => {
            Fault::Store(error)
        }
        AssembleError::Spill(error) => Fault::away(
            format!("keep an open transaction: {error}"),
            "see the disk of `store.path`; what was received of open transactions comes again",
        ),
        AssembleError::Unprepared(_) => Fault::halt(
            error.to_string(),
            "its PREPARE was confirmed by another walmill, or with another `store.path`: go on with \
             that one, or start anew with a new slot and a new `store.path`",
        ),
        AssembleError::Sealed(_) => Fault::halt(
            error.to_string(),
            "PostgreSQL does not send it again: bring the file back, or start anew with a new slot \
             and a new `store.path`",
        ),
        AssembleError::Unclear(_) => Fault::away(error.to_string(), WHOLE),
        error => Fault::person(
            format!("the stream makes no sense: {error}"),
            "report this with the server's version; a proxy between walmill and PostgreSQL may be \
             the cause",
        ),
    }
}
