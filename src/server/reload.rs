//! Reading the config again over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;

use super::Server;
use super::plugins::expect_type;
use super::problem::Problem;
use crate::model::Finding;
use crate::model::reload::{ReloadOutcome, ReloadReport, ReloadRequest};

/// `GET /api/v1/reload`: the last outcome, or `null`.
pub(super) async fn last(State(server): State<Arc<Server>>) -> Json<Option<ReloadReport>> {
    Json(server.state.reloads.last.borrow().clone())
}

/// `POST /api/v1/reload`: reads the config again, and answers once it is in force or refused.
pub(super) async fn reload(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // No page of another origin can send this without being asked.
    expect_type(&headers, "application/json")?;
    let (answer, answered) = oneshot::channel();
    let asked = async {
        let request = ReloadRequest { why: "api", answer: Some(answer) };
        server.state.reloads.requests.send(request).await.ok()?;
        answered.await.ok()
    };
    let Some(report) = asked.await else {
        let finding = Finding::error("unavailable", "", "walmill is shutting down");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, finding));
    };
    let status = match report.outcome {
        ReloadOutcome::Applied | ReloadOutcome::Unchanged => StatusCode::OK,
        ReloadOutcome::Refused => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Ok((status, Json(report)).into_response())
}
