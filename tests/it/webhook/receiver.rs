//! A webhook receiver on a real socket that answers, or fails to, as a test says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub at: Instant,
    /// Whether the answer began with a 2xx.
    pub taken: bool,
}

impl Request {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// A member of the event.
    pub fn event(&self, member: &str) -> String {
        let event: serde_json::Value = serde_json::from_slice(&self.body).expect("an event");
        event[member].as_str().expect("a text").to_owned()
    }
}

/// What the receiver does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    Status(u16),
    /// A status, more headers and a body.
    Full(u16, String, String),
    /// Takes the request and says nothing, until walmill's patience ends.
    Hang,
    /// Takes the request, ends its own half of the connection, and waits for the other's.
    HalfClose,
    /// A status, after a time.
    Slow(Duration, u16),
    /// Reads the request and resets the connection.
    Reset,
    /// Says 200, promises a body, and resets the connection.
    ResetInAnswer,
    /// What is no HTTP.
    Garbage,
    /// This status with a body of 3 MB.
    Big(u16),
}

impl Reply {
    /// Whether it begins with a 2xx.
    pub fn takes(&self) -> bool {
        matches!(
            self,
            Self::Status(200..300)
                | Self::Full(200..300, ..)
                | Self::Slow(_, 200..300)
                | Self::Big(200..300)
                | Self::ResetInAnswer
        )
    }
}

pub struct Receiver {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

/// Whether a receiver that was away is back.
pub type Back = Arc<AtomicBool>;

type Script = Box<dyn FnMut(&Request) -> Reply + Send>;

impl Receiver {
    /// Answers with this status until it is back, and then takes everything.
    pub async fn away(status: u16) -> (Self, Back) {
        let back = Back::default();
        let is_back = Arc::clone(&back);
        let status = move || if is_back.load(Ordering::SeqCst) { 200 } else { status };
        (Self::start(move |_| Reply::Status(status())).await, back)
    }

    pub async fn start(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.expect("a connection");
                tokio::spawn(serve(connection, script.clone(), seen.clone()));
            }
        });
        Self { port, requests, task }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// Everything so far, in the order in which it came.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }

    /// Forgets what came so far.
    #[allow(dead_code, reason = "only what runs for hours needs it")]
    pub fn forget(&self) {
        self.requests.lock().expect("no panic").clear();
    }

    /// What was answered with a 2xx.
    pub fn taken(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.taken).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    connection: TcpStream,
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<Request>>>,
) -> Option<()> {
    let mut connection = BufReader::new(connection);
    loop {
        let mut request = read(&mut connection).await?;
        let reply = {
            // One lock around both: what one request is told depends on what was seen before it.
            let mut seen = seen.lock().expect("no panic");
            let reply = (script.lock().expect("no panic"))(&request);
            request.taken = reply.takes();
            seen.push(request);
            reply
        };
        answer(connection.get_mut(), reply).await?;
    }
}

async fn read(connection: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("ASCII");
    let mut lines = head.lines();
    let line = lines.next().expect("a request line").to_owned();
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = vec![0; headers["content-length"].parse().expect("a length")];
    connection.read_exact(&mut body).await.ok()?;
    Some(Request { line, headers, body, at: Instant::now(), taken: false })
}

async fn answer(connection: &mut TcpStream, reply: Reply) -> Option<()> {
    let (status, headers, body) = match reply {
        Reply::Status(status) => (status, String::new(), String::new()),
        Reply::Full(status, headers, body) => (status, headers, body),
        Reply::Big(status) => (status, String::new(), "x".repeat(3 << 20)),
        Reply::Hang => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            return None;
        }
        Reply::HalfClose => {
            connection.shutdown().await.ok()?;
            while connection.read_u8().await.is_ok() {}
            return None;
        }
        Reply::Slow(time, status) => {
            tokio::time::sleep(time).await;
            (status, String::new(), String::new())
        }
        Reply::Reset => return reset(connection),
        Reply::ResetInAnswer => {
            let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
            connection.write_all(half).await.ok()?;
            connection.flush().await.ok()?;
            return None;
        }
        Reply::Garbage => {
            connection.write_all(b"\x00\x01 what is this?\r\n\r\n\r\n").await.ok()?;
            return None;
        }
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n{headers}\r\n");
    connection.write_all((head + &body).as_bytes()).await.ok()
}

fn reset(connection: &TcpStream) -> Option<()> {
    connection.set_zero_linger().expect("a socket option");
    None
}
