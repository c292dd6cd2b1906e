//! Tasks that end together: each has a name, the first that fails stops the others, and a shutdown
//! has a deadline.
//!
//! Threads belong too. A source or a pipeline is a loop on a thread of its own; here it ends like
//! any other task, and its panic is an error with a name instead of a line on stderr.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Why the tasks ended.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// One of them failed.
    #[error("{name}")]
    Failed {
        /// The task's name.
        name: String,
        /// Why.
        #[source]
        cause: anyhow::Error,
    },
    /// One of them panicked, which is a bug.
    #[error("{name} panicked: {message}")]
    Panicked {
        /// The task's name.
        name: String,
        /// What the panic said.
        message: String,
    },
    /// These had not ended when the time for the shutdown was up.
    #[error("still running at the shutdown's deadline: {}", .0.join(", "))]
    Deadline(Vec<String>),
}

/// A group of named tasks.
///
/// Tasks that read to the end of what others send them do not watch the token: they end when their
/// input does. It is for the edges, as [`Tasks::shutdown`] says.
#[derive(Debug)]
pub struct Tasks {
    running: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
    shutdown: CancellationToken,
}

impl Tasks {
    /// No tasks yet. Cancelling `shutdown` asks them to end.
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { running: JoinSet::new(), names: HashMap::new(), shutdown }
    }

    /// The token that asks the tasks to end, for those at the edges: the source, the listeners,
    /// the outputs. It is cancelled from outside, or by the first task that fails.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Starts a task.
    pub fn spawn<F, E>(&mut self, name: impl Into<String>, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<anyhow::Error>,
    {
        let handle = self.running.spawn(async move { task.await.map_err(Into::into) });
        self.names.insert(handle.id(), name.into());
    }

    /// Starts a thread, which bears the task's name.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn_thread<F, E>(&mut self, name: impl Into<String>, run: F) -> std::io::Result<()>
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
        E: Into<anyhow::Error>,
    {
        let name = name.into();
        let (ended, end) = oneshot::channel();
        thread::Builder::new().name(name.clone()).spawn(move || {
            let end = catch_unwind(AssertUnwindSafe(run)).map(|result| result.map_err(Into::into));
            // Nobody listens once the shutdown's deadline has passed.
            let _ = ended.send(end);
        })?;
        self.spawn(name, until_thread_ends(end));
        Ok(())
    }

    /// Waits for all tasks to end. The first that fails asks the others to end; from then, or from
    /// when the token is cancelled from outside, they have `grace`.
    ///
    /// # Errors
    /// The first task's failure; where none failed, the names of those that did not end in time.
    pub async fn join(mut self, grace: Duration) -> Result<(), TaskError> {
        let mut first_failure = None;
        let mut deadline = None;
        while !self.running.is_empty() {
            tokio::select! {
                Some(ended) = self.running.join_next_with_id() => {
                    if let Err(error) = self.name_end(ended) {
                        self.shutdown.cancel();
                        note(&mut first_failure, error);
                    }
                }
                () = self.shutdown.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + grace);
                }
                () = at(deadline) => {
                    return Err(first_failure.unwrap_or_else(|| self.late()));
                }
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    /// Waits for the next task to end, and gives its name, or its failure; `None` when there is no
    /// task.
    pub async fn next(&mut self) -> Option<Result<String, TaskError>> {
        let ended = self.running.join_next_with_id().await?;
        Some(self.name_end(ended))
    }

    fn name_end(
        &mut self,
        ended: Result<(Id, anyhow::Result<()>), JoinError>,
    ) -> Result<String, TaskError> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let name = self.names.remove(&id).unwrap_or_default();
        let result = match ended {
            Ok((_, result)) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => Err(Panic(message(&*panic)).into()),
                Err(cancelled) => Err(cancelled.into()),
            },
        };
        match result {
            Ok(()) => Ok(name),
            Err(cause) => Err(match cause.downcast::<Panic>() {
                Ok(Panic(message)) => TaskError::Panicked { name, message },
                Err(cause) => TaskError::Failed { name, cause },
            }),
        }
    }

    fn late(&self) -> TaskError {
        let mut names: Vec<String> = self.names.values().cloned().collect();
        names.sort();
        TaskError::Deadline(names)
    }
}

/// Keeps the first failure; what follows from it is only logged.
fn note(first: &mut Option<TaskError>, error: TaskError) {
    match first {
        None => *first = Some(error),
        Some(_) => tracing::warn!("{:#}", anyhow::Error::new(error)),
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

type ThreadEnd = Result<anyhow::Result<()>, Box<dyn Any + Send>>;

async fn until_thread_ends(end: oneshot::Receiver<ThreadEnd>) -> anyhow::Result<()> {
    match end.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(Panic(message(&*panic)).into()),
        Err(_) => Err(anyhow::anyhow!("its thread went away without a word")),
    }
}

/// What a panic said, on its way through `anyhow` to [`TaskError::Panicked`].
#[derive(Debug)]
struct Panic(String);

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Panic {}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn tasks() -> Tasks {
        Tasks::new(CancellationToken::new())
    }

    async fn until(token: CancellationToken) -> anyhow::Result<()> {
        token.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn tasks_that_all_end_well_are_no_error() {
        let mut tasks = tasks();
        tasks.spawn("one", async { anyhow::Ok(()) });
        tasks.spawn_thread("two", || anyhow::Ok(())).unwrap();
        tasks.join(GRACE).await.unwrap();
    }

    #[tokio::test]
    async fn the_first_failure_stops_the_others_and_is_what_is_reported() {
        let mut tasks = tasks();
        let token = tasks.shutdown();
        tasks.spawn("server", until(tasks.shutdown()));
        tasks.spawn("follower", async move {
            token.cancelled().await;
            Err(anyhow::anyhow!("my input went away"))
        });
        tasks.spawn("source", async { Err(anyhow::anyhow!("no such slot")) });
        let error = anyhow::Error::new(tasks.join(GRACE).await.unwrap_err());
        assert_eq!(format!("{error:#}"), "source: no such slot");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_that_names_the_task_or_thread() {
        let mut on_task = tasks();
        on_task.spawn("output billing", async { panic!("at {}", 7) as anyhow::Result<()> });
        let mut on_thread = tasks();
        on_thread
            .spawn_thread("output billing", || panic!("at {}", 7) as anyhow::Result<()>)
            .unwrap();
        for tasks in [on_task, on_thread] {
            let error = tasks.join(GRACE).await.unwrap_err();
            assert_eq!(error.to_string(), "output billing panicked: at 7");
        }
    }

    #[tokio::test]
    async fn a_shutdown_has_a_deadline_and_names_who_is_late() {
        let mut tasks = tasks();
        let token = tasks.shutdown();
        tasks.spawn("pipeline orders", std::future::pending::<anyhow::Result<()>>());
        tasks.spawn("pipeline billing", std::future::pending::<anyhow::Result<()>>());
        tasks.spawn("server", until(tasks.shutdown()));
        token.cancel();
        let error = tasks.join(Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "still running at the shutdown's deadline: pipeline billing, pipeline orders"
        );
    }
}
