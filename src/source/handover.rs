//! A session that is logged in, handed to tokio-postgres: so logins are done in one place, and both
//! kinds of connection get in by the same rules.
//!
//! tokio-postgres begins with a login of its own. It is told here what the server told us, and what
//! it says is kept from the server.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Connection, NoTls, tls};

use super::login::Session;
use super::net::Socket;

/// Length of what stands before every startup message: its own length.
const LENGTH: u32 = 4;

/// Makes a client of a session.
pub(super) async fn client(
    session: Session,
    user: &str,
) -> Result<(Client, Connection<Within, tls::NoTlsStream>), tokio_postgres::Error> {
    let greeting = greeting(&session);
    let (socket, rest) = session.wire.into_parts();
    let told = Bytes::from([greeting, rest].concat());
    let within = Within { socket, told, startup: Startup { seen: 0, total: LENGTH } };
    // TLS is below the socket already.
    Config::new().user(user).ssl_mode(SslMode::Disable).connect_raw(within, NoTls).await
}

/// What a server says after a login.
fn greeting(session: &Session) -> BytesMut {
    let mut greeting = BytesMut::new();
    message(b'R', &0_u32.to_be_bytes(), &mut greeting);
    for (name, value) in &session.parameters {
        message(b'S', format!("{name}\0{value}\0").as_bytes(), &mut greeting);
    }
    if session.key.len() == 8 {
        message(b'K', &session.key, &mut greeting);
    }
    message(b'Z', b"I", &mut greeting);
    greeting
}

fn message(tag: u8, body: &[u8], buffer: &mut BytesMut) {
    buffer.put_u8(tag);
    // A login is never this long (see `login::TALK_MAX`).
    buffer.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
    buffer.put_slice(body);
}

/// A socket to a server that has let us in.
pub(super) struct Within {
    socket: Box<dyn Socket>,
    /// What is read before the socket is.
    told: Bytes,
    startup: Startup,
}

/// How much of the startup message has been kept back.
struct Startup {
    seen: u32,
    total: u32,
}

impl Startup {
    /// How many of these bytes belong to it.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for byte in bytes {
            if self.seen >= LENGTH && self.seen >= self.total {
                break;
            }
            if self.seen < LENGTH {
                let so_far = if self.seen == 0 { 0 } else { self.total };
                self.total = so_far << 8 | u32::from(*byte);
            }
            self.seen += 1;
            taken += 1;
        }
        taken
    }
}

impl AsyncRead for Within {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.told.is_empty() {
            return Pin::new(&mut self.socket).poll_read(context, buffer);
        }
        let len = self.told.len().min(buffer.remaining());
        buffer.put_slice(&self.told[..len]);
        self.told.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Within {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.startup.take(bytes) {
            0 => Pin::new(&mut self.socket).poll_write(context, bytes),
            kept => Poll::Ready(Ok(kept)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(context))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_startup_message_is_kept_back_however_it_is_cut() {
        let sent = b"\0\0\0\x09hello, and what follows";
        for cut in 1..sent.len() {
            let mut startup = Startup { seen: 0, total: LENGTH };
            let mut passed = Vec::new();
            for mut piece in [&sent[..cut], &sent[cut..]] {
                while !piece.is_empty() {
                    match startup.take(piece) {
                        0 => {
                            passed.extend_from_slice(piece);
                            break;
                        }
                        kept => piece = &piece[kept..],
                    }
                }
            }
            assert_eq!(passed, b", and what follows", "cut at {cut}");
        }
    }
}
