//! An authorizer in force: asked about subscribers by the server, answered by a few instances.
//!
//! Whatever goes wrong is a refusal: a subscriber that nobody could decide about sees nothing, and
//! the log says why. An authorizer that is replaced while it runs answers the next question in its
//! new version.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::{CallError, Instance, NoState, Plugin, Registry, Role};
use crate::model::access::{Authorize, Deciding, Grant, Refusal, Subscriber};
use crate::model::clock;

/// Instances of one authorizer at most: each may have its limit of memory.
const MOST_INSTANCES: usize = 4;
/// For a question to wait for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two lines of the log about failures.
const VOICE: Duration = Duration::from_secs(1);

/// One `[plugins.NAME]` that exports `authorize`. Cloning shares its instances.
#[derive(Clone)]
pub struct Authorizer(Arc<Shared>);

struct Shared {
    name: String,
    registry: Registry,
    turns: Semaphore,
    /// As many as there are turns; who has a turn finds one here.
    seats: Mutex<Vec<Seat>>,
    seat_count: u32,
    voice: Mutex<Voice>,
}

/// Room for one instance, and the one that sits in it: of the version that last answered there.
struct Seat {
    worker: u32,
    instance: Option<(Arc<Plugin>, Instance)>,
}

/// The config names something else than an authorizer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAuthorizer {
    /// There is no such plugin.
    #[error("the config has no `[plugins.{0}]`")]
    Unknown(String),
    /// It is one for pipelines.
    #[error(
        "plugin `{0}` is no authorizer: it is of the world `plugin`, and `authorizer` is wanted"
    )]
    Transform(String),
}

impl Authorizer {
    /// The authorizer of that name, in whatever version the registry has in force.
    ///
    /// # Errors
    /// See [`NoAuthorizer`].
    pub fn new(registry: &Registry, name: &str) -> Result<Self, NoAuthorizer> {
        match registry.snapshot().by_name.get(name).map(|plugin| plugin.role()) {
            None => return Err(NoAuthorizer::Unknown(name.into())),
            Some(Role::Transform) => return Err(NoAuthorizer::Transform(name.into())),
            Some(Role::Authorizer) => {}
        }
        let count = thread::available_parallelism().map_or(1, |cores| cores.get());
        let count = count.min(MOST_INSTANCES);
        let seat_count = u32::try_from(count).unwrap_or(1);
        let seats = (0..seat_count).map(|worker| Seat { worker, instance: None }).collect();
        Ok(Self(Arc::new(Shared {
            name: name.into(),
            registry: registry.clone(),
            turns: Semaphore::new(count),
            seats: Mutex::new(seats),
            seat_count,
            voice: Mutex::default(),
        })))
    }

    /// What the subscriber may see.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn open(&self, subscriber: Subscriber) -> Result<Grant, Refusal> {
        let turn = match tokio::time::timeout(PATIENCE, self.0.turns.acquire()).await {
            Ok(Ok(turn)) => turn,
            _ => return Err(self.0.undecided(&"too many subscribers ask at once")),
        };
        let answer = self.in_turn(turn, subscriber).await;
        match answer {
            Ok(answer) => answer.map_err(Refusal::Refused),
            Err(error) => Err(self.0.undecided(&error)),
        }
    }

    /// Asks on a thread that may be kept busy. A question that was begun is ended there even when
    /// nobody waits for the answer any more, and its turn with it.
    async fn in_turn(
        &self,
        turn: SemaphorePermit<'_>,
        subscriber: Subscriber,
    ) -> anyhow::Result<Result<Grant, String>> {
        turn.forget();
        let shared = Arc::clone(&self.0);
        let asked = spawn_blocking(move || {
            let _turn = Turn(&shared);
            shared.ask(&subscriber)
        });
        Ok(asked.await??)
    }
}

/// Given back when it is over, however it ends.
struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.turns.add_permits(1);
    }
}

impl Shared {
    fn ask(&self, subscriber: &Subscriber) -> Result<Result<Grant, String>, CallError> {
        let Some(plugin) = self.registry.snapshot().by_name.get(&self.name).cloned() else {
            return Err(CallError::Failed("the plugin is gone from the config".into()));
        };
        let mut seat = self.take_seat();
        let answer = seat.ask(&plugin, self.seat_count, subscriber);
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).push(seat);
        answer
    }

    fn take_seat(&self) -> Seat {
        let free = self.seats.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // Whoever has a turn finds one, unless its last user panicked with it.
        free.unwrap_or(Seat { worker: 0, instance: None })
    }

    /// Refuses, and says why where the operator reads it, at most once a second.
    fn undecided(&self, why: &dyn std::fmt::Display) -> Refusal {
        let mut voice = self.voice.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(others) = voice.speak() {
            warn!(plugin = self.name, others, "a subscriber is refused: {why}");
        }
        Refusal::Undecided
    }
}

impl Seat {
    /// Asks the instance here, or a new one. What an instance that was used before fails at is
    /// asked once more of a new one, in case it was the instance and not the question.
    fn ask(
        &mut self,
        plugin: &Arc<Plugin>,
        seats: u32,
        subscriber: &Subscriber,
    ) -> Result<Result<Grant, String>, CallError> {
        let sits = self.instance.take().filter(|(of, _)| Arc::ptr_eq(of, plugin));
        if let Some((_, instance)) = sits
            && let Ok(answer) = self.ask_with(plugin, instance, subscriber)
        {
            return Ok(answer);
        }
        let state = Arc::new(Mutex::new(NoState));
        let instance = plugin.instantiate(self.worker, seats, false, state)?;
        self.ask_with(plugin, instance, subscriber)
    }

    fn ask_with(
        &mut self,
        plugin: &Arc<Plugin>,
        mut instance: Instance,
        subscriber: &Subscriber,
    ) -> Result<Result<Grant, String>, CallError> {
        let answer = instance.open(subscriber, clock::now());
        if instance.is_alive() {
            self.instance = Some((Arc::clone(plugin), instance));
        }
        answer
    }
}

/// Counts what is not said.
#[derive(Default)]
struct Voice {
    spoke: Option<Instant>,
    silent: u64,
}

impl Voice {
    /// How many were not said since the last one, if this one is to be said.
    fn speak(&mut self) -> Option<u64> {
        if self.spoke.is_some_and(|spoke| spoke.elapsed() < VOICE) {
            self.silent += 1;
            return None;
        }
        self.spoke = Some(Instant::now());
        Some(std::mem::take(&mut self.silent))
    }
}

impl Authorize for Authorizer {
    fn open(&self, subscriber: Subscriber) -> Deciding<'_> {
        Box::pin(Authorizer::open(self, subscriber))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.registry.generation()
    }
}

#[cfg(test)]
mod tests;
