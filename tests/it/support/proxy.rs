//! A network between walmill and PostgreSQL that can be cut, at any byte, or go silent.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They arrive.
    Open,
    /// They vanish, and nobody is told, also not of an end. New connections are refused. A
    /// connection that has lost bytes ends with that.
    BlackHole,
    /// Each connection is reset once the server has sent so many bytes.
    CutAfter(u64),
}

/// Passes connections on to a port.
pub struct Proxy {
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens, and passes on to `to`.
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let mode = Arc::new(watch::Sender::new(Mode::Open));
        let current = Arc::clone(&mode);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let refused = *current.borrow() == Mode::BlackHole;
                match TcpStream::connect(("127.0.0.1", to)).await {
                    Ok(server) if !refused => connect(client, server, &current),
                    _ => drop(client),
                }
            }
        });
        Self { port, mode, accepting }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what becomes of bytes, also on the connections that are there.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn connect(client: TcpStream, server: TcpStream, mode: &Arc<watch::Sender<Mode>>) {
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let down = tokio::spawn(pass(server_reads, client_writes, mode.subscribe(), true));
    let up = tokio::spawn(pass(client_reads, server_writes, mode.subscribe(), false));
    let (down_abort, up_abort) = (down.abort_handle(), up.abort_handle());
    // One direction's end is both's.
    tokio::spawn(async move {
        tokio::select! {
            _ = down => up_abort.abort(),
            _ = up => down_abort.abort(),
        }
    });
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    is_servers: bool,
) {
    let (mut buffer, mut sent, mut lost) = (vec![0; 16 << 10], 0, false);
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = mode.wait_for(|mode| *mode != Mode::BlackHole), if lost => return,
        };
        let Ok(read @ 1..) = read else {
            let _ = mode.wait_for(|mode| *mode != Mode::BlackHole).await;
            return;
        };
        let now = *mode.borrow();
        let room = match now {
            Mode::BlackHole => {
                lost = true;
                continue;
            }
            Mode::CutAfter(limit) if is_servers => {
                usize::try_from(limit.saturating_sub(sent)).unwrap_or(read).min(read)
            }
            Mode::Open | Mode::CutAfter(_) => read,
        };
        if to.write_all(&buffer[..room]).await.is_err() || room < read {
            return;
        }
        sent += room as u64;
    }
}
