//! Builds each part from the config, starts the tasks, and joins them.
//!
//! Shutdown runs the way the data does: the source stops and lets go of the journal, the journal
//! syncs what it was given, the pipelines read to its end, and then the store closes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Config;
use crate::config::finding::Finding;
use crate::metrics::Metrics;
use crate::model::pattern::Glob;
use crate::model::status::{OutputStatus, PipelineStatus, SourceState, SourceStatus};
use crate::output::{self, Output, deliver};
use crate::pipeline::{OpenError as PipelineOpenError, Pipeline, Shutdown};
use crate::plugin::registry::Registry;
use crate::plugin::watch::Watch;
use crate::plugin::{Engine, Role};
use crate::server;
use crate::source::{self, Source};
use crate::store::retention::Reader;
use crate::store::{OpenError, Store};
use crate::task::{TaskError, Tasks};

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
    match open_plugins(config, None, Arc::new(Metrics::new())) {
        Ok(_) => Vec::new(),
        Err(AppError::Config(findings)) => findings,
        Err(AppError::Environment(finding)) => vec![finding],
        Err(AppError::RunTime(error)) => {
            vec![Finding::error("plugins", "plugins", format!("{error:#}"))]
        }
    }
}

fn open_plugins(
    config: &Config,
    cache: Option<&Path>,
    metrics: Arc<Metrics>,
) -> Result<Registry, AppError> {
    let engine = Engine::new(cache).context("start the plugin engine")?;
    let registry = Registry::open(&engine, config.plugins.clone(), metrics).map_err(|failed| {
        let finding = |(name, error)| {
            let path = format!("plugins.{name}");
            Finding::error("plugin", path, format!("plugin `{name}`: {error}"))
        };
        AppError::Config(failed.into_iter().map(finding).collect())
    })?;
    let misplaced = misplaced_plugins(config, &registry);
    if misplaced.is_empty() { Ok(registry) } else { Err(AppError::Config(misplaced)) }
}

/// Authorizers that stand in a pipeline: only their files say that they are such.
fn misplaced_plugins(config: &Config, registry: &Registry) -> Vec<Finding> {
    let plugins = registry.snapshot();
    let is_misplaced = |name: &&String| {
        plugins.by_name.get(*name).is_some_and(|plugin| plugin.role() == Role::Authorizer)
    };
    let in_pipelines = config.pipelines.iter().enumerate().flat_map(|(at, pipeline)| {
        let names = pipeline.plugins.iter().filter(is_misplaced);
        names.map(move |name| (format!("pipeline[{at}].plugins"), name))
    });
    let finding = |(path, name): (String, &String)| {
        let message = format!("plugin `{name}` is an authorizer: it has nothing to do to events");
        Finding::error("plugin", path, message).suggest(format!("take `{name}` out of this list"))
    };
    in_pipelines.map(finding).collect()
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
    let registry = open_plugins(&config, Some(&cache), Arc::clone(&metrics))?;
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
        self.declare_readers();
        let journal = self.store.start_journal().context("start the journal")?;
        let drain = CancellationToken::new();
        let pipelines = self.start_pipelines(&mut tasks, &drain)?;
        let outputs = self.start_outputs(&mut tasks)?;
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
        self.start_watch(&mut tasks)?;
        let state = server::State {
            store: self.store,
            metrics: self.metrics,
            source: status,
            backfills,
            plugins: self.registry.statuses(),
            pipelines,
            outputs,
        };
        let served = server::serve(listener, self.config.server, state, self.shutdown);
        tasks.spawn("server", async move {
            served.await;
            anyhow::Ok(())
        });
        Ok(tasks)
    }

    /// What these have not read yet is kept, as the store's config says. A stream that a route
    /// makes later counts from the next start on.
    fn declare_readers(&self) {
        let Config { pipelines, outputs, .. } = &self.config;
        let mut streams: BTreeSet<String> =
            self.store.streams().iter().map(|stream| stream.name().to_owned()).collect();
        for pipeline in pipelines {
            streams.insert(pipeline.name.clone());
            streams.extend(pipeline.streams.iter().filter_map(Glob::literal).map(str::to_owned));
        }
        let mut readers: Vec<Reader> =
            pipelines.iter().map(|pipeline| Reader::Pipeline(pipeline.name.clone())).collect();
        for output in outputs.sections() {
            let delivered =
                streams.iter().filter(|name| output.streams.iter().any(|glob| glob.matches(name)));
            readers.extend(delivered.map(|stream| Reader::Output {
                output: output.name.to_owned(),
                stream: stream.clone(),
            }));
        }
        self.store.declare_readers(readers);
    }

    fn start_pipelines(
        &self,
        tasks: &mut Tasks,
        drain: &CancellationToken,
    ) -> Result<Vec<watch::Receiver<PipelineStatus>>, AppError> {
        let abort = self.abort_after_grace();
        let mut statuses = Vec::new();
        for config in &self.config.pipelines {
            let pipeline = Pipeline::new(
                config.clone(),
                self.store.clone(),
                self.registry.clone(),
                Arc::clone(&self.metrics),
            )
            .map_err(|error| match error {
                PipelineOpenError::Store(error) => AppError::RunTime(error.into()),
                taken @ PipelineOpenError::Taken(_) => {
                    let path = format!("pipeline `{}`", config.name);
                    AppError::Config(vec![Finding::error("stream", path, taken.to_string())])
                }
            })?;
            statuses.push(pipeline.status());
            let runtime = Handle::current();
            let shutdown = Shutdown { drain: drain.clone(), abort: abort.clone() };
            tasks
                .spawn_thread(format!("pipeline {}", config.name), move || {
                    pipeline.run(&runtime, &shutdown)
                })
                .context("start a pipeline")?;
        }
        Ok(statuses)
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

    fn start_outputs(
        &self,
        tasks: &mut Tasks,
    ) -> Result<Vec<watch::Receiver<OutputStatus>>, AppError> {
        let mut statuses = Vec::new();
        for config in &self.config.outputs.webhook {
            let output = output::webhook::Webhook::new(config)?;
            statuses.push(self.start_output(tasks, config.deliver(), output));
        }
        Ok(statuses)
    }

    fn start_output(
        &self,
        tasks: &mut Tasks,
        config: deliver::Config,
        output: impl Output,
    ) -> watch::Receiver<OutputStatus> {
        let (sender, status) = watch::channel(deliver::status(&config.name, &output));
        let (store, metrics) = (self.store.clone(), Arc::clone(&self.metrics));
        tasks.spawn(
            format!("output {}", config.name),
            deliver::run(config, output, store, metrics, sender, self.shutdown.clone()),
        );
        status
    }

    /// Saved plugins are swapped in while it runs.
    fn start_watch(&self, tasks: &mut Tasks) -> Result<(), AppError> {
        let watch = Watch::start(self.registry.clone())?;
        let shutdown = self.shutdown.clone();
        tasks.spawn("plugin watch", async move {
            shutdown.cancelled().await;
            // It waits for a plugin that is being compiled.
            tokio::task::spawn_blocking(move || drop(watch)).await
        });
        Ok(())
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
