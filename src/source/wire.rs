//! PostgreSQL's messages off a socket, without a copy: reads grow one buffer, and messages are
//! slices of it (PostgreSQL docs, "Message Formats").

use std::fmt;
use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A value is at most 1 GiB in PostgreSQL, and no message is larger.
const MESSAGE_MAX: usize = 1 << 30;
/// Room for one read. Larger messages make the buffer grow as they come in.
const READ: usize = 256 << 10;
/// Tag and length.
const HEADER: usize = 5;

/// What arrives from a server.
pub(super) struct Wire<S> {
    pub(super) socket: S,
    buffer: BytesMut,
    /// What of the buffer has been taken.
    taken: usize,
}

/// What the server refused, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ServerError {
    /// SQLSTATE.
    pub(super) code: String,
    pub(super) message: String,
}

impl ServerError {
    /// Whether it is about the server itself, and not about what was asked of it (class XX).
    pub(super) fn is_internal(&self) -> bool {
        self.code.starts_with("XX")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl<S> Wire<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, buffer: BytesMut::new(), taken: 0 }
    }

    /// The same stream of messages, read from another end of the socket.
    pub(super) fn split<T, W>(self, split: impl FnOnce(S) -> (T, W)) -> (Wire<T>, W) {
        let (socket, other) = split(self.socket);
        (Wire { socket, buffer: self.buffer, taken: self.taken }, other)
    }

    /// The socket, and what was read from it and not taken.
    pub(super) fn into_parts(mut self) -> (S, BytesMut) {
        self.buffer.advance(self.taken);
        (self.socket, self.buffer)
    }

    /// The next whole message that is here: its tag and what it says.
    pub(super) fn take(&mut self) -> io::Result<Option<(u8, &[u8])>> {
        let Some(total) = self.next_len()? else { return Ok(None) };
        let start = self.taken;
        if self.buffer.len() - start < total {
            return Ok(None);
        }
        self.taken += total;
        let message = &self.buffer[start..start + total];
        Ok(Some((message[0], &message[HEADER..])))
    }

    /// Length of the next message, once its header is here.
    fn next_len(&self) -> io::Result<Option<usize>> {
        let Some((header, _)) = self.buffer[self.taken..].split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        match len {
            4..MESSAGE_MAX => Ok(Some(len + 1)),
            _ => Err(broken(format_args!("a message of {len} bytes"))),
        }
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Reads what has come. Can be cancelled without losing a byte.
    pub(super) async fn fill(&mut self) -> io::Result<()> {
        self.make_room();
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn make_room(&mut self) {
        self.buffer.advance(self.taken);
        self.taken = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * READ {
            // What one large message needed is not kept for the small ones behind it.
            self.buffer = BytesMut::new();
        }
        if self.buffer.capacity() - self.buffer.len() < READ / 4 {
            // Doubles, so that memory follows what came and not what a length promised.
            self.buffer.reserve(READ.max(self.buffer.len()));
        }
    }

    /// Waits for the next message and takes a copy of it: for the rare ones around a login.
    pub(super) async fn next(&mut self) -> io::Result<(u8, Bytes)> {
        self.next_within(MESSAGE_MAX).await
    }

    /// The same, from somebody who is not trusted with more than this many bytes.
    pub(super) async fn next_within(&mut self, limit: usize) -> io::Result<(u8, Bytes)> {
        loop {
            if self.next_len()?.is_some_and(|len| len > limit) {
                return Err(broken("more than a server has to say"));
            }
            if let Some((tag, body)) = self.take()? {
                return Ok((tag, Bytes::copy_from_slice(body)));
            }
            self.fill().await?;
        }
    }
}

/// An error for bytes that make no sense.
pub(super) fn broken(what: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not PostgreSQL's protocol: {what}"))
}

/// An ErrorResponse. Its words may end on a terminal, which they must not steer.
pub(super) fn server_error(body: &[u8]) -> ServerError {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(char::is_control, " ");
    let mut error = ServerError::default();
    for field in body.split(|byte| *byte == 0) {
        match field.split_first() {
            Some((b'C', code)) => error.code = text(code),
            Some((b'M', message)) => error.message = text(message),
            _ => {}
        }
    }
    error
}

/// A DataRow; NULL and what is no text are empty.
pub(super) fn row(mut body: &[u8]) -> io::Result<Vec<String>> {
    let short = || broken("a short row");
    let columns = body.try_get_u16().map_err(|_| short())?;
    let mut values = Vec::new();
    for _ in 0..columns {
        let len = body.try_get_i32().map_err(|_| short())?;
        // -1 is NULL.
        let len = usize::try_from(len).unwrap_or(0);
        let (value, rest) = body.split_at_checked(len).ok_or_else(short)?;
        values.push(String::from_utf8_lossy(value).into_owned());
        body = rest;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn messages_come_whole_however_they_arrive() {
        let sent = b"Z\0\0\0\x05Id\0\0\0\x07abcS\0\0\0\x04";
        for cut in 1..sent.len() {
            let mut wire = Wire::new(AsyncReadExt::chain(&sent[..cut], &sent[cut..]));
            assert_eq!(wire.next().await.unwrap(), (b'Z', Bytes::from("I")));
            assert_eq!(wire.next().await.unwrap(), (b'd', Bytes::from("abc")));
            assert_eq!(wire.next().await.unwrap(), (b'S', Bytes::new()));
            let end = wire.next().await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn a_length_beyond_all_bounds_is_refused_before_memory_is_taken() {
        for sent in [b"d\xFF\xFF\xFF\xFF", b"d\x40\0\0\0", b"d\0\0\0\x03"] {
            let mut wire = Wire::new(&sent[..]);
            assert_eq!(wire.next().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let mut wire = Wire::new(&b"d\x3F\xFF\xFF\xFFabc"[..]);
        assert_eq!(wire.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(wire.buffer.capacity() <= 2 * READ);
    }

    #[test]
    fn an_error_has_code_and_message() {
        let error = server_error(b"SFATAL\0C28P01\0Mpassword authentication failed\0\0");
        assert_eq!(error.to_string(), "password authentication failed (28P01)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_rows_and_errors_or_refused(bytes: Vec<u8>) {
            let _ = row(&bytes);
            let _ = server_error(&bytes);
        }
    }
}
