//! `walmill run`: production.

use std::time::{Duration, Instant};

use clap::Args;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{ConfigArguments, Failure, LogFormat, print_findings, start_log};
use crate::app::{self, AppError};
use crate::config::finding::Finding;
use crate::model::Period;

/// Signals within this time are one: a launcher often passes on what the terminal sent to both.
const SAME_PRESS: Duration = Duration::from_millis(500);

/// `walmill run`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// How log lines look; lines for people on a terminal, JSON elsewhere, unless set.
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
    /// How long a shutdown may take.
    #[arg(long, value_name = "TIME", default_value = "12s")]
    drain: Period,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    start_log(arguments.log_format);
    let loaded = arguments.config.load()?;
    print_findings(&loaded.warnings);
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::run_time(Finding::error("runtime", "", error.to_string())))?;
    let grace: Duration = arguments.drain.duration();
    let outcome = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        cancel_on_signal(&shutdown);
        app::run(loaded.config, shutdown, grace, |_| {}).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.map_err(|error| match error {
        AppError::Config(findings) => Failure::usage(findings),
        AppError::Environment(finding) => Failure::environment(finding),
        AppError::RunTime(cause) => {
            error!("{cause:#}");
            Failure::run_time(Finding::error("run", "", format!("{cause:#}")))
        }
    })
}

/// The first SIGINT or SIGTERM asks for a shutdown, the second ends at once.
pub(super) fn cancel_on_signal(shutdown: &CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let streams = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = streams else {
        return warn!("signals cannot be caught: Ctrl-C ends without a drain");
    };
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        info!("shutting down; once more to end at once");
        shutdown.cancel();
        let first = Instant::now();
        while first.elapsed() < SAME_PRESS {
            next().await;
        }
        std::process::exit(1);
    });
}
