//! From an address to a socket that is ready for a login: TCP or Unix, secured or not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::fault::Fault;
use super::tls;
use super::url::{TlsMode, Url};

/// Where PostgreSQL listens.
const DEFAULT_PORT: u16 = 5432;
/// For a host to take a connection, and for it to be secured.
const CONNECT: Duration = Duration::from_secs(10);

/// A byte stream to a server.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A connection before the login.
pub(super) struct Link {
    pub(super) socket: Box<dyn Socket>,
    /// What binds the login to the TLS below it.
    pub(super) binding: Option<Vec<u8>>,
}

/// Connects to one of the address's hosts: with each try to the next one.
pub(super) async fn connect(url: &Url, attempt: usize) -> Result<Link, Fault> {
    let targets = targets(url);
    let target = &targets[attempt % targets.len()];
    let limit = url.config.get_connect_timeout().copied().unwrap_or(CONNECT);
    let doing = format!("connect to {}", target.shown());
    match timeout(limit, target.open(url)).await {
        Ok(Ok(link)) => Ok(link),
        Ok(Err(error)) => Err(refused(&doing, &error, url)),
        Err(_) => Err(Fault::silent(&doing, limit)),
    }
}

fn refused(doing: &str, error: &io::Error, url: &Url) -> Fault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Fault::away(
            format!("{doing}: {error}"),
            "start PostgreSQL there, or correct host and port in `source.url`",
        ),
        io::ErrorKind::InvalidData if url.tls.mode != TlsMode::Disable => Fault::person(
            format!("{doing}: {error}"),
            "give the authority's certificate with `sslrootcert=FILE`, connect by a name that the \
             server's certificate has in its subjectAltName, or lower `sslmode` in `source.url`",
        ),
        io::ErrorKind::InvalidInput => {
            Fault::person(format!("{doing}: {error}"), "correct the file's name in `source.url`")
        }
        io::ErrorKind::Unsupported => Fault::person(
            format!("{doing}: {error}"),
            "set `ssl = on` on the server, or `sslmode=disable` in `source.url` on a network that \
             you trust",
        ),
        _ => Fault::broken(doing, error),
    }
}

struct Target {
    host: Host,
    /// Where the host is, if the address says so.
    address: Option<std::net::IpAddr>,
    port: u16,
}

fn targets(url: &Url) -> Vec<Target> {
    let (hosts, addresses) = (url.config.get_hosts(), url.config.get_hostaddrs());
    let port = |index: usize| match url.config.get_ports() {
        [] => DEFAULT_PORT,
        [port] => *port,
        ports => ports.get(index).copied().unwrap_or(DEFAULT_PORT),
    };
    (0..hosts.len().max(addresses.len()))
        .map(|index| {
            let address = addresses.get(index).copied();
            let named = hosts.get(index).cloned();
            let host = named.unwrap_or_else(|| {
                Host::Tcp(address.map(|address| address.to_string()).unwrap_or_default())
            });
            Target { host, address, port: port(index) }
        })
        .collect()
}

impl Target {
    fn shown(&self) -> String {
        match &self.host {
            Host::Tcp(name) => format!("{name}:{}", self.port),
            Host::Unix(folder) => format!("{}/.s.PGSQL.{}", folder.display(), self.port),
        }
    }

    async fn open(&self, url: &Url) -> io::Result<Link> {
        let name = match &self.host {
            Host::Unix(folder) => {
                let path = folder.join(format!(".s.PGSQL.{}", self.port));
                let socket = Box::new(UnixStream::connect(path).await?);
                return Ok(Link { socket, binding: None });
            }
            Host::Tcp(name) => name,
        };
        let stream = match self.address {
            Some(address) => TcpStream::connect((address, self.port)).await?,
            None => TcpStream::connect((name.as_str(), self.port)).await?,
        };
        keep_alive(&stream)?;
        secure(stream, name, url).await
    }
}

/// A link that goes silent is noticed also where nothing of ours is on its way.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    let socket = SockRef::from(stream);
    // What we sent and nobody acknowledged, keepalives do not notice.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))?;
    socket.set_tcp_keepalive(&keepalive)
}

async fn secure(mut stream: TcpStream, name: &str, url: &Url) -> io::Result<Link> {
    if url.tls.mode == TlsMode::Disable {
        return Ok(Link { socket: Box::new(stream), binding: None });
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    // One byte and no more: what somebody slipped in behind it must not be taken for the server's
    // words inside TLS (CVE-2021-23222).
    match stream.read_u8().await? {
        b'S' => {
            let stream = tls::secure(stream, name, &url.tls).await?;
            let certificates = stream.get_ref().1.peer_certificates();
            let binding = certificates.and_then(|chain| tls::end_point(chain.first()?));
            Ok(Link { socket: Box::new(stream), binding })
        }
        _ if url.tls.mode == TlsMode::Prefer => {
            Ok(Link { socket: Box::new(stream), binding: None })
        }
        _ => {
            let error = "the server has no TLS, and `sslmode` asks for it";
            Err(io::Error::new(io::ErrorKind::Unsupported, error))
        }
    }
}

/// Hands a link to tokio-postgres as one that it secured itself, so that TLS is done in one place
/// and its logins are bound to it, too.
pub(super) struct Secured(pub(super) Option<Vec<u8>>);

/// A secured stream, as tokio-postgres wants it.
pub(super) struct SecuredStream {
    socket: Box<dyn Socket>,
    binding: Option<Vec<u8>>,
}

impl TlsConnect<Box<dyn Socket>> for Secured {
    type Stream = SecuredStream;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<SecuredStream>>;

    fn connect(self, socket: Box<dyn Socket>) -> Self::Future {
        std::future::ready(Ok(SecuredStream { socket, binding: self.0 }))
    }
}

impl TlsStream for SecuredStream {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.binding {
            Some(binding) => ChannelBinding::tls_server_end_point(binding.clone()),
            None => ChannelBinding::none(),
        }
    }
}

impl AsyncRead for SecuredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for SecuredStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
