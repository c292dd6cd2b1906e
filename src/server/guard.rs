//! Who may ask at all: hosts, origins, the token. Every request passes here first.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::problem::Problem;
use super::sse::REPLAY_FROM;
use super::{Config, Server};
use crate::model::{Finding, Secret};

/// Lets a request through, or says why not.
pub(super) async fn check(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = match admitted_origin(&server.config, request.headers(), request.uri()) {
        Ok(origin) => origin,
        Err(problem) => return problem.into_response(),
    };
    let mut response = if request.method() == Method::OPTIONS {
        // A browser's question before a request to another origin; it bears no token.
        StatusCode::NO_CONTENT.into_response()
    } else {
        match check_token(&server.config, &request) {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    set_headers(response.headers_mut(), origin);
    response
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
    if config.token.is_none() && !is_this_machine(host) && !is_listed_host(config, host) {
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
            .suggest("set server.token, or list the page's origin in server.origins");
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

/// The bearer token, where one is set. Health is for whoever watches the machine, and the
/// console's page has to be there to ask for the token; it has no data in it.
fn check_token(config: &Config, request: &Request) -> Result<(), Problem> {
    let Some(token) = &config.token else { return Ok(()) };
    let path = request.uri().path();
    let open = matches!(path, "/" | "/livez" | "/readyz" | "/console");
    if open || path.starts_with("/console/") {
        return Ok(());
    }
    match presented(request) {
        Some(text) if same(token, &text) => Ok(()),
        given => Err(unauthorized(given.is_some())),
    }
}

/// `Authorization: Bearer …`; `?token=…` for EventSource and WebSocket, which in browsers can't
/// send headers.
fn presented(request: &Request) -> Option<String> {
    let header = request.headers().get(header::AUTHORIZATION);
    if let Some((scheme, token)) = header.and_then(|value| value.to_str().ok()?.split_once(' ')) {
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    // Supabase's clients have a word of their own for it.
    let key = request.headers().get("x-api-key").or_else(|| request.headers().get("apikey"));
    if let Some(key) = key.and_then(|key| key.to_str().ok()) {
        return Some(key.to_owned());
    }
    let query = request.uri().query()?;
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    let names = |name: &str| matches!(name, "token" | "apikey");
    parameters.find(|(name, _)| names(name)).map(|(_, token)| token.into_owned())
}

/// In a time that says nothing about where, or by how much, they differ.
fn same(token: &Secret, given: &str) -> bool {
    let [ours, theirs] = [token.reveal(), given].map(Sha256::digest);
    ours.as_slice().ct_eq(theirs.as_slice()).into()
}

fn unauthorized(given: bool) -> Problem {
    let message = match given {
        true => "this is not the token of this walmill",
        false => "this walmill asks for a token",
    };
    let finding = Finding::error("unauthorized", "server.token", message)
        .suggest("send `Authorization: Bearer TOKEN`, or `?token=TOKEN` where that is impossible");
    Problem::new(StatusCode::UNAUTHORIZED, finding)
}

fn set_headers(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // An address may bear a token, so it goes nowhere.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        let allowed = HeaderValue::from_static("authorization, last-event-id");
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
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
        let guarded = Config { token: Some(Secret::new("t")), ..Config::default() };
        assert_eq!(ask(&guarded, "walmill.example", Some("https://walmill.example")), Ok(None));
    }
}
