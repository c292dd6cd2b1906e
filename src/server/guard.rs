//! Who may ask at all: hosts, origins, tokens and roles. Every request passes here first.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::auth::{Principal, Reader, Refused, Role};
use super::connection::Peer;
use super::problem::Problem;
use super::sse::REPLAY_FROM;
use super::{Config, Server};
use crate::model::Finding;

/// Lets a request through, or says why not.
pub(super) async fn check(
    State(server): State<Arc<Server>>,
    mut request: Request,
    next: Next,
) -> Response {
    let origin = match admitted_origin(&server.config, request.headers(), request.uri()) {
        Ok(origin) => origin,
        Err(problem) => return problem.into_response(),
    };
    if let Some(problem) = compressed(request.headers()) {
        return problem.into_response();
    }
    let mut response = if request.method() == Method::OPTIONS {
        // A browser's question before a request to another origin; it bears no token.
        methods(next.run(request).await)
    } else {
        let asked = Asked::of(&request);
        match asked.identify(&server).await {
            Ok(reader) => {
                request.extensions_mut().insert(reader);
                next.run(request).await
            }
            Err(problem) => problem.into_response(),
        }
    };
    set_headers(response.headers_mut(), origin);
    response
}

/// Refuses a body that is compressed: nothing here makes a large one of a small one.
fn compressed(headers: &HeaderMap) -> Option<Problem> {
    let coding = headers.get(header::CONTENT_ENCODING)?;
    if coding.as_bytes().eq_ignore_ascii_case(b"identity") {
        return None;
    }
    let message = "compressed bodies are not taken";
    let finding = Finding::error("compressed-body", "content-encoding", message);
    let finding = finding.suggest("send it as it is, without `Content-Encoding`");
    Some(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, finding))
}

/// The methods that an address knows, which is what its refusal of OPTIONS lists.
fn methods(refused: Response) -> Response {
    let Some(allowed) = refused.headers().get(header::ALLOW) else { return refused };
    let methods = [(header::ACCESS_CONTROL_ALLOW_METHODS, allowed.clone())];
    (StatusCode::NO_CONTENT, methods).into_response()
}

/// The listed origin that a browser asks for, if it asks from another page than ours. Refused are
/// pages that are not listed, and names for this machine that we do not know: without a token, a
/// page whose own name was made to point here would pass for ours.
fn admitted_origin(
    config: &Config,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Option<HeaderValue>, Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(Authority::as_str)).unwrap_or_default();
    if !config.is_guarded() && !is_this_machine(host) && !is_listed_host(config, host) {
        return Err(foreign_host());
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    if config.origins.iter().any(|listed| listed.0 == text) {
        return Ok(Some(origin.clone()));
    }
    let (_, authority) = text.split_once("://").unwrap_or_default();
    match !authority.is_empty() && authority.eq_ignore_ascii_case(host) {
        true => Ok(None),
        false => Err(foreign_origin(text)),
    }
}

/// Whether a `Host` header names this machine by address, or as `localhost`.
fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn is_listed_host(config: &Config, host: &str) -> bool {
    let hosts = config.origins.iter().filter_map(|origin| origin.0.split_once("://"));
    hosts.into_iter().any(|(_, listed)| listed.eq_ignore_ascii_case(host))
}

fn foreign_host() -> Problem {
    let finding =
        Finding::error("unknown-host", "server.origins", "this host name is not known to walmill")
            .suggest(
                "set server.token or server.auth, or list the page's origin in server.origins",
            );
    Problem::new(StatusCode::MISDIRECTED_REQUEST, finding)
}

fn foreign_origin(origin: &str) -> Problem {
    let finding = Finding::error(
        "origin-refused",
        "server.origins",
        format!("pages of {origin:?} may not connect"),
    )
    .suggest("list the page's origin in server.origins, exactly as the browser writes it");
    Problem::new(StatusCode::FORBIDDEN, finding)
}

/// What of a request decides whether it is let through.
struct Asked {
    remote: String,
    shown: Option<Shown>,
    needed: Option<Role>,
    /// Nobody in particular is not enough, whatever the handler would say.
    someone: bool,
    /// What is shown is exchanged for a ticket.
    exchanged: bool,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let remote = request.extensions().get::<Peer>().map(|Peer(address)| address.to_string());
        let remote = remote.unwrap_or_default();
        let path = request.uri().path();
        match is_open(path) {
            true => Self { remote, shown: None, needed: None, someone: false, exchanged: false },
            false => {
                let (shown, needed) = (presented(request), needed(request.method(), path));
                let (someone, exchanged) = (is_supabase(path), path == "/v1/tickets");
                Self { remote, shown, needed, someone, exchanged }
            }
        }
    }

    /// Who asks, if they may ask this at all.
    async fn identify(self, server: &Server) -> Result<Reader, Problem> {
        let Self { remote, shown, needed, someone, exchanged } = self;
        let principal = match shown {
            None => server.gate.nobody(),
            Some(Shown::Token(text)) => server.gate.identify(&text).await.map_err(refused)?,
            Some(Shown::Ticket(_)) if exchanged => return Err(ticket_for_ticket()),
            Some(Shown::Ticket(ticket)) => server.gate.tickets.redeem(&ticket).ok_or_else(spent)?,
        };
        match needed > principal.role || (someone && principal.is_anonymous()) {
            true => Err(lacking(&principal, needed)),
            false => Ok(Reader { principal, remote }),
        }
    }
}

/// Health is for whoever watches the machine, and the console's page has to be there to ask for the
/// token; it has no data in it.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/livez" | "/readyz" | "/console") || path.starts_with("/console/")
}

/// Where Supabase's clients knock.
fn is_supabase(path: &str) -> bool {
    ["/socket/", "/realtime/", "/api/broadcast"].iter().any(|start| path.starts_with(start))
}

/// The role that an address asks for; none where its own handler decides. What nobody thought of
/// is the admin's.
fn needed(method: &Method, path: &str) -> Option<Role> {
    if path.starts_with("/v1/") || is_supabase(path) {
        return None;
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        return Some(Role::Read);
    }
    let everyday = ["backfills", "dlq", "outputs", "pipelines", "replay"];
    let part = path.strip_prefix("/api/v1/").unwrap_or_default().split('/').next();
    match part.is_some_and(|part| everyday.contains(&part)) {
        true => Some(Role::Operate),
        false => Some(Role::Admin),
    }
}

/// What a request shows.
enum Shown {
    Token(String),
    Ticket(String),
}

/// `Authorization: Bearer …`; `?ticket=…` or `?token=…` for EventSource and WebSocket, which in
/// browsers can't send headers.
fn presented(request: &Request) -> Option<Shown> {
    let header = request.headers().get(header::AUTHORIZATION);
    if let Some((scheme, token)) = header.and_then(|value| value.to_str().ok()?.split_once(' ')) {
        let token = token.trim().to_owned();
        return scheme.eq_ignore_ascii_case("bearer").then_some(Shown::Token(token));
    }
    // Supabase's clients have a word of their own for it.
    let key = request.headers().get("x-api-key").or_else(|| request.headers().get("apikey"));
    if let Some(key) = key.and_then(|key| key.to_str().ok()) {
        return Some(Shown::Token(key.to_owned()));
    }
    let query = request.uri().query()?;
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    parameters.find_map(|(name, value)| match &*name {
        "token" | "apikey" => Some(Shown::Token(value.into_owned())),
        "ticket" => Some(Shown::Ticket(value.into_owned())),
        _ => None,
    })
}

fn refused(why: Refused) -> Problem {
    unauthorized(match why {
        Refused::Unknown => {
            "this is not the token of this walmill, and no key or JWT of its config".to_owned()
        }
        why => why.to_string(),
    })
}

fn spent() -> Problem {
    unauthorized("this ticket was used, or is over; each is good once".to_owned())
}

/// Whoever saw a ticket in an address could otherwise go on with it for as long as they like.
fn ticket_for_ticket() -> Problem {
    let message = "a ticket is not exchanged for another";
    let finding = Finding::error("ticket-for-ticket", "ticket", message)
        .suggest("ask with what the first was given for: `Authorization: Bearer TOKEN`");
    Problem::new(StatusCode::FORBIDDEN, finding)
}

pub(super) fn lacking(principal: &Principal, needed: Option<Role>) -> Problem {
    if principal.is_anonymous() {
        return unauthorized("this walmill asks for a token".to_owned());
    }
    let role = needed.map(|role| format!("{role:?}").to_lowercase()).unwrap_or_default();
    let finding =
        Finding::error("forbidden", "server.auth", format!("this takes the role `{role}`"))
            .suggest("give the key that `role` in the config, or the token that claim");
    Problem::new(StatusCode::FORBIDDEN, finding)
}

fn unauthorized(message: String) -> Problem {
    let finding = Finding::error("unauthorized", "server.token", message).suggest(
        "send `Authorization: Bearer TOKEN`; where that is impossible, `?ticket=` with one from \
         /v1/tickets",
    );
    Problem::new(StatusCode::UNAUTHORIZED, finding)
}

/// What pages of listed origins may send; `apikey` and `x-client-info` are Supabase's clients'.
const ALLOWED_HEADERS: &str = "apikey, authorization, content-type, last-event-id, x-client-info";

fn set_headers(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // An address may bear a token, so it goes nowhere.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::VARY, HeaderValue::from_static("origin, authorization"));
    if let Some(origin) = origin {
        let allowed = HeaderValue::from_static(ALLOWED_HEADERS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, REPLAY_FROM.into());
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::*;

    fn ask(config: &Config, host: &str, origin: Option<&str>) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        admitted_origin(config, &headers, &Uri::from_static("/"))
            .map(|origin| origin.map(|value| value.to_str().unwrap().to_owned()))
            .map_err(|problem| problem.into_response().status().as_u16())
    }

    fn listing(origins: &[&str]) -> Config {
        let origins = origins.iter().map(|text| Origin::try_from((*text).to_owned()).unwrap());
        Config { origins: origins.collect(), ..Config::default() }
    }

    #[test]
    fn pages_of_our_own_and_of_listed_origins_may_connect() {
        let config = listing(&["https://app.example"]);
        assert_eq!(ask(&config, "127.0.0.1:4000", None), Ok(None));
        assert_eq!(ask(&config, "localhost:4000", Some("http://localhost:4000")), Ok(None));
        assert_eq!(ask(&config, "[::1]:4000", Some("http://[::1]:4000")), Ok(None));
        let listed = Some("https://app.example");
        assert_eq!(ask(&config, "127.0.0.1:4000", listed), Ok(listed.map(str::to_owned)));
    }

    #[test]
    fn other_pages_are_refused_however_much_they_look_like_a_listed_one() {
        let config = listing(&["https://app.example"]);
        for origin in [
            "https://evil.example",
            "https://app.example.evil.example",
            "https://evil-app.example",
            "http://app.example",
            "https://app.example:8443",
            "https://APP.example",
            "http://127.0.0.1:4001",
            "127.0.0.1:4000",
            "null",
            "",
        ] {
            assert_eq!(ask(&config, "127.0.0.1:4000", Some(origin)), Err(403), "{origin}");
        }
    }

    #[test]
    fn without_a_token_a_name_that_merely_points_here_is_refused() {
        let open = listing(&["https://app.example"]);
        assert_eq!(ask(&open, "evil.example", Some("http://evil.example")), Err(421));
        assert_eq!(ask(&open, "evil.example", None), Err(421));
        assert_eq!(ask(&open, "", None), Err(421));
        assert_eq!(ask(&open, "app.example", None), Ok(None));
        let guarded = Config { token: Some(crate::model::Secret::new("t")), ..Config::default() };
        assert_eq!(ask(&guarded, "walmill.example", Some("https://walmill.example")), Ok(None));
    }
}
