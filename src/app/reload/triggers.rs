//! What makes walmill read its config again by itself: SIGHUP, and a file that changed.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::document::Document;
use crate::model::reload::ReloadRequest;

/// Between two looks at the config's text. It counts once two looks in a row find the same: half a
/// file may be a whole config, with pipelines missing.
const LOOK: Duration = Duration::from_millis(500);

/// Asks for a reload whenever there is a reason, until the shutdown.
pub(in crate::app) async fn start(
    path: PathBuf,
    requests: mpsc::Sender<ReloadRequest>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    // On a terminal the signal says that the terminal is gone, and that walmill should go, too.
    let mut hangups = match std::io::stderr().is_terminal() {
        true => None,
        false => signal(SignalKind::hangup())
            .inspect_err(|error| warn!("SIGHUP cannot be caught: {error}"))
            .ok(),
    };
    let mut hung_up = async move || match &mut hangups {
        Some(hangups) => hangups.recv().await,
        None => std::future::pending().await,
    };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut read = read(&path).await;
    let mut settled = read.clone();
    loop {
        let why = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(()) = hung_up() => "signal",
            _ = looks.tick() => {
                let now = self::read(&path).await;
                let is_news = now == read && now != settled;
                read.clone_from(&now);
                if !is_news {
                    continue;
                }
                "file"
            }
        };
        settled.clone_from(&read);
        // None when walmill ends.
        if requests.send(ReloadRequest { why, answer: None }).await.is_err() {
            return Ok(());
        }
    }
}

/// The config's text; none where it cannot be read at the moment.
async fn read(path: &Path) -> Option<String> {
    let path = path.to_owned();
    let read = move || Document::read(&path).ok().map(|document| document.text().to_owned());
    tokio::task::spawn_blocking(read).await.ok().flatten()
}
