//! A request's body, which has to come: one that drips would hold its connection for ever.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// Time that every body has.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that have to come in each second beyond that.
const SLOWEST: u32 = 1 << 10;

/// The body of a request whose head has just come.
pub(super) fn body(incoming: Incoming) -> Body {
    // Most requests have none.
    if incoming.is_end_stream() { Body::new(incoming) } else { Body::new(Paced::new(incoming)) }
}

/// A body that ends with an error when it comes too slowly.
struct Paced {
    body: Incoming,
    began: Instant,
    bytes: u64,
    over: Pin<Box<Sleep>>,
}

/// Why a body is not waited for.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the body came too slowly")]
    Slow,
    #[error(transparent)]
    Lost(#[from] hyper::Error),
}

impl Paced {
    fn new(body: Incoming) -> Self {
        let began = Instant::now();
        Self { body, began, bytes: 0, over: Box::pin(sleep_until(began + PATIENCE)) }
    }

    fn came(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let more = Duration::from_secs(self.bytes / u64::from(SLOWEST));
        self.over.as_mut().reset(self.began + PATIENCE + more);
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.came(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                ready!(self.over.as_mut().poll(context));
                Poll::Ready(Some(Err(Broken::Slow)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
