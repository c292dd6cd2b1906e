//! Supabase Realtime's protocol, both generations of it, for their clients as they are: changes of
//! tables, broadcasts, presence.
//!
//! The changes are those of streams, like any other reader's: what a plugin dropped, reshaped or
//! routed elsewhere is so here, too. Each client reads the log at its own place, so a statement of
//! any size arrives whole; a run of events is turned into their words once for all.

mod change;
mod channel;
mod filter;
mod frame;
mod http;
mod join;
mod leave;
mod pass;
mod read;
mod reading;
mod resume;
mod rooms;
mod session;
mod text;
mod to;
mod types;

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::Server;
use super::auth::Reader;
use super::connection::Progress;
use super::problem::Problem;
use crate::model::Finding;
use crate::model::pattern::Glob;
use frame::Version;
pub(super) use http::{broadcast_many, broadcast_one};
use session::Session;

/// The largest message that a client may send, as in the original.
const MAX_MESSAGE: usize = 5 << 20;

/// `[server.supabase]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The streams whose events Supabase's clients read, with `*`. Without any there is nothing at
    /// their addresses.
    pub streams: Vec<Glob>,
    /// How values look to clients of the first generation.
    pub values: Values,
}

/// How values look to clients of the first generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Values {
    /// PostgreSQL's text, which all of them read.
    #[default]
    Text,
    /// JSON, which those from 1.2 on read as well.
    Json,
}

/// What all of these clients share.
#[derive(Debug, Default)]
pub(super) struct Supabase {
    rooms: Arc<rooms::Rooms>,
    changes: read::Cache,
}

/// `GET /socket/websocket` and `GET /realtime/v1/websocket`
pub(super) async fn upgrade(
    State(server): State<Arc<Server>>,
    Extension(progress): Extension<Arc<Progress>>,
    Extension(reader): Extension<Reader>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match admit(&server, (progress, reader), &uri, upgrade) {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

fn admit(
    server: &Arc<Server>,
    (progress, reader): (Arc<Progress>, Reader),
    uri: &Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    check_configured(server)?;
    let upgrade = upgrade.map_err(|rejection| {
        let finding = Finding::error("no-websocket", uri.path(), rejection.body_text());
        Problem::bad_request(finding.suggest("this address speaks WebSocket"))
    })?;
    let version = version(uri)?;
    let visit = server.visits.admit("supabase", progress, reader)?;
    let server = Arc::clone(server);
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(4 << 10)
        .write_buffer_size(server.buffer());
    Ok(upgrade.on_upgrade(move |socket| Session::new(server, socket, visit, version).run()))
}

/// `vsn`; what else is in the address (`apikey`, `log_level`, `eventsPerSecond`) is not about us.
fn version(uri: &Uri) -> Result<Version, Problem> {
    let query = uri.query().unwrap_or_default();
    let vsn = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "vsn");
    match vsn.as_ref().map_or("1.0.0", |(_, vsn)| vsn) {
        "1.0.0" => Ok(Version::One),
        "2.0.0" => Ok(Version::Two),
        other => {
            let message = format!("`{other}` is no version of the protocol");
            let finding = Finding::error("unknown-version", "vsn", message);
            Err(Problem::bad_request(finding.suggest("the versions are 1.0.0 and 2.0.0")))
        }
    }
}

fn check_configured(server: &Server) -> Result<(), Problem> {
    match server.config.supabase.streams.is_empty() {
        false => Ok(()),
        true => {
            let message = "no stream is given to Supabase's clients";
            let finding = Finding::error("no-supabase", "server.supabase.streams", message)
                .suggest("name the streams in the config: [server.supabase] streams = [\"*\"]");
            Err(Problem::new(StatusCode::NOT_FOUND, finding))
        }
    }
}
