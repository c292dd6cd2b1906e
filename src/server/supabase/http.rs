//! Broadcasts over HTTP, for those who have no connection.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::check_configured;
use super::rooms::{Broadcast, RoomName};
use crate::model::Finding;
use crate::server::Server;
use crate::server::auth::Reader;
use crate::server::problem::Problem;

#[derive(Deserialize)]
struct Batch {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    topic: String,
    event: String,
    payload: Box<RawValue>,
    #[serde(default)]
    private: bool,
}

/// `POST …/api/broadcast`: several messages, each to its topic.
pub(in crate::server) async fn broadcast_many(
    State(server): State<Arc<Server>>,
    Extension(reader): Extension<Reader>,
    body: Bytes,
) -> Response {
    match take(&server, &reader, &body).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Sends all of the messages, or none where one is for a private room that is not theirs.
async fn take(server: &Server, reader: &Reader, body: &[u8]) -> Result<(), Problem> {
    let batch = serde_json::from_slice::<Batch>(body);
    let Batch { messages } = batch.map_err(|error| unprocessable(error.to_string()))?;
    let rooms: Vec<RoomName> =
        messages.iter().map(|message| room(&message.topic, message.private)).collect();
    check(server, reader, rooms.iter().collect::<HashSet<_>>()).await?;
    for (Message { event, payload, .. }, room) in messages.iter().zip(&rooms) {
        server.supabase.rooms.broadcast(room, Broadcast::of_json(event, payload.get()));
    }
    Ok(())
}

/// Whether they may send into these rooms: into private ones as they could join them.
async fn check(
    server: &Server,
    reader: &Reader,
    rooms: impl IntoIterator<Item = &RoomName>,
) -> Result<(), Problem> {
    check_configured(server)?;
    for room in rooms.into_iter().filter(|room| room.private) {
        let access = reader.access(&room.topic, server).await;
        access.map_err(|finding| Problem::new(StatusCode::FORBIDDEN, finding))?;
    }
    Ok(())
}

/// `POST …/api/broadcast/{topic}/events/{event}`: the body is the message, JSON or bytes.
pub(in crate::server) async fn broadcast_one(
    State(server): State<Arc<Server>>,
    Extension(reader): Extension<Reader>,
    Path((topic, event)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let room = room(&topic, is_private(&uri));
    if let Err(problem) = check(&server, &reader, [&room]).await {
        return problem.into_response();
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let broadcast = match kind.is_some_and(|kind| kind.starts_with("application/octet-stream")) {
        true => {
            Broadcast { event, json: None, binary: Some((String::new(), false, body.to_vec())) }
        }
        false => match serde_json::from_slice::<&RawValue>(&body) {
            Ok(payload) => Broadcast::of_json(&event, payload.get()),
            Err(error) => return unprocessable(error.to_string()).into_response(),
        },
    };
    server.supabase.rooms.broadcast(&room, broadcast);
    StatusCode::ACCEPTED.into_response()
}

/// `?private=true`
fn is_private(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).any(|(n, v)| n == "private" && v == "true")
}

fn room(topic: &str, private: bool) -> RoomName {
    let bare = topic.strip_prefix("realtime:").unwrap_or(topic);
    RoomName { topic: format!("realtime:{bare}").into(), private }
}

fn unprocessable(why: String) -> Problem {
    let finding = Finding::error("bad-broadcast", "messages", why)
        .suggest("send {\"messages\": [{\"topic\", \"event\", \"payload\", \"private\"}]}");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, finding)
}
