//! Streams → one output, from its durable checkpoint.
//!
//! - *At least once.* The checkpoint moves over an event only after the far side has taken it, or
//!   together with its dead letter. It is the end of the contiguous done prefix, never the furthest
//!   event done: after a restart, what was done behind an event that was not comes again, with the
//!   same id.
//! - *Order.* A key's next event is sent only after the one before it was taken or given up
//!   ([`Ordering`] has the other choices). Keys do not wait for each other; but a TRUNCATE, a
//!   changed definition and a gap are about all rows, so they wait for all events before them, and
//!   all behind them wait for them.
//! - *Bounded memory.* So many events and so many bytes are under way; while they are not done,
//!   nothing more is read. So one key that fails for long holds the others back in the end, when a
//!   whole window of later events is done and waits for it.

mod barrier;
mod disabled;
mod feed;
mod gate;
mod lanes;
mod letters;
mod replay;
mod retry;
mod settle;
mod window;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Batch, Output, Undelivered};
use crate::metrics::{Metrics, Name};
use crate::model::event::Order;
use crate::model::pattern::Glob;
use crate::model::status::OutputStatus;
use crate::model::{EventRecord, clock};
use crate::store::failing::{Failed, Failing};
use crate::store::retention::Reader;
use crate::store::{Store, StoreError};
use feed::Feed;
use gate::Gate;
use lanes::{LaneId, Lanes, Past, Place};
use letters::Letters;
pub use retry::Retry;

/// Events under way, of all streams of an output: what one that fails can hold back.
const WINDOW_EVENTS: usize = 65_536;
/// Bytes of events under way. One run more than this can be in memory.
const WINDOW_BYTES: usize = 32 << 20;
/// How old a checkpoint on disk may be: what was delivered since comes again after a crash.
const SAVE_EVERY: Duration = Duration::from_millis(100);
/// How soon a new stream is noticed.
const DISCOVER_EVERY: Duration = Duration::from_millis(500);
/// What is under way at a shutdown has this long to end.
const GRACE: Duration = Duration::from_secs(5);

/// What every kind of output lets its user choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The output's name.
    pub name: String,
    /// The streams it delivers.
    pub streams: Vec<Glob>,
    /// Batches under way at the same time.
    pub concurrency: NonZeroUsize,
    /// What is kept in order.
    pub ordering: Ordering,
    /// How failed deliveries are tried again.
    pub retry: Retry,
    /// Where an output begins in what was there before it.
    pub from: StartFrom,
}

/// What is delivered in the order of the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ordering {
    /// The events of each key, and those of all keys around one that is about all rows.
    #[default]
    Key,
    /// All events of a stream, so that one that fails holds up the whole stream.
    Strict,
    /// Nothing: every event goes as soon as it can, also those that are about all rows.
    None,
}

/// Where an output begins in a stream that was there before it wanted it. All that were made since
/// are delivered whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartFrom {
    /// At the oldest event that is kept.
    #[default]
    Earliest,
    /// Behind the newest event at the moment.
    Latest,
}

/// How an output's status reads before it starts.
pub fn status(name: &str, output: &impl Output) -> OutputStatus {
    OutputStatus {
        name: name.to_owned(),
        kind: output.kind(),
        target: output.target(),
        delivered: 0,
        failed: 0,
        dead_letters: 0,
        error: None,
        disabled: None,
    }
}

/// Delivers until `shutdown`; then what is under way has a few seconds, and the checkpoint is
/// saved.
///
/// # Errors
/// Only the store's: the far side's failures are retried, given up into dead letters, or shown in
/// the status.
pub async fn run<O: Output>(
    config: Config,
    output: O,
    store: Store,
    metrics: Arc<Metrics>,
    status: watch::Sender<OutputStatus>,
    shutdown: CancellationToken,
) -> Result<(), StoreError> {
    let output = Arc::new(output);
    begin(&config, &store).await?;
    loop {
        disabled::wait(&config.name, &output.target(), (&store, &metrics), &status, &shutdown)
            .await?;
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let mut delivery = Delivery::new(&config, &output, &store, &metrics, &status);
        let end = delivery.deliver(&shutdown).await?;
        if let End::Failed(error) = end {
            return Err(error);
        }
        delivery.finish().await?;
        match end {
            End::Rewind => delivery.rewind().await?,
            End::Gone(why) => disabled::note(&config.name, output.target(), why, &store).await?,
            End::Shutdown | End::Failed(_) => return Ok(()),
        }
    }
}

/// First of all, whether it may deliver or not: nothing that comes from now on is skipped, or goes
/// before it is delivered.
async fn begin(config: &Config, store: &Store) -> Result<(), StoreError> {
    let (store, output, streams) = (store.clone(), config.name.clone(), config.streams.clone());
    let newest = config.from == StartFrom::Latest;
    store.add_reader(Reader::Output { output: output.clone(), streams: streams.clone() });
    feed::blocking(move || store.begin_output(&output, &streams, newest)).await
}

enum End {
    Shutdown,
    /// The far side wants no more, and says so.
    Gone(String),
    /// The checkpoints are to be moved, and all that was read behind them is to be read again.
    Rewind,
    Failed(StoreError),
}

struct Delivery<O> {
    config: Config,
    output: Arc<O>,
    store: Store,
    metrics: Arc<Metrics>,
    status: watch::Sender<OutputStatus>,
    feeds: Vec<Feed>,
    /// One for each feed that was read to its end: which one has more.
    grown: FuturesUnordered<BoxFuture<'static, usize>>,
    lanes: Lanes,
    letters: Letters,
    gate: Gate,
    /// Tries that failed and are not noted in the store yet.
    failed: Vec<Failed>,
    /// Until when a batch that is not full waits for more.
    lingers: Option<Instant>,
    sending: JoinSet<Try>,
}

/// One try, and what came of it.
enum Try {
    /// Of events from streams.
    Batch(Tried),
    /// Of a dead letter.
    Letter(letters::Tried),
}

/// A try of a batch.
struct Tried {
    /// The lane of each event.
    lanes: Vec<LaneId>,
    took: Duration,
    result: Result<(), Undelivered>,
}

impl<O: Output> Delivery<O> {
    fn new(
        config: &Config,
        output: &Arc<O>,
        store: &Store,
        metrics: &Arc<Metrics>,
        status: &watch::Sender<OutputStatus>,
    ) -> Self {
        Self {
            config: config.clone(),
            output: Arc::clone(output),
            letters: Letters::new(store),
            store: store.clone(),
            metrics: Arc::clone(metrics),
            status: status.clone(),
            feeds: Vec::new(),
            grown: FuturesUnordered::new(),
            lanes: Lanes::default(),
            gate: Gate::default(),
            failed: Vec::new(),
            lingers: None,
            sending: JoinSet::new(),
        }
    }

    async fn deliver(&mut self, shutdown: &CancellationToken) -> Result<End, StoreError> {
        self.discover().await?;
        if let Some(end) = self.look_for_replay().await? {
            return Ok(end);
        }
        let mut discover = interval(DISCOVER_EVERY);
        let mut save = interval(SAVE_EVERY);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.fill().await?;
            self.send();
            if self.may_send_letter() {
                self.send_letter().await?;
            }
            let next_start = self.next_start();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(End::Shutdown),
                Some(attempt) = self.sending.join_next() => {
                    if let Err(end) = self.settle(attempt) {
                        return Ok(end);
                    }
                }
                () = self.letters.changed() => {
                    if let Some(end) = self.look_for_replay().await? {
                        return Ok(end);
                    }
                }
                Some(feed) = self.grown.next() => self.feeds[feed].more = true,
                () = at(next_start) => {}
                _ = discover.tick() => self.discover().await?,
                _ = save.tick(), if self.can_save() => self.save().await?,
            }
        }
    }

    /// Opens the streams that fit and are not open yet.
    async fn discover(&mut self) -> Result<(), StoreError> {
        for stream in self.store.streams() {
            let name = stream.name();
            if self.feeds.iter().all(|feed| feed.name() != name)
                && self.config.streams.iter().any(|glob| glob.matches(name))
            {
                let feed = Feed::open(&self.store, &self.config.name, stream).await?;
                self.feeds.push(feed);
            }
        }
        Ok(())
    }

    /// Reads as much as may be under way, from all streams in turn.
    async fn fill(&mut self) -> Result<(), StoreError> {
        let mut progress = true;
        while progress {
            progress = false;
            for index in 0..self.feeds.len() {
                if self.feeds[index].more && self.has_room() {
                    progress = true;
                    self.read(index).await?;
                }
            }
        }
        Ok(())
    }

    async fn read(&mut self, index: usize) -> Result<(), StoreError> {
        for (seq, event) in self.feeds[index].read().await? {
            // The other choices have an order of their own, or none.
            let barrier = self.config.ordering == Ordering::Key && event.order() == Order::All;
            self.feeds[index].line.push((seq, event), barrier);
            self.admit(index);
        }
        if !self.feeds[index].more {
            let grown = self.feeds[index].wait();
            self.grown.push(Box::pin(async move {
                grown.await;
                index
            }));
        }
        Ok(())
    }

    /// Lets into the lanes what no barrier of the feed holds back.
    fn admit(&mut self, index: usize) {
        while let Some((seq, event)) = self.feeds[index].line.admit() {
            let lanes = self.lanes_of(index, &event);
            let past = self.feeds[index].past.remove(&event.offset);
            let past = past.map(|failing| past_of(&failing, &self.config.retry));
            self.lanes.push_with(lanes, Place { feed: index, seq }, event, past);
        }
    }

    fn lanes_of(&self, feed: usize, event: &EventRecord) -> (LaneId, Option<LaneId>) {
        let lane = |key| self.lanes.id((feed, key));
        match (self.config.ordering, event.order()) {
            (Ordering::Strict, _) => (self.lanes.id(feed), None),
            (Ordering::Key, Order::Key(key)) => (lane(key), None),
            (Ordering::Key, Order::Keys { new, old }) => (lane(new), Some(lane(old))),
            // A barrier is alone in the lanes, so that any will do.
            (Ordering::Key, Order::All) | (Ordering::None, _) => {
                (self.lanes.id((feed, event.offset)), None)
            }
        }
    }

    fn has_room(&self) -> bool {
        let events: usize = self.feeds.iter().map(|feed| feed.window.len()).sum();
        let bytes: usize = self.feeds.iter().map(|feed| feed.window.held()).sum();
        events < WINDOW_EVENTS && bytes + self.lanes.copied() < WINDOW_BYTES
    }

    /// Starts what may be sent now.
    fn send(&mut self) {
        let now = Instant::now();
        while self.may_start() && self.gate.closed_until(now).is_none() {
            let batch = match self.gate.is_probing() {
                true => Batch::ONE,
                false => self.output.batch(),
            };
            if self.waits_for_more(now, batch) {
                break;
            }
            let (lanes, events): (Vec<_>, Vec<_>) = self.lanes.next(now, batch).into_iter().unzip();
            for place in self.lanes.released() {
                self.feeds[place.feed].window.release(place.seq);
            }
            if events.is_empty() {
                break;
            }
            let output = self.output.clone();
            self.sending.spawn(async move {
                let start = Instant::now();
                let result = output.deliver(&events).await;
                Try::Batch(Tried { lanes, took: start.elapsed(), result })
            });
        }
    }

    /// Whether what is ready is less than a batch, and its time to wait for more is not up.
    fn waits_for_more(&mut self, now: Instant, batch: Batch) -> bool {
        let linger = self.output.linger();
        if linger.is_zero() || batch == Batch::ONE {
            return false;
        }
        let (events, bytes) = self.lanes.ready(batch);
        let full = events >= batch.events.get() || bytes >= batch.bytes;
        let waits = events > 0 && !full && now < *self.lingers.get_or_insert(now + linger);
        if !waits {
            self.lingers = None;
        }
        waits
    }

    fn may_start(&self) -> bool {
        let limit = if self.gate.is_probing() { 1 } else { self.config.concurrency.get() };
        self.sending.len() < limit
    }

    /// When [`Delivery::send`] has something to do, if nothing else happens before.
    fn next_start(&self) -> Option<Instant> {
        let now = Instant::now();
        let due = self.lanes.next_due(now).filter(|_| self.may_start())?;
        let due = self.lingers.map_or(due, |until| until.max(due));
        Some(self.gate.closed_until(now).map_or(due, |until| until.max(due)))
    }

    fn can_save(&self) -> bool {
        !self.failed.is_empty() || self.feeds.iter().any(|feed| feed.window.can_advance())
    }

    async fn save(&mut self) -> Result<(), StoreError> {
        if !self.failed.is_empty() {
            let (store, output) = (self.store.clone(), self.config.name.clone());
            let failed = std::mem::take(&mut self.failed);
            feed::blocking(move || store.save_failed(&output, failed)).await?;
        }
        for feed in &mut self.feeds {
            feed.save(&self.store, &self.config.name).await?;
        }
        self.end_replay().await?;
        let lag = self.feeds.iter().map(Feed::lag).max().unwrap_or(0);
        let name = Name { name: self.config.name.clone() };
        self.metrics.output_lag.get_or_create(&name).set(i64::try_from(lag).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Lets what is under way come to its end, and saves how far it got.
    async fn finish(&mut self) -> Result<(), StoreError> {
        let drain = async {
            while let Some(attempt) = self.sending.join_next().await {
                // That it is gone changes nothing any more: nothing new is sent either way.
                let _ = self.settle(attempt);
            }
        };
        // What is late is delivered again after the restart.
        let _ = timeout(GRACE, drain).await;
        self.sending.abort_all();
        self.save().await
    }
}

/// What an event has behind it, by this process's clock. It waits no longer than it was to wait
/// when it failed, nor than its schedule says now, however a wall clock jumped.
fn past_of(failing: &Failing, retry: &Retry) -> Past {
    let now = (Instant::now(), clock::now());
    let micros = |span: i64| Duration::from_micros(u64::try_from(span).unwrap_or_default());
    let ago = micros(now.1.saturating_sub(failing.first));
    let longest = failing.wait.map_or(Duration::MAX, micros);
    let ahead = micros(failing.due.saturating_sub(now.1))
        .min(retry.bound(failing.attempts, failing.asked))
        .min(longest);
    Past {
        attempts: failing.attempts,
        first_try: now.0.checked_sub(ago).unwrap_or(now.0),
        due: now.0 + ahead,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_jumped_back_prolongs_no_wait() {
        let now = clock::now();
        let an_hour_ahead = now + 3_600_000_000;
        let failing = Failing {
            attempts: 1,
            first: an_hour_ahead,
            due: an_hour_ahead,
            asked: true,
            wait: Some(20_000),
            tries: Vec::new(),
        };
        let past = past_of(&failing, &Retry::default());
        assert!(past.due <= Instant::now() + Duration::from_millis(20));
    }
}
