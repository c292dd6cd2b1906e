//! From an address to a socket that is ready for a login: TCP or Unix, secured or not.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use super::tls;
use super::url::{Host, Keepalive, Name, Negotiation, TlsMode, Url};
use super::user;

/// Where servers put their sockets, if nobody says otherwise.
const SOCKET_FOLDERS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// A byte stream to a server.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A connection before the login.
pub(super) struct Link {
    pub(super) socket: Box<dyn Socket>,
    /// Whether it is secured.
    pub(super) secured: bool,
    /// What binds the login to the TLS below it.
    pub(super) binding: Option<Vec<u8>>,
}

/// Where a host was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Which way a link is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Plain,
    /// TLS where the server has it.
    Tried,
    /// TLS and nothing else.
    Secured,
}

/// The ways that a mode has, in their order. TLS is for networks: a Unix socket is our machine's.
pub(super) fn ways(url: &Url, address: &Address) -> &'static [Way] {
    match (address, url.tls.mode) {
        (Address::Unix(_), _) | (_, TlsMode::Disable) => &[Way::Plain],
        (_, TlsMode::Allow) => &[Way::Plain, Way::Secured],
        (_, TlsMode::Prefer) => &[Way::Tried, Way::Plain],
        (_, TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull) => &[Way::Secured],
    }
}

/// Every address of a host, in the order in which the resolver gives them.
pub(super) async fn addresses(host: &Host) -> io::Result<Vec<Address>> {
    let name = match (&host.name, host.address) {
        (Name::Unix(folder), _) => return Ok(vec![Address::Unix(socket_file(folder, host.port))]),
        (_, Some(address)) => return Ok(vec![Address::Tcp((address, host.port).into())]),
        (Name::Default, None) => {
            let files = SOCKET_FOLDERS.map(|folder| socket_file(Path::new(folder), host.port));
            if let Some(file) = files.into_iter().find(|file| file.exists()) {
                return Ok(vec![Address::Unix(file)]);
            }
            "localhost"
        }
        (Name::Tcp(name), None) => name,
    };
    Ok(lookup_host((name, host.port)).await?.map(Address::Tcp).collect())
}

/// A name in the abstract namespace begins with `@`, and for the kernel with a zero byte.
fn socket_file(folder: &Path, port: u16) -> PathBuf {
    let file = folder.join(format!(".s.PGSQL.{port}"));
    match file.to_str().and_then(|file| file.strip_prefix('@')) {
        Some(name) => format!("\0{name}").into(),
        None => file,
    }
}

/// Connects, and secures the link as the way says.
pub(super) async fn open(url: &Url, host: &Host, at: &Address, way: Way) -> io::Result<Link> {
    let address = match at {
        Address::Unix(path) => {
            let socket = UnixStream::connect(path).await?;
            check_peer(&socket, url)?;
            return Ok(plain(socket));
        }
        Address::Tcp(address) => address,
    };
    let stream = TcpStream::connect(address).await?;
    keep_alive(&stream, &url.keepalive)?;
    match way {
        Way::Plain => Ok(plain(stream)),
        Way::Tried | Way::Secured => secure(stream, host, url, way).await,
    }
}

fn plain(socket: impl Socket + 'static) -> Link {
    Link { socket: Box::new(socket), secured: false, binding: None }
}

fn check_peer(socket: &UnixStream, url: &Url) -> io::Result<()> {
    let Some(wanted) = &url.peer else { return Ok(()) };
    match user::is(socket.peer_cred()?.uid(), wanted) {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("the server does not run as `{wanted}`, which `requirepeer` asks for"),
        )),
    }
}

/// A link that goes silent is noticed also where nothing of ours is on its way.
fn keep_alive(stream: &TcpStream, keepalive: &Keepalive) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    // What we sent and nobody acknowledged, keepalives do not notice.
    #[cfg(target_os = "linux")]
    if !keepalive.user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(keepalive.user_timeout))?;
    }
    if !keepalive.on {
        return Ok(());
    }
    let mut probes = TcpKeepalive::new();
    if !keepalive.idle.is_zero() {
        probes = probes.with_time(keepalive.idle);
    }
    if !keepalive.interval.is_zero() {
        probes = probes.with_interval(keepalive.interval);
    }
    if keepalive.count > 0 {
        probes = probes.with_retries(keepalive.count);
    }
    socket.set_tcp_keepalive(&probes)
}

async fn secure(mut stream: TcpStream, host: &Host, url: &Url, way: Way) -> io::Result<Link> {
    if url.tls.negotiation == Negotiation::Asked && !has_tls(&mut stream).await? {
        return match way {
            Way::Tried => Ok(plain(stream)),
            _ => {
                let error = "the server has no TLS, and `sslmode` asks for it";
                Err(io::Error::new(io::ErrorKind::Unsupported, error))
            }
        };
    }
    let name = match &host.name {
        Name::Tcp(name) => name,
        Name::Default | Name::Unix(_) => "localhost",
    };
    let stream = tls::secure(stream, name, &url.tls).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let binding = certificates.and_then(|chain| tls::end_point(chain.first()?));
    Ok(Link { socket: Box::new(stream), secured: true, binding })
}

/// One byte and no more: what somebody slipped in behind it must not be taken for the server's
/// words inside TLS (CVE-2021-23222).
async fn has_tls(stream: &mut TcpStream) -> io::Result<bool> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    match stream.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // Before there was TLS in PostgreSQL, or where there is no more room: an error, in clear.
        b'E' => Err(io::Error::other("the server refused the connection before TLS")),
        _ => Err(super::wire::broken("an answer to the request for TLS")),
    }
}
