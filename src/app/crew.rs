//! Pipelines and outputs: those of the config in force, which come and go when it changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::outputs;
use crate::config::Config;
use crate::metrics::{Metrics, Name};
use crate::model::status::{OutputStatus, PipelineStatus};
use crate::pipeline::{self, OpenError, Pipeline, Shutdown};
use crate::plugin::Registry;
use crate::store::Store;
use crate::store::retention::Reader;
use crate::task::{TaskError, Tasks};

/// The latest facts about each part of a kind.
type Statuses<T> = Vec<watch::Receiver<T>>;

/// Everything that reads what the store has.
pub(super) struct Crew {
    pub(super) store: Store,
    pub(super) registry: Registry,
    pub(super) metrics: Arc<Metrics>,
    /// Nothing more comes into the journal.
    drain: CancellationToken,
    /// Pipelines that are late stop where they are.
    abort: CancellationToken,
    shutdown: CancellationToken,
    tasks: Tasks,
    pipelines: Vec<Member<PipelineStatus>>,
    outputs: Vec<Member<OutputStatus>>,
    pipeline_statuses: watch::Sender<Statuses<PipelineStatus>>,
    output_statuses: watch::Sender<Statuses<OutputStatus>>,
}

/// A part that runs.
struct Member<T> {
    name: String,
    stop: CancellationToken,
    status: watch::Receiver<T>,
}

/// When a crew ends: each at its own part of the shutdown.
pub(super) struct Signals {
    pub(super) drain: CancellationToken,
    pub(super) abort: CancellationToken,
    pub(super) shutdown: CancellationToken,
}

impl Crew {
    /// Nobody runs yet.
    pub(super) fn new(
        store: Store,
        registry: Registry,
        metrics: Arc<Metrics>,
        signals: Signals,
    ) -> Self {
        let Signals { drain, abort, shutdown } = signals;
        Self {
            store,
            registry,
            metrics,
            drain,
            abort,
            // A member that fails ends the crew, which ends all else.
            tasks: Tasks::new(shutdown.child_token()),
            shutdown,
            pipelines: Vec::new(),
            outputs: Vec::new(),
            pipeline_statuses: watch::Sender::default(),
            output_statuses: watch::Sender::default(),
        }
    }

    /// The pipelines that run.
    pub(super) fn pipelines(&self) -> watch::Receiver<Statuses<PipelineStatus>> {
        self.pipeline_statuses.subscribe()
    }

    /// The outputs that run.
    pub(super) fn outputs(&self) -> watch::Receiver<Statuses<OutputStatus>> {
        self.output_statuses.subscribe()
    }

    /// The next member that ends, or none if there is none.
    pub(super) async fn next_end(&mut self) -> Option<Result<String, TaskError>> {
        self.tasks.next().await
    }

    /// Starts a pipeline at its stored cursor.
    pub(super) fn start_pipeline(&mut self, config: &pipeline::Config) -> Result<(), StartError> {
        let (store, registry) = (self.store.clone(), self.registry.clone());
        let pipeline = Pipeline::new(config.clone(), store, registry, Arc::clone(&self.metrics))?;
        let (name, stop) = (config.name.clone(), self.abort.child_token());
        let status = pipeline.status();
        self.pipelines.push(Member { name, stop: stop.clone(), status });
        let runtime = Handle::current();
        let shutdown = Shutdown { drain: self.drain.clone(), abort: stop };
        let run = move || pipeline.run(&runtime, &shutdown);
        let started = self.tasks.spawn_thread(pipeline_task(&config.name), run);
        Ok(started.context("start a pipeline")?)
    }

    /// Starts an output.
    pub(super) fn start_output(&mut self, output: outputs::Ready) {
        let outputs::Ready { name, status, run } = output;
        let stop = self.shutdown.child_token();
        self.tasks.spawn(output_task(&name), run(stop.clone()));
        self.outputs.push(Member { name, stop, status });
    }

    /// Stops pipelines after the batch in hand, and waits for their end. Their cursors are stored.
    pub(super) async fn stop_pipelines(&mut self, names: &[String]) -> Result<(), TaskError> {
        let stopped = take(&mut self.pipelines, names);
        self.wait_for(stopped.iter().map(|name| pipeline_task(name)).collect()).await?;
        for name in stopped {
            let name = Name { name };
            self.metrics.pipeline_running.remove(&name);
            self.metrics.pipeline_lag.remove(&name);
            self.metrics.pipeline_schema_changes.remove(&name);
        }
        Ok(())
    }

    /// Stops outputs once what is under way has come to its end, and waits for them. Their
    /// checkpoints are stored.
    pub(super) async fn stop_outputs(&mut self, names: &[String]) -> Result<(), TaskError> {
        let stopped = take(&mut self.outputs, names);
        self.wait_for(stopped.iter().map(|name| output_task(name)).collect()).await?;
        for name in stopped {
            self.metrics.output_lag.remove(&Name { name });
        }
        Ok(())
    }

    async fn wait_for(&mut self, mut ending: BTreeSet<String>) -> Result<(), TaskError> {
        while !ending.is_empty() {
            match self.tasks.next().await {
                Some(ended) => _ = ending.remove(&ended?),
                None => break,
            }
        }
        Ok(())
    }

    /// Shows who runs, in the config's order.
    pub(super) fn publish(&mut self, config: &Config) {
        let place = |name: &str| config.pipelines.iter().position(|p| p.name == name);
        self.pipelines.sort_by_key(|member| place(&member.name));
        let statuses = self.pipelines.iter().map(|member| member.status.clone());
        self.pipeline_statuses.send_replace(statuses.collect());
        let statuses = self.outputs.iter().map(|member| member.status.clone());
        self.output_statuses.send_replace(statuses.collect());
    }

    /// What those of a config have not read yet is kept, as the store's config says.
    pub(super) fn declare_readers(&self, config: &Config) {
        let Config { pipelines, outputs, .. } = config;
        let pipelines = pipelines.iter().map(|pipeline| Reader::Pipeline(pipeline.name.clone()));
        let outputs = outputs.sections();
        let outputs = outputs.map(|output| Reader::Output {
            output: output.name.to_owned(),
            streams: output.streams.to_vec(),
        });
        self.store.declare_readers(pipelines.chain(outputs).collect());
    }
}

/// Why a pipeline does not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// It cannot have its streams.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no thread for it.
    #[error(transparent)]
    System(#[from] anyhow::Error),
}

fn pipeline_task(name: &str) -> String {
    format!("pipeline {name}")
}

fn output_task(name: &str) -> String {
    format!("output {name}")
}

/// Asks members to stop and takes them out; the names of those that were there.
fn take<T>(members: &mut Vec<Member<T>>, names: &[String]) -> Vec<String> {
    let mut taken = Vec::new();
    members.retain(|member| {
        let stays = !names.contains(&member.name);
        if !stays {
            member.stop.cancel();
            taken.push(member.name.clone());
        }
        stays
    });
    taken
}
