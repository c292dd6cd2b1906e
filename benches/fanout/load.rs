//! The subscribers: a process with one thread and all of their sockets. It says on its output when
//! all are subscribed, and of each burst when the first and the last delivery came.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream as Plain;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::frames::{Frames, Nats, Seen, Words, masked};
use super::usage::now;

const PROTOCOL: &str = "Sec-WebSocket-Protocol: walmill.v1.json\r\n";

/// Who they subscribe to, and what they will be sent.
#[derive(Debug, Clone)]
pub struct Plan {
    pub port: u16,
    pub subscribers: usize,
    /// Deliveries of one burst to all of them.
    pub burst: u64,
    pub to: To,
}

/// What they subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// A stream of walmill, all of it.
    Stream,
    /// A stream of walmill, each one other customer's part of it.
    Customers,
    /// A subject of NATS.
    Subject,
}

/// When the deliveries of a burst came, by the machine's steady clock.
#[derive(Debug, Clone, Copy)]
pub struct Burst {
    pub first: u64,
    pub last: u64,
}

/// The process, from outside.
pub struct Load {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Load {
    /// Starts it, and waits until all are subscribed.
    pub fn start(plan: &Plan) -> anyhow::Result<Self> {
        let arguments = [
            format!("{:?}", plan.to),
            plan.port.to_string(),
            plan.subscribers.to_string(),
            plan.burst.to_string(),
        ];
        let mut child = Command::new(std::env::current_exe()?)
            .arg("load")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output")?);
        let mut load = Self { child, lines };
        match load.line()?.trim() {
            "subscribed" => Ok(load),
            other => bail!("the subscribers said {other:?}"),
        }
    }

    /// Waits for the next burst.
    pub fn next(&mut self) -> anyhow::Result<Burst> {
        let line = self.line()?;
        let (first, last) = line.trim().split_once(' ').context("two times")?;
        Ok(Burst { first: first.parse()?, last: last.parse()? })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("the subscribers ended: {}", self.child.wait()?);
        }
        Ok(line)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of them.
struct Subscriber {
    socket: TcpStream,
    frames: Frames,
}

/// Runs in the process until it is killed.
pub fn main(arguments: &[String]) -> anyhow::Result<()> {
    let [to, port, subscribers, burst] = arguments else { bail!("four arguments") };
    let to = match to.as_str() {
        "Stream" => To::Stream,
        "Customers" => To::Customers,
        _ => To::Subject,
    };
    let plan =
        Plan { to, port: port.parse()?, subscribers: subscribers.parse()?, burst: burst.parse()? };
    let mut poll = Poll::new()?;
    let mut all = Vec::with_capacity(plan.subscribers);
    for number in 0..plan.subscribers {
        let mut socket = connect(&plan, number).with_context(|| format!("subscriber {number}"))?;
        poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
        let words = match to {
            To::Subject => Words::Nats(Nats::default()),
            _ => Words::Walmill,
        };
        all.push(Subscriber { socket, frames: Frames::new(words) });
    }
    count(&mut poll, &mut all, plan.burst)
}

fn count(poll: &mut Poll, all: &mut [Subscriber], burst: u64) -> anyhow::Result<()> {
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 256 << 10];
    let mut output = io::stdout().lock();
    let (mut subscribed, mut delivered, mut first) = (0, 0, None);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let Token(number) = event.token();
            let seen = all[number].read(&mut buffer).with_context(|| format!("of {number}"))?;
            if seen.subscribed {
                subscribed += 1;
                if subscribed == all.len() {
                    writeln!(output, "subscribed")?;
                }
            }
            let before = delivered / burst;
            delivered += seen.events;
            if seen.events > 0 {
                first.get_or_insert_with(now);
            }
            for _ in before..delivered / burst {
                let last = now();
                writeln!(output, "{} {last}", first.take().unwrap_or(last))?;
            }
        }
        output.flush()?;
    }
}

impl Subscriber {
    /// All that has come.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Seen> {
        let mut all = Seen::default();
        loop {
            let len = match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let seen = self.frames.read(&buffer[..len])?;
            all.events += seen.events;
            all.subscribed |= seen.subscribed;
            if seen.ping {
                // It fits in a socket's buffer, which is empty.
                self.socket.write_all(&self.frames.pong())?;
            }
            if len < buffer.len() {
                break;
            }
        }
        Ok(all)
    }
}

/// A connection that has said what it wants, and heard that it is upgraded.
fn connect(plan: &Plan, number: usize) -> anyhow::Result<TcpStream> {
    let mut socket = Plain::connect(("127.0.0.1", plan.port))?;
    let (path, protocol) = match plan.to {
        To::Stream => ("/v1/ws?streams=events".to_owned(), PROTOCOL),
        To::Customers => (format!("/v1/ws?streams=events&filter=customer=eq.{number}"), PROTOCOL),
        To::Subject => ("/".to_owned(), ""),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n",
        plan.port
    );
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    // Byte by byte, since frames may follow at once.
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    if !answer.starts_with(b"HTTP/1.1 101") {
        bail!("{}", String::from_utf8_lossy(&answer));
    }
    if plan.to == To::Subject {
        socket.write_all(&masked(2, b"CONNECT {\"verbose\":false}\r\nSUB events 1\r\nPING\r\n"))?;
    }
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket))
}
