//! The messages of `walmill.v1.json`, but for events, which [`crate::server::runs`] encodes.
//!
//! | client | |
//! |---|---|
//! | `subscribe` | `streams`; if wanted `id`, `from` (a place for all, or each stream's), `filter` (a group of conditions, or several), `window` |
//! | `unsubscribe` | `id` or `streams` |
//! | `ack` | `stream`, `cursor`: opens the window up to there |
//! | `ping` | |
//!
//! | server | |
//! |---|---|
//! | `subscribed` | `id`, `streams`: each with `name`, `from` (where it really begins) and `head` |
//! | `unsubscribed` | `id`, `streams` |
//! | `event` | `stream`, `cursor`, `event` |
//! | `gap` | `stream`, `purged` (it goes on behind this cursor), `reason`, `message` |
//! | `error` | `id`, `code`, `message`, `path`, `suggestion` |
//! | `pong` | |
//! | `closing` | `code`, `message`, `streams`: each with `name` and the `cursor` to go on from |

use std::collections::HashMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::Finding;
use crate::server::Server;
use crate::server::filter::Filter;
use crate::server::place::Gap;

/// Any message of a client. One shape for all of them, because serde's tagged enums read numbers
/// wrongly while serde_json keeps every digit.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) streams: Vec<String>,
    pub(super) from: Option<From>,
    pub(super) filter: Option<Groups>,
    pub(super) window: Option<NonZeroU32>,
    pub(super) stream: Option<String>,
    pub(super) cursor: Option<String>,
}

/// Where a subscription begins.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum From {
    /// All of its streams.
    All(String),
    /// Each of them.
    Each(HashMap<String, String>),
}

/// A filter's groups of conditions.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Groups {
    /// The only one.
    One(String),
    /// One of these must hold.
    Several(Vec<String>),
}

impl Groups {
    pub(super) fn read(&self) -> Result<Filter, Finding> {
        Filter::read(self.texts().iter().map(String::as_str), "filter")
    }

    /// As they were written.
    pub(super) fn texts(&self) -> &[String] {
        match self {
            Self::One(group) => std::slice::from_ref(group),
            Self::Several(groups) => groups,
        }
    }
}

impl Request {
    pub(super) fn parse(text: &str) -> Result<Self, Finding> {
        serde_json::from_str(text).map_err(|error| {
            Finding::error("bad-message", "", format!("this is no message: {error}"))
                .suggest(r#"as in {"type":"subscribe","streams":["posts"],"from":"latest"}"#)
        })
    }
}

/// A stream and where it goes on.
#[derive(Debug, Serialize)]
pub(super) struct Position {
    pub(super) name: String,
    pub(super) cursor: String,
}

pub(super) fn error(id: Option<&str>, finding: &Finding) -> String {
    let Finding { code, message, path, suggestion, .. } = finding;
    json!({
        "type": "error", "id": id, "code": code, "message": message, "path": path,
        "suggestion": suggestion,
    })
    .to_string()
}

pub(super) fn unsubscribed(id: Option<&str>, streams: &[String]) -> String {
    json!({ "type": "unsubscribed", "id": id, "streams": streams }).to_string()
}

pub(super) fn pong(id: Option<&str>) -> String {
    json!({ "type": "pong", "id": id }).to_string()
}

pub(super) fn closing(code: &str, message: &str, streams: &[Position]) -> String {
    json!({ "type": "closing", "code": code, "message": message, "streams": streams }).to_string()
}

pub(super) fn gap(stream: &str, gap: Gap, server: &Server) -> String {
    let mut message = json!(gap.report(stream, server));
    message["type"] = "gap".into();
    message.to_string()
}

/// A gap for those who can only be told by a CloudEvent.
pub(super) fn gap_event(stream: &str, gap: Gap, server: &Server) -> String {
    let report = gap.report(stream, server);
    let id = format!("gap/{}/{}", stream, server.cursor(gap.purged));
    json!({
        "specversion": "1.0", "id": id, "source": "/walmill", "type": "walmill.gap",
        "stream": stream, "datacontenttype": "application/json", "data": report,
    })
    .to_string()
}
