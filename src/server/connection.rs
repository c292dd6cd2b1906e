//! Accepts connections and keeps watch over each: time for its headers, bytes that wait for it, and
//! how long it may take nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::{GRACE, Server};

/// Time for a request's headers to arrive, on a fresh connection and on an idle one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections beside the clients': health checks, metrics, pulls, the console.
const SPARE_CONNECTIONS: usize = 256;
/// The least that hyper needs for a request's headers.
const LEAST_BUFFER: usize = 16 << 10;

/// Accepts until shutdown, then waits for what is open, within [`GRACE`].
pub(super) async fn accept(listener: TcpListener, routes: Router, server: &Arc<Server>) {
    let open = TaskTracker::new();
    let room = server.config.max_clients.get().saturating_add(SPARE_CONNECTIONS);
    let room = Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS)));
    loop {
        // While there is no room, further connections wait in the kernel's queue.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { break };
        let stream = tokio::select! {
            () = server.shutdown.cancelled() => break,
            stream = next_connection(&listener) => stream,
        };
        let (routes, server) = (routes.clone(), Arc::clone(server));
        open.spawn(async move {
            serve_one(stream, routes, &server).await;
            drop(place);
        });
    }
    drop(listener);
    open.close();
    let everyone_left = async {
        open.wait().await;
        server.visits.ended().await;
    };
    // Clients have GRACE for their last message; the rest is for what that leaves to do.
    if tokio::time::timeout(GRACE + Duration::from_secs(1), everyone_left).await.is_err() {
        warn!(connections = open.len(), "connections are left that did not end in time");
    }
}

/// The next connection, however long the system has no descriptors to spare.
async fn next_connection(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                warn!("accept connection: {error}");
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

/// Whether the connection was given up before we took it.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve_one(stream: TcpStream, routes: Router, server: &Server) {
    let buffer = server.buffer();
    let patience = server.config.client_timeout.duration() + GRACE;
    if let Err(error) = set_options(&stream, buffer, patience) {
        debug!("set options of a connection: {error}");
        return;
    }
    let wire = Wire::new(stream, patience);
    let progress = Arc::clone(&wire.progress);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&progress));
        routes.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(buffer.clamp(LEAST_BUFFER, 16 << 20))
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = server.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!("connection: {error}");
    }
}

fn set_options(stream: &TcpStream, buffer: usize, patience: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_keepalive(true)?;
    bound_the_kernel(&socket, buffer, patience + GRACE)
}

/// The kernel would otherwise keep megabytes for a client that does not read, and minutes of faith
/// in one whose network is gone.
#[cfg(target_os = "linux")]
fn bound_the_kernel(socket: &SockRef<'_>, buffer: usize, patience: Duration) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(u32::try_from(buffer).unwrap_or(u32::MAX))?;
    socket.set_tcp_user_timeout(Some(patience))
}

/// Other systems have no such bounds.
#[cfg(not(target_os = "linux"))]
fn bound_the_kernel(_: &SockRef<'_>, _: usize, _: Duration) -> io::Result<()> {
    Ok(())
}

/// What a connection's peer has taken, for those who judge whether it is too slow.
#[derive(Debug, Default)]
pub(super) struct Progress {
    written: AtomicU64,
    stalled: AtomicBool,
}

impl Progress {
    /// Whether the connection was given up because its peer took nothing.
    pub(super) fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Waits for `work`, which writes, as long as the peer takes at least one byte per `patience`.
    pub(super) async fn patiently<T>(
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
pub(super) struct Stalled;

/// A socket that fails a write once the peer has taken nothing for `patience`.
struct Wire {
    stream: TcpStream,
    progress: Arc<Progress>,
    patience: Duration,
    /// Made at the first write that has to wait; `waiting` says whether it counts.
    deadline: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Wire {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, progress: Arc::default(), patience, deadline: None, waiting: false }
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

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
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
