//! What a connection's peer takes, and how long it may take nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::places::Place;

/// What a connection's peer has taken, for those who judge whether it is too slow.
#[derive(Debug, Default)]
pub(in crate::server) struct Progress {
    written: AtomicU64,
    stalled: AtomicBool,
}

impl Progress {
    /// Whether the connection was given up because its peer took nothing.
    pub(in crate::server) fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Notes that the connection is given up because its peer took nothing.
    pub(super) fn give_up(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// Waits for `work`, which writes, as long as the peer takes at least one byte per `patience`.
    pub(in crate::server) async fn patiently<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Stalled> {
        let mut work = std::pin::pin!(work);
        loop {
            let before = self.written.load(Ordering::Relaxed);
            match tokio::time::timeout(patience, work.as_mut()).await {
                Ok(done) => return Ok(done),
                Err(_) if self.written.load(Ordering::Relaxed) != before => {}
                Err(_) => return Err(Stalled),
            }
        }
    }
}

/// The peer took no byte for too long.
#[derive(Debug)]
pub(in crate::server) struct Stalled;

/// A socket that fails a write once the peer has taken nothing for `patience`.
pub(super) struct Wire<S> {
    stream: S,
    pub(super) progress: Arc<Progress>,
    /// Of its address. It is here because a WebSocket's socket outlives its HTTP connection.
    _place: Place,
    patience: Duration,
    /// Made at the first write that has to wait; `waiting` says whether it counts.
    deadline: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, patience: Duration, place: Place) -> Self {
        Self {
            stream,
            progress: Arc::default(),
            _place: place,
            patience,
            deadline: None,
            waiting: false,
        }
    }

    /// Notes how a write went; one that waits too long becomes an error.
    fn judge(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.progress.written.fetch_add(bytes as u64, Ordering::Relaxed);
                self.waiting = false;
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => self.wait(cx),
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(Duration::ZERO)));
        if !self.waiting {
            self.waiting = true;
            deadline.as_mut().reset(Instant::now() + self.patience);
        }
        std::task::ready!(deadline.as_mut().poll(cx));
        self.progress.stalled.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
