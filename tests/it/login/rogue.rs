//! Servers that are none, or mean ill: whatever they say, we say what is wrong, in time.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use walmill::source::raw;

use super::config;

/// What a rogue says next, to what it has just heard, and whether it stays on the line.
type Script = Box<dyn FnMut(&[u8]) -> (Vec<u8>, bool) + Send>;

/// What a server says to what the client said.
type Step = fn(&[u8]) -> Vec<u8>;

/// A socket that speaks by a script. What it was told comes over the channel.
fn rogue(scripts: Vec<Script>) -> (u16, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (heard, told) = mpsc::channel();
    thread::spawn(move || {
        for (script, stream) in scripts.into_iter().zip(listener.incoming()) {
            // Whoever has heard enough hangs up on us.
            let _ = heard.send(speak(stream.expect("a connection"), script));
        }
    });
    (port, told)
}

fn speak(mut stream: TcpStream, mut script: Script) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 65536]);
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        all.extend_from_slice(&buffer[..len]);
        let (answer, stays) = script(&buffer[..len]);
        if stream.write_all(&answer).is_err() || !stays {
            break;
        }
    }
    all
}

/// Says these one after the other, then hangs up.
fn says(answers: Vec<Vec<u8>>) -> Script {
    let mut answers = answers.into_iter();
    Box::new(move |_| (answers.next().unwrap_or_default(), answers.len() > 0))
}

/// The answer to each of the client's steps, from what the client said.
fn plays(steps: Vec<Step>) -> Script {
    let mut steps = steps.into_iter();
    Box::new(move |heard| match steps.next() {
        Some(step) => (step(heard), steps.len() > 0),
        None => (Vec::new(), false),
    })
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).expect("a length").to_be_bytes();
    [&[tag], &len[..], body].concat()
}

fn authentication(kind: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes(), body].concat())
}

fn sasl(_: &[u8]) -> Vec<u8> {
    authentication(10, b"SCRAM-SHA-256\0\0")
}

/// The server's first message of SCRAM, with the client's nonce.
fn server_first(heard: &[u8], nonce: &str, iterations: &str) -> Vec<u8> {
    let heard = String::from_utf8_lossy(heard);
    let own = heard.split("r=").nth(1).expect("a nonce");
    let nonce = if nonce.is_empty() { format!("{own}server") } else { nonce.into() };
    let salt = base64::engine::general_purpose::STANDARD.encode("salt");
    authentication(11, format!("r={nonce},s={salt},i={iterations}").as_bytes())
}

/// The error of a login there, which comes within the time that the address gives it.
async fn error(port: u16, options: &str) -> String {
    let url = format!("postgres://u:s3cret@127.0.0.1:{port}/d?connect_timeout=2&{options}");
    let started = Instant::now();
    let error = raw::Reader::open(&config(&url)).await.err().expect("no server");
    assert!(started.elapsed() < Duration::from_secs(30), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
    error
}

async fn error_of(script: Script, options: &str) -> String {
    let (port, _told) = rogue(vec![script]);
    error(port, &format!("sslmode=disable&{options}")).await
}

#[tokio::test]
async fn a_server_that_does_not_know_the_password_is_found_out() {
    let cases: [(Vec<Step>, &str); 6] = [
        (vec![sasl, |heard| server_first(heard, "", "2147483647")], "iteration count exceeds"),
        (vec![sasl, |heard| server_first(heard, "another", "4096")], "invalid nonce"),
        (
            vec![sasl, |heard| server_first(heard, "", "4096"), |_| {
                authentication(12, b"v=c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmE=")
            }],
            "SCRAM verification error",
        ),
        (vec![sasl, |_| authentication(0, b"")], "another step"),
        (
            vec![sasl, |heard| server_first(heard, "", "4096"), |_| authentication(0, b"")],
            "another step",
        ),
        (vec![sasl, |_| authentication(11, b"r=\xFF\xFE")], "utf-8"),
    ];
    for (steps, words) in cases {
        let error = error_of(plays(steps), "").await;
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_less_than_we_give_is_refused() {
    let let_in = || says(vec![authentication(0, b"")]);
    let error = error_of(let_in(), "require_auth=scram-sha-256").await;
    assert!(error.contains("`require_auth` does not allow"), "{error}");
    let error = error_of(let_in(), "channel_binding=require").await;
    assert!(error.contains("does not bind the login"), "{error}");

    // In clear, nothing but the question whether there is TLS leaves us.
    let (port, told) = rogue(vec![says(vec![b"N".to_vec()]), says(vec![b"N".to_vec()])]);
    let error = self::error(port, "sslmode=require").await;
    assert!(error.contains("the server has no TLS"), "{error}");
    assert_eq!(told.recv().expect("what it was told"), [0, 0, 0, 8, 4, 210, 22, 47]);
}

#[tokio::test]
async fn what_was_slipped_in_before_tls_is_not_taken_for_the_server_s_word() {
    let early = [b"S".to_vec(), authentication(0, b""), message(b'Z', b"I")].concat();
    let (port, _told) = rogue(vec![says(vec![early])]);
    let error = self::error(port, "sslmode=require").await;
    assert!(error.contains("connect to 127.0.0.1"), "{error}");
}

#[tokio::test]
async fn lengths_beyond_all_bounds_and_talk_without_end_are_cut_short() {
    for start in [b"R\xFF\xFF\xFF\xFF", b"R\0\0\0\x03", b"R\x3F\xFF\xFF\xFF", b"E\x10\0\0\0"] {
        let error = error_of(says(vec![start.to_vec()]), "").await;
        assert!(error.contains("not PostgreSQL's protocol"), "{error}");
    }
    let notice = message(b'N', &[b'M'; 60_000]);
    let error = error_of(says(vec![notice.repeat(40)]), "").await;
    assert!(error.contains("more than a server has to say"), "{error}");
    let parameter = message(b'S', &[&[b'n'; 500][..], b"\0v\0"].concat());
    let talk = [authentication(0, b""), parameter.repeat(4_000)].concat();
    let error = error_of(says(vec![talk]), "").await;
    assert!(error.contains("more than a server has to say"), "{error}");
}

#[tokio::test]
async fn silence_is_waited_for_no_longer_than_the_address_says() {
    for heard in [Vec::new(), sasl(b""), b"R\0\0\0\x08\0".to_vec()] {
        let mut first = Some(heard);
        let script: Script = Box::new(move |_| (first.take().unwrap_or_default(), true));
        let error = error_of(script, "").await;
        assert!(error.contains("no answer within 2 s"), "{error}");
    }
}

#[tokio::test]
async fn noise_at_any_step_is_an_error() {
    let mut random = StdRng::seed_from_u64(17);
    for round in 0..60 {
        let mut noise = vec![0; random.random_range(1..200)];
        random.fill_bytes(&mut noise);
        if round % 2 == 0 {
            // So that it is not the length alone that is nonsense.
            noise = message(*b"RSKZEN".get(round % 6).expect("a tag"), &noise);
        }
        let steps = match round % 4 {
            0 => vec![noise],
            1 => vec![sasl(b""), noise],
            2 => vec![authentication(5, b"salt"), noise],
            _ => vec![[authentication(0, b""), message(b'Z', b"I")].concat(), noise],
        };
        assert!(!error_of(says(steps), "").await.is_empty());
    }
}

#[tokio::test]
async fn what_a_server_says_cannot_steer_the_terminal() {
    let body = b"SFATAL\0C28000\0Mno \x1b[2Jentry\r\n\0\0";
    let error = error_of(says(vec![message(b'E', body)]), "").await;
    assert!(error.contains("no  [2Jentry") && !error.contains(char::is_control), "{error:?}");
}
