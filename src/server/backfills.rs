//! Backfills over HTTP: start, list, pause, resume, cancel.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Server;
use super::problem::Problem;
use crate::model::Finding;
use crate::model::backfill::{
    BackfillAction, BackfillAnswer, BackfillCommand, BackfillRequest, BackfillStatus,
};

/// For the source to answer: it may have to look tables up, or to end a chunk first.
const ANSWER: Duration = Duration::from_secs(30);

/// Backfills, as every answer here has them.
#[derive(Debug, Serialize)]
pub(super) struct List {
    backfills: Vec<BackfillStatus>,
}

/// `GET /api/v1/backfills`
pub(super) async fn list(State(server): State<Arc<Server>>) -> Json<List> {
    Json(List { backfills: server.state.backfills.status.borrow().clone() })
}

/// `POST /api/v1/backfills`
pub(super) async fn start(
    State(server): State<Arc<Server>>,
    body: Bytes,
) -> Result<(StatusCode, Json<List>), Problem> {
    let request: BackfillRequest = serde_json::from_slice(&body).map_err(|error| {
        let finding = Finding::error("bad-request", "", format!("the body: {error}"));
        let example = r#"send JSON, as in {"tables": ["public.orders"], "where": "id > 7"}"#;
        Problem::bad_request(finding.suggest(example))
    })?;
    let list = wish(&server, |answer| BackfillCommand::Start(request, answer)).await?;
    Ok((StatusCode::CREATED, list))
}

/// `POST /api/v1/backfills/{id}/pause`, `…/resume`, `…/cancel`
pub(super) async fn act(
    State(server): State<Arc<Server>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<List>, Problem> {
    let bad = |message: String| Problem::bad_request(Finding::error("bad-address", "", message));
    let Path((id, action)) = path.map_err(|error| bad(error.body_text()))?;
    let id = id.parse().map_err(|_| bad(format!("`{id}` is no backfill's number")))?;
    let action = match action.as_str() {
        "pause" => BackfillAction::Pause,
        "resume" => BackfillAction::Resume,
        "cancel" => BackfillAction::Cancel,
        _ => {
            let message = format!("a backfill cannot be told to `{action}`");
            let finding = Finding::error("unknown-address", action, message);
            return Err(Problem::not_found(finding.suggest("use pause, resume or cancel")));
        }
    };
    wish(&server, |answer| BackfillCommand::Act(id, action, answer)).await
}

async fn wish(
    server: &Server,
    command: impl FnOnce(oneshot::Sender<BackfillAnswer>) -> BackfillCommand,
) -> Result<Json<List>, Problem> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        server.state.backfills.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    };
    match timeout(ANSWER, asked).await {
        Ok(Some(Ok(backfills))) => Ok(Json(List { backfills })),
        Ok(Some(Err(finding))) => Err(refusal(finding)),
        Ok(None) => Err(unavailable("the source has ended", "see walmill's log")),
        Err(_) => Err(unavailable(
            "the source is busy, and will do it when it can",
            "look at the list in a moment; /readyz says what the source waits for",
        )),
    }
}

fn refusal(finding: Finding) -> Problem {
    let status = match finding.code {
        "unknown-backfill" => StatusCode::NOT_FOUND,
        "backfill-over" | "backfill-exists" => StatusCode::CONFLICT,
        "database" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Problem::new(status, finding)
}

fn unavailable(message: &str, suggestion: &str) -> Problem {
    let finding = Finding::error("unavailable", "", message).suggest(suggestion);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, finding)
}
