//! What it costs to bring events to many WebSocket subscribers: the real walmill behind a real
//! PostgreSQL, beside nats-server with the same texts to the same subscribers, which are a process
//! of their own.
//!
//!     cargo bench --bench fanout                    # all of it
//!     cargo bench --bench fanout -- deliveries      # or deliveries, memory, filters, latency
//!     cargo bench --bench fanout -- deliveries 100 1000 fast
//!                                                   # so many subscribers, one pace
//!
//! Where there is no nats-server, it says so and goes on without.
//!
//! `WALMILL_PROGRAM` names another walmill, to compare two of them.
//!
//! Processor time is the server's, from the kernel's books. In walmill's the whole process counts
//! (replication, journal, pipeline, stream); "serving" is its threads behind that.

mod frames;
mod load;
mod servers;
mod usage;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio_postgres::{AsyncMessage, NoTls};

use load::{Load, Plan, To};
use servers::{Server, Source};
use usage::{Usage, now};

const SUBSCRIBERS: [usize; 4] = [1, 100, 1_000, 10_000];
/// How events come.
const PACES: [Pace; 4] = [
    Pace { word: "steady", name: "single, steady", burst: 1, window: 1, steady: true },
    Pace { word: "alone", name: "single, one by one", burst: 1, window: 1, steady: false },
    Pace { word: "fast", name: "single, 64 under way", burst: 1, window: 64, steady: false },
    Pace { word: "bursts", name: "100 together", burst: 100, window: 2, steady: false },
];
/// Deliveries of a second at a steady pace, which leaves both servers idle for most of the time.
const STEADY: usize = 10_000;
/// Events of a second at a steady pace, however few subscribers there are.
const STEADY_EVENTS: usize = 100;
/// How long one case sends.
const TIME: Duration = Duration::from_secs(3);
const IDLE: usize = 10_000;
/// Of the latencies.
const COMMITS: usize = 500;
const AUDIENCE: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(10);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = arguments.as_slice()
        && first == "load"
    {
        return load::main(rest);
    }
    usage::raise_limit_of_files()?;
    let wanted =
        |name: &str| only(&arguments, &["deliveries", "memory", "filters", "latency"], name);
    tokio::runtime::Runtime::new()?.block_on(async {
        if wanted("deliveries") {
            deliveries(&arguments).await?;
        }
        if wanted("memory") {
            memory().await?;
        }
        if wanted("filters") {
            filters().await?;
        }
        if wanted("latency") {
            latency().await?;
        }
        Ok(())
    })
}

/// Whether the arguments name this one of its kind, or none of them.
fn only(arguments: &[String], kind: &[&str], name: &str) -> bool {
    let mut named =
        arguments.iter().filter(|argument| kind.contains(&argument.as_str())).peekable();
    named.peek().is_none() || named.any(|argument| argument == name)
}

/// How events come.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// As an argument.
    word: &'static str,
    name: &'static str,
    /// Events of a transaction, or of a publisher's write.
    burst: u32,
    /// Bursts that may be under way.
    window: u32,
    /// At a rate that leaves the server idle in between, instead of as fast as it goes.
    steady: bool,
}

impl Pace {
    /// Time from one burst to the next.
    fn period(&self, subscribers: usize) -> Option<Duration> {
        let events = (STEADY / subscribers).clamp(1, STEADY_EVENTS);
        self.steady.then(|| Duration::from_secs(1).div_f64(events as f64))
    }
}

/// Both servers, fresh, one after the other.
async fn servers() -> anyhow::Result<[Option<Server>; 2]> {
    let mut walmill = Server::walmill().await?;
    let event = walmill.one_text().await?;
    let nats = Server::nats(&event).await?;
    if nats.is_none() {
        println!("nats-server is not installed: there is nothing to compare with");
    }
    Ok([Some(walmill), nats])
}

/// What a case took.
struct Sent {
    deliveries: u64,
    events: u64,
    took: Duration,
    usage: Usage,
}

/// Sends bursts to subscribers, and waits for the last delivery.
async fn send(
    server: &mut Server,
    load: &mut Load,
    pace: Pace,
    plan: &Plan,
) -> anyhow::Result<Sent> {
    let Pace { burst, window, .. } = pace;
    // The first one makes all buffers and paths warm.
    server.send(burst, plan.subscribers).await?;
    load.next()?;
    let before = Usage::of(server.process(), server.serving)?;
    let (start, mut sent, mut came) = (Instant::now(), 0, 0);
    let period = pace.period(plan.subscribers);
    while start.elapsed() < TIME {
        if let Some(period) = period {
            tokio::time::sleep_until((start + period * sent).into()).await;
        }
        server.send(burst, plan.subscribers).await?;
        sent += 1;
        if sent - came == window {
            load.next()?;
            came += 1;
        }
    }
    for _ in came..sent {
        load.next()?;
    }
    let usage = Usage::of(server.process(), server.serving)?.since(before);
    Ok(Sent {
        deliveries: plan.burst * u64::from(sent),
        events: u64::from(burst) * u64::from(sent),
        took: start.elapsed(),
        usage,
    })
}

async fn deliveries(arguments: &[String]) -> anyhow::Result<()> {
    let counts = SUBSCRIBERS.map(|count| count.to_string());
    let counts = counts.each_ref().map(String::as_str);
    let paces = PACES.map(|pace| pace.word);
    println!("\nDeliveries to WebSocket subscribers of all events\n");
    println!(
        "{:<12} {:>11}  {:<22} {:>14} {:>18} {:>18}",
        "server", "subscribers", "events", "deliveries/s", "per CPU-second", "per serving CPU-s"
    );
    let mut servers = servers().await?;
    for subscribers in SUBSCRIBERS {
        for pace in PACES {
            if only(arguments, &counts, &subscribers.to_string())
                && only(arguments, &paces, pace.word)
            {
                compare(&mut servers, subscribers, pace).await?;
            }
        }
    }
    Ok(())
}

/// One case with each server, and how the first does beside the second.
async fn compare(
    servers: &mut [Option<Server>; 2],
    subscribers: usize,
    pace: Pace,
) -> anyhow::Result<()> {
    let mut figures = Vec::new();
    for server in servers.iter_mut().flatten() {
        let deliveries = subscribers as u64 * u64::from(pace.burst);
        let (port, to) = (server.port, server.everything());
        let plan = Plan { port, subscribers, burst: deliveries, to };
        let mut load = Load::start(&plan)?;
        let sent = send(server, &mut load, pace, &plan).await?;
        let per = |time: Duration| sent.deliveries as f64 / time.as_secs_f64();
        let each = [per(sent.took), per(sent.usage.all), per(sent.usage.serving)];
        let [second, all, serving] = each;
        let name = server.name;
        println!(
            "{name:<12} {subscribers:>11}  {:<22} {second:>14.0} {all:>18.0} {serving:>18.0}",
            pace.name
        );
        figures.push(each);
    }
    if let [ours, theirs] = figures.as_slice() {
        let [second, all, serving] = std::array::from_fn(|at| ours[at] / theirs[at]);
        let what = "ratio";
        println!(
            "{what:<12} {subscribers:>11}  {:<22} {second:>14.2} {all:>18.2} {serving:>18.2}",
            pace.name
        );
    }
    Ok(())
}

async fn memory() -> anyhow::Result<()> {
    println!("\nMemory of {IDLE} connections, bytes each\n");
    println!("{:<12} {:>12} {:>16}", "server", "idle", "after an event");
    for mut server in servers().await?.into_iter().flatten() {
        let before = usage::resident(server.process())?;
        let (port, to) = (server.port, server.everything());
        let mut load = Load::start(&Plan { port, subscribers: IDLE, burst: IDLE as u64, to })?;
        let each = |now: u64| now.saturating_sub(before) / IDLE as u64;
        let idle = each(usage::resident(server.process())?);
        server.send(1, 1).await?;
        load.next()?;
        let later = each(usage::resident(server.process())?);
        println!("{:<12} {idle:>12} {later:>16}", server.name);
    }
    Ok(())
}

/// One customer's events are for one subscriber, whoever else is connected.
async fn filters() -> anyhow::Result<()> {
    println!("\nAn event that one of the subscribers wants, microseconds of processor time\n");
    println!("{:>11}  {:<22} {:>10} {:>10}", "subscribers", "events", "all", "serving");
    let mut server = Server::walmill().await?;
    for subscribers in [1, IDLE] {
        for pace in PACES {
            let (port, to) = (server.port, To::Customers);
            let plan = Plan { port, subscribers, burst: u64::from(pace.burst), to };
            let mut load = Load::start(&plan)?;
            let sent = send(&mut server, &mut load, pace, &plan).await?;
            let each = |time: Duration| time.as_secs_f64() * 1e6 / sent.events as f64;
            println!(
                "{subscribers:>11}  {:<22} {:>10.1} {:>10.1}",
                pace.name,
                each(sent.usage.all),
                each(sent.usage.serving)
            );
        }
    }
    Ok(())
}

/// From before a commit until subscribers have the event, while nothing else is done.
async fn latency() -> anyhow::Result<()> {
    let mut server = Server::walmill().await?;
    let Source::Table(_, cluster) = &server.source else { return Ok(()) };
    let writer = servers::connect(cluster).await?;
    let mut notified = listen(&cluster.url()).await?;
    let (port, burst) = (server.port, AUDIENCE as u64);
    let mut load = Load::start(&Plan { port, subscribers: AUDIENCE, burst, to: To::Stream })?;
    let (mut notify, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..COMMITS {
        tokio::time::sleep(PAUSE).await;
        let start = now();
        writer.batch_execute("INSERT INTO unread VALUES (1); NOTIFY events").await?;
        notify.push(notified.recv().await.context("a notification")? - start);
        tokio::time::sleep(PAUSE).await;
        let start = now();
        server.send(1, 1).await?;
        let burst = load.next()?;
        first.push(burst.first - start);
        last.push(burst.last - start);
    }
    println!("\nFrom commit to client, microseconds, {COMMITS} commits, one at a time\n");
    println!("{:<34} {:>8} {:>8} {:>8}", "", "p50", "p99", "p99.9");
    for (name, times) in [
        ("LISTEN/NOTIFY, one session".to_owned(), &mut notify),
        (format!("the first of {AUDIENCE} subscribers"), &mut first),
        (format!("the last of {AUDIENCE} subscribers"), &mut last),
    ] {
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize] / 1000;
        println!("{name:<34} {:>8} {:>8} {:>8}", at(0.5), at(0.99), at(0.999));
    }
    Ok(())
}

/// When notifications come to a session that listens.
async fn listen(url: &str) -> anyhow::Result<tokio::sync::mpsc::UnboundedReceiver<u64>> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            if matches!(message, AsyncMessage::Notification(_)) && sender.send(now()).is_err() {
                break;
            }
        }
    });
    client.batch_execute("LISTEN events").await?;
    // It listens as long as there is a client.
    std::mem::forget(client);
    Ok(receiver)
}
