//! One replication slot: connects, receives whole committed transactions, hands them to the
//! journal, and confirms to PostgreSQL what the journal has on disk.
//!
//! The source runs on a thread and a runtime of its own, since the kernel hands over a small piece
//! for each row, and a wake-up that crosses threads would cost more than the row. There, two tasks
//! share a connection: one receives, and waits when the journal is slow; the other keeps the server
//! informed, whatever the first one waits for.

mod assembler;
mod backfill;
mod config;
mod connection;
mod database;
mod fault;
mod feedback;
mod login;
mod net;
mod options;
mod publication;
pub mod raw;
mod retry;
mod slot;
mod snapshot;
mod status;
mod stream;
mod tls;
mod types;
mod url;
mod wire;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::Metrics;
use crate::model::backfill::Backfills;
use crate::model::status::{RetainedWal, SourceStatus};
use crate::model::{ByteSize, Lsn};
use crate::store::journal::{Append, Durable};
use crate::store::{Store, StoreError};
use assembler::Assembler;
use assembler::watermark::Ask;
use backfill::Runner;
pub use config::{Config, NameError, Origins, PublicationName, SlotName, Snapshot};
use connection::{Connection, Halves};
use database::Database;
use fault::{Fault, Report};
use feedback::{Feedback, Progress};
use net::Socket;
use options::Transactions;
use retry::Backoff;
use slot::Past;
use snapshot::Snapshotter;
use status::Publisher;
use stream::{End, Stream, misassembled};
pub use url::{Url, UrlError};
use wire::Wire;

/// A stream that ran for so long was a success, however it ended.
const SUCCESS: Duration = Duration::from_secs(5);
/// For the journal to sync its last blocks at a shutdown.
const LAST_SYNC: Duration = Duration::from_secs(3);
/// For the server to take in our last word.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Between two looks at the server's log.
const LOOK: Duration = Duration::from_secs(10);

/// The running source.
pub struct Source {
    /// What it is doing.
    pub status: watch::Receiver<SourceStatus>,
    /// Rows that are there already, brought into the stream.
    pub backfills: Backfills,
    /// Ends after a shutdown, or with an error of the store, which is fatal.
    pub thread: JoinHandle<Result<(), StoreError>>,
}

impl Source {
    /// Starts the source's thread. It tries until it is shut down, and never ends because of the
    /// database: what is wrong there is in the status.
    ///
    /// # Errors
    /// The system has no thread, no runtime, or no folder for open transactions to give, or the
    /// store cannot be read.
    pub fn start(
        config: Config,
        store: Store,
        appender: mpsc::Sender<Append>,
        durable: watch::Receiver<Durable>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let position = durable.borrow().lsn();
        let publisher = Publisher::new(&config, position, Arc::clone(&metrics));
        let status = publisher.subscribe();
        let relations = store.clone();
        let spills = store.open_spills().map_err(io::Error::other)?;
        let intern = Box::new(move |relation: &_| relations.intern_relation(relation));
        let host = Arc::new(AtomicUsize::new(0));
        let (runner, backfills, asks) = Runner::new(
            config.clone(),
            store.clone(),
            Arc::clone(&metrics),
            publisher.subscribe(),
            Arc::clone(&host),
        )
        .map_err(io::Error::other)?;
        let assembler = Assembler::new(store.last_commit(), intern, spills);
        let worker = Worker {
            asks,
            host,
            assembler: assembler.map_err(io::Error::other)?,
            config,
            store,
            durable,
            metrics,
            publisher,
            told: None,
        };
        let run = move || {
            runtime.block_on(async {
                let stream = worker.run(appender, shutdown);
                tokio::pin!(stream);
                tokio::select! {
                    ended = &mut stream => return ended,
                    () = runner.run() => {}
                }
                stream.await
            })
        };
        let thread = thread::Builder::new().name("source".into()).spawn(run)?;
        Ok(Self { status, backfills, thread })
    }
}

type Appender = mpsc::Sender<Append>;

struct Worker {
    config: Config,
    store: Store,
    durable: watch::Receiver<Durable>,
    metrics: Arc<Metrics>,
    publisher: Publisher,
    assembler: Assembler,
    /// What backfills ask of it.
    asks: mpsc::Receiver<Ask>,
    /// Which of the address's hosts it comes from.
    host: Arc<AtomicUsize>,
    /// What went wrong last: said once.
    told: Option<Report>,
}

/// A connection that streams.
struct Running {
    database: Arc<Database>,
    halves: Halves,
    wal_sender_timeout: Option<Duration>,
}

/// A stream that we were asked to end, before our last word.
struct Parting {
    wire: Wire<ReadHalf<Box<dyn Socket>>>,
    feedback: AbortOnDropHandle<io::Result<WriteHalf<Box<dyn Socket>>>>,
    end: CancellationToken,
}

impl Worker {
    async fn run(
        mut self,
        appender: Appender,
        shutdown: CancellationToken,
    ) -> Result<(), StoreError> {
        let (mut backoff, mut attempt) = (Backoff::default(), 0);
        let parting = loop {
            let fault = match self.attempt(attempt, &mut backoff, &appender, &shutdown).await {
                Ok(parting) => break parting,
                Err(fault) => fault,
            };
            self.assembler.disconnect();
            let wait = backoff.next(&fault);
            self.tell(fault, wait)?;
            attempt += 1;
            tokio::select! {
                () = shutdown.cancelled() => break None,
                () = sleep(wait) => {}
            }
        };
        // The journal ends when nobody can send to it any more.
        drop(appender);
        if let Some(parting) = parting {
            self.part(parting).await;
        }
        self.publisher.stopped();
        Ok(())
    }

    /// Connects and streams until something breaks, or until the shutdown.
    async fn attempt(
        &mut self,
        attempt: usize,
        backoff: &mut Backoff,
        appender: &Appender,
        shutdown: &CancellationToken,
    ) -> Result<Option<Parting>, Fault> {
        let running = tokio::select! {
            () = shutdown.cancelled() => None,
            running = self.connect(attempt, appender) => Some(running?),
        };
        let Some(running) = running else {
            self.leave_no_slot(attempt).await;
            return Ok(None);
        };
        self.host.store(attempt, Ordering::Relaxed);
        let started = Instant::now();
        let ended = self.stream(running, appender, shutdown).await;
        if started.elapsed() > SUCCESS {
            backoff.reset();
        }
        ended
    }

    /// Everything before the first change: is this our server, is the slot ours, is all there.
    async fn connect(&mut self, attempt: usize, appender: &Appender) -> Result<Running, Fault> {
        let config = &self.config;
        let mut connection = Connection::open(config, attempt).await?;
        options::check(config, connection.major_version())?;
        let database = Database::open(&config.url, attempt).await?;
        let identity = connection.identify().await?;
        let wal_sender_timeout = connection.wal_sender_timeout().await?;
        self.publisher.identified(connection.server_version(), &identity);
        let past = Past { origin: self.store.origin()?, durable: self.durable.borrow().lsn() };
        let known = past.origin.as_ref().map(|origin| origin.timeline);
        let moved = known.is_some_and(|known| known != identity.timeline) && !past.is_empty();
        let history = if moved { Some(connection.history(identity.timeline).await?) } else { None };
        slot::check_origin(&past, &identity, history.as_deref(), config)?;
        let begun = self.store.unfinished_snapshot()?;
        if let Some(begun) = &begun {
            snapshot::drop_slot(&database, &self.store, begun, &identity).await?;
        }
        let found = slot::find(&database, config).await?;
        let snapshot = found.is_none()
            && if past.is_empty() { config.snapshot == Snapshot::Initial } else { begun.is_some() };
        match &found {
            Some(slot) => {
                slot::check(slot, &past, &identity, config)?;
                snapshot::check_found(&past, config)?;
            }
            None if past.is_empty() || snapshot => {}
            None => return Err(slot::missing(&past, &identity, config)),
        }
        // The publication comes first: PostgreSQL decodes with the catalog of the slot's time.
        publication::ensure(&database, config, found.is_some(), past.is_empty()).await?;
        let transactions = match self.assembler.wants_whole() {
            true => Transactions::Whole,
            false => Transactions::AsConfigured,
        };
        if snapshot {
            // Its transaction names the origin, and is read before the stream begins.
            self.store.set_origin(&slot::origin_of(&identity, config))?;
            while let Some(append) = self.assembler.take_append().map_err(misassembled)? {
                let _ = appender.send(append).await;
            }
            let snapshotter = Snapshotter {
                config,
                store: &self.store,
                appender,
                durable: self.durable.clone(),
                publisher: &self.publisher,
                identity: &identity,
                attempt,
            };
            let point = snapshotter.take(&mut connection, &database).await?;
            let halves = connection.stream(point, transactions).await?;
            return Ok(Running { database: Arc::new(database), halves, wal_sender_timeout });
        }
        if found.is_none() {
            slot::create(&database, config).await?;
        }
        let halves = connection.stream(past.durable, transactions).await?;
        if past.is_empty() || moved {
            self.store.set_origin(&slot::origin_of(&identity, config))?;
        }
        if past.is_empty() {
            // Where the journal begins. Only now that the slot is ours it is known where its last
            // reader left it; from here on, whoever moves it is somebody else. If the journal has
            // ended, the stream finds out.
            let slot = slot::find(&database, config).await?;
            let confirmed = slot.map_or(Lsn::ZERO, |slot| slot.confirmed);
            let _ = appender.send(Append::Idle(confirmed)).await;
        }
        Ok(Running { database: Arc::new(database), halves, wal_sender_timeout })
    }

    /// A snapshot that a shutdown cuts off begins anew at the next start, and its slot would hold
    /// the server's log meanwhile.
    async fn leave_no_slot(&self, attempt: usize) {
        let Ok(Some(begun)) = self.store.unfinished_snapshot() else { return };
        let dropped = async {
            let mut connection = Connection::open(&self.config, attempt).await?;
            let identity = connection.identify().await?;
            let database = Database::open(&self.config.url, attempt).await?;
            snapshot::drop_slot(&database, &self.store, &begun, &identity).await
        };
        if !matches!(timeout(LAST_WORD, dropped).await, Ok(Ok(()))) {
            tracing::warn!(slot = begun.slot, "stays until the next start, and holds the log");
        }
    }

    async fn stream(
        &mut self,
        running: Running,
        appender: &Appender,
        shutdown: &CancellationToken,
    ) -> Result<Option<Parting>, Fault> {
        let Running { database, halves: (wire, writer), wal_sender_timeout } = running;
        let (progress, end) = (Arc::new(Progress::default()), CancellationToken::new());
        progress.receive(self.durable.borrow().lsn());
        let mut feedback = AbortOnDropHandle::new(tokio::spawn(
            Feedback {
                writer,
                durable: self.durable.clone(),
                progress: Arc::clone(&progress),
                rhythm: feedback::rhythm(wal_sender_timeout),
                publisher: self.publisher.clone(),
                end: end.clone(),
            }
            .run(),
        ));
        let look = Looker {
            database: Arc::clone(&database),
            config: self.config.clone(),
            progress: Arc::clone(&progress),
            publisher: self.publisher.clone(),
        };
        let _look = AbortOnDropHandle::new(tokio::spawn(look.run()));
        let mut stream = Stream {
            wire,
            assembler: &mut self.assembler,
            asks: &mut self.asks,
            appender,
            database: &database,
            config: &self.config,
            progress,
            durable: self.durable.clone(),
            metrics: &self.metrics,
            patience: stream::patience(wal_sender_timeout),
            next_idle: Instant::now(),
            paused: false,
        };
        self.publisher.streaming();
        self.told = None;
        tracing::info!(slot = %self.config.slot, "streaming");
        let ended = tokio::select! {
            ended = stream.run(shutdown) => ended?,
            ended = &mut feedback => return Err(unheard(ended)),
        };
        match ended {
            End::Shutdown => Ok(Some(Parting { wire: stream.wire, feedback, end })),
            End::JournalClosed => Ok(None),
        }
    }

    /// Confirms what the journal has in the end, and leaves.
    async fn part(&mut self, Parting { mut wire, feedback, end }: Parting) {
        let sent = self.assembler.position();
        let synced = self.durable.wait_for(|durable| durable.lsn() >= sent);
        if timeout(LAST_SYNC, synced).await.is_err() {
            tracing::info!("the journal is slow; PostgreSQL will send its last changes again");
        }
        end.cancel();
        let goodbye = async {
            if let Ok(Ok(mut writer)) = feedback.await {
                stream::drain(&mut wire).await;
                let mut message = BytesMut::new();
                frontend::terminate(&mut message);
                let _ = writer.write_all(&message).await;
                let _ = writer.shutdown().await;
            }
        };
        if timeout(LAST_WORD, goodbye).await.is_err() {
            tracing::debug!("the server did not say goodbye");
        }
    }

    /// Another reader has the slot, which is news once.
    fn stand_by(&mut self, report: Report) {
        let is_news = self.told.as_ref() != Some(&report);
        if is_news {
            tracing::info!(remedy = report.remedy, "standby: {}", report.error);
            self.told = Some(report.clone());
        }
        self.publisher.standby(report);
    }

    /// Says what went wrong, to the status and, when it is news, to the log.
    fn tell(&mut self, fault: Fault, wait: Duration) -> Result<(), StoreError> {
        let halt = matches!(fault, Fault::Halt(_));
        let report = match fault {
            Fault::Taken(report) => {
                self.stand_by(report);
                return Ok(());
            }
            Fault::Away(report) | Fault::Person(report) | Fault::Halt(report) => report,
            Fault::Store(error) => {
                let remedy = "see the disk of `store.path`, and start walmill again".into();
                self.publisher.halted(Report { error: error.to_string(), remedy });
                return Err(error);
            }
        };
        if self.told.as_ref() != Some(&report) {
            let Report { error, remedy } = &report;
            match halt {
                true => tracing::error!(remedy, "halted: {error}"),
                false => tracing::warn!(remedy, "waiting: {error}"),
            }
            self.told = Some(report.clone());
        }
        match halt {
            true => self.publisher.halted(report),
            false => self.publisher.waiting(report, wait),
        }
        Ok(())
    }
}

/// Asks how the slot stands: the stream does not say what the server keeps for it, nor where the
/// log ends while it is behind.
struct Looker {
    database: Arc<Database>,
    config: Config,
    progress: Arc<Progress>,
    publisher: Publisher,
}

impl Looker {
    /// Runs until the connection is lost, which the stream notices, too.
    async fn run(self) {
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            let Ok(look) = self.database.look(self.config.slot.as_str()).await else { return };
            if let Some(end) = look.end {
                self.progress.see(end);
            }
            if let Some(retained_bytes) = look.retained {
                let budget_bytes = self.config.wal_budget.map(ByteSize::bytes);
                let safe_bytes = look.safe;
                self.publisher.retained(RetainedWal { retained_bytes, safe_bytes, budget_bytes });
            }
        }
    }
}

/// The feedback task ended before the stream did: its socket is broken.
fn unheard<W>(ended: Result<io::Result<W>, tokio::task::JoinError>) -> Fault {
    let error = match ended {
        Ok(Ok(_)) => io::ErrorKind::UnexpectedEof.into(),
        Ok(Err(error)) => error,
        Err(error) => io::Error::other(error),
    };
    Fault::broken("confirm", &error)
}
