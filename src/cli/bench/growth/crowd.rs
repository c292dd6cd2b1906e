//! Many clients on one thread: they count what comes, and are not measured.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tungstenite::WebSocket;

use super::super::receiver;

/// Between two looks at sockets on which nothing has come.
const MOMENT: Duration = Duration::from_millis(1);

/// Clients of one stream.
pub(super) struct Crowd {
    received: Arc<AtomicU64>,
    reading: JoinHandle<anyhow::Result<()>>,
}

impl Crowd {
    /// All of them are connected.
    pub(super) async fn connect(
        port: u16,
        stream: &'static str,
        size: u64,
    ) -> anyhow::Result<Self> {
        let sockets = spawn_blocking(move || {
            (0..size).map(|_| connect(port, stream)).collect::<anyhow::Result<Vec<_>>>()
        });
        let (sockets, received) = (sockets.await??, Arc::<AtomicU64>::default());
        let counter = Arc::clone(&received);
        let reading = spawn_blocking(move || read(sockets, &counter));
        Ok(Self { received, reading })
    }

    /// Events that have come, to all of them together.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Once walmill has said goodbye to all.
    pub(super) async fn finish(self) -> anyhow::Result<u64> {
        self.reading.await??;
        Ok(self.received.load(Ordering::Relaxed))
    }
}

fn connect(port: u16, stream: &str) -> anyhow::Result<WebSocket<TcpStream>> {
    let socket = receiver::subscribe(port, &[stream])?;
    socket.get_ref().set_nonblocking(true)?;
    Ok(socket)
}

/// In turn, until the last has ended.
fn read(mut sockets: Vec<WebSocket<TcpStream>>, received: &AtomicU64) -> anyhow::Result<()> {
    while !sockets.is_empty() {
        let (before, mut fault) = (received.load(Ordering::Relaxed), None);
        sockets.retain_mut(|socket| match receiver::count(socket, received) {
            Ok(open) => open,
            Err(error) => {
                fault = Some(error);
                false
            }
        });
        if let Some(error) = fault {
            return Err(error);
        }
        if received.load(Ordering::Relaxed) == before {
            std::thread::sleep(MOMENT);
        }
    }
    Ok(())
}
