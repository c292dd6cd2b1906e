//! One replication slot: connects, receives whole committed transactions, hands them to the
//! journal, and confirms to PostgreSQL what the journal has on disk.
//!
//! The source runs on a thread and a runtime of its own, since the kernel hands over a small piece
//! for each row, and a wake-up that crosses threads would cost more than the row. There, two tasks
//! share a connection: one receives, and waits when the journal is slow; the other keeps the server
//! informed, whatever the first one waits for.

mod assembler;
mod backfill;
mod beginning;
mod config;
mod connection;
mod database;
pub mod doctor;
mod entry;
mod fault;
mod feedback;
#[doc(hidden)]
pub mod fuzz;
mod gap;
mod gather;
mod handover;
mod login;
mod net;
mod options;
mod passfile;
mod publication;
pub mod raw;
mod retry;
mod slot;
pub mod slots;
mod snapshot;
mod status;
mod stream;
mod tls;
mod types;
mod url;
mod user;
mod wire;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
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
use crate::model::ByteSize;
use crate::model::backfill::Backfills;
use crate::model::status::{RetainedWal, SourceStatus};
use crate::store::journal::{Append, Durable};
use crate::store::{Store, StoreError};
use assembler::watermark::Ask;
use assembler::{Assembler, Definitions};
use backfill::Runner;
pub use config::{Config, NameError, Origins, PublicationName, SlotName, Snapshot};
use connection::Halves;
use database::Database;
use entry::Place;
use fault::{Fault, Report};
use feedback::{Feedback, Progress};
use gather::Gather;
use net::Socket;
use retry::Backoff;
use status::Publisher;
use stream::{End, Stream};
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
        let definitions = store.clone();
        let resolve = Box::new(move |id| definitions.relation(id));
        let definitions = Definitions::new(store.tables().map_err(io::Error::other)?, resolve);
        let relations = store.clone();
        let spills = store.open_spills().map_err(io::Error::other)?;
        let intern = Box::new(move |relation: &_| relations.intern_relation(relation));
        let place = watch::Sender::new(None);
        let (runner, backfills, asks) = Runner::new(
            config.clone(),
            store.clone(),
            Arc::clone(&metrics),
            publisher.subscribe(),
            place.subscribe(),
        )
        .map_err(io::Error::other)?;
        let assembler = Assembler::new(store.last_commit(), definitions, intern, spills);
        let worker = Worker {
            asks,
            place,
            is_sent: AtomicBool::new(false),
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
    /// Where the server is that it comes from.
    place: watch::Sender<Option<Place>>,
    /// Whether all of a snapshot is on its way to the journal.
    is_sent: AtomicBool,
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
        let mut renewals = self.store.renewals();
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
                // A person decided what to do about it.
                Ok(()) = renewals.changed() => {}
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
        let started = Instant::now();
        let ended = self.stream(running, appender, shutdown).await;
        if started.elapsed() > SUCCESS {
            backoff.reset();
        }
        ended
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
            gather: Gather::default(),
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
        let slot_lost = matches!(fault, Fault::Lost(_));
        let halt = slot_lost || matches!(fault, Fault::Halt(_));
        let report = match fault {
            Fault::Taken(report) => {
                self.stand_by(report);
                return Ok(());
            }
            Fault::Away(report)
            | Fault::Person(report)
            | Fault::Lost(report)
            | Fault::Halt(report) => report,
            Fault::Store(error) => {
                let remedy = "see the disk of `store.path`, and start walmill again".into();
                self.publisher.halted(Report { error: error.to_string(), remedy }, false);
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
            true => self.publisher.halted(report, slot_lost),
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
