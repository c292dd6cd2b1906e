//! What walmill delivers to: a webhook's receiver, and consumers of the brokers that read what
//! their servers hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt as _;
use rand::RngExt as _;
use rand::rngs::StdRng;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncTypedCommands as _, cmd};

use crate::ledger::Book;
use crate::receiver::{Receiver, Reply, Request};

/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(50);
/// So many are read before they are removed from the server.
const REMOVE: u64 = 500;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A webhook's receiver, bad as long as it is told to be.
pub async fn webhook(book: Book, bad: Arc<AtomicBool>, mut random: StdRng) -> Receiver {
    Receiver::start(move |request: &Request| {
        let reply = match bad.load(Ordering::Relaxed) {
            true => bad_reply(&mut random),
            false => Reply::Status(204),
        };
        if reply.takes() {
            book.event(&String::from_utf8_lossy(&request.body));
        }
        reply
    })
    .await
}

fn bad_reply(random: &mut StdRng) -> Reply {
    match random.random_range(0..12) {
        0 => Reply::Status(500),
        1 => Reply::Status(503),
        2 => Reply::Full(429, "Retry-After: 0\r\n".into(), String::new()),
        3 => Reply::Hang,
        4 => Reply::HalfClose,
        5 => Reply::Reset,
        6 => Reply::ResetInAnswer,
        7 => Reply::Garbage,
        8 => Reply::Big(500),
        9 => Reply::Slow(Duration::from_millis(300), 200),
        10 => Reply::Slow(Duration::from_millis(1500), 200),
        _ => Reply::Status(200),
    }
}

/// Reads a stream of NATS JetStream, for ever.
pub async fn nats(port: u16, book: Book) {
    let mut next = 1;
    loop {
        let _ = nats_once(port, &book, &mut next).await;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn nats_once(port: u16, book: &Book, next: &mut u64) -> Result<()> {
    let client = async_nats::connect(format!("nats://127.0.0.1:{port}")).await?;
    let stream = jetstream::new(client).get_stream("MAIN").await?;
    let policy = consumer::DeliverPolicy::ByStartSequence { start_sequence: *next };
    let config = consumer::pull::Config {
        deliver_policy: policy,
        ack_policy: consumer::AckPolicy::None,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut removed = *next;
    loop {
        let wait = Duration::from_millis(300);
        let mut messages = consumer.fetch().max_messages(200).expires(wait).messages().await?;
        while let Some(message) = messages.next().await {
            let message = message?;
            let headers = message.headers.as_ref().ok_or("no headers")?;
            let id = headers.get("Nats-Msg-Id").ok_or("no id")?.as_str();
            let at = message.info()?.stream_sequence;
            book.arrived(id, std::str::from_utf8(&message.payload)?);
            *next = at + 1;
        }
        if *next - removed > REMOVE {
            stream.purge().sequence(*next).await?;
            removed = *next;
        }
    }
}

/// Reads a Redis stream, for ever.
pub async fn redis(port: u16, book: Book) {
    let mut last = String::from("0");
    loop {
        let _ = redis_once(port, &book, &mut last).await;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn redis_once(port: u16, book: &Book, last: &mut String) -> Result<()> {
    const KEY: &str = "walmill:main";
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let (mut read, options) = (0, StreamReadOptions::default().count(200));
    loop {
        let reply = connection.xread_options(&[KEY], &[last.as_str()], &options).await?;
        let entries = reply.map(|reply: StreamReadReply| reply.keys).unwrap_or_default();
        let entries: Vec<_> = entries.into_iter().flat_map(|key| key.ids).collect();
        if entries.is_empty() {
            tokio::time::sleep(AGAIN).await;
        }
        for entry in entries {
            let field = |name: &str| entry.get::<String>(name).ok_or("a field is missing");
            book.arrived(&field("id")?, &field("data")?);
            *last = entry.id.clone();
            read += 1;
        }
        if read > REMOVE {
            let trim = cmd("XTRIM").arg(KEY).arg("MINID").arg(last.as_str()).to_owned();
            trim.exec_async(&mut connection).await?;
            read = 0;
        }
    }
}
