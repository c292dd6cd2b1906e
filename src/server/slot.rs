//! A slot that was lost: a person's word that it be made anew.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Server;
use super::problem::{Parameters, Problem};
use crate::model::Finding;
use crate::model::status::SourceState;
use crate::store::renewal::Renewal;

/// `POST /api/v1/slot/recreate?snapshot=true`: gives up what the slot lost. Only a source that
/// halted because of its slot takes it: a slot that works has lost nothing.
pub(super) async fn recreate(
    State(server): State<Arc<Server>>,
    uri: Uri,
) -> Result<Response, Problem> {
    let snapshot = match Parameters::read(&uri, &["snapshot"])?.get("snapshot") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            let finding =
                Finding::error("bad-parameter", "snapshot", "`snapshot` is true or false");
            return Err(Problem::bad_request(finding));
        }
    };
    let halted =
        matches!(server.state.source.borrow().state, SourceState::Halted { slot_lost: true, .. });
    if !halted {
        let finding =
            Finding::error("slot-works", "slot", "the source has not halted because of its slot")
                .suggest("to bring in rows that are there already, use `walmill backfill start`");
        return Err(Problem::new(StatusCode::CONFLICT, finding));
    }
    server.state.store.ask_renewal(Renewal { snapshot, lost: true, point: None })?;
    let accepted = Json(json!({ "renewal": { "snapshot": snapshot } }));
    Ok((StatusCode::ACCEPTED, accepted).into_response())
}
