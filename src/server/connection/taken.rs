//! Whether an HTTP/2 connection's peer takes what it asked for. The peer opens a window for each
//! answer, and one that opens none holds the answer, with its memory and its place, while the
//! connection itself is alive and well: the socket tells nothing of it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often it is looked at, for each time that a peer may take nothing.
const LOOKS: u32 = 8;

/// The answers that are under way on one connection.
pub(super) struct Answers {
    began: Instant,
    all: Mutex<Vec<Weak<Taken>>>,
}

/// How far the peer has taken one answer.
struct Taken {
    began: Instant,
    /// When it last took something, or was given something to take, in milliseconds since `began`.
    last: AtomicU64,
    /// Bytes that were handed over and are not taken.
    waiting: AtomicU64,
    /// There is nothing more to take yet: it waits for us.
    idle: AtomicBool,
}

impl Answers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), all: Mutex::default() })
    }

    /// An answer's body, watched from now on.
    pub(super) fn watch(&self, body: Body) -> Sent {
        // Nothing is asked of a body before the peer has room for it.
        let taken = Taken {
            began: self.began,
            last: AtomicU64::new(millis(self.began.elapsed())),
            waiting: AtomicU64::new(0),
            idle: AtomicBool::new(false),
        };
        let taken = Arc::new(taken);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&taken));
        Sent { body, taken: Some(taken) }
    }

    /// Waits until of one of them the peer has taken nothing for so long.
    pub(super) async fn untaken(&self, patience: Duration) {
        let mut look = interval((patience / LOOKS).max(Duration::from_millis(1)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let patience = millis(patience);
        loop {
            look.tick().await;
            let now = millis(self.began.elapsed());
            let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            let mut all = all.iter().filter_map(Weak::upgrade);
            if all.any(|taken| taken.is_awaited() && now.saturating_sub(taken.last()) >= patience) {
                return;
            }
        }
    }
}

impl Taken {
    /// Whether it is for the peer to take something.
    fn is_awaited(&self) -> bool {
        !self.idle.load(Ordering::Relaxed) || self.waiting.load(Ordering::Relaxed) > 0
    }

    fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Something was taken, or can be.
    fn note(&self) {
        self.last.store(millis(self.began.elapsed()), Ordering::Relaxed);
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// An answer's body as it goes to the peer.
pub(super) struct Sent {
    body: Body,
    /// Over HTTP/1 the socket tells whether it is taken.
    taken: Option<Arc<Taken>>,
}

impl Sent {
    /// A body that nobody has to watch.
    pub(super) fn unwatched(body: Body) -> Self {
        Self { body, taken: None }
    }
}

impl HttpBody for Sent {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Some(taken) = &self.taken {
            taken.idle.store(frame.is_pending(), Ordering::Relaxed);
            taken.note();
        }
        let taken = &self.taken;
        frame.map(|next| {
            next.map(|frame| frame.map(|frame| frame.map_data(|bytes| Piece::new(bytes, taken))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that were handed over. They are advanced as the peer's window and its socket have room for
/// them, so every byte that it takes is seen.
pub(super) struct Piece {
    bytes: Bytes,
    taken: Option<Arc<Taken>>,
}

impl Piece {
    fn new(bytes: Bytes, taken: &Option<Arc<Taken>>) -> Self {
        if let Some(taken) = taken {
            taken.waiting.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Self { bytes, taken: taken.clone() }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(taken) = &self.taken
            && count > 0
        {
            taken.waiting.fetch_sub(count as u64, Ordering::Relaxed);
            taken.note();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn next(body: &mut Sent) -> Option<Piece> {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        frame.unwrap().into_data().ok()
    }

    async fn is_untaken(answers: &Answers) -> bool {
        // The first look is at once.
        answers.untaken(PATIENCE).now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_never_asked_for_is_noticed() {
        let answers = Answers::new();
        let body = answers.watch(Body::from("an answer"));
        advance(PATIENCE / 2).await;
        assert!(!is_untaken(&answers).await);
        advance(PATIENCE / 2).await;
        assert!(is_untaken(&answers).await);
        drop(body);
        assert!(!is_untaken(&answers).await, "it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_byte_now_and_then_is_waited_for_and_who_stops_is_not() {
        let answers = Answers::new();
        let mut body = answers.watch(Body::from(vec![b'x'; 1 << 20]));
        let mut piece = next(&mut body).await.unwrap();
        for _ in 0..20 {
            advance(PATIENCE * 3 / 4).await;
            assert!(!is_untaken(&answers).await, "it took a byte not long ago");
            piece.advance(1);
        }
        advance(PATIENCE).await;
        assert!(is_untaken(&answers).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_nothing_to_say_waits_for_us_once_all_is_taken() {
        let answers = Answers::new();
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from("xx"))]);
        let silent = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        let mut body = answers.watch(Body::from_stream(silent));
        let mut piece = next(&mut body).await.unwrap();
        assert!(next(&mut body).now_or_never().is_none());
        piece.advance(1);
        advance(PATIENCE).await;
        assert!(is_untaken(&answers).await, "there is a byte to take");
        piece.advance(1);
        advance(PATIENCE * 10).await;
        assert!(!is_untaken(&answers).await);
    }

    #[tokio::test]
    async fn what_comes_out_is_what_went_in() {
        let content: Vec<u8> = (0..=u8::MAX).cycle().take(40_000).collect();
        for watched in [true, false] {
            let body = Body::from(content.clone());
            let answers = Answers::new();
            let mut body = if watched { answers.watch(body) } else { Sent::unwatched(body) };
            assert_eq!(body.size_hint().exact(), Some(content.len() as u64));
            let mut out = Vec::new();
            while let Some(mut piece) = next(&mut body).await {
                out.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
            }
            assert!(out == content && body.is_end_stream());
        }
    }
}
