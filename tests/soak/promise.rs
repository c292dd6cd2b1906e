//! What walmill promises, and how it is said that it broke a promise.

use std::fmt;

/// One of the promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Every committed change reaches every output.
    NothingLost,
    /// Nothing reaches an output that was not committed.
    NothingInvented,
    /// What is about one key comes in the order of its commits.
    OrderPerKey,
    /// What comes again has the id and the bytes that it had.
    SameAgain,
    /// What an output has taken and walmill has noted does not come again, and nothing comes again
    /// to a reader who keeps a cursor.
    NotAgain,
    /// Memory has a bound.
    Bounded,
    /// It goes on by itself once everything around it is well again.
    GoesOn,
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Broken {
    pub promise: Promise,
    /// At which output.
    pub at: String,
    pub what: String,
}

impl Broken {
    pub fn new(promise: Promise, at: &str, what: impl Into<String>) -> Self {
        Self { promise, at: at.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is broken at {}: {}", self.promise, self.at, self.what)
    }
}
