use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Mutex;
use std::thread;

use axum::http::Response;
use http_body_util::{BodyExt as _, Empty};
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpHooks as _};

use super::super::guests::{Guest, PASS, batch, config, load, relation};
use super::super::{Allow, Asked, CallError, Config, Instance, Moment, NoState};
use super::*;

/// The part of WASI that the guests here use.
const PACKAGES: &str = "
    package wasi:clocks@0.2.0 {
        interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
        interface monotonic-clock {
            use wasi:io/poll@0.2.0.{pollable};
            now: func() -> u64;
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:io@0.2.0 {
        interface poll { resource pollable { block: func(); } }
        interface error { resource error; }
        interface streams {
            use error.{error};
            use poll.{pollable};
            resource input-stream { blocking-read: func(len: u64) -> result<list<u8>, stream-error>; }
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream {
                blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
            }
        }
    }
    package wasi:http@0.2.0 {
        interface types {
            use wasi:io/streams@0.2.0.{output-stream};
            resource fields { constructor(); }
            resource outgoing-request {
                constructor(headers: fields);
                body: func() -> result<outgoing-body>;
            }
            resource outgoing-body { write: func() -> result<output-stream>; }
        }
    }
    package wasi:random@0.2.0 {
        interface random { get-random-u64: func() -> u64; get-random-bytes: func(len: u64) -> list<u8>; }
        interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }
    }
    package wasi:sockets@0.2.0 {
        interface network { enum error-code { unknown, access-denied } enum ip-address-family { ipv4, ipv6 } }
        interface tcp { resource tcp-socket; }
    }
";

const RANDOM: &str = "import wasi:random/random@0.2.0;";

fn start(bytes: &[u8], config: Config) -> Instance {
    let state = Arc::new(Mutex::new(NoState));
    let mut instance = load(bytes, config).instantiate(0, 1, false, state).unwrap();
    instance.on_relation(&relation(1)).unwrap();
    instance
}

/// A verdict drop for every random number that is odd.
const COIN: Guest = Guest {
    imports: r#"(import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))"#,
    process: "(i32.store8 (i32.const 131072) (i32.wrap_i64 (i64.and (call $random) (i64.const 1))))",
    ..PASS
};

#[test]
fn random_numbers_follow_from_the_event_and_several_events_have_none() {
    let coin = COIN.importing(RANDOM, PACKAGES);
    let flips = || {
        let mut instance = start(&coin, config());
        let mut flip = |ordinal| {
            let moment = Moment::of_event(7, 256, ordinal);
            instance.process_at(&batch(&[0]), moment).unwrap().verdicts[0]
        };
        (0..200).map(&mut flip).collect::<Vec<u8>>()
    };
    let first = flips();
    assert_eq!(first, flips());
    assert!((60..140).contains(&first.iter().filter(|flip| **flip == 1).count()));
    let mut instance = start(&coin, config());
    let several = instance.process_at(&batch(&[0, 0]), Moment::of_transaction(7)).unwrap_err();
    assert_eq!(several, CallError::Asked(Asked::Random));
    assert!(!instance.is_alive());
}

#[test]
fn too_many_random_bytes_end_the_instance() {
    let guest = Guest {
        imports: r#"(import "wasi:random/random@0.2.0" "get-random-bytes" (func $bytes (param i64 i32)))"#,
        process: "(call $bytes (i64.const 65537) (i32.const 900))",
        ..PASS
    };
    let mut instance = start(&guest.importing(RANDOM, PACKAGES), config());
    let error = instance.process(&batch(&[0]), 7).unwrap_err().to_string();
    assert!(error.contains("65537 random bytes"), "{error}");
}

/// Traps unless its clocks say 7.5 s, and then waits for a day.
const SLEEPER: Guest = Guest {
    imports: r#"
        (import "wasi:clocks/wall-clock@0.2.0" "now" (func $wall (param i32)))
        (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
        (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $wait (param i64) (result i32)))
        (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))"#,
    process: "(call $wall (i32.const 904))
        (if (i64.ne (i64.load (i32.const 904)) (i64.const 7)) (then unreachable))
        (if (i32.ne (i32.load (i32.const 912)) (i32.const 500000000)) (then unreachable))
        (if (i64.ne (call $now) (i64.const 7500000000)) (then unreachable))
        (call $block (call $wait (i64.const 86400000000000)))
        (if (i64.ne (call $now) (i64.const 86407500000000)) (then unreachable))",
    ..PASS
};

#[test]
fn clocks_say_the_commit_time_and_waiting_takes_no_time() {
    let imports = "import wasi:clocks/wall-clock@0.2.0; import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:io/poll@0.2.0;";
    let bytes = SLEEPER.importing(imports, PACKAGES);
    let mut instance = start(&bytes, config());
    for _ in 0..2 {
        instance.process(&batch(&[0, 0]), 7_500_000).unwrap();
    }
    let several = instance.process_at(&batch(&[0, 0]), Moment::of_several(7)).unwrap_err();
    assert_eq!(several, CallError::Asked(Asked::Time));
}

#[test]
fn handles_that_are_never_given_back_run_out() {
    let guest =
        Guest { process: "(loop $more (drop (call $wait (i64.const 1))) (br $more))", ..SLEEPER };
    let imports = "import wasi:clocks/wall-clock@0.2.0; import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:io/poll@0.2.0;";
    let patient = Config { limits: toml::from_str("deadline = \"60s\"").unwrap(), ..config() };
    let mut instance = start(&guest.importing(imports, PACKAGES), patient);
    let error = instance.process(&batch(&[0]), 7).unwrap_err();
    assert!(matches!(&error, CallError::Trap(_)), "{error}");
}

#[test]
fn imports_are_told_apart() {
    for (id, expected) in [
        ("wasi:clocks/wall-clock@0.2.6", Some(Import::Empty)),
        ("wasi:filesystem/preopens@0.2.0", Some(Import::Empty)),
        ("wasi:http/outgoing-handler@0.2.3", Some(Import::Http)),
        ("wasi:http/incoming-handler@0.2.3", Some(Import::Unknown)),
        ("wasi:clocks/wall-clock@0.3.0", Some(Import::Unknown)),
        ("wasi:keyvalue/store@0.2.0", Some(Import::Unknown)),
        ("walmill:plugin/log@0.1.0", None),
    ] {
        assert_eq!(import(id), expected, "{id}");
    }
}

/// Answers one request with this, and gives back what was asked.
fn server(answer: &'static str) -> (u16, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = vec![0; 10_000];
        let length = stream.read(&mut asked).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&asked[..length]).into_owned()
    });
    (port, served)
}

/// What is granted, and the time that a call has for it.
type Granted = (Http, Duration);

fn granted(origin: &str, limits: &str) -> Granted {
    let allow: Allow = toml::from_str(&format!("http = [\"{origin}\"]")).unwrap();
    let limits = toml::from_str(limits).unwrap();
    (allow.resolve("guest", &limits).unwrap().http.unwrap(), limits.http_time.duration())
}

async fn send(hooks: &mut http::Hooks, url: &str) -> Result<Response<WasiBody>, String> {
    let body = Empty::new().map_err(Error::from).boxed_unsync();
    let request = axum::http::Request::get(url).body(body).unwrap();
    let sent = hooks.send_request(request, None, Box::new(async { Ok(()) }));
    Box::into_pin(sent).await.map(|(answer, _)| answer).map_err(|error| format!("{error:?}"))
}

async fn ask((http, time): &Granted, url: &str) -> Result<(u16, Vec<u8>), String> {
    let answer = send(&mut http::Hooks::new(Some(http.clone()), *time), url).await?;
    let status = answer.status().as_u16();
    Ok((status, answer.into_body().collect().await.unwrap().to_bytes().to_vec()))
}

#[tokio::test]
async fn requests_go_to_the_origins_that_were_granted_and_nowhere_else() {
    let (port, served) = server("HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nhi");
    let origin = format!("http://127.0.0.1:{port}");
    let http = granted(&origin, "");
    assert_eq!(ask(&http, &format!("{origin}/a?b")).await, Ok((201, b"hi".to_vec())));
    assert!(served.join().unwrap().starts_with("GET /a?b HTTP/1.1"));
    for other in
        ["http://127.0.0.1:1/", "https://127.0.0.1/", "http://example.com/", "http://127.0.0.2/"]
    {
        assert_eq!(ask(&http, other).await, Err("HttpRequestDenied".into()), "{other}");
    }
}

#[tokio::test]
async fn a_granted_name_that_leads_to_a_private_address_is_not_followed() {
    let http = granted("http://localhost:1", "");
    assert_eq!(ask(&http, "http://localhost:1/").await, Err("DestinationIpProhibited".into()));
    let allow: Allow =
        toml::from_str("http = [\"http://localhost:1\"]\nhttp_private = true").unwrap();
    let private = allow.resolve("guest", &toml::from_str("").unwrap()).unwrap().http.unwrap();
    assert_eq!(
        ask(&(private, http.1), "http://localhost:1/").await,
        Err("ConnectionRefused".into())
    );
}

#[tokio::test]
async fn an_answer_that_redirects_is_an_answer_and_one_that_is_too_large_or_late_is_none() {
    let (port, _served) =
        server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
    let origin = format!("http://127.0.0.1:{port}");
    assert_eq!(ask(&granted(&origin, ""), &origin).await, Ok((302, vec![])));
    let (port, _served) =
        server("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    let origin = format!("http://127.0.0.1:{port}");
    let small = granted(&origin, "http_size = \"10B\"");
    assert_eq!(ask(&small, &origin).await, Err("HttpResponseBodySize(Some(10))".into()));
    // Nobody accepts there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let hasty = granted(&origin, "http_time = \"50ms\"");
    assert_eq!(ask(&hasty, &origin).await, Err("HttpResponseTimeout".into()));
}

#[test]
fn a_variable_that_is_granted_and_not_there_is_an_error_that_names_it() {
    let allow: Allow = toml::from_str("env = [\"WALMILL_NO_SUCH_VARIABLE\"]").unwrap();
    let error = allow.resolve("guest", &toml::from_str("").unwrap()).err().unwrap();
    expect_test::expect!["`plugins.guest.allow.env` grants `WALMILL_NO_SUCH_VARIABLE`, which walmill's environment does not have as text; set it, or take it out of the list"].assert_eq(&error.to_string());
}

/// Answers every request, and says what they were about in their order.
fn patient_server() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (sender, asked) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 1_000];
            let length = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            if sender.send(path).is_err() {
                return;
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi")
                .unwrap();
        }
    });
    (origin, asked)
}

#[tokio::test]
async fn a_guest_that_holds_many_answers_waits_with_its_next_request() {
    let (origin, asked) = patient_server();
    let (http, _) = granted(&origin, "");
    let patient = || http::Hooks::new(Some(http.clone()), Duration::from_secs(600));
    let (mut hooks, mut other) = (patient(), patient());
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(send(&mut hooks, &format!("{origin}/held")).await.unwrap());
    }
    let (one_more, others) = (format!("{origin}/one-more"), format!("{origin}/others"));
    let mut waiting = Box::pin(send(&mut hooks, &one_more));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("it did not wait"),
        answer = send(&mut other, &others) => assert!(answer.is_ok()),
    }
    held.pop();
    waiting.await.unwrap();
    let paths: Vec<String> = asked.try_iter().skip(16).collect();
    assert_eq!(paths, ["/others", "/one-more"]);
}

/// Writes a body for ever, and sends the request never.
const WRITER: Guest = Guest {
    imports: r#"
        (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
        (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
        (import "wasi:http/types@0.2.0" "[method]outgoing-request.body" (func $body (param i32 i32)))
        (import "wasi:http/types@0.2.0" "[method]outgoing-body.write" (func $write (param i32 i32)))
        (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $push (param i32 i32 i32 i32)))"#,
    process: "(call $body (call $request (call $fields)) (i32.const 904))
        (call $write (i32.load (i32.const 908)) (i32.const 912))
        (loop $more
          (call $push (i32.load (i32.const 916)) (i32.const 2048) (i32.const 4096) (i32.const 920))
          (br_if $more (i32.eqz (i32.load8_u (i32.const 920)))))",
    ..PASS
};

#[test]
fn a_guest_that_waits_for_what_never_comes_is_ended() {
    let mut granting = config();
    granting.allow = toml::from_str("http = [\"http://127.0.0.1:1\"]").unwrap();
    granting.limits = toml::from_str("http_time = \"50ms\"").unwrap();
    let imports = "import wasi:http/types@0.2.0; import wasi:io/streams@0.2.0;";
    let mut instance = start(&WRITER.importing(imports, PACKAGES), granting);
    let error = instance.process(&batch(&[0]), 7).unwrap_err().to_string();
    assert!(error.contains("waited for longer than `limits.http_time`"), "{error}");
    assert!(!instance.is_alive());
}
