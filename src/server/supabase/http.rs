//! Broadcasts over HTTP, for those who have no connection.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::check_configured;
use super::rooms::{Broadcast, RoomName};
use crate::model::Finding;
use crate::server::Server;
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
    body: Bytes,
) -> Response {
    let taken = check_configured(&server).and_then(|()| {
        serde_json::from_slice::<Batch>(&body).map_err(|error| unprocessable(error.to_string()))
    });
    match taken {
        Ok(Batch { messages }) => {
            for Message { topic, event, payload, private } in messages {
                send(&server, (&topic, private), Broadcast::of_json(&event, payload.get()));
            }
            StatusCode::ACCEPTED.into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// `POST …/api/broadcast/{topic}/events/{event}`: the body is the message, JSON or bytes.
pub(in crate::server) async fn broadcast_one(
    State(server): State<Arc<Server>>,
    Path((topic, event)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(problem) = check_configured(&server) {
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
    send(&server, (&topic, false), broadcast);
    StatusCode::ACCEPTED.into_response()
}

fn send(server: &Server, (topic, private): (&str, bool), broadcast: Broadcast) {
    let bare = topic.strip_prefix("realtime:").unwrap_or(topic);
    let room = RoomName { topic: format!("realtime:{bare}").into(), private };
    server.supabase.rooms.broadcast(&room, broadcast);
}

fn unprocessable(why: String) -> Problem {
    let finding = Finding::error("bad-broadcast", "messages", why)
        .suggest("send {\"messages\": [{\"topic\", \"event\", \"payload\", \"private\"}]}");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, finding)
}
