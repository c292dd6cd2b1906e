//! What nobody means well by sending a lot of: memory stays bounded, whoever floods is let go or
//! kept waiting, and the others are served.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use walmill::model::Period;
use walmill::server::Config;
use walmill::store;

use crate::hostile_clients::{HANDSHAKE, ask, frame, is_well, open, status};
use crate::support::process::PATIENCE;
use crate::support::serving::Serving;

/// More than any of this may take.
const BOUND: usize = 64 << 20;

/// Bytes that this process has in memory; the server is in it.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a figure");
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    digits.parse::<usize>().expect("a number") << 10
}

/// Sends until the other side ends it, or takes nothing more for a while.
async fn flood(stream: &mut TcpStream, bytes: &[u8], most: usize) {
    let mut sent = 0;
    while sent < most {
        let sending = tokio::time::timeout(Duration::from_secs(2), stream.write_all(bytes));
        match sending.await {
            Ok(Ok(())) => sent += bytes.len(),
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Everything that comes until the server ends it.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "it goes on");
    answer
}

async fn web_socket(server: &Serving) -> TcpStream {
    let mut stream = open(server).await;
    stream.write_all(HANDSHAKE.as_bytes()).await.expect("send");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("a handshake"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_compressed_is_taken() {
    let server = Serving::start().await;
    // What would be 10 MB of zeros, and whatever else calls itself compressed.
    for coding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP"] {
        let request = format!(
            "POST /api/v1/backfills HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: {coding}\r\n\
             Content-Length: 4\r\n\r\n\x1f\x08\x08\x00"
        );
        let answer = ask(&server, request.as_bytes()).await;
        assert_eq!(status(&answer), Some(415), "{coding}: {answer}");
    }
    let offer = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=15\r\n";
    let handshake = HANDSHAKE.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", offer);
    let answer = ask(&server, handshake.as_bytes()).await;
    assert_eq!(status(&answer), Some(101), "{answer}");
    assert!(!answer.to_lowercase().contains("extensions"), "{answer}");
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_two_lengths_is_read_by_its_chunks_alone() {
    let server = Serving::start().await;
    for lengths in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
    ] {
        let request = format!(
            "POST /api/v1/backfills HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n\r\n\
             2\r\n{{}}\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        let mut stream = open(&server).await;
        stream.write_all(request.as_bytes()).await.expect("send");
        let answer = String::from_utf8_lossy(&rest(&mut stream).await).into_owned();
        // By its length, the body would be no JSON, and what follows no request.
        assert!(answer.matches("HTTP/1.1 ").count() <= 2, "{answer}");
        assert!(!answer.contains("EOF while parsing") && !answer.contains("trailing"), "{answer}");
        let refused = status(&answer).is_some_and(|status| (400..500).contains(&status));
        assert!(refused, "{answer}");
    }
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_is_not_waited_for() {
    let server = Serving::start().await;
    for lengths in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut stream = open(&server).await;
        let head =
            format!("POST /api/v1/backfills HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("send");
        let (mut read, mut write) = stream.into_split();
        let drip = async {
            loop {
                let drop: &[u8] = if lengths.starts_with('T') { b"1\r\n{\r\n" } else { b"{" };
                if write.write_all(drop).await.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let mut answer = Vec::new();
        let ended = async {
            tokio::select! {
                () = drip => {}
                _ = read.read_to_end(&mut answer) => {}
            }
        };
        assert!(tokio::time::timeout(PATIENCE, ended).await.is_ok(), "{lengths}: it is waited for");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || status(&answer) == Some(400), "{answer}");
        is_well(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_that_are_never_read_are_kept_waiting() {
    let server = Serving::start().await;
    let before = resident();
    let mut floods = Vec::new();
    for _ in 0..4 {
        let mut stream = web_socket(&server).await;
        floods.push(tokio::spawn(async move {
            flood(&mut stream, &frame(0x89, &[b'x'; 125]).repeat(1000), 2 * BOUND).await;
            stream
        }));
    }
    is_well(&server).await;
    let mut streams = Vec::new();
    for flood in floods {
        streams.push(flood.await.expect("a flood"));
    }
    assert!(resident() < before + BOUND, "{} from {before}", resident());
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_endless_empty_fragments_is_no_sign_of_life() {
    let config = Config { ping: Period::from_millis(500), ..Config::default() };
    let server = Serving::configured(config, store::Config::default()).await;
    let before = resident();
    let mut stream = web_socket(&server).await;
    stream.write_all(&frame(0x01, b"")).await.expect("send");
    let fragments = frame(0x00, b"").repeat(1000);
    let ended = async { while stream.write_all(&fragments).await.is_ok() {} };
    assert!(tokio::time::timeout(PATIENCE, ended).await.is_ok(), "it is listened to for ever");
    assert!(resident() < before + BOUND);
    is_well(&server).await;
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// A frame of HTTP/2.
fn frame_of_two(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let head = [len[1], len[2], len[3], kind, flags];
    [&head, stream.to_be_bytes().as_slice(), payload].concat()
}

/// `GET /livez` at `localhost`, by HPACK's static table and literals.
fn get() -> Vec<u8> {
    get_of("/livez")
}

fn get_of(path: &str) -> Vec<u8> {
    let len = u8::try_from(path.len()).expect("a short path");
    [b"\x82\x86\x04", [len].as_slice(), path.as_bytes(), b"\x01\x09localhost"].concat()
}

/// The kinds of the frames in an answer.
fn kinds(mut answer: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [high, middle, low, kind, ..] = *answer {
        kinds.push(kind);
        let len = u32::from_be_bytes([0, high, middle, low]) as usize;
        answer = answer.get(9 + len..).unwrap_or_default();
    }
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_taken_back_at_once_end_the_connection() {
    let server = Serving::start().await;
    let before = resident();
    let mut stream = open(&server).await;
    stream.write_all(PREFACE).await.expect("send");
    stream.write_all(&frame_of_two(SETTINGS, 0, 0, b"")).await.expect("send");
    let (mut read, mut write) = stream.into_split();
    let reset = tokio::spawn(async move {
        for number in 0..200_000 {
            let id = 2 * number + 1;
            let both = [
                frame_of_two(HEADERS, 0x05, id, &get()),
                frame_of_two(RST_STREAM, 0, id, &8_u32.to_be_bytes()),
            ];
            if write.write_all(&both.concat()).await.is_err() {
                return number;
            }
        }
        200_000
    });
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, read.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "it goes on");
    assert!(reset.await.expect("a flood") < 200_000, "all of them were listened to");
    assert!(kinds(&answer).contains(&GOAWAY), "{:?}", kinds(&answer));
    assert!(resident() < before + BOUND);
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_go_on_for_ever_end_the_connection() {
    let server = Serving::start().await;
    let before = resident();
    let mut stream = open(&server).await;
    stream.write_all(PREFACE).await.expect("send");
    stream.write_all(&frame_of_two(SETTINGS, 0, 0, b"")).await.expect("send");
    // Without the flag that says that the headers end.
    stream.write_all(&frame_of_two(HEADERS, 0x01, 1, &get())).await.expect("send");
    let header = b"\x00\x01x\x64".iter().copied().chain([b'y'; 100]).collect::<Vec<u8>>();
    let more = frame_of_two(CONTINUATION, 0, 1, &header.repeat(100));
    let (mut read, mut write) = stream.into_split();
    let flood = tokio::spawn(async move {
        for number in 0..100_000 {
            if write.write_all(&more).await.is_err() {
                return number;
            }
        }
        100_000
    });
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, read.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "it goes on");
    assert!(flood.await.expect("a flood") < 100_000, "a gigabyte of headers was listened to");
    assert!(kinds(&answer).contains(&GOAWAY), "{:?}", kinds(&answer));
    assert!(resident() < before + BOUND);
    is_well(&server).await;
}

/// Begins HTTP/2 with these settings, and asks for a path.
async fn ask_for(server: &Serving, settings: &[u8], path: &str) -> TcpStream {
    let mut stream = open(server).await;
    let asked = [
        PREFACE.to_vec(),
        frame_of_two(SETTINGS, 0, 0, settings),
        frame_of_two(HEADERS, 0x05, 1, &get_of(path)),
    ];
    stream.write_all(&asked.concat()).await.expect("send");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_none_of_an_answer_over_http_2_is_let_go_and_who_waits_for_events_is_not() {
    let timeout = Period::from_millis(300);
    let config = Config { client_timeout: timeout, ..Config::default() };
    let server = Serving::configured(config, store::Config::default()).await;
    server.commit("posts", 1);
    let mut patient = ask_for(&server, b"", "/v1/streams/posts/sse?from=latest").await;
    // SETTINGS_INITIAL_WINDOW_SIZE of nothing.
    let no_window = b"\x00\x04\x00\x00\x00\x00";
    for path in ["/v1/streams/posts/events", "/v1/streams/posts/sse?from=earliest"] {
        let mut stream = ask_for(&server, no_window, path).await;
        let answer = rest(&mut stream).await;
        assert!(kinds(&answer).contains(&HEADERS), "{path}: {:?}", kinds(&answer));
        assert!(!kinds(&answer).contains(&DATA), "{path}: there was no room for any");
    }
    // Far longer than the timeout has passed for this one, too.
    server.commit("posts", 1);
    let mut came = Vec::new();
    let event = async {
        while !came.windows(4).any(|bytes| bytes == b"id: ") {
            came.push(patient.read_u8().await.expect("it is still served"));
        }
    };
    assert!(tokio::time::timeout(PATIENCE, event).await.is_ok(), "no event");
    is_well(&server).await;
}
