//! Accepts connections and keeps watch over each: time for its handshake and its headers, bytes
//! that wait for it, and how long it may take nothing.

mod body;
mod places;
mod taken;
mod wire;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::{GRACE, Server};
use places::{Addresses, Place};
use taken::{Answers, Sent};
use wire::Wire;
pub(super) use wire::{Progress, Stalled};

/// Time for a request's headers to arrive, on a fresh connection and on an idle one; and for a
/// handshake.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections beside the clients': health checks, metrics, pulls, the console.
const SPARE_CONNECTIONS: usize = 256;
/// The least that hyper needs for a request's headers.
const LEAST_BUFFER: usize = 16 << 10;
/// What every connection that speaks HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests that one connection has under way, over HTTP/2.
const MAX_REQUESTS: u32 = 100;
/// An HTTP/2 connection is asked so often whether it is still there.
const PING: Duration = Duration::from_secs(20);

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Accepts until shutdown, then waits for what is open, within [`GRACE`].
pub(super) async fn accept(listener: TcpListener, routes: Router, server: &Arc<Server>) {
    let open = TaskTracker::new();
    let room = server.config.max_clients.get().saturating_add(SPARE_CONNECTIONS);
    let room = Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS)));
    let addresses = Addresses::new(server.config.max_connections_per_address);
    loop {
        // While there is no room, further connections wait in the kernel's queue.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { break };
        let (stream, peer) = tokio::select! {
            () = server.shutdown.cancelled() => break,
            accepted = next_connection(&listener) => accepted,
        };
        let Some(seat) = addresses.admit(peer.ip()) else {
            debug!(%peer, "one connection too many from this address");
            continue;
        };
        let (routes, server) = (routes.clone(), Arc::clone(server));
        open.spawn(async move {
            serve_one((stream, peer), seat, routes, &server).await;
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
    if timeout(GRACE + Duration::from_secs(1), everyone_left).await.is_err() {
        warn!(connections = open.len(), "connections are left that did not end in time");
    }
}

/// The next connection, however long the system has no descriptors to spare.
async fn next_connection(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
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

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

async fn serve_one(
    (stream, peer): (TcpStream, SocketAddr),
    seat: Place,
    routes: Router,
    server: &Server,
) {
    let patience = server.config.client_timeout.duration() + GRACE;
    if let Err(error) = set_options(&stream, server.buffer(), patience) {
        debug!("set options of a connection: {error}");
        return;
    }
    let served = match &server.tls {
        None => {
            let Ok(Ok(version)) = timeout(HEADER_TIMEOUT, first_words(&stream)).await else {
                return;
            };
            serve_http(Wire::new(stream, patience, seat), version, peer, routes, server).await
        }
        Some(tls) => match timeout(HEADER_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let is_two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let version = if is_two { Version::Two } else { Version::One };
                serve_http(Wire::new(stream, patience, seat), version, peer, routes, server).await
            }
            Ok(Err(error)) => return debug!("handshake: {error}"),
            Err(_) => return debug!("no handshake in time"),
        },
    };
    if let Err(error) = served {
        debug!("connection: {error}");
    }
}

/// Which version a connection in plain speaks, by how it begins.
async fn first_words(stream: &TcpStream) -> io::Result<Version> {
    let mut words = [0; PREFACE.len()];
    loop {
        let len = stream.peek(&mut words).await?;
        match &words[..len] {
            [] => return Err(io::ErrorKind::UnexpectedEof.into()),
            PREFACE => return Ok(Version::Two),
            part if !PREFACE.starts_with(part) => return Ok(Version::One),
            // Not all of it is there, and waiting for what can be read would not wait.
            _ => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve_http<S>(
    wire: Wire<S>,
    version: Version,
    peer: SocketAddr,
    routes: Router,
    server: &Server,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (progress, answers) = (Arc::clone(&wire.progress), Answers::new());
    let (of_request, of_answers) = (Arc::clone(&progress), Arc::clone(&answers));
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(body::body);
        request.extensions_mut().insert(Arc::clone(&of_request));
        request.extensions_mut().insert(Peer(peer.ip()));
        let (answer, answers) = (routes.clone().oneshot(request), Arc::clone(&of_answers));
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(match version {
                Version::One => answer.map(Sent::unwatched),
                Version::Two => answer.map(|body| answers.watch(body)),
            })
        }
    });
    let io = TokioIo::new(wire);
    macro_rules! until_shutdown {
        ($connection:expr) => {{
            let mut connection = std::pin::pin!($connection);
            tokio::select! {
                result = connection.as_mut() => result,
                () = server.shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }};
    }
    match version {
        Version::One => {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            builder.max_buf_size(server.buffer().clamp(LEAST_BUFFER, 16 << 20));
            until_shutdown!(builder.serve_connection(io, service).with_upgrades())
        }
        Version::Two => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
            builder.max_concurrent_streams(MAX_REQUESTS).max_header_list_size(16 << 10);
            builder.max_send_buf_size(server.buffer().clamp(LEAST_BUFFER, 16 << 20));
            let served = async { until_shutdown!(builder.serve_connection(io, service)) };
            let patience = server.config.client_timeout.duration() + GRACE;
            tokio::select! {
                result = served => result,
                () = answers.untaken(patience) => {
                    progress.give_up();
                    debug!(%peer, "an answer was not taken in time");
                    Ok(())
                }
            }
        }
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
