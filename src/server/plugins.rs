//! Plugins over HTTP: what is in force and what happened, uploads, roll back, promote.
//!
//! What changes something is no request that a page of another origin could send by itself: it has
//! a content type that makes browsers ask first. Code is only taken from those who have a token.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Server;
use super::problem::{Parameters, Problem, name_in_path};
use crate::model::Finding;
use crate::model::finding::did_you_mean;
use crate::model::plugin::{PluginAnswer, PluginCommand, PluginRequest, ReloadStatus};
use crate::model::status::PluginStatus;

type Name = Result<Path<String>, PathRejection>;

/// A request's body that is not a plugin's file.
const LARGEST_BODY: usize = 64 << 10;
pub(super) const WASM: &str = "application/wasm";
pub(super) const JSON: &str = "application/json";

/// `GET /api/v1/plugins`
pub(super) async fn list(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(json!({ "plugins": *server.state.plugins.borrow() }))
}

/// `GET /api/v1/plugins/{name}`
pub(super) async fn show(
    State(server): State<Arc<Server>>,
    path: Name,
) -> Result<Json<PluginStatus>, Problem> {
    find(&server, &name_in_path(path)?).map(Json)
}

/// `GET /api/v1/plugins/{name}/file?version=…`
pub(super) async fn pull(
    State(server): State<Arc<Server>>,
    path: Name,
    uri: Uri,
) -> Result<Response, Problem> {
    let name = name_in_path(path)?;
    let version = Parameters::read(&uri, &["version"])?.get("version").map(str::to_owned);
    match ask(&server, name, PluginCommand::Pull(version)).await? {
        PluginAnswer::File(version, bytes) => {
            let headers =
                [(header::CONTENT_TYPE, WASM.to_owned()), (header::ETAG, quoted(&version))];
            Ok((headers, bytes).into_response())
        }
        _ => Err(not_asked_for()),
    }
}

fn quoted(version: &str) -> String {
    format!("\"{version}\"")
}

/// `PUT /api/v1/plugins/{name}`: the body is the file.
pub(super) async fn upload(
    State(server): State<Arc<Server>>,
    path: Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReloadStatus>, Problem> {
    let name = name_in_path(path)?;
    let file = file(&server, &name, &headers, body).await?;
    done(ask(&server, name, PluginCommand::Upload(file)).await?)
}

/// A file for a plugin, which comes with the request.
pub(super) async fn file(
    server: &Server,
    name: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Vec<u8>, Problem> {
    if !server.config.is_guarded() {
        let message = "a walmill that asks nobody who they are takes no plugin: anyone on this \
                       machine could send one";
        let finding = Finding::error("upload-needs-token", "server.token", message)
            .suggest("set server.token or server.auth, or put the file in the plugin's place");
        return Err(Problem::new(StatusCode::FORBIDDEN, finding));
    }
    expect_type(headers, WASM)?;
    let plugin = find(server, name)?;
    let most = usize::try_from(plugin.max_size).unwrap_or(usize::MAX);
    let bytes = to_bytes(body, most).await.map_err(|error| {
        let message = format!(
            "the file was not taken: {error}; `plugins.{name}.limits.file` is {} bytes",
            plugin.max_size
        );
        let finding = Finding::error("too-large", name, message)
            .suggest(format!("make it smaller, or raise `plugins.{name}.limits.file`"));
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, finding)
    })?;
    Ok(bytes.into())
}

/// The body of a wish.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    version: Option<String>,
}

/// `POST /api/v1/plugins/{name}/rollback`
pub(super) async fn roll_back(
    State(server): State<Arc<Server>>,
    path: Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReloadStatus>, Problem> {
    let name = name_in_path(path)?;
    let wish = wish(&headers, body).await?;
    done(ask(&server, name, PluginCommand::RollBack(wish.version)).await?)
}

/// `POST /api/v1/plugins/{name}/promote`
pub(super) async fn promote(
    State(server): State<Arc<Server>>,
    path: Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReloadStatus>, Problem> {
    let name = name_in_path(path)?;
    let wish = wish(&headers, body).await?;
    done(ask(&server, name, PluginCommand::Promote(wish.version)).await?)
}

async fn wish(headers: &HeaderMap, body: Body) -> Result<Wish, Problem> {
    expect_type(headers, JSON)?;
    let bad = |error: String| {
        let finding = Finding::error("bad-request", "", format!("the body: {error}"));
        Problem::bad_request(finding.suggest(r#"send {}, or {"version": "0a1b2c3d4e5f"}"#))
    };
    let bytes = to_bytes(body, LARGEST_BODY).await.map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
}

/// Refuses what a form, or a page of another origin, could send without being asked.
pub(super) fn expect_type(headers: &HeaderMap, wanted: &str) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.map(|given| given.split(';').next().unwrap_or_default().trim());
    if given.is_some_and(|given| given.eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    let message = format!("the content type must be {wanted}");
    let finding = Finding::error("wrong-content-type", "content-type", message)
        .suggest(format!("send `Content-Type: {wanted}`"));
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, finding))
}

fn find(server: &Server, name: &str) -> Result<PluginStatus, Problem> {
    let plugins = server.state.plugins.borrow();
    plugins.iter().find(|plugin| plugin.name == name).cloned().ok_or_else(|| {
        let names = || plugins.iter().map(|plugin| plugin.name.as_str());
        let suggestion = match did_you_mean(name, names()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the plugins are: {}", names().collect::<Vec<_>>().join(", ")),
        };
        let message = format!("there is no plugin `{name}`");
        Problem::not_found(Finding::error("unknown-plugin", name, message).suggest(suggestion))
    })
}

pub(super) async fn ask(
    server: &Server,
    plugin: String,
    command: PluginCommand,
) -> Result<PluginAnswer, Problem> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        let request = PluginRequest { plugin, command, answer };
        server.state.plugin_requests.send(request).await.ok()?;
        answered.await.ok()
    };
    match asked.await {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(finding)) => Err(refusal(finding)),
        None => {
            let finding = Finding::error("unavailable", "", "walmill is shutting down");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, finding))
        }
    }
}

fn refusal(finding: Finding) -> Problem {
    let status = match finding.code {
        "unknown-part" | "unknown-plugin" | "unknown-version" => StatusCode::NOT_FOUND,
        "nothing-to-roll-back" | "nothing-waits" | "in-force" | "busy" => StatusCode::CONFLICT,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Problem::new(status, finding)
}

fn done(answer: PluginAnswer) -> Result<Json<ReloadStatus>, Problem> {
    match answer {
        PluginAnswer::Done(done) => Ok(Json(*done)),
        _ => Err(not_asked_for()),
    }
}

/// The answer to something else.
pub(super) fn not_asked_for() -> Problem {
    let finding = Finding::error("bad-answer", "", "an answer to something else");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, finding)
}
