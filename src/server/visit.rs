//! Who is connected to streams: counted while they stay, and why they left.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::auth::Reader;
use super::connection::Progress;
use super::problem::Problem;
use crate::metrics::{Metrics, Name, Outcome};
use crate::model::Finding;

/// Everyone who is connected.
pub(super) struct Visits {
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    running: TaskTracker,
}

impl Visits {
    pub(super) fn new(metrics: Arc<Metrics>, most: NonZeroUsize) -> Self {
        let places = Arc::new(Semaphore::new(most.get().min(Semaphore::MAX_PERMITS)));
        Self { metrics, places, running: TaskTracker::new() }
    }

    /// A place for someone who asks and goes, or the word that there is none left.
    pub(super) fn place(&self) -> Result<Place, Problem> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| full())?;
        Ok(Place { _permit: place })
    }

    /// Lets a client in, or says that there is no place left.
    pub(super) fn admit(
        &self,
        protocol: &'static str,
        progress: Arc<Progress>,
        reader: Reader,
    ) -> Result<Visit, Problem> {
        let place = self.place()?;
        self.metrics.clients.get_or_create(&name(protocol)).inc();
        Ok(Visit {
            metrics: Arc::clone(&self.metrics),
            protocol,
            told: false,
            progress,
            reader,
            _place: place,
            _running: self.running.token(),
        })
    }

    /// Waits until everyone has left; nobody may come any more.
    pub(super) async fn ended(&self) {
        self.running.close();
        self.running.wait().await;
    }
}

/// One of `server.max_clients`, until this is dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// One client's stay, from its admission until this is dropped.
pub(super) struct Visit {
    metrics: Arc<Metrics>,
    protocol: &'static str,
    /// Its leaving is counted already.
    told: bool,
    pub(super) progress: Arc<Progress>,
    /// Who it is.
    pub(super) reader: Reader,
    _place: Place,
    _running: TaskTrackerToken,
}

impl Visit {
    /// Counts events that were sent.
    pub(super) fn sent(&self, events: usize) {
        count_events(&self.metrics, self.protocol, events);
    }

    /// Counts why it ends, when that is decided: `slow`, `error`, `shutdown`, `closed`. Where
    /// nothing is said until the end, the client went by itself, or took nothing.
    pub(super) fn leaves(&mut self, outcome: &'static str) {
        if !std::mem::replace(&mut self.told, true) {
            let name = self.protocol.to_owned();
            self.metrics.clients_left.get_or_create(&Outcome { name, outcome }).inc();
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.leaves(if self.progress.stalled() { "slow" } else { "closed" });
        self.metrics.clients.get_or_create(&name(self.protocol)).dec();
    }
}

/// Counts events that were sent by a protocol.
pub(super) fn count_events(metrics: &Metrics, protocol: &str, events: usize) {
    metrics.client_events.get_or_create(&name(protocol)).inc_by(events as u64);
}

fn name(protocol: &str) -> Name {
    Name { name: protocol.to_owned() }
}

fn full() -> Problem {
    let finding = Finding::error(
        "too-many-clients",
        "server.max_clients",
        "no place is left for another client",
    )
    .suggest("try again later, or raise server.max_clients");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, finding)
}
