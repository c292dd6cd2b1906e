//! What goes wrong, and when: drawn from the seed before a round begins.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use walmill::cluster::Stop;

/// A way between two processes that can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// walmill to PostgreSQL.
    Postgres,
    /// Readers to walmill.
    Readers,
    /// walmill to the webhook's receiver.
    Webhook,
    /// walmill to NATS.
    Nats,
    /// walmill to Redis.
    Redis,
}

/// Everything that stands outside walmill and can be down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    Nats,
    Redis,
    #[cfg(feature = "kafka")]
    Kafka,
}

/// Kinds of faults, to draw from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kill,
    PowerCut,
    Terminate,
    Freeze,
    Postgres,
    Cut,
    Silence,
    Receiver,
    Broker,
    Disk,
    Clock,
    Swap,
    Reload,
}

/// Every kind, those more than once that are to come more often.
pub const EVERYTHING: &[Kind] = &[
    Kind::Kill,
    Kind::Kill,
    Kind::PowerCut,
    Kind::PowerCut,
    Kind::Terminate,
    Kind::Freeze,
    Kind::Postgres,
    Kind::Cut,
    Kind::Cut,
    Kind::Cut,
    Kind::Silence,
    Kind::Receiver,
    Kind::Receiver,
    Kind::Broker,
    Kind::Broker,
    Kind::Disk,
    Kind::Clock,
    Kind::Swap,
    Kind::Swap,
    Kind::Reload,
];

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of walmill.
    Kill,
    /// SIGKILL, and what was not synced is gone.
    PowerCut,
    /// SIGTERM of walmill.
    Terminate,
    /// walmill stands still for a while.
    Freeze,
    /// PostgreSQL is stopped so and started again.
    Postgres(Stop),
    /// Connections are cut in mid-frame, behind so many bytes, for a while.
    Cut(Link, u64),
    /// Bytes to and from PostgreSQL vanish for a while.
    Silence,
    /// The webhook's receiver answers 500 and worse, hangs, half-closes, resets or is slow, for a
    /// while.
    Receiver,
    /// A broker is killed, and started again after a while.
    Broker(Broker),
    /// The disk has so many bytes left, for a while.
    Disk(u64),
    /// The wall clock is wrong by so many seconds.
    Clock(i64),
    /// Another version of the plugin is saved; carefully, or in two writes.
    Swap { version: u32, careful: bool },
    /// A file that is no plugin is saved.
    BadSwap,
    /// Another config is saved.
    Reload(u32),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A fault, when it begins, counted from the round's start, and how long it lasts if it is one that
/// lasts.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}

/// What is drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    pub kinds: &'static [Kind],
    /// How long a round is.
    pub round: Duration,
    /// The time between two faults, on average.
    pub every: Duration,
}

/// The random numbers of a round's part.
pub fn random(seed: u64, round: u32, part: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ (u64::from(round) << 40) ^ (part << 20))
}

/// The faults of a round, in their order.
pub fn plan(seed: u64, round: u32, draw: Draw) -> Vec<Planned> {
    let mut random = random(seed, round, 0);
    let mut plan = Vec::new();
    let (mut at, every) = (Duration::ZERO, draw.every.as_millis() as u64);
    loop {
        at += Duration::from_millis(random.random_range(1..=2 * every));
        let lasts = Duration::from_millis(random.random_range(50..2500));
        if at >= draw.round {
            return plan;
        }
        let kind = *draw.kinds.choose(&mut random).expect("kinds");
        plan.push(Planned { at, lasts, fault: fault(kind, &mut random) });
    }
}

fn fault(kind: Kind, random: &mut StdRng) -> Fault {
    const LINKS: [Link; 5] =
        [Link::Postgres, Link::Readers, Link::Webhook, Link::Nats, Link::Redis];
    const BROKERS: &[Broker] = &[
        Broker::Nats,
        Broker::Redis,
        #[cfg(feature = "kafka")]
        Broker::Kafka,
    ];
    match kind {
        Kind::Kill => Fault::Kill,
        Kind::PowerCut => Fault::PowerCut,
        Kind::Terminate => Fault::Terminate,
        Kind::Freeze => Fault::Freeze,
        Kind::Postgres => {
            let how = [Stop::Fast, Stop::Immediate, Stop::Kill];
            Fault::Postgres(*how.choose(random).expect("not empty"))
        }
        Kind::Cut => {
            let link = *LINKS.choose(random).expect("not empty");
            Fault::Cut(link, random.random_range(0..60_000))
        }
        Kind::Silence => Fault::Silence,
        Kind::Receiver => Fault::Receiver,
        Kind::Broker => Fault::Broker(*BROKERS.choose(random).expect("not empty")),
        // Less than walmill wants free, or nothing at all.
        Kind::Disk => Fault::Disk(if random.random_bool(0.5) { 16 << 20 } else { 0 }),
        Kind::Clock => {
            let jumps = [-90_000, -3600, -5, 5, 3600, 90_000];
            Fault::Clock(*jumps.choose(random).expect("not empty"))
        }
        Kind::Swap if random.random_bool(0.2) => Fault::BadSwap,
        Kind::Swap => {
            Fault::Swap { version: random.random_range(0..1000), careful: random.random_bool(0.5) }
        }
        Kind::Reload => Fault::Reload(random.random_range(0..4)),
    }
}
