//! Who may see what of a stream: what is asked about each subscriber, and what the answer is.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;

/// Someone who wants to read a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// The stream.
    pub stream: String,
    /// The verified claims of its token as a JSON object; `{}` when it is anonymous.
    pub claims: String,
    /// The subscription's own parameters as a JSON object.
    pub params: String,
    /// Where it comes from: an address.
    pub remote: String,
}

/// What a subscriber may see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Rows that fit all of these; none means every row of the stream.
    pub rows: Vec<RowKey>,
    /// Columns that it doesn't get.
    pub hidden: Vec<String>,
    /// After which the question must be asked again; `None`: the answer is good for as long as the
    /// subscriber's token is.
    pub ask_again: Option<Duration>,
}

impl Grant {
    /// How the plugin interface says it: 0 for never.
    #[must_use]
    pub fn after_seconds(seconds: u32) -> Option<Duration> {
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }
}

/// A column that must have one of the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowKey {
    /// The column's name in the event.
    pub column: String,
    /// In PostgreSQL's text form.
    pub values: Vec<String>,
}

/// Why a subscriber gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It may not; the reason is meant for it.
    #[error("{0}")]
    Refused(String),
    /// Nobody could say whether it may: so not now. Why is in the log, and not for it.
    #[error("access cannot be decided at the moment")]
    Undecided,
}

/// An answer that is being worked on.
pub type Deciding<'a> = Pin<Box<dyn Future<Output = Result<Grant, Refusal>> + Send + 'a>>;

/// Decides about subscribers.
pub trait Authorize: Send + Sync {
    /// What the subscriber may see.
    fn open(&self, subscriber: Subscriber) -> Deciding<'_>;

    /// Changes when answers given so far may be out of date.
    fn changes(&self) -> watch::Receiver<u64>;
}
