//! What a person tells an output.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Server;
use super::problem::{Problem, name_in_path};
use super::replays::{in_store, known};
use crate::model::Finding;
use crate::model::replay::Part;

/// `POST /api/v1/outputs/{name}/enable`
pub(super) async fn enable(
    State(server): State<Arc<Server>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let name = name_in_path(path)?;
    known(&server, &Part::Output(name.clone()))?;
    let output = name.clone();
    if in_store(&server, move |store| store.enable(&output)).await? {
        return Ok(Json(json!({ "enabled": name })));
    }
    let finding = Finding::error("not-disabled", name, "this output is not disabled");
    Err(Problem::new(StatusCode::CONFLICT, finding))
}
