//! A person accepts that tables are defined otherwise now, and a pipeline goes on.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Server;
use super::problem::{Problem, name_in_path};
use crate::model::finding::did_you_mean;
use crate::model::{EventId, Finding};
use crate::store::schema::Place;

/// `POST /api/v1/pipelines/{name}/accept-schema`: everything that the pipeline shows as waiting,
/// and nothing that comes later.
pub(super) async fn accept(
    State(server): State<Arc<Server>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let name = name_in_path(path)?;
    let pipelines = server.state.pipelines.borrow().clone();
    let Some(pipeline) = pipelines.iter().find(|pipeline| pipeline.borrow().name == name) else {
        let names: Vec<String> =
            pipelines.iter().map(|pipeline| pipeline.borrow().name.clone()).collect();
        return Err(unknown(&name, &names));
    };
    let waiting = pipeline.borrow().schema_changes.clone();
    let places = waiting.iter().filter_map(|change| change.event.parse::<EventId>().ok());
    let Some(last) = places.map(|event| Place::of(event.0)).max() else {
        let message = format!("no changed definition waits in pipeline `{name}`");
        let finding = Finding::error("nothing-to-accept", name, message);
        return Err(Problem::new(StatusCode::CONFLICT, finding));
    };
    let (store, pipeline) = (server.state.store.clone(), name.clone());
    let accepted = tokio::task::spawn_blocking(move || store.accept_schema(&pipeline, last)).await;
    match accepted {
        Ok(done) => done?,
        Err(_) => return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, cut_short(&name))),
    }
    tracing::info!(pipeline = name, changes = waiting.len(), "changed definitions are accepted");
    Ok(Json(json!({ "pipeline": name, "accepted": waiting })))
}

fn unknown(name: &str, names: &[String]) -> Problem {
    let message = format!("there is no pipeline `{name}`");
    let suggestion = match did_you_mean(name, names.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the pipelines are: {}", names.join(", ")),
    };
    Problem::not_found(Finding::error("unknown-pipeline", name, message).suggest(suggestion))
}

fn cut_short(name: &str) -> Finding {
    Finding::error("cut-short", name, "walmill ends and could not accept it")
        .suggest("ask again once it runs")
}
