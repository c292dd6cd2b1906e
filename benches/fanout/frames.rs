//! What subscribers are sent, read only as far as counting needs.

use std::io;

/// What has come on a connection.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    /// Events.
    pub events: u64,
    /// The server has taken the subscription.
    pub subscribed: bool,
    /// The server asks whether we are there.
    pub ping: bool,
}

/// Whose words stand in the frames.
#[derive(Debug)]
pub enum Words {
    /// walmill's: each text is one event, but for the first, which says that we are subscribed.
    Walmill,
    /// NATS's: one stream of bytes, whatever its frames.
    Nats(Nats),
}

/// A connection's WebSocket frames, in pieces as they come.
#[derive(Debug)]
pub struct Frames {
    words: Words,
    head: [u8; 10],
    have: usize,
    /// Of the frame's payload.
    left: u64,
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const EVENT: &[u8] = br#"{"type":"event""#;
const SUBSCRIBED: &[u8] = br#""type":"subscribed""#;

impl Frames {
    pub fn new(words: Words) -> Self {
        Self { words, head: [0; 10], have: 0, left: 0 }
    }

    /// Reads what has come.
    pub fn read(&mut self, mut bytes: &[u8]) -> io::Result<Seen> {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            let begins = self.left == 0;
            if begins && !self.read_head(&mut bytes) {
                break;
            }
            let len = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let (payload, rest) = bytes.split_at(len);
            self.left -= len as u64;
            bytes = rest;
            self.read_payload(payload, begins, &mut seen)?;
        }
        Ok(seen)
    }

    /// The answer to a ping, which had nothing in it.
    pub fn pong(&self) -> Vec<u8> {
        match self.words {
            Words::Walmill => masked(PONG, b""),
            Words::Nats(_) => masked(BINARY, b"PONG\r\n"),
        }
    }

    /// Whether the head of the next frame is whole.
    fn read_head(&mut self, bytes: &mut &[u8]) -> bool {
        loop {
            let len = match self.have {
                0 | 1 => 2,
                _ => 2 + length_bytes(self.head[1]),
            };
            if self.have == len {
                break;
            }
            let Some((&byte, rest)) = bytes.split_first() else { return false };
            self.head[self.have] = byte;
            self.have += 1;
            *bytes = rest;
        }
        let long =
            self.head[2..self.have].iter().fold(0, |long, &byte| long << 8 | u64::from(byte));
        self.left = if self.have == 2 { u64::from(self.head[1]) } else { long };
        self.have = 0;
        true
    }

    fn read_payload(&mut self, payload: &[u8], begins: bool, seen: &mut Seen) -> io::Result<()> {
        match (self.head[0] & 0x0F, &mut self.words) {
            (CLOSE, _) => Err(io::Error::other("the server closed the connection")),
            (PING, _) => {
                seen.ping |= begins;
                Ok(())
            }
            (TEXT, Words::Walmill) if begins => text(payload, seen),
            (_, Words::Walmill) => Ok(()),
            (_, Words::Nats(nats)) => nats.read(payload, seen),
        }
    }
}

fn length_bytes(second: u8) -> usize {
    match second {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

/// Counts a text by how it begins.
fn text(payload: &[u8], seen: &mut Seen) -> io::Result<()> {
    // Of an event there may be no more than its first bytes.
    if EVENT.iter().zip(payload).all(|(a, b)| a == b) {
        seen.events += 1;
    } else if memchr::memmem::find(payload, SUBSCRIBED).is_some() {
        seen.subscribed = true;
    } else {
        return Err(io::Error::other(String::from_utf8_lossy(payload).into_owned()));
    }
    Ok(())
}

/// NATS's protocol from the server: lines, and messages behind some of them.
#[derive(Debug, Default)]
pub struct Nats {
    /// The beginning of a line that is not whole.
    line: Vec<u8>,
    /// Of a message and the end of its line.
    skip: usize,
}

impl Nats {
    fn read(&mut self, mut bytes: &[u8], seen: &mut Seen) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let len = self.skip.min(bytes.len());
                self.skip -= len;
                seen.events += u64::from(self.skip == 0);
                bytes = &bytes[len..];
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.line.extend_from_slice(bytes);
                break;
            };
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.line.is_empty() {
                self.skip = hear(line, seen)?;
            } else {
                self.line.extend_from_slice(line);
                self.skip = hear(&self.line, seen)?;
                self.line.clear();
            }
        }
        Ok(())
    }
}

/// Reads a line: the bytes behind it that belong to it.
fn hear(line: &[u8], seen: &mut Seen) -> io::Result<usize> {
    match line.first_chunk::<4>() {
        Some(b"MSG ") => {
            let number = line.trim_ascii_end().rsplit(|&byte| byte == b' ').next();
            let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
            let len: usize = number.ok_or_else(|| io::Error::other("a message without length"))?;
            return Ok(len + 2);
        }
        Some(b"PING") => seen.ping = true,
        Some(b"PONG") => seen.subscribed = true,
        Some(b"-ERR") => return Err(io::Error::other(String::from_utf8_lossy(line).into_owned())),
        _ => {}
    }
    Ok(0)
}

/// A client's frame; a mask of zeros leaves its payload as it is.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).expect("a short frame");
    [&[0x80 | opcode, 0x80 | len, 0, 0, 0, 0], payload].concat()
}
