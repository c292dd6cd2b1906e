//! Whether an HTTP/2 connection's peer takes what it asked for. The peer opens a window for each
//! answer, and one that opens none holds the answer, with its memory and its place, while the
//! connection itself is alive and well: the socket tells nothing of it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Bytes that are handed over at once. What is handed over waits outside of the body, where nobody
/// sees whether it is taken, so it is little.
const PIECE: usize = 16 << 10;
/// How often it is looked at, for each time that a peer may take nothing.
const LOOKS: u32 = 8;
/// In place of the time since when a body waits for the peer.
const WAITS_FOR_US: u64 = u64::MAX;

/// The answers that are under way on one connection.
pub(super) struct Answers {
    began: Instant,
    /// Of each, since when it waits for the peer, in milliseconds since `began`.
    since: Mutex<Vec<Weak<AtomicU64>>>,
}

impl Answers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), since: Mutex::default() })
    }

    /// An answer's body, watched from now on.
    pub(super) fn watch(self: &Arc<Self>, body: Body) -> Body {
        // Nothing is asked of a body before the peer has room for it.
        let since = Arc::new(AtomicU64::new(self.now()));
        let mut all = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&since));
        drop(all);
        Body::new(Watched { body, rest: Bytes::new(), answers: Arc::clone(self), since })
    }

    /// Waits until one of them has waited for the peer for so long.
    pub(super) async fn untaken(&self, patience: Duration) {
        let mut look = interval((patience / LOOKS).max(Duration::from_millis(1)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        loop {
            look.tick().await;
            let now = self.now();
            let all = self.since.lock().unwrap_or_else(PoisonError::into_inner);
            let too_long = |since: &Weak<AtomicU64>| {
                let Some(since) = since.upgrade() else { return false };
                // One that waits for us has a time that never comes.
                now.saturating_sub(since.load(Ordering::Relaxed)) >= patience
            };
            if all.iter().any(too_long) {
                return;
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(WAITS_FOR_US - 1)
    }
}

/// A body that notes when it was asked for more.
struct Watched {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
    answers: Arc<Answers>,
    since: Arc<AtomicU64>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.since.store(WAITS_FOR_US, Ordering::Relaxed);
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = PIECE.min(self.rest.len());
        let piece = self.rest.split_to(piece);
        self.since.store(self.answers.now(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of_body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower().saturating_add(rest));
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn next(body: &mut Body) -> Option<Bytes> {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        frame.unwrap().into_data().ok()
    }

    async fn is_untaken(answers: &Answers) -> bool {
        // The first look is at once.
        answers.untaken(PATIENCE).now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_never_asked_for_is_noticed_and_one_that_is_taken_is_not() {
        let answers = Answers::new();
        let mut body = answers.watch(Body::from(vec![b'x'; 3 * PIECE]));
        advance(PATIENCE / 2).await;
        assert_eq!(next(&mut body).await.unwrap().len(), PIECE);
        advance(PATIENCE * 3 / 4).await;
        assert!(!is_untaken(&answers).await, "it took a piece not long ago");
        advance(PATIENCE / 2).await;
        assert!(is_untaken(&answers).await);
        assert_eq!(next(&mut body).await.unwrap().len(), PIECE);
        assert!(!is_untaken(&answers).await);
        drop(body);
        advance(PATIENCE * 2).await;
        assert!(!is_untaken(&answers).await, "it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_nothing_to_say_yet_waits_for_us() {
        let answers = Answers::new();
        let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let mut body = answers.watch(Body::from_stream(silent));
        assert!(next(&mut body).now_or_never().is_none());
        advance(PATIENCE * 10).await;
        assert!(!is_untaken(&answers).await);
    }

    #[tokio::test]
    async fn what_comes_out_is_what_went_in() {
        let content: Vec<u8> = (0..PIECE * 2 + 7).map(|at| at as u8).collect();
        let mut body = Answers::new().watch(Body::from(content.clone()));
        assert_eq!(body.size_hint().exact(), Some(content.len() as u64));
        let mut out = Vec::new();
        while let Some(piece) = next(&mut body).await {
            out.extend_from_slice(&piece);
        }
        assert!(out == content && body.is_end_stream());
    }
}
