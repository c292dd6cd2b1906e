//! One try to deliver an event that failed: what was sent, and what came back.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Tries of one event that are kept: the newest.
pub const KEPT: usize = 10;

/// One try, as a dead letter keeps it. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it had failed, microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Why it failed, for a person.
    pub error: String,
    /// What was sent, where the output speaks in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// What came back, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
}

/// A request, without its body, which is the event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `POST`
    pub method: String,
    /// Where it went, without what may be secret.
    pub url: String,
    /// Its headers; `***` for values that are secret.
    pub headers: BTreeMap<String, String>,
    /// Length of its body.
    pub bytes: u64,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers; `***` for values that are secret.
    pub headers: BTreeMap<String, String>,
    /// The beginning of its body.
    pub body: String,
}

/// Why a request did not do, with what was sent and what came back: the cause of an output's error.
#[derive(Debug)]
pub struct Exchange {
    /// What was sent.
    pub request: Request,
    /// What came back, if anything did.
    pub response: Option<Response>,
    /// In words.
    pub what: String,
    /// What is behind it.
    pub cause: Option<anyhow::Error>,
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Exchange {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause.as_ref() as _)
    }
}

/// Adds a try behind those that are kept.
pub fn keep(attempts: &mut Vec<Attempt>, attempt: Attempt) {
    if attempts.len() >= KEPT {
        attempts.remove(0);
    }
    attempts.push(attempt);
}
