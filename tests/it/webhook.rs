//! Webhooks: what a receiver gets from a store, whatever the receiver does.

mod barrier;
mod gone;
mod latest;
mod libraries;
mod modes;
mod receiver;
mod replay;
mod schedule;
mod tls;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use receiver::{Receiver, Reply, Request};
use sha2::{Digest as _, Sha256};
use walmill::model::{Offset, Period};
use walmill::output::webhook::{self, Webhook};
use walmill::store::dead_letter::{By, Filter};

use crate::support::outputs::{Running as Output, Streams, ids};
use crate::support::process::PATIENCE;
use crate::support::until;

const SECRET: &str = "whsec_d2FsbWlsbCB0ZXN0cyBzaWduIHdpdGggdGhpcyE=";
const OLD_SECRET: &str = "whsec_dGhlIHNlY3JldCBmcm9tIGJlZm9yZSByb3RhdGlvbg==";

impl Output {
    /// To a receiver on this machine, with quick retries, and with `more` config.
    fn start(streams: &Streams, receiver: &Receiver, more: &str) -> Self {
        Self::with(
            streams,
            &format!(
                "name = 'billing'\nstreams = ['orders']\nurl = '{}'\nsecret = '{SECRET}'\n\
             allow_private = true\nretry.initial = '2ms'\nretry.max = '20ms'\n{more}",
                receiver.url()
            ),
        )
    }

    fn with(streams: &Streams, config: &str) -> Self {
        let config: webhook::Config = toml::from_str(config).expect("a config");
        Self::of(streams, config.deliver(), Webhook::new(&config).expect("a webhook"))
    }
}

/// HMAC by RFC 2104, so that the signature is not checked by what made it.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let hash = |pad: u8, rest: &[u8]| {
        Sha256::new().chain_update(block.map(|byte| byte ^ pad)).chain_update(rest).finalize()
    };
    hash(0x5c, &hash(0x36, message)).to_vec()
}

fn signed_with(request: &Request, secret: &str) -> bool {
    let key = STANDARD.decode(&secret["whsec_".len()..]).expect("base64");
    let mut message = format!("{}.{}.", request.id(), request.headers["webhook-timestamp"]);
    message.push_str(std::str::from_utf8(&request.body).expect("UTF-8"));
    let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, message.as_bytes())));
    request.headers["webhook-signature"].split(' ').any(|signature| signature == expected)
}

/// The ids of what was taken of one key, in order.
fn taken_of(receiver: &Receiver, key: &str) -> Vec<String> {
    let taken = receiver.taken().into_iter().filter(|request| request.event("subject") == key);
    taken.map(|request| request.id().to_owned()).collect()
}

#[tokio::test]
async fn an_event_arrives_under_its_id_and_signed_with_every_secret() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Status(204)).await;
    let more = format!("secrets = ['{OLD_SECRET}']\nheaders = {{ X-Tenant = 'acme' }}");
    let output = Output::start(&streams, &receiver, &more);
    let sent = streams.commit("orders", &["public.orders/1"]);
    until("it was taken", || receiver.taken().len() == 1).await;
    let request = &receiver.requests()[0];
    assert_eq!(request.line, "POST /hook HTTP/1.1");
    assert_eq!(request.id(), ids(&sent)[0]);
    assert_eq!(request.event("id"), ids(&sent)[0]);
    assert_eq!(request.headers["content-type"], "application/cloudevents+json");
    assert_eq!(request.headers["x-tenant"], "acme");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let timestamp: u64 = request.headers["webhook-timestamp"].parse().unwrap();
    assert!(now.as_secs().abs_diff(timestamp) <= PATIENCE.as_secs());
    assert!(signed_with(request, SECRET) && signed_with(request, OLD_SECRET));
    assert!(!signed_with(request, "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldCBhbHRvZ2V0aGVy"));
    output.stop().await;
    assert_eq!(streams.checkpoint("orders"), sent.last().copied());
}

#[tokio::test]
async fn order_per_key_holds_whatever_the_receiver_does_and_nothing_is_missing() {
    let mut streams = Streams::new();
    let elsewhere = Receiver::start(|_| Reply::Status(200)).await;
    let redirect = format!("Location: {}\r\n", elsewhere.url());
    let faults = [
        Reply::Status(500),
        Reply::Status(404),
        Reply::Status(503),
        Reply::Full(429, "Retry-After: 0\r\n".into(), String::new()),
        Reply::Full(302, redirect.clone(), String::new()),
        Reply::Full(308, redirect, String::new()),
        Reply::Reset,
        Reply::ResetInAnswer,
        Reply::Garbage,
        Reply::Big(500),
        Reply::Big(200),
        Reply::Hang,
        Reply::HalfClose,
        Reply::Slow(std::time::Duration::from_millis(50), 500),
    ];
    let mut tries = 0;
    let receiver = Receiver::start(move |_| {
        tries += 1;
        // Every other try succeeds, so that keys are in different states when a fault strikes.
        if tries % 2 == 0 { Reply::Status(200) } else { faults[tries / 2 % faults.len()].clone() }
    })
    .await;
    let keys: Vec<String> = (0..8).map(|key| format!("public.orders/{key}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut sent: HashMap<&str, Vec<String>> = HashMap::new();
    let output = Output::start(&streams, &receiver, "timeout = '150ms'");
    let mut last = None;
    for _ in 0..20 {
        let offsets = streams.commit("orders", &keys);
        for (key, id) in keys.iter().zip(ids(&offsets)) {
            sent.entry(key).or_default().push(id);
        }
        last = offsets.last().copied();
    }
    until("all is delivered", || streams.checkpoint("orders") == last).await;
    output.stop().await;
    for (key, sent) in sent {
        assert_eq!(taken_of(&receiver, key), sent, "{key}");
    }
    assert_eq!(elsewhere.requests().len(), 0, "a redirect was followed");
}

#[tokio::test]
async fn a_pause_that_the_receiver_asks_for_is_kept() {
    let mut streams = Streams::new();
    let mut tries = 0;
    let receiver = Receiver::start(move |_| {
        tries += 1;
        match tries {
            1 => Reply::Full(503, "Retry-After: 1\r\n".into(), String::new()),
            _ => Reply::Status(200),
        }
    })
    .await;
    streams.commit("orders", &["a"]);
    let output = Output::start(&streams, &receiver, "");
    output.error().await;
    streams.commit("orders", &["b"]);
    until("both are taken", || receiver.taken().len() == 2).await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 3);
    for later in &requests[1..] {
        assert!(later.at - requests[0].at >= Duration::from_secs(1), "{}", later.event("subject"));
    }
    output.stop().await;
}

#[tokio::test]
async fn one_dead_key_does_not_stop_the_others_and_holds_the_checkpoint() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|request| match request.event("subject").as_str() {
        "dead" => Reply::Status(500),
        _ => Reply::Status(200),
    })
    .await;
    let before = streams.commit("orders", &["a"]);
    streams.commit("orders", &["dead", "b", "dead"]);
    let output = Output::start(&streams, &receiver, "");
    for _ in 0..50 {
        streams.commit("orders", &["dead", "c", "d"]);
    }
    until("the others are through", || receiver.taken().len() == 102).await;
    output.stop().await;
    assert_eq!(streams.checkpoint("orders"), before.last().copied());
    let dead = receiver.requests().into_iter().filter(|r| r.event("subject") == "dead");
    let tried: HashSet<String> = dead.map(|request| request.id().to_owned()).collect();
    assert_eq!(tried.len(), 1, "a later event of the dead key was sent");
}

#[tokio::test]
async fn after_a_restart_nothing_is_missing_and_what_comes_again_has_the_same_id() {
    let mut streams = Streams::new();
    let healed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = healed.clone();
    let receiver = Receiver::start(move |request| {
        let dead = request.event("subject") == "dead";
        let healed = flag.load(SeqCst);
        Reply::Status(if dead && !healed { 500 } else { 200 })
    })
    .await;
    let delivered = streams.commit("orders", &["a", "b"]);
    let held = streams.commit("orders", &["dead", "a", "b", "dead"]);
    let output = Output::start(&streams, &receiver, "");
    until("the others are through", || receiver.taken().len() == 4).await;
    output.stop().await;

    let mut streams = streams.reopen();
    assert_eq!(streams.checkpoint("orders"), delivered.last().copied());
    healed.store(true, SeqCst);
    let new = streams.commit("orders", &["dead", "b"]);
    let first_run = receiver.taken().len();
    let output = Output::start(&streams, &receiver, "");
    until("all is delivered", || streams.checkpoint("orders") == new.last().copied()).await;
    output.stop().await;

    let second_run = &receiver.taken()[first_run..];
    let again: HashSet<String> = second_run.iter().map(|r| r.id().to_owned()).collect();
    let owed: HashSet<String> = ids(&held).into_iter().chain(ids(&new)).collect();
    assert_eq!(again, owed, "exactly what is behind the checkpoint comes");
    assert_eq!(taken_of(&receiver, "dead"), ids(&[held[0], held[3], new[0]]));
}

#[tokio::test]
async fn what_is_given_up_becomes_a_dead_letter_and_its_key_goes_on() {
    let mut streams = Streams::new();
    let mut tries = 0;
    let receiver = Receiver::start(move |_| {
        tries += 1;
        match tries {
            ..=3 => Reply::Full(422, String::new(), "no such customer".into()),
            _ => Reply::Status(200),
        }
    })
    .await;
    let sent = streams.commit("orders", &["a", "a"]);
    let output = Output::start(&streams, &receiver, "retry.max_attempts = 3");
    until("the next is taken", || streams.checkpoint("orders") == sent.last().copied()).await;
    let status = output.status.borrow().clone();
    assert_eq!((status.delivered, status.failed, status.dead_letters), (1, 3, 1));
    output.stop().await;

    let letters = streams.store.dead_letters(10).unwrap();
    let [(_, letter)] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter.event, ids(&sent)[0]);
    assert_eq!(letter.by, By::Output { output: "billing".into(), stream: "orders".into() });
    assert_eq!(letter.reason, "answered 422 Unprocessable Entity: no such customer");
    assert_eq!(letter.attempts, 3);
    assert_eq!(letter.payload.get().as_bytes(), receiver.requests()[0].body);
    assert_eq!(receiver.taken().len(), 1);
}

#[tokio::test]
async fn a_letter_has_no_secret_of_the_url_or_the_headers_that_the_receiver_repeats() {
    let mut streams = Streams::new();
    let said = "no route for /hooks/p4th-secret?token=qu3ry-secret; T0KEN: h3ader-secret";
    let headers = "X-Echo: p4th-secret qu3ry-secret h3ader-secret\r\n";
    let receiver = Receiver::start(|_| Reply::Full(413, headers.into(), said.into())).await;
    streams.commit("orders", &["a"]);
    let config = format!(
        "name = 'billing'\nstreams = ['orders']\nsecret = '{SECRET}'\nallow_private = true\n\
         url = 'http://127.0.0.1:{}/hooks/p4th-secret?token=qu3ry-secret'\n\
         headers = {{ Authorization = 'Bearer h3ader-secret' }}",
        receiver.port
    );
    let output = Output::with(&streams, &config);
    until("it is set aside", || output.status.borrow().dead_letters == 1).await;
    output.stop().await;
    let letters = streams.store.dead_letters(10).unwrap();
    let letter = format!("{letters:?}");
    assert!(letter.contains("no route for /hooks***"), "{letter}");
    assert!(letter.contains("x-echo") && !letter.contains("-secret"), "{letter}");
}

#[tokio::test]
async fn a_letter_is_delivered_again_under_its_id_and_goes_only_when_it_is_taken() {
    let mut streams = Streams::new();
    let healed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = healed.clone();
    let receiver = Receiver::start(move |_| match flag.load(SeqCst) {
        true => Reply::Status(200),
        false => Reply::Full(422, "X-Seen: b3ar3r-t0ken\r\n".into(), "b3ar3r-t0ken?".into()),
    })
    .await;
    let sent = streams.commit("orders", &["a"]);
    let more = "retry.max_attempts = 1\nheaders = { Authorization = 'Bearer b3ar3r-t0ken' }";
    let output = Output::start(&streams, &receiver, more);
    until("it is given up", || streams.checkpoint("orders") == sent.last().copied()).await;
    let letter = || streams.store.dead_letter(1).unwrap();
    let retry = || {
        let all = Filter { all: true, ..Filter::default() };
        streams.store.retry_dead_letters(&all, |_| true).expect("it is marked")
    };
    assert_eq!(retry().ids, [1]);
    until("it failed again", || letter().is_some_and(|letter| !letter.retrying)).await;
    let kept = letter().unwrap();
    assert_eq!((kept.attempts, kept.tries.len()), (2, 2));
    for attempt in &kept.tries {
        let request = attempt.request.as_ref().expect("what was sent");
        let response = attempt.response.as_ref().expect("what came back");
        assert_eq!((request.method.as_str(), response.status), ("POST", 422));
        assert_eq!(request.headers["webhook-id"], ids(&sent)[0]);
        assert_eq!(request.headers["authorization"], "***");
        assert_eq!((response.body.as_str(), &*response.headers["x-seen"]), ("***?", "***"));
    }
    healed.store(true, SeqCst);
    retry();
    until("it is taken", || letter().is_none()).await;
    output.stop().await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.id() == ids(&sent)[0]));
    let replayed = |request: &Request| {
        serde_json::from_slice::<serde_json::Value>(&request.body).unwrap()["replayed"] == true
    };
    assert_eq!(requests.iter().map(replayed).collect::<Vec<_>>(), [false, true, true]);
    assert!(signed_with(&requests[2], SECRET));
}

#[tokio::test]
async fn an_event_is_given_up_after_its_time_however_few_its_tries() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Reset).await;
    let sent = streams.commit("orders", &["a"]);
    let output = Output::start(&streams, &receiver, "retry.give_up_after = '50ms'");
    until("it is given up", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    assert_eq!(streams.store.dead_letters(10).unwrap().len(), 1);
}

#[tokio::test]
async fn an_event_that_is_too_large_for_the_receiver_is_not_tried_again() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Status(413)).await;
    let sent = streams.commit("orders", &["a"]);
    let output = Output::start(&streams, &receiver, "");
    until("it is set aside", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    assert_eq!(receiver.requests().len(), 1);
    assert_eq!(streams.store.dead_letters(10).unwrap().len(), 1);
}

#[tokio::test]
async fn a_receiver_that_is_gone_stops_the_output_and_loses_nothing() {
    let mut streams = Streams::new();
    let gone = Receiver::start(|_| Reply::Status(410)).await;
    let sent = streams.commit("orders", &["a", "b"]);
    let output = Output::start(&streams, &gone, "concurrency = 1");
    assert!(output.error().await.contains("410 Gone"));
    streams.commit("orders", &["c"]);
    output.stop().await;
    assert_eq!((gone.requests().len(), streams.checkpoint("orders")), (1, None));
    assert_eq!(streams.store.dead_letters(10).unwrap().len(), 0);

    let back = Receiver::start(|_| Reply::Status(200)).await;
    let output = Output::start(&streams, &back, "");
    until("all has come", || back.taken().len() == 3).await;
    output.stop().await;
    assert_eq!(taken_of(&back, "a"), ids(&sent[..1]));
}

#[tokio::test]
async fn a_receiver_that_is_down_is_probed_by_one_delivery_at_a_time() {
    let mut streams = Streams::new();
    let keys: Vec<String> = (0..500).map(|key| key.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let sent = streams.commit("orders", &keys);
    let receiver = Receiver::start(|_| Reply::Status(502)).await;
    let slow = "retry.max = '1h'\nretry.initial = '1h'";
    let config = format!(
        "name = 'billing'\nstreams = ['orders']\nurl = '{}'\nsecret = '{SECRET}'\n\
         allow_private = true\n{slow}",
        receiver.url()
    );
    let output = Output::with(&streams, &config);
    until("it is noticed", || receiver.requests().len() >= 8).await;
    output.stop().await;
    // Eight tries tell that it is down; those under way by then, and a probe, may follow.
    assert!(receiver.requests().len() <= 8 + 8 + 1, "{}", receiver.requests().len());

    let back = Receiver::start(|_| Reply::Status(200)).await;
    let output = Output::start(&streams, &back, "");
    until("all has come", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
}

#[tokio::test]
async fn strict_order_sends_a_stream_one_event_after_the_other() {
    let mut streams = Streams::new();
    let mut tries = 0;
    let receiver = Receiver::start(move |_| {
        tries += 1;
        Reply::Status(if tries % 3 == 0 { 500 } else { 200 })
    })
    .await;
    let sent = streams.commit("orders", &["a", "b", "c", "a", "d", "e", "f", "b"]);
    let output = Output::start(&streams, &receiver, "ordering = 'strict'");
    until("all is delivered", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    let taken: Vec<String> = receiver.taken().iter().map(|r| r.id().to_owned()).collect();
    assert_eq!(taken, ids(&sent));
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_refused_when_it_is_connected_to() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    streams.commit("orders", &["a"]);
    for name in ["localhost", "LOCALHOST"] {
        let config = format!(
            "name = 'billing'\nstreams = ['orders']\nurl = 'http://{name}:{}'\nsecret = '{SECRET}'",
            receiver.port
        );
        let output = Output::with(&streams, &config);
        let error = output.error().await;
        assert!(error.contains("is no public address"), "{name}: {error}");
        output.stop().await;
    }
    assert_eq!(receiver.requests().len(), 0);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_secrets_nor_what_a_receiver_answers_are_logged_or_shown() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // For all threads: a log statement that runs first where nobody listens is switched off.
    tracing::subscriber::set_global_default(subscriber).expect("no other test does this");
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Full(500, String::new(), "row value".into())).await;
    streams.commit("orders", &["a"]);
    let config = format!(
        "name = 'billing'\nstreams = ['orders']\nurl = '{}?token=t0k3n'\nsecret = '{SECRET}'\n\
         headers = {{ Authorization = 'Bearer b3ar3r' }}\nallow_private = true\n\
         retry = {{ initial = '1ms', max_attempts = 2 }}",
        receiver.url()
    );
    let output = Output::with(&streams, &config);
    until("it is given up", || output.status.borrow().dead_letters == 1).await;
    let status = format!("{:?}", output.status.borrow());
    output.stop().await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("dead-lettered: answered 500"), "{log}");
    for secret in ["t0k3n", "b3ar3r", &SECRET[6..], "row value"] {
        assert!(!log.contains(secret) && !status.contains(secret), "{secret}: {log}\n{status}");
    }
}
