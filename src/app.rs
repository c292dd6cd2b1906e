//! Builds each part from the config, starts the tasks, and joins them.
//!
//! Shutdown runs the way the data does: the source stops and lets go of the journal, the journal
//! syncs what it was given, the pipelines read to its end, and then the store closes.

mod crew;
mod dry_run;
mod outputs;
mod plugins;
mod reload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{RwLock, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Config;
use crate::config::finding::Finding;
use crate::metrics::Metrics;
use crate::model::reload::Reloads;
use crate::model::status::{SourceState, SourceStatus};
use crate::pipeline::OpenError as PipelineOpenError;
use crate::plugin::registry::{Registry, Rehearsal};
use crate::plugin::watch::Watch;
use crate::server;
use crate::source::{self, Source};
use crate::store::{OpenError, Store};
use crate::task::{TaskError, Tasks};
use crew::{Crew, Signals, StartError};
use reload::Manager;

/// Wishes to read the config again that wait.
const RELOADS: usize = 4;

/// Why walmill ended, or did not start.
#[derive(Debug)]
pub enum AppError {
    /// What is in the config does not work: a plugin does not load, say.
    Config(Vec<Finding>),
    /// Something around walmill is missing or taken.
    Environment(Finding),
    /// It failed while it ran.
    RunTime(anyhow::Error),
}

impl From<anyhow::Error> for AppError {
    fn from(error: anyhow::Error) -> Self {
        Self::RunTime(error)
    }
}

/// Loads every plugin of the config as `run` would, and says what does not.
#[must_use]
pub fn check_plugins(config: &Config) -> Vec<Finding> {
    let opened = plugins::open(config, None, None, Arc::new(Metrics::new()))
        .and_then(|registry| plugins::authorizers(config, &registry));
    match opened {
        Ok(_) => Vec::new(),
        Err(AppError::Config(findings)) => findings,
        Err(AppError::Environment(finding)) => vec![finding],
        Err(AppError::RunTime(error)) => {
            vec![Finding::error("plugins", "plugins", format!("{error:#}"))]
        }
    }
}

/// The source's config with the tables that pipelines name: it looks whether they are there, and
/// its own patterns cover them.
#[must_use]
pub fn source_config(config: &Config) -> source::Config {
    let mut source = config.source.clone();
    let tables = config.pipelines.iter().flat_map(|pipeline| &pipeline.tables);
    for table in tables.filter(|table| table.literal().is_some()) {
        if !source.tables.contains(table) {
            source.tables.push(table.clone());
        }
    }
    source
}

/// What others may want to know once walmill listens.
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// The store, to read streams from.
    pub store: Store,
}

/// Runs until `shutdown` is cancelled, then drains within `grace`.
///
/// # Errors
/// See [`AppError`].
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    grace: Duration,
    ready: impl FnOnce(Ready),
) -> Result<(), AppError> {
    let metrics = Arc::new(Metrics::new());
    let listener = server::bind(&config.server).await.map_err(|error| {
        let message = format!("{:#}", anyhow::Error::from(error));
        AppError::Environment(Finding::error("listen", "server.listen", message))
    })?;
    let address = listener.local_addr().context("read the address that it listens on")?;
    let store = Store::open(&config.store, Arc::clone(&metrics)).map_err(store_failure)?;
    let cache = config.store.path.join("compiled");
    let registry = plugins::open(&config, Some(&cache), Some(&store), Arc::clone(&metrics))?;
    let parts = Parts { config, store: store.clone(), registry, metrics, shutdown, grace };
    let tasks = parts.start(listener)?;
    info!(%address, "walmill listens");
    ready(Ready { address, store: store.clone() });
    let ended = tasks.join(grace).await;
    store.close().context("close the store")?;
    ended.map_err(|error| match error {
        TaskError::Failed { cause, name } => match cause.downcast::<NoDatabase>() {
            Ok(NoDatabase(finding)) => AppError::Environment(finding),
            Err(cause) => AppError::RunTime(cause.context(name)),
        },
        error => AppError::RunTime(error.into()),
    })
}

/// The database was not there in time at the start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoDatabase(Finding);

fn store_failure(error: OpenError) -> AppError {
    let finding =
        Finding::error("store", "store.path", format!("{:#}", anyhow::Error::from(error)));
    AppError::Environment(finding.suggest(
        "each walmill needs a data folder of its own that it can write to: set `store.path`",
    ))
}

struct Parts {
    config: Config,
    store: Store,
    registry: Registry,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    grace: Duration,
}

impl Parts {
    fn start(self, listener: tokio::net::TcpListener) -> Result<Tasks, AppError> {
        let mut tasks = Tasks::new(self.shutdown.clone());
        let drain = CancellationToken::new();
        let mut crew = self.crew(drain.clone());
        crew.declare_readers(&self.config);
        let journal = self.store.start_journal().context("start the journal")?;
        self.start_crew(&mut crew)?;
        let (pipelines, outputs) = (crew.pipelines(), crew.outputs());
        let source = Source::start(
            source_config(&self.config),
            self.store.clone(),
            journal.appender,
            journal.durable,
            Arc::clone(&self.metrics),
            self.shutdown.clone(),
        )
        .context("start the source")?;
        let (status, backfills, thread) = (source.status, source.backfills, source.thread);
        tasks
            .spawn_thread("source", move || {
                let ended =
                    thread.join().map_err(|_| anyhow::anyhow!("the source's thread panicked"))?;
                ended.context("source")
            })
            .context("start the source")?;
        tasks.spawn("journal", async move {
            let ended = journal.done.await.context("wait for the journal")?;
            drain.cancel();
            ended.context("journal")
        });
        tasks.spawn(
            "start",
            first_connection(
                status.clone(),
                self.config.source.start_timeout.duration(),
                self.shutdown.clone(),
            ),
        );
        let busy = Arc::new(RwLock::new(()));
        let (reloads, stage) = self.start_manager(&mut tasks, crew, Arc::clone(&busy))?;
        let (plugin_requests, served) = plugins::serve(&self.registry, Arc::clone(&stage), busy);
        tasks.spawn("plugin requests", served);
        let authorizers = plugins::authorizers(&self.config, &self.registry)?;
        let state = server::State {
            store: self.store,
            metrics: self.metrics,
            source: status,
            backfills,
            plugins: self.registry.statuses(),
            plugin_requests,
            pipelines,
            inputs: stage,
            outputs,
            reloads,
            authorizers,
        };
        let served = server::serve(listener, self.config.server, state, self.shutdown);
        tasks.spawn("server", async move {
            served.await;
            anyhow::Ok(())
        });
        Ok(tasks)
    }

    fn crew(&self, drain: CancellationToken) -> Crew {
        let signals =
            Signals { drain, abort: self.abort_after_grace(), shutdown: self.shutdown.clone() };
        let (store, registry) = (self.store.clone(), self.registry.clone());
        Crew::new(store, registry, Arc::clone(&self.metrics), signals)
    }

    fn start_crew(&self, crew: &mut Crew) -> Result<(), AppError> {
        for config in &self.config.pipelines {
            crew.start_pipeline(config).map_err(|error| match error {
                StartError::System(error) => AppError::RunTime(error),
                StartError::Open(PipelineOpenError::Store(error)) => {
                    AppError::RunTime(error.into())
                }
                StartError::Open(taken @ PipelineOpenError::Taken(_)) => {
                    let path = format!("pipeline `{}`", config.name);
                    AppError::Config(vec![Finding::error("stream", path, taken.to_string())])
                }
            })?;
        }
        let outputs = outputs::prepare(&self.config, &[], &self.store, &self.metrics)?;
        outputs.into_iter().for_each(|output| crew.start_output(output));
        crew.publish(&self.config);
        Ok(())
    }

    /// From here on plugins and the config may change.
    fn start_manager(
        &self,
        tasks: &mut Tasks,
        crew: Crew,
        busy: Arc<RwLock<()>>,
    ) -> Result<(Reloads, Arc<plugins::Stage>), AppError> {
        let live = watch::Sender::new(Arc::new(self.config.clone()));
        let (store, shutdown) = (self.store.clone(), self.shutdown.clone());
        let stage = Arc::new(plugins::Stage { store, config: live.subscribe(), shutdown });
        let rehearsal = Arc::clone(&stage) as Arc<dyn Rehearsal>;
        self.registry.rehearse_with(rehearsal, self.shutdown.clone());
        let watch = Some(Watch::start(self.registry.clone())?);
        let (sender, requests) = mpsc::channel(RELOADS);
        let (last, reported) = watch::channel(None);
        let shutdown = self.shutdown.clone();
        let manager = Manager { crew, live, requests, last, busy, watch, shutdown };
        tasks.spawn("pipelines and outputs", manager.run());
        if let Some(origin) = &self.config.origin {
            let (path, shutdown) = (origin.path.clone(), self.shutdown.clone());
            tasks.spawn("reload", reload::start_triggers(path, sender.clone(), shutdown));
        }
        Ok((Reloads { requests: sender, last: reported }, stage))
    }

    /// Pipelines that have not drained by then stop where they are; their cursors are stored.
    fn abort_after_grace(&self) -> CancellationToken {
        let abort = CancellationToken::new();
        let (shutdown, fired) = (self.shutdown.clone(), abort.clone());
        let wait = self.grace.mul_f32(0.8);
        tokio::spawn(async move {
            shutdown.cancelled().await;
            tokio::time::sleep(wait).await;
            fired.cancel();
        });
        abort
    }
}

/// Whether the database answers: it streams, or hands over what was there before.
fn is_there(status: &SourceStatus) -> bool {
    // A snapshot, and a standby's wait for its turn, may take as long as they take.
    let is_under_way =
        matches!(status.state, SourceState::Snapshotting(_) | SourceState::Standby { .. });
    status.connections > 0 || is_under_way
}

/// Ends walmill when the database is not there in time at the start; later it only waits.
async fn first_connection(
    mut status: watch::Receiver<SourceStatus>,
    limit: Duration,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut watched = status.clone();
    tokio::select! {
        _ = watched.wait_for(is_there) => return Ok(()),
        () = shutdown.cancelled() => return Ok(()),
        () = tokio::time::sleep(limit) => {}
    }
    let finding = match &status.borrow_and_update().state {
        SourceState::Waiting { error, remedy, .. } | SourceState::Halted { error, remedy, .. } => {
            Finding::error("source", "source", error.clone()).suggest(remedy.clone())
        }
        _ => Finding::error("source", "source", format!("no database within {limit:?}"))
            .suggest("correct `source.url`, or give it more time with `source.start_timeout`"),
    };
    Err(NoDatabase(finding).into())
}
