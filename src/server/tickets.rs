//! `POST /v1/tickets`: for browsers, whose EventSource and WebSocket can't send headers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

use super::Server;
use super::auth::{GOOD_FOR, Reader};
use super::problem::Problem;
use crate::model::Finding;

/// A ticket for whoever asks, to be shown once as `?ticket=…`.
pub(super) async fn issue(
    State(server): State<Arc<Server>>,
    Extension(reader): Extension<Reader>,
) -> Result<Response, Problem> {
    if reader.principal.is_anonymous() {
        let finding =
            Finding::error("unauthorized", "", "a ticket is for who has a token or a key")
                .suggest("send `Authorization: Bearer …`");
        return Err(Problem::new(StatusCode::UNAUTHORIZED, finding));
    }
    let Some(ticket) = server.gate.tickets.issue(reader.principal) else {
        let finding = Finding::error("too-many-tickets", "", "too many tickets are out")
            .suggest("use them, or ask again in a moment");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, finding));
    };
    let body = json!({ "ticket": ticket, "expires_in": GOOD_FOR.as_secs() });
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}
