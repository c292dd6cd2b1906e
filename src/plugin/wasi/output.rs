//! A guest's standard output and error: lines of the plugin's log.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::plugin::bindings::Level;
use crate::plugin::host::Host;
use crate::plugin::log::Log;

/// Bytes of a line that is not ended yet.
const LONGEST_LINE: usize = 4_096;
/// Bytes that are taken at once.
const ROOM: usize = 64 << 10;

/// Where one of the two goes. All streams that a guest opens of it share its unfinished line.
#[derive(Clone)]
pub(super) struct Output {
    log: Arc<Log>,
    level: Level,
    line: Arc<Mutex<Vec<u8>>>,
}

impl Output {
    pub(super) fn info(log: &Arc<Log>) -> Self {
        Self { log: Arc::clone(log), level: Level::Info, line: Arc::default() }
    }

    pub(super) fn warn(log: &Arc<Log>) -> Self {
        Self { level: Level::Warn, ..Self::info(log) }
    }

    fn take(&self, bytes: &[u8]) {
        // What nobody sees need not be kept, nor does its rest.
        if !Host::enabled(self.level) {
            return;
        }
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LONGEST_LINE.saturating_sub(line.len());
            line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.write(&mut line);
            }
        }
    }

    fn write(&self, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        self.log.write(self.level, text.trim_end());
        line.clear();
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(ROOM)
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
