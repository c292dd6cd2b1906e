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
        let mut outputs = Self::default();
        let (all, running) = (&config.outputs, running.map(|running| &running.outputs));
        let database = config.source.url.database();
        let parts = Parts { store, metrics };
        for config in &all.webhook {
            let kept = is_kept(running.map(|running| &running.webhook), config);
            outputs.add(kept, &parts, config.deliver(), || output::webhook::Webhook::new(config))?;
        }
        for config in &all.nats {
            let kept = is_kept(running.map(|running| &running.nats), config);
            let make = || output::nats::Nats::new(config, &database);
            outputs.add(kept, &parts, config.delivery.config(), make)?;
        }
        for config in &all.redis {
            let kept = is_kept(running.map(|running| &running.redis), config);
            let make = || output::redis::Redis::new(config, &database);
            outputs.add(kept, &parts, config.delivery.config(), make)?;
        }
        #[cfg(feature = "kafka")]
        for config in &all.kafka {
            let kept = is_kept(running.map(|running| &running.kafka), config);
            let make = || output::kafka::Kafka::new(config, &database);
            outputs.add(kept, &parts, config.delivery.config(), make)?;
        }
        Ok(outputs)
    }

    /// Takes an output in: one that runs already goes on as it is.
    fn add<O: Output>(
        &mut self,
        kept: bool,
        parts: &Parts<'_>,
        config: deliver::Config,
        make: impl FnOnce() -> anyhow::Result<O>,
    ) -> anyhow::Result<()> {
        match kept {
            true => self.kept.push(config.name),
            false => self.new.push(Ready::new(config, make()?, parts.store, parts.metrics)),
        }
        Ok(())
    }
}

/// What every output shares.
struct Parts<'a> {
    store: &'a Store,
    metrics: &'a Arc<Metrics>,
}

/// Whether the running config has the very same output.
fn is_kept<C: PartialEq>(running: Option<&Vec<C>>, config: &C) -> bool {
    running.is_some_and(|running| running.contains(config))
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
