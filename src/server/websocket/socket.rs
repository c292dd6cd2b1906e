//! The server's end of a WebSocket. Events are frames that everyone who is sent them shares, and go
//! into the socket as they are, past the protocol's buffers; all else is tungstenite's.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Poll, ready};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{Buf as _, Bytes};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWrite as _, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message};

use crate::server::feed::MOST_RUNS;
use crate::server::runs::Parts;

/// Read at once. Clients say little, and an idle connection keeps so much memory for it.
const READ: usize = 512;

/// The answer to a handshake.
pub(super) fn switching(headers: &HeaderMap, protocol: Option<HeaderValue>) -> Response {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
    let head = [
        (header::CONNECTION, "upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key)),
    ];
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, head, Body::empty()).into_response();
    if let Some(protocol) = protocol {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// One client's socket.
pub(super) struct Socket {
    inner: WebSocketStream<TokioIo<Upgraded>>,
    /// The end of a frame whose beginning has gone past `inner`.
    owed: Bytes,
}

impl Socket {
    /// Waits until the connection is a WebSocket; a message has at most so many bytes.
    pub(super) async fn open(upgrade: OnUpgrade, most: usize) -> hyper::Result<Self> {
        let upgraded = TokioIo::new(upgrade.await?);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .write_buffer_size(0)
            .max_message_size(Some(most))
            .max_frame_size(Some(most));
        let inner = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
        Ok(Self { inner, owed: Bytes::new() })
    }

    /// The next message. It may be dropped and called again at any time.
    pub(super) async fn recv(&mut self) -> Option<Result<Message, Error>> {
        self.inner.next().await
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, message: Message) -> Result<(), Error> {
        self.settle().await?;
        self.inner.send(message).await
    }

    /// Writes whole frames, and counts the bytes that went, also if this is dropped before its
    /// end. Then the rest of the last frame is [owed](Self::owe).
    pub(super) async fn write(
        &mut self,
        frames: &Parts<'_>,
        written: &mut usize,
    ) -> Result<(), Error> {
        self.settle().await?;
        // An answer to a ping, perhaps.
        self.inner.flush().await?;
        let stream = self.inner.get_mut();
        poll_fn(|context| {
            loop {
                let mut slices = [IoSlice::new(&[]); MOST_RUNS];
                let count = frames.slices(*written, &mut slices);
                if count == 0 {
                    return Poll::Ready(Ok(()));
                }
                let wrote = Pin::new(&mut *stream).poll_write_vectored(context, &slices[..count]);
                *written += some(ready!(wrote))?;
            }
        })
        .await
    }

    /// Notes the end of a frame that has begun; nothing else may be sent before it.
    pub(super) fn owe(&mut self, rest: Bytes) {
        self.owed = rest;
    }

    async fn settle(&mut self) -> Result<(), Error> {
        while !self.owed.is_empty() {
            let written = self.inner.get_mut().write(&self.owed).await;
            self.owed.advance(some(written)?);
        }
        Ok(())
    }
}

/// What was written, if the connection takes anything at all.
fn some(written: io::Result<usize>) -> io::Result<usize> {
    match written? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}
