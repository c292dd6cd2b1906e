//! Dead letters over HTTP: list, show, try again, drop.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::Server;
use super::admin::latest;
use super::problem::{Parameters, Problem, name_in_path};
use crate::model::Finding;
use crate::store::StoreError;
use crate::store::dead_letter::{DeadLetter, Filter, Owner};

/// Dead letters of one answer, unless asked otherwise, and at most.
const DEFAULT: usize = 100;
const MOST: usize = 1000;

/// What a list can be asked for.
const PARAMETERS: [&str; 10] = [
    "limit", "below", "pipeline", "plugin", "version", "output", "stream", "event", "reason",
    "retrying",
];

/// A dead letter and its number.
#[derive(Debug, Serialize)]
struct Letter {
    id: u64,
    #[serde(flatten)]
    letter: DeadLetter,
}

/// Not a `json!` value, which would take the payloads apart.
#[derive(Debug, Serialize)]
struct Letters {
    dead_letters: Vec<Letter>,
    /// What to give as `below` for those before these; null when these are the oldest.
    below: Option<u64>,
}

/// `GET /api/v1/dlq`
pub(super) async fn list(State(server): State<Arc<Server>>, uri: Uri) -> Result<Response, Problem> {
    let parameters = Parameters::read(&uri, &PARAMETERS)?;
    let limit = match parameters.get("limit").map(str::parse) {
        None => DEFAULT,
        Some(Ok(limit @ 1..=MOST)) => limit,
        Some(_) => return Err(bad("limit", format!("`limit` is a number from 1 to {MOST}"))),
    };
    let below = match parameters.get("below").map(str::parse) {
        None => u64::MAX,
        Some(Ok(below)) => below,
        Some(Err(_)) => return Err(bad("below", "`below` is a dead letter's number".into())),
    };
    let filter = filter(&parameters)?;
    let letters =
        in_store(&server, move |store| store.find_dead_letters(&filter, below, limit)).await?;
    let below = letters.last().map(|(id, _)| *id).filter(|_| letters.len() == limit);
    let dead_letters = letters.into_iter().map(|(id, letter)| Letter { id, letter }).collect();
    Ok(Json(Letters { dead_letters, below }).into_response())
}

fn filter(parameters: &Parameters) -> Result<Filter, Problem> {
    let text = |name: &str| parameters.get(name).map(str::to_owned);
    let retrying = match parameters.get("retrying").map(str::parse) {
        None => None,
        Some(Ok(retrying)) => Some(retrying),
        Some(Err(_)) => return Err(bad("retrying", "`retrying` is true or false".into())),
    };
    Ok(Filter {
        pipeline: text("pipeline"),
        plugin: text("plugin"),
        version: text("version"),
        output: text("output"),
        stream: text("stream"),
        event: text("event"),
        reason: text("reason"),
        retrying,
        ..Filter::default()
    })
}

/// `GET /api/v1/dlq/{id}`
pub(super) async fn show(
    State(server): State<Arc<Server>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let text = name_in_path(path)?;
    let number = text.parse().map_err(|_| bad(&text, format!("`{text}` is no number")))?;
    let found = in_store(&server, move |store| store.dead_letter(number)).await?;
    let Some(letter) = found else {
        let message = format!("there is no dead letter {number}");
        let finding = Finding::error("unknown-dead-letter", text, message)
            .suggest("it has gone through, was dropped, or is older than what is kept");
        return Err(Problem::not_found(finding));
    };
    Ok(Json(Letter { id: number, letter }).into_response())
}

/// `POST /api/v1/dlq/retry`: marks those that fit the body's filter; they are tried soon.
pub(super) async fn retry(
    State(server): State<Arc<Server>>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let filter = filter_in(&body)?;
    let state = &server.state;
    let pipelines: Vec<String> =
        latest(&state.pipelines).into_iter().map(|pipeline| pipeline.name).collect();
    let outputs: Vec<String> =
        latest(&state.outputs).into_iter().map(|output| output.name).collect();
    let can = move |owner: Owner<'_>| match owner {
        Owner::Pipeline(name) => pipelines.iter().any(|known| known == name),
        Owner::Output(name) => outputs.iter().any(|known| known == name),
    };
    let marked = in_store(&server, move |store| store.retry_dead_letters(&filter, can)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "retrying": marked.ids }))))
}

/// `POST /api/v1/dlq/drop`: forgets those that fit the body's filter.
pub(super) async fn forget(
    State(server): State<Arc<Server>>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let filter = filter_in(&body)?;
    let dropped = in_store(&server, move |store| store.drop_dead_letters(&filter)).await?;
    Ok(Json(json!({ "dropped": dropped })))
}

fn filter_in(body: &[u8]) -> Result<Filter, Problem> {
    let example = r#"send JSON, as in {"ids": [7]}, {"plugin": "redact"} or {"all": true}"#;
    let wrong =
        |message| Problem::bad_request(Finding::error("bad-request", "", message).suggest(example));
    let filter: Filter =
        serde_json::from_slice(body).map_err(|error| wrong(format!("the body: {error}")))?;
    if filter.names_any() { Ok(filter) } else { Err(wrong("it names no dead letter".into())) }
}

fn bad(path: &str, message: String) -> Problem {
    Problem::bad_request(Finding::error("bad-request", path, message))
}

/// Does what may wait for the disk.
async fn in_store<T: Send + 'static>(
    server: &Server,
    work: impl FnOnce(&crate::store::Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let store = server.state.store.clone();
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(done) => Ok(done?),
        Err(_) => {
            let finding = Finding::error("cut-short", "", "walmill ends and could not do it")
                .suggest("ask again once it runs");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, finding))
        }
    }
}
