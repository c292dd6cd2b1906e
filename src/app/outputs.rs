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

/// Outputs that are the same in both configs, by name.
pub(super) fn kept(old: &Config, new: &Config) -> Vec<String> {
    new.outputs.same_in(&old.outputs)
}

/// Makes the outputs of a config, but for those that run already.
///
/// # Errors
/// What an output's section asks for cannot be had.
pub(super) fn prepare(
    config: &Config,
    running: &[String],
    store: &Store,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Vec<Ready>> {
    let mut ready = Vec::new();
    let is_new = |name: &String| !running.contains(name);
    for config in config.outputs.webhook.iter().filter(|config| is_new(&config.name)) {
        let output = output::webhook::Webhook::new(config)?;
        ready.push(Ready::new(config.deliver(), output, store, metrics));
    }
    let (outputs, database) = (&config.outputs, config.source.url.database());
    for config in outputs.nats.iter().filter(|config| is_new(&config.delivery.name)) {
        let output = output::nats::Nats::new(config, database)?;
        ready.push(Ready::new(config.delivery.config(), output, store, metrics));
    }
    for config in outputs.redis.iter().filter(|config| is_new(&config.delivery.name)) {
        let output = output::redis::Redis::new(config, database)?;
        ready.push(Ready::new(config.delivery.config(), output, store, metrics));
    }
    #[cfg(feature = "kafka")]
    for config in outputs.kafka.iter().filter(|config| is_new(&config.delivery.name)) {
        let output = output::kafka::Kafka::new(config, database)?;
        ready.push(Ready::new(config.delivery.config(), output, store, metrics));
    }
    Ok(ready)
}

type Run = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, Result<(), StoreError>> + Send>;

/// One output that only has to be started.
pub(super) struct Ready {
    pub(super) name: String,
    pub(super) status: watch::Receiver<OutputStatus>,
    /// Delivers until the token is cancelled.
    pub(super) run: Run,
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
