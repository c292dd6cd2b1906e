//! Streams over a WebSocket, in one of two subprotocols: `walmill.v1.json`, where the client
//! subscribes by message ([`message`] has them all), and `cloudevents.json`, where the address says
//! which streams and every text frame is one CloudEvent.

mod message;
mod session;
mod socket;
mod subscription;

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;

use super::Server;
use super::auth::Reader;
use super::connection::Progress;
use super::problem::{Parameters, Problem};
use super::runs::Form;
use crate::model::Finding;
use session::Session;
use socket::{Socket, switching};
use subscription::{Subscription, Wish};

/// Our own, and what is spoken when a client asks for none.
const WALMILL: &str = "walmill.v1.json";
/// The CloudEvents WebSocket binding's.
const CLOUDEVENTS: &str = "cloudevents.json";

/// `GET /v1/ws`
pub(super) async fn upgrade(
    State(server): State<Arc<Server>>,
    Extension(progress): Extension<Arc<Progress>>,
    Extension(reader): Extension<Reader>,
    upgrade: Option<Extension<OnUpgrade>>,
    uri: Uri,
    headers: HeaderMap,
    asked: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let asked = asked.map_err(not_a_websocket)?.protocols([WALMILL, CLOUDEVENTS]);
    let form = negotiate(&asked)?;
    let subscriptions = asked_by_address(&uri, form, &reader, &server).await?;
    if subscriptions.is_empty() && !reader.may_come(&server.config) {
        return Err(reader.refusal("/v1/ws").into());
    }
    let visit = server.visits.admit("websocket", progress, reader.clone())?;
    // It is there wherever what was asked is right.
    if let Some(Extension(upgrade)) = upgrade {
        tokio::spawn(async move {
            // Whoever leaves before that has never been here.
            if let Ok(socket) = Socket::open(upgrade, server.max_message()).await {
                Session::new(server, socket, visit, form, reader).run(subscriptions).await;
            }
        });
    }
    Ok(switching(&headers, asked.selected_protocol().cloned()))
}

fn negotiate(upgrade: &WebSocketUpgrade) -> Result<Form, Problem> {
    match upgrade.selected_protocol() {
        Some(chosen) if chosen == CLOUDEVENTS => Ok(Form::CloudEvents),
        None if upgrade.requested_protocols().next().is_some() => {
            let finding = Finding::error(
                "unknown-subprotocol",
                "Sec-WebSocket-Protocol",
                "none of these is spoken here",
            )
            .suggest(format!("ask for {WALMILL} or {CLOUDEVENTS}"));
            Err(Problem::bad_request(finding))
        }
        _ => Ok(Form::Walmill),
    }
}

/// The streams named in the address, all of them or an error. `cloudevents.json` has no other way
/// to say it; for `walmill.v1.json` it saves the first message.
async fn asked_by_address(
    uri: &Uri,
    form: Form,
    reader: &Reader,
    server: &Arc<Server>,
) -> Result<Vec<Subscription>, Problem> {
    let parameters = Parameters::read(uri, &["streams", "from", "filter"])?;
    let Some(streams) = parameters.get("streams") else {
        return match form {
            Form::CloudEvents => Err(Problem::bad_request(no_streams())),
            _ => Ok(Vec::new()),
        };
    };
    let wish = Wish::from_address(streams, parameters.get("from"), &parameters)?;
    Ok(wish.grant(&[], form, reader, server).await?)
}

fn no_streams() -> Finding {
    Finding::error(
        "no-streams",
        "streams",
        format!("{CLOUDEVENTS} takes its streams from the address"),
    )
    .suggest("connect to /v1/ws?streams=NAME,NAME&from=latest")
}

fn not_a_websocket(rejection: WebSocketUpgradeRejection) -> Problem {
    let finding = Finding::error("no-websocket", "/v1/ws", rejection.body_text())
        .suggest("this address speaks WebSocket; over plain HTTP use /v1/streams/NAME/sse");
    match rejection.status() {
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(StatusCode::METHOD_NOT_ALLOWED, finding),
        _ => Problem::bad_request(finding),
    }
}
