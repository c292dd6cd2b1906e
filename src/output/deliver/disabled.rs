//! An output whose far side wants no more delivers nothing, whatever restarts, until a person
//! enables it or gives it another far side.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::feed::blocking;
use crate::metrics::{Metrics, Name};
use crate::model::clock;
use crate::model::status::{Disabled, OutputStatus};
use crate::store::{Store, StoreError};

/// Waits while the output is disabled, until the shutdown at the longest.
pub(super) async fn wait(
    output: &str,
    target: &str,
    (store, metrics): (&Store, &Metrics),
    status: &watch::Sender<OutputStatus>,
    shutdown: &CancellationToken,
) -> Result<(), StoreError> {
    let gauge = metrics.output_disabled.get_or_create_owned(&Name { name: output.into() });
    // Seen before the store is asked, so that no word of a person is missed.
    let mut news = store.again_news();
    let mut was_disabled = false;
    while let Some(disabled) = current(output, target, store).await? {
        if !was_disabled {
            tracing::error!(
                output,
                "disabled until `walmill output enable {output}`; its checkpoint stays: {}",
                disabled.why
            );
            gauge.set(1);
            status.send_modify(|status| {
                (status.error, status.disabled) = (Some(disabled.why.clone()), Some(disabled));
            });
        }
        was_disabled = true;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            // The store lives as long as this does.
            _ = news.changed() => {}
        }
    }
    gauge.set(0);
    if was_disabled {
        tracing::info!(output, "enabled");
        status.send_modify(|status| (status.error, status.disabled) = (None, None));
    }
    Ok(())
}

/// Keeps in the store that the far side wants no more.
pub(super) async fn note(
    output: &str,
    target: String,
    why: String,
    store: &Store,
) -> Result<(), StoreError> {
    let (store, output) = (store.clone(), output.to_owned());
    let disabled = Disabled { since: clock::now(), why, target };
    blocking(move || store.disable(&output, &disabled)).await
}

/// What the store says; another far side has said nothing yet.
async fn current(
    output: &str,
    target: &str,
    store: &Store,
) -> Result<Option<Disabled>, StoreError> {
    let (asked, output, target) = (store.clone(), output.to_owned(), target.to_owned());
    blocking(move || {
        let disabled = asked.disabled(&output)?;
        if disabled.as_ref().is_some_and(|disabled| disabled.target != target) {
            asked.enable(&output)?;
            return Ok(None);
        }
        Ok(disabled)
    })
    .await
}
