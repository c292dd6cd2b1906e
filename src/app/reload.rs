//! Another config while walmill runs: worked out, checked as a whole, and then put in force as a
//! whole, or not at all.
//!
//! Everything that can be refused is tried first, with no effect: plugins are compiled and asked,
//! outputs are made, streams are looked at. Only then do the pipelines and outputs stop that are
//! gone or changed, the set of plugins is replaced in one step, and the new ones start where the
//! old ones stopped. What did not change goes on all the while.

mod diff;
mod triggers;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::{RwLock, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::crew::{Crew, StartError};
use super::outputs::{self, Ready};
use super::plugins::{misplaced, not_loaded};
use crate::config::finding::Finding;
use crate::config::{Config, Loaded};
use crate::model::clock;
use crate::model::reload::{ReloadOutcome, ReloadReport, ReloadRequest};
use crate::plugin::registry::Prepared;
use crate::plugin::watch::Watch;
use crate::store::Store;
use diff::Diff;
pub(super) use triggers::start as start_triggers;

/// The config in force, and those who run by it.
pub(super) struct Manager {
    pub(super) crew: Crew,
    pub(super) live: watch::Sender<Arc<Config>>,
    pub(super) requests: mpsc::Receiver<ReloadRequest>,
    pub(super) last: watch::Sender<Option<ReloadReport>>,
    /// Held while the config changes: wishes about plugins wait.
    pub(super) busy: Arc<RwLock<()>>,
    /// Saved plugins are swapped in while it runs.
    pub(super) watch: Option<Watch>,
    pub(super) shutdown: CancellationToken,
}

/// All that a new config needs, made and checked.
struct Plan {
    config: Config,
    diff: Diff,
    plugins: Prepared,
    /// Those that are new or changed.
    outputs: Vec<Ready>,
}

impl Manager {
    /// Runs until all pipelines and outputs have ended, after the shutdown.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut ended = self.work().await;
        // One that failed ends all; the others still come to their end.
        self.shutdown.cancel();
        let watch = self.watch.take();
        // It waits for a plugin that is being compiled.
        let watched = tokio::task::spawn_blocking(move || drop(watch));
        while let Some(next) = self.crew.next_end().await {
            ended = ended.and(next.map(drop).map_err(Into::into));
        }
        ended.and(watched.await.context("stop the plugin watch"))
    }

    /// Until the shutdown, or until one of the crew fails.
    async fn work(&mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                Some(ended) = self.crew.next_end() => drop(ended?),
                Some(request) = self.requests.recv() => self.reload(request).await?,
            }
        }
    }

    async fn reload(&mut self, request: ReloadRequest) -> anyhow::Result<()> {
        let ReloadRequest { why, answer } = request;
        let (outcome, changes, findings) = self.try_reload().await?;
        let report = ReloadReport { time: clock::now(), why, outcome, changes, findings };
        let metrics = &self.crew.metrics;
        match outcome {
            ReloadOutcome::Applied => {
                info!(why, "config reloaded: {}", report.changes.join("; "));
                metrics.config_reloads.inc();
            }
            // It was read again, as a signal or a person wished, before the file was looked at.
            ReloadOutcome::Unchanged if why == "file" => return Ok(()),
            ReloadOutcome::Unchanged => info!(why, "config reloaded: nothing has changed"),
            ReloadOutcome::Refused => {
                let said: Vec<String> =
                    report.findings.iter().map(|f| format!("{}: {}", f.path, f.message)).collect();
                error!(why, "the config in force stays: {}", said.join("; "));
                metrics.config_refusals.inc();
            }
        }
        metrics.config_current.set(i64::from(outcome != ReloadOutcome::Refused));
        self.last.send_replace(Some(report.clone()));
        if let Some(answer) = answer {
            // Whoever asked may have gone.
            let _ = answer.send(report);
        }
        Ok(())
    }

    /// # Errors
    /// Only what ends walmill; a config that does not work is an outcome.
    async fn try_reload(&mut self) -> anyhow::Result<(ReloadOutcome, Vec<String>, Vec<Finding>)> {
        let refused = |findings| Ok((ReloadOutcome::Refused, Vec::new(), findings));
        let running = Arc::clone(&self.live.borrow());
        let Some(origin) = running.origin.clone() else {
            let finding = Finding::error("no-config-file", "", "this walmill has no config file");
            return refused(vec![finding]);
        };
        let read = tokio::task::spawn_blocking(move || Config::load(&origin.path, &origin.set));
        let Loaded { config, warnings } = match read.await.context("read the config")? {
            Ok(loaded) => loaded,
            Err(findings) => return refused(findings),
        };
        let diff = Diff::between(&running, &config);
        let changes = diff.words();
        if changes.is_empty() {
            return Ok((ReloadOutcome::Unchanged, changes, warnings));
        }
        let fixed = diff.needs_restart();
        if !fixed.is_empty() {
            return Ok((ReloadOutcome::Refused, changes, fixed));
        }
        // Wishes about plugins are done first, but not what they or a changed file try.
        let _untried = self.crew.registry.quiet();
        let _quiet = Arc::clone(&self.busy).write_owned().await;
        // A file that is offered while the set of plugins is replaced would be lost.
        self.stop_watch().await?;
        let outcome = match self.prepare(&running, config, diff).await? {
            Err(findings) => (ReloadOutcome::Refused, changes, findings),
            Ok(plan) => {
                self.apply(plan).await?;
                (ReloadOutcome::Applied, changes, warnings)
            }
        };
        self.start_watch()?;
        Ok(outcome)
    }

    /// Makes and checks all that the new config needs, with no effect on what runs.
    async fn prepare(
        &self,
        running: &Config,
        config: Config,
        diff: Diff,
    ) -> anyhow::Result<Result<Plan, Vec<Finding>>> {
        let (registry, plugins) = (self.crew.registry.clone(), config.plugins.clone());
        let prepared = tokio::task::spawn_blocking(move || registry.prepare(&plugins));
        let plugins = match prepared.await.context("load the plugins")? {
            Ok(plugins) => plugins,
            Err(failed) => return Ok(Err(failed.into_iter().map(not_loaded).collect())),
        };
        let role = |name: &str| plugins.role(&self.crew.registry, name);
        let mut findings = misplaced(&config, role);
        let (store, metrics) = (&self.crew.store, &self.crew.metrics);
        let kept = outputs::kept(running, &config);
        let outputs = outputs::prepare(&config, &kept, store, metrics);
        let outputs = outputs.unwrap_or_else(|error| {
            findings.push(Finding::error("output", "output", format!("{error:#}")));
            Vec::new()
        });
        findings.extend(taken_streams(&self.crew.store, &config));
        if !findings.is_empty() {
            return Ok(Err(findings));
        }
        Ok(Ok(Plan { config, diff, plugins, outputs }))
    }

    /// Puts a plan in force. From here on only the store can fail.
    async fn apply(&mut self, plan: Plan) -> anyhow::Result<()> {
        let Plan { config, diff, plugins, outputs } = plan;
        self.crew.stop_pipelines(&diff.pipelines.stopping()).await?;
        self.crew.stop_outputs(&diff.outputs.stopping()).await?;
        let registry = self.crew.registry.clone();
        let apply = tokio::task::spawn_blocking(move || registry.apply(plugins));
        apply.await.context("replace the plugins")?;
        let config = Arc::new(config);
        self.live.send_replace(Arc::clone(&config));
        self.crew.declare_readers(&config);
        for pipeline in &config.pipelines {
            if diff.pipelines.starts(&pipeline.name) {
                self.crew.start_pipeline(pipeline).map_err(|error| match error {
                    StartError::Open(error) => anyhow::Error::new(error),
                    StartError::System(error) => error,
                })?;
            }
        }
        for output in outputs {
            self.crew.start_output(output);
        }
        self.crew.publish(&config);
        Ok(())
    }

    async fn stop_watch(&mut self) -> anyhow::Result<()> {
        let watch = self.watch.take();
        tokio::task::spawn_blocking(move || drop(watch)).await.context("stop the plugin watch")
    }

    fn start_watch(&mut self) -> anyhow::Result<()> {
        match Watch::start(self.crew.registry.clone()) {
            Ok(watch) => self.watch = Some(watch),
            // The folder was there a moment ago, when its plugin was read.
            Err(error) => error!("plugins are not watched until the next reload: {error:#}"),
        }
        Ok(())
    }
}

/// Streams that the config's pipelines would need and that belong to others.
fn taken_streams(store: &Store, config: &Config) -> Vec<Finding> {
    let mut owners = std::collections::BTreeMap::new();
    let mut findings = Vec::new();
    for pipeline in &config.pipelines {
        let literal = pipeline.streams.iter().filter_map(|glob| glob.literal());
        for name in std::iter::once(pipeline.name.as_str()).chain(literal) {
            let stored = store.stream(name).map(|stream| stream.owner().to_owned());
            let owner = owners
                .entry(name.to_owned())
                .or_insert_with(|| stored.unwrap_or_else(|| pipeline.name.clone()));
            if *owner != pipeline.name {
                let path = format!("pipeline `{}`", pipeline.name);
                let message = format!("stream `{name}` belongs to the pipeline `{owner}`");
                findings.push(
                    Finding::error("stream", path, message)
                        .suggest("give the stream or the pipeline another name"),
                );
            }
        }
    }
    findings
}
