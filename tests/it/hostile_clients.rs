//! What nobody means well by sending: raw bytes against a real listener. Whatever comes, it is
//! refused or ended, and the next one is served.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use walmill::model::{Period, Secret};
use walmill::server::Config;
use walmill::store;

use crate::support::process::PATIENCE;
use crate::support::serving::Serving;

pub async fn open(server: &Serving) -> TcpStream {
    TcpStream::connect(server.address).await.expect("connect")
}

/// Everything that comes back, until the server closes or has nothing more to say.
async fn talk(server: &Serving, request: &[u8]) -> String {
    let mut stream = open(server).await;
    // It may have been refused, and closed, before all of it was sent.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(
        read.is_ok(),
        "it never ends: {}",
        String::from_utf8_lossy(&request[..request.len().min(80)])
    );
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends a request, and waits for the head of its answer with both sides open.
pub async fn ask(server: &Serving, request: &[u8]) -> String {
    let mut stream = open(server).await;
    stream.write_all(request).await.expect("send");
    let mut answer = Vec::new();
    let head = async {
        while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            if stream.read_buf(&mut answer).await.expect("an answer") == 0 {
                break;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, head).await.is_ok(), "there is no answer");
    String::from_utf8_lossy(&answer).into_owned()
}

pub async fn is_well(server: &Serving) {
    assert_eq!(server.get("/livez").await.0, 200);
}

pub fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_refused_and_never_read_as_two() {
    let server = Serving::start().await;
    let get = |more: &str| format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
    let post = |more: &str| {
        format!(
            "POST /api/v1/backfills HTTP/1.1\r\nHost: localhost\r\n{more}\r\n\
             0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
    };
    let many: String = (0..10_000).map(|n| format!("X-{n}: y\r\n")).collect();
    let requests: Vec<(&str, Vec<u8>)> = vec![
        ("two lengths", get("Content-Length: 1\r\nContent-Length: 2\r\n").into()),
        ("negative length", get("Content-Length: -1\r\n").into()),
        ("chunks, unknown", post("Transfer-Encoding: xchunked\r\n").into()),
        ("chunks, a space", post("Transfer-Encoding : chunked\r\n").into()),
        ("chunks, not last", post("Transfer-Encoding: chunked, identity\r\n").into()),
        ("chunks, folded", post("X: y\r\n Transfer-Encoding: chunked\r\n").into()),
        ("chunks, a tab", post("Transfer-Encoding:\x0bchunked\r\n").into()),
        ("chunks, twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n").into()),
        (
            "chunk too long",
            b"POST /api/v1/backfills HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\
              \r\n\r\nFFFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n"
                .to_vec(),
        ),
        (
            "chunk below zero",
            b"POST /api/v1/backfills HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\
              \r\n\r\n-1\r\nx\r\n0\r\n\r\n"
                .to_vec(),
        ),
        ("a header of 1 MB", get(&format!("X: {}\r\n", "y".repeat(1 << 20))).into()),
        ("10,000 headers", get(&many).into()),
        (
            "an address of 100 kB",
            format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(100_000)).into(),
        ),
        ("NUL in the address", b"GET /livez\0 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("no UTF-8", b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        (
            "up and out",
            b"GET /console/../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        (
            "up, encoded",
            b"GET /console/%2e%2e%2f%2e%2e%2fetc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"
                .to_vec(),
        ),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03random".to_vec()),
        (
            "HTTP/2, then nonsense",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense nonsense nonsense".to_vec(),
        ),
        ("HTTP/2, half", b"PRI * HTTP/2.0\r\n".to_vec()),
        ("PostgreSQL", b"\x00\x00\x00\x08\x04\xd2\x16\x2f".to_vec()),
        ("Redis", b"*1\r\n$4\r\nPING\r\n".to_vec()),
        ("CONNECT", b"CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example:80\r\n\r\n".to_vec()),
        (
            "a proxy's address",
            b"GET http://evil.example/livez HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(),
        ),
        ("TRACE", b"TRACE /livez HTTP/1.1\r\nHost: localhost\r\nX: secret\r\n\r\n".to_vec()),
        ("HTTP/0.9", b"GET /livez\r\n\r\n".to_vec()),
        ("HTTP/3.0", b"GET /livez HTTP/3.0\r\n\r\n".to_vec()),
        ("nothing", b"".to_vec()),
        ("line breaks", b"\r\n".repeat(10_000)),
    ];
    for (name, request) in requests {
        let answer = talk(&server, &request).await;
        let refused = status(&answer).is_none_or(|status| (400..500).contains(&status));
        assert!(refused, "{name}: {answer}");
        assert!(!answer.contains("/smuggled") && !answer.contains("root:"), "{name}: {answer}");
        is_well(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_or_too_deep_are_refused() {
    let server = Serving::start().await;
    let post = |body: String| {
        reqwest::Client::new().post(server.url("/api/v1/backfills")).body(body).send()
    };
    for (body, expected) in [
        ("[".repeat(100_000), 400),
        (format!("{{\"tables\":{}{}}}", "[".repeat(5000), "]".repeat(5000)), 400),
        (format!("{{\"where\":\"{}\"}}", "x".repeat(1 << 20)), 400),
        ("\u{1f}\u{8b}\u{8}\u{0}".to_owned(), 400),
    ] {
        assert_eq!(post(body).await.expect("an answer").status(), expected);
    }
    // Refused before all of it was sent, perhaps.
    let large = post("x".repeat(100 << 20)).await;
    assert!(large.is_err() || large.is_ok_and(|answer| answer.status() == 413));
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_requests_in_one_go_are_answered_in_their_order() {
    let server = Serving::start().await;
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(4999)
        + "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (mut read, mut write) = open(&server).await.into_split();
    let sending = async { write.write_all(request.as_bytes()).await };
    let mut answer = Vec::new();
    let (sent, received) = tokio::join!(sending, read.read_to_end(&mut answer));
    assert!(sent.is_ok() && received.is_ok());
    assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 200").count(), 5000);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_or_too_slowly_is_not_waited_for() {
    let server = Serving::start().await;
    let mut silent = open(&server).await;
    let mut slow = open(&server).await;
    let mut half = open(&server).await;
    half.write_all(b"PRI * HTT").await.expect("send");
    let drip = async {
        for letter in b"GET /livez HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'y')) {
            if slow.write_all(&[*letter]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let over = async |stream: &mut TcpStream| {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    };
    let all = async { tokio::join!(drip, over(&mut silent), over(&mut half)) };
    assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "one of them is still there");
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_connections_that_are_reset_leave_nothing_behind() {
    let server = Serving::start().await;
    for round in 0..300 {
        let stream = open(&server).await;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
        if round % 2 == 0 {
            let mut stream = stream;
            let _ = stream.write_all(&HANDSHAKE.as_bytes()[..round % HANDSHAKE.len()]).await;
        }
    }
    for _ in 0..100 {
        drop(server.connect().await);
    }
    server.left("websocket", "closed", 100).await;
    is_well(&server).await;
}

pub const HANDSHAKE: &str = "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A frame with a mask of zeros.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | u8::try_from(len).expect("small")),
        len @ 126..=65_535 => {
            bytes.push(0xFE);
            bytes.extend(u16::try_from(len).expect("small").to_be_bytes());
        }
        len => {
            bytes.push(0xFF);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// A frame that only says how long it is.
fn claim(first: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![first, 0xFF];
    bytes.extend(len.to_be_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// What comes behind the handshake's answer, up to the end.
async fn after_handshake(server: &Serving, frames: &[u8]) -> Vec<u8> {
    let mut stream = open(server).await;
    stream.write_all(HANDSHAKE.as_bytes()).await.expect("send");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("a handshake"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    let _ = stream.write_all(frames).await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "it goes on after {:?}", &frames[..frames.len().min(16)]);
    rest
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_protocol_end_the_connection() {
    let server = Serving::start().await;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no mask", b"\x81\x02hi".to_vec()),
        ("a reserved bit", frame(0xC1, b"hi")),
        ("a reserved opcode", frame(0x83, b"hi")),
        ("a reserved control opcode", frame(0x8B, b"")),
        ("a large ping", frame(0x89, &[0; 126])),
        ("half a ping", frame(0x09, b"hi")),
        ("a length with its highest bit", claim(0x81, u64::MAX)),
        ("4 EB", claim(0x81, 1 << 62)),
        ("64 MB", claim(0x81, 64 << 20)),
        ("more of nothing", frame(0x80, b"hi")),
        ("two at a time", [frame(0x01, b"a"), frame(0x01, b"b")].concat()),
        (
            "fragments without end",
            [frame(0x01, b"a"), frame(0x00, &[b'a'; 60_000]).repeat(2)].concat(),
        ),
        ("overlong", frame(0x81, b"\xc0\xaf")),
        ("a surrogate", frame(0x81, b"\xed\xa0\x80")),
        ("too high", frame(0x81, b"\xf4\x90\x80\x80")),
        ("cut off", frame(0x81, b"\xe2\x82")),
        ("a byte alone", frame(0x81, b"\x80")),
        ("never a byte", frame(0x81, b"\xff")),
        ("half a code", frame(0x88, b"\x03")),
        ("code 0", frame(0x88, b"\x00\x00")),
        ("code 999", frame(0x88, b"\x03\xe7")),
        ("code 1005", frame(0x88, b"\x03\xed")),
        ("code 1006", frame(0x88, b"\x03\xee")),
        ("code 65535", frame(0x88, b"\xff\xff")),
        ("a reason that is no text", frame(0x88, b"\x03\xe8\xff")),
        ("nonsense", (0..=255).cycle().take(5000).collect()),
    ];
    for (name, frames) in cases {
        let rest = after_handshake(&server, &frames).await;
        assert!(!String::from_utf8_lossy(&rest).contains("subscribed"), "{name}");
        is_well(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_none_are_refused() {
    let server = Serving::start().await;
    for (from, to) in [
        ("Upgrade: websocket", "Upgrade: websockets"),
        ("Connection: Upgrade", "Connection: close"),
        ("Version: 13", "Version: 8"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("GET", "POST"),
        ("Host: localhost", "Host: localhost\r\nOrigin: https://evil.example"),
        ("Host: localhost", "Host: evil.example"),
    ] {
        let answer = ask(&server, HANDSHAKE.replace(from, to).as_bytes()).await;
        let code = status(&answer);
        assert!(code.is_some_and(|code| (400..500).contains(&code)), "{to}: {answer}");
    }
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_come_with_the_handshake_are_read() {
    let server = Serving::start().await;
    let mut stream = open(&server).await;
    let subscribe = json!({ "type": "subscribe", "streams": ["posts"] }).to_string();
    let both =
        [HANDSHAKE.as_bytes(), &frame(0x81, subscribe.as_bytes()), &frame(0x88, b"")].concat();
    stream.write_all(&both).await.expect("send");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    assert!(String::from_utf8_lossy(&answer).contains("\"type\":\"subscribed\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_talks_too_fast_is_listened_to_slowly_and_disturbs_nobody() {
    let config = Config {
        max_messages_per_second: 5.try_into().expect("not zero"),
        token: Some(Secret::new("s3cret")),
        ..Config::default()
    };
    let server = Serving::configured(config, store::Config::default()).await;
    let mut flood = server.try_connect("/v1/ws?token=s3cret", &[]).await.expect("connect");
    for n in 0..30 {
        flood.send(&json!({ "type": "ping", "id": n.to_string() })).await;
    }
    let mut other = server.try_connect("/v1/ws?token=s3cret", &[]).await.expect("connect");
    other.send(&json!({ "type": "ping", "id": "mine" })).await;
    assert_eq!(other.next().await["id"], "mine");
    for n in 0..30 {
        assert_eq!(flood.next().await["id"], n.to_string(), "all are answered in the end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_only_so_many_connections() {
    let config = Config { max_connections_per_address: 3.try_into().ok(), ..Config::default() };
    let server = Serving::configured(config, store::Config::default()).await;
    let mut first = server.connect().await;
    let _others = [server.connect().await, server.connect().await];
    assert!(server.try_connect("/v1/ws", &[]).await.is_err());
    first.socket.close(None).await.expect("close");
    drop(first);
    server.left("websocket", "closed", 1).await;
    let again = async {
        while server.try_connect("/v1/ws", &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, again).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_no_ping_has_left_and_a_hundred_who_read_nothing_disturb_nobody() {
    let config = Config { ping: Period::from_millis(500), ..Config::default() };
    let server = Serving::configured(config, store::Config::default()).await;
    let silent = after_handshake(&server, &[]).await;
    assert!(silent.starts_with(&[0x89, 0]), "it was asked: {silent:?}");
    server.left("websocket", "error", 1).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut stream = open(&server).await;
        let start = "GET /v1/streams/posts/sse?last_event_id=earliest HTTP/1.1\r\nHost: localhost";
        stream.write_all(format!("{start}\r\n\r\n").as_bytes()).await.expect("send");
        silent.push(stream);
    }
    let mut reader = server.connect().await;
    assert_eq!(reader.subscribe(&["posts"], "latest").await["type"], "subscribed");
    server.commit_with("posts", 50, &"x".repeat(10_000));
    assert_eq!(reader.ids(50).await.len(), 50);
}
