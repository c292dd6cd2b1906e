//! What we tell PostgreSQL: a task of its own on the write half, which goes on while everything
//! behind the source is blocked. Only what is on disk here is confirmed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::status::Publisher;
use crate::model::{Lsn, clock};
use crate::mutation::{Mutation, is_on};
use crate::store::journal::Durable;

/// 2000-01-01 in microseconds since 1970-01-01: where PostgreSQL's clock starts.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
/// Between two confirmations of new positions.
const CONFIRM: Duration = Duration::from_millis(100);
/// Between two updates of our own status.
const SHOW: Duration = Duration::from_millis(500);
/// Between two words to a server that would wait for ever.
const LONGEST: Duration = Duration::from_secs(10);

/// How far the stream is, as its two halves tell each other.
#[derive(Debug, Default)]
pub(super) struct Progress {
    received: AtomicU64,
    server: AtomicU64,
    /// 0: none yet.
    commit_time: AtomicI64,
    /// The server wants a word from us.
    pub(super) asked: Notify,
}

impl Progress {
    pub(super) fn received(&self) -> Lsn {
        Lsn(self.received.load(Ordering::Relaxed))
    }

    pub(super) fn server(&self) -> Lsn {
        Lsn(self.server.load(Ordering::Relaxed))
    }

    pub(super) fn commit_time(&self) -> Option<i64> {
        Some(self.commit_time.load(Ordering::Relaxed)).filter(|time| *time != 0)
    }

    /// Everything up to `lsn` has come.
    pub(super) fn receive(&self, lsn: Lsn) {
        self.received.fetch_max(lsn.0, Ordering::Relaxed);
        self.see(lsn);
    }

    /// The server's log has reached `lsn`.
    pub(super) fn see(&self, lsn: Lsn) {
        self.server.fetch_max(lsn.0, Ordering::Relaxed);
    }

    pub(super) fn commit(&self, time: i64) {
        self.commit_time.store(time, Ordering::Relaxed);
    }
}

/// How often a server that waits so long for a word of ours gets one.
pub(super) fn rhythm(wal_sender_timeout: Option<Duration>) -> Duration {
    wal_sender_timeout.map_or(LONGEST, |limit| (limit / 3).min(LONGEST))
}

/// The task.
pub(super) struct Feedback<W> {
    pub(super) writer: W,
    pub(super) durable: watch::Receiver<Durable>,
    pub(super) progress: Arc<Progress>,
    pub(super) rhythm: Duration,
    pub(super) publisher: Publisher,
    /// Says the last word and ends.
    pub(super) end: CancellationToken,
}

impl<W: AsyncWrite + Unpin> Feedback<W> {
    /// Runs until its token is cancelled, then confirms the last position and ends the stream.
    pub(super) async fn run(mut self) -> io::Result<W> {
        let mut beat = every(self.rhythm);
        let mut show = every(SHOW);
        let (mut news, mut next_confirm) = (true, Instant::now());
        loop {
            tokio::select! {
                () = self.end.cancelled() => break,
                // An answer shows that the server is there, and says where its log ends: it would
                // not tell by itself when it waits for ever.
                _ = beat.tick() => self.update(Wanted::Answer).await?,
                () = self.progress.asked.notified() => self.update(Wanted::Nothing).await?,
                Ok(()) = self.durable.changed(), if !news => news = true,
                () = sleep_until(next_confirm), if news => {
                    news = false;
                    next_confirm = Instant::now() + CONFIRM;
                    self.update(Wanted::Nothing).await?;
                }
                _ = show.tick() => self.publisher.publish(&self.progress),
            }
        }
        self.update(Wanted::Nothing).await?;
        self.publisher.publish(&self.progress);
        let mut done = BytesMut::new();
        postgres_protocol::message::frontend::copy_done(&mut done);
        self.writer.write_all(&done).await?;
        self.writer.flush().await?;
        Ok(self.writer)
    }

    async fn update(&mut self, wanted: Wanted) -> io::Result<()> {
        let durable = self.durable.borrow_and_update().lsn();
        let received = self.progress.received().max(durable);
        let durable = if is_on(Mutation::ConfirmEarly) { received } else { durable };
        self.writer.write_all(&status_update(received, durable, wanted)).await?;
        self.writer.flush().await?;
        self.publisher.confirmed(durable);
        Ok(())
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What a status update asks of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Answer,
}

/// A CopyData with a standby status update.
fn status_update(received: Lsn, durable: Lsn, wanted: Wanted) -> BytesMut {
    let mut message = BytesMut::with_capacity(39);
    message.put_u8(b'd');
    message.put_u32(4 + 34);
    message.put_u8(b'r');
    // Written, flushed, applied. Only the second lets the server forget.
    message.put_u64(received.0);
    message.put_u64(durable.0);
    message.put_u64(durable.0);
    message.put_i64(clock::now() - POSTGRES_EPOCH);
    message.put_u8(u8::from(wanted == Wanted::Answer));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_update_confirms_only_what_is_durable() {
        let message = status_update(Lsn(9), Lsn(5), Wanted::Answer);
        assert_eq!(message.len(), 39);
        assert_eq!(message[5], b'r');
        assert_eq!(message[6..14], 9_u64.to_be_bytes());
        assert_eq!(message[14..22], 5_u64.to_be_bytes());
        assert_eq!(message[22..30], 5_u64.to_be_bytes());
        assert_eq!(message[38], 1);
    }

    #[test]
    fn the_server_hears_from_us_three_times_before_it_gives_up() {
        assert_eq!(rhythm(Some(Duration::from_secs(3))), Duration::from_secs(1));
        assert_eq!(rhythm(Some(Duration::from_secs(60))), LONGEST);
        assert_eq!(rhythm(None), LONGEST);
    }
}
