//! What can be asked about walmill itself: health, status, metrics.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Value, json};

use super::auth::Reader;
use super::problem::Problem;
use super::{Latest, Server};
use crate::metrics::Name;
use crate::model::ByteSize;
use crate::model::status::{SnapshotProgress, SourceState, SourceStatus};

/// `GET /livez`: this process answers.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// One thing that must hold before clients are sent here.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    message: String,
}

/// `GET /readyz`: whether events flow, with every check that says so. An output that is away is no
/// check: it costs nobody else anything.
pub(super) async fn ready(State(server): State<Arc<Server>>) -> Response {
    let state = &server.state;
    let mut checks = vec![source_check(&state.source.borrow())];
    checks.extend(budget_check(&state.source.borrow()));
    checks.extend(state.pipelines.borrow().iter().map(|pipeline| {
        let pipeline = pipeline.borrow();
        let message = pipeline.stopped.clone();
        Check {
            name: format!("pipeline {}", pipeline.name),
            ok: message.is_none(),
            message: message.unwrap_or_else(|| "running".into()),
        }
    }));
    let (status, word) = match checks.iter().all(|check| check.ok) {
        _ if server.shutdown.is_cancelled() => (StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    (status, Json(json!({ "status": word, "checks": checks }))).into_response()
}

fn source_check(source: &SourceStatus) -> Check {
    let (ok, message) = match &source.state {
        SourceState::Streaming => (true, "streaming".to_owned()),
        SourceState::Connecting => (false, "connecting".to_owned()),
        SourceState::Snapshotting(progress) => (false, snapshotting(progress)),
        SourceState::Waiting { error, remedy, .. } | SourceState::Halted { error, remedy, .. } => {
            (false, format!("{error}: {remedy}"))
        }
        SourceState::Standby { error, .. } => (false, format!("standby: {error}")),
        SourceState::Stopped => (false, "stopped".to_owned()),
    };
    Check { name: "source".into(), ok, message }
}

/// Whether the server keeps no more of its log for us than the config wants to see.
fn budget_check(source: &SourceStatus) -> Option<Check> {
    let wal = source.wal?;
    let (retained, budget) = (wal.retained_bytes >> 20, ByteSize::new(wal.budget_bytes?));
    let message = format!("the server keeps {retained} MiB for the slot, of {budget} at most");
    Some(Check { name: "wal budget".into(), ok: !wal.is_over_budget(), message })
}

fn snapshotting(progress: &SnapshotProgress) -> String {
    let SnapshotProgress { tables_done, tables_total, rows_done, rows_total, .. } = progress;
    format!(
        "taking the first snapshot: {tables_done} of {tables_total} tables, {rows_done} of about \
         {rows_total} rows"
    )
}

/// `GET /metrics`
pub(super) async fn metrics(State(server): State<Arc<Server>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    // The age of the oldest dead letter grows by itself. If it cannot be read, the rest is shown.
    if let Err(error) = server.state.store.measure_dead_letters() {
        tracing::error!("measure the dead letters: {:#}", anyhow::Error::new(error));
    }
    match server.state.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `GET /v1/streams`
pub(super) async fn streams(
    State(server): State<Arc<Server>>,
    Extension(reader): Extension<Reader>,
) -> Result<Json<Value>, Problem> {
    if !reader.may_come(&server.config) {
        return Err(reader.refusal("/v1/streams").into());
    }
    let may_list = |name: &str| reader.may_list(name, &server.config);
    Ok(Json(json!({ "streams": list_streams(&server, may_list) })))
}

fn list_streams(server: &Server, shown: impl Fn(&str) -> bool) -> Vec<Value> {
    let mut streams = server.state.store.streams();
    streams.retain(|stream| shown(stream.name()));
    let describe = |stream: &Arc<crate::store::stream::Stream>| {
        let head = *stream.head().borrow();
        json!({
            "name": stream.name(),
            "earliest": server.cursor(stream.purged()).to_string(),
            "head": server.cursor(head).to_string(),
            "lsn": head.commit,
        })
    };
    streams.iter().map(describe).collect()
}

/// `GET /api/v1/status`
pub(super) async fn status(State(server): State<Arc<Server>>) -> Json<Value> {
    let state = &server.state;
    let source = state.source.borrow().clone();
    let lag = source.server_lsn.since(source.received_lsn);
    let clients =
        |protocol: &str| state.metrics.clients.get_or_create(&Name { name: protocol.into() }).get();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "time": now(),
        "source": source,
        "source_lag_bytes": lag,
        "plugins": *state.plugins.borrow(),
        "pipelines": latest(&state.pipelines),
        "outputs": latest(&state.outputs),
        "streams": list_streams(&server, |_| true),
        "reload": *state.reloads.last.borrow(),
        "clients": { "websocket": clients("websocket"), "sse": clients("sse") },
        "dead_letters": state.metrics.dead_letters.get(),
    }))
}

/// Microseconds since 1970-01-01 UTC, like every time in the status.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn latest<T: Clone>(parts: &Latest<T>) -> Vec<T> {
    parts.borrow().iter().map(|part| part.borrow().clone()).collect()
}

/// `GET /api/v1/pipelines`
pub(super) async fn pipelines(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(json!({ "pipelines": latest(&server.state.pipelines) }))
}

/// `GET /api/v1/outputs`
pub(super) async fn outputs(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(json!({ "outputs": latest(&server.state.outputs) }))
}
