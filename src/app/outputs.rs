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
        let running = running.map(|running| &running.outputs);
        for config in &config.outputs.webhook {
            if running.is_some_and(|running| running.webhook.contains(config)) {
                outputs.kept.push(config.name.clone());
                continue;
            }
            let output = output::webhook::Webhook::new(config)?;
            outputs.new.push(Ready::new(config.deliver(), output, store, metrics));
        }
        Ok(outputs)
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
