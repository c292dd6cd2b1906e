//! The outputs of a config, ready to be started.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::model::status::OutputStatus;
use crate::output::{self, Output, deliver};
use crate::store::{Store, StoreError};

/// The outputs of a config.
#[derive(Default)]
pub(super) struct Outputs {
    /// Names of those that run already, as this config has them.
    pub(super) kept: Vec<String>,
    /// The others.
    pub(super) new: Vec<Ready>,
}

type Run = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, Result<(), StoreError>> + Send>;

/// One output that only has to be started.
pub(super) struct Ready {
    pub(super) name: String,
    pub(super) status: watch::Receiver<OutputStatus>,
    /// Delivers until the token is cancelled.
    pub(super) run: Run,
}

impl Outputs {
    /// Makes what is not in `running` already.
    pub(super) fn prepare(
        config: &Config,
        running: Option<&Config>,
        store: &Store,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let kept =
            running.map_or_else(Vec::new, |running| config.outputs.same_in(&running.outputs));
        let mut outputs = Making { store, metrics, made: Self { kept, new: Vec::new() } };
        let database = config.source.url.database();
        for config in &config.outputs.webhook {
            outputs.add(config.deliver(), || output::webhook::Webhook::new(config))?;
        }
        for config in &config.outputs.nats {
            outputs.add(config.delivery.config(), || output::nats::Nats::new(config, database))?;
        }
        for config in &config.outputs.redis {
            outputs
                .add(config.delivery.config(), || output::redis::Redis::new(config, database))?;
        }
        #[cfg(feature = "kafka")]
        for config in &config.outputs.kafka {
            outputs
                .add(config.delivery.config(), || output::kafka::Kafka::new(config, database))?;
        }
        Ok(outputs.made)
    }
}

struct Making<'a> {
    store: &'a Store,
    metrics: &'a Arc<Metrics>,
    made: Outputs,
}

impl Making<'_> {
    /// Makes an output unless it runs already.
    fn add<O: Output>(
        &mut self,
        config: deliver::Config,
        make: impl FnOnce() -> anyhow::Result<O>,
    ) -> anyhow::Result<()> {
        if !self.made.kept.contains(&config.name) {
            self.made.new.push(Ready::new(config, make()?, self.store, self.metrics));
        }
        Ok(())
    }
}

impl Ready {
    fn new(
        config: deliver::Config,
        output: impl Output,
        store: &Store,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let name = config.name.clone();
        let (sender, status) = watch::channel(deliver::status(&name, &output));
        let (store, metrics) = (store.clone(), Arc::clone(metrics));
        let run = move |stop| deliver::run(config, output, store, metrics, sender, stop).boxed();
        Self { name, status, run: Box::new(run) }
    }
}
