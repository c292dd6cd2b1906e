//! Memory for the pages that are made and sent at the same time, by all who pull together.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::FULL;
use crate::model::Finding;
use crate::server::problem::Problem;
use crate::server::visit::Place;

/// Bytes of all pages together.
const MOST: usize = 256 << 20;
/// Bytes of one permit: a semaphore of tokio's counts to 2^29 on small machines.
const UNIT: usize = 1 << 10;
/// Bytes that are handed over at once, so that what is not taken yet is counted here.
const PIECE: usize = 64 << 10;

/// The memory that is left.
pub(in crate::server) struct Room(Arc<Semaphore>);

/// Memory for one page.
pub(super) struct Share {
    of: Arc<Semaphore>,
    permits: OwnedSemaphorePermit,
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST / UNIT)))
    }
}

impl Room {
    /// Memory for a full page, or the word that there is none now.
    pub(super) fn share(&self) -> Result<Share, Problem> {
        Ok(Share { of: Arc::clone(&self.0), permits: take(&self.0, FULL)? })
    }
}

impl Share {
    /// A page as it was made. It needs less than a full one, or more: its last event may be large,
    /// so large even that it takes all the memory that there is for pages.
    pub(super) fn hold(mut self, mut json: Vec<u8>, place: Place) -> Result<Body, Problem> {
        json.shrink_to_fit();
        let (has, needs) = (self.permits.num_permits(), json.capacity().div_ceil(UNIT));
        let needs = needs.min(MOST / UNIT);
        if needs > has {
            self.permits.merge(take(&self.of, (needs - has) * UNIT)?);
        } else {
            drop(self.permits.split(has - needs));
        }
        let held = Held { json, _permits: self.permits, _place: place };
        Ok(Body::new(Sent(Bytes::from_owner(held))))
    }
}

fn take(room: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
    let permits = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
    Arc::clone(room).try_acquire_many_owned(permits).map_err(|_| {
        let message = "pages for others take all the memory there is for them";
        let finding =
            Finding::error("too-many-pages", "", message).suggest("ask again in a moment");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, finding)
    })
}

/// A page, and what it was let in with, until its last byte is taken.
struct Held {
    json: Vec<u8>,
    _permits: OwnedSemaphorePermit,
    _place: Place,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// A page's body.
struct Sent(Bytes);

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = PIECE.min(self.0.len());
        let piece = self.0.split_to(piece);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use axum::response::IntoResponse as _;
    use futures_util::StreamExt as _;

    use super::*;
    use crate::metrics::Metrics;
    use crate::server::visit::Visits;

    #[tokio::test]
    async fn pages_take_no_more_memory_together_than_there_is_and_give_it_back_when_they_are_taken()
    {
        let visits = Visits::new(Arc::new(Metrics::new()), NonZeroUsize::new(1000).unwrap());
        let room = Room::default();
        let place = || visits.place().ok().unwrap();
        let full = || room.share().ok().unwrap().hold(vec![b'x'; FULL], place()).ok().unwrap();
        let mut pages: Vec<Body> = (0..MOST / FULL).map(|_| full()).collect();
        let refused = room.share().err().unwrap().into_response();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        // One piece is not all of it.
        let mut pieces = pages.pop().unwrap().into_data_stream();
        assert_eq!(pieces.next().await.unwrap().unwrap().len(), PIECE);
        assert!(room.share().is_err());
        while pieces.next().await.is_some() {}
        drop(pieces);
        // A small page needs little, and one that is too large for what is left is not sent.
        let small = room.share().ok().unwrap().hold(vec![b'x'; UNIT], place()).ok().unwrap();
        assert!(room.share().is_err());
        drop((small, pages.pop()));
        let large = room.share().ok().unwrap().hold(vec![b'x'; 3 * FULL], place());
        assert!(large.is_err());
        pages.clear();
        let largest = room.share().ok().unwrap().hold(vec![b'x'; MOST + FULL], place());
        assert!(largest.is_ok() && room.share().is_err(), "alone it has all of it");
        drop(largest);
        assert_eq!(room.0.available_permits(), MOST / UNIT);
    }
}
