//! Refusals over HTTP: a finding as JSON, under the status that fits.

use std::collections::HashMap;

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tracing::error;

use super::filter::Filter;
use crate::model::Finding;
use crate::model::finding::did_you_mean;
use crate::store::StoreError;

/// Why a request is not answered.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    pub(super) finding: Finding,
}

impl Problem {
    pub(super) fn new(status: StatusCode, finding: Finding) -> Self {
        Self { status, finding }
    }

    /// The request can't be understood.
    pub(super) fn bad_request(finding: Finding) -> Self {
        Self::new(StatusCode::BAD_REQUEST, finding)
    }

    /// What is asked for does not exist.
    pub(super) fn not_found(finding: Finding) -> Self {
        Self::new(StatusCode::NOT_FOUND, finding)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self.finding)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        error!("read for a client: {:#}", anyhow::Error::new(error));
        let finding = Finding::error("store-failed", "", "the store could not be read")
            .suggest("see walmill's log; it ends by itself when its store fails");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, finding)
    }
}

/// The answer to an address that is none.
pub(super) async fn no_such_address(uri: Uri) -> Problem {
    let finding = Finding::error("unknown-address", uri.path(), "there is nothing at this address")
        .suggest("the streams are listed at /v1/streams, the console is at /console");
    Problem::not_found(finding)
}

/// The answer to any method but the known ones, at an address that exists.
pub(super) async fn only_known(method: Method, uri: Uri) -> Problem {
    let finding =
        Finding::error("method-not-allowed", uri.path(), format!("{method} is not known here"))
            .suggest("use GET; what changes something is a POST to its own address");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, finding)
}

/// The one name in an address, percent-decoded.
pub(super) fn name_in_path(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(name)| name)
        .map_err(|error| Problem::bad_request(Finding::error("bad-address", "", error.body_text())))
}

/// The parameters behind the question mark. One that is not known is an error: a slip would
/// otherwise read another part of the stream than was meant.
pub(super) struct Parameters {
    values: HashMap<String, String>,
    /// Given any number of times: each is a group.
    filters: Vec<String>,
}

impl Parameters {
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let query = uri.query().unwrap_or_default();
        let (mut values, mut filters) = (HashMap::new(), Vec::new());
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let bears_token = matches!(&*name, "token" | "ticket");
            if !bears_token && !known.contains(&name.as_ref()) {
                return Err(unknown_parameter(&name, known));
            }
            match &*name {
                "filter" => filters.push(value.into_owned()),
                _ => drop(values.insert(name.into_owned(), value.into_owned())),
            }
        }
        Ok(Self { values, filters })
    }

    /// A parameter's value; one without a value counts as left out.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl Parameters {
    /// The same, as they were written.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        self.filters.iter().map(String::as_str)
    }

    /// The `filter` parameters, each of them a group.
    pub(super) fn filter(&self) -> Result<Option<Filter>, Finding> {
        if self.filters.is_empty() {
            return Ok(None);
        }
        Filter::read(self.filters.iter().map(String::as_str), "filter").map(Some)
    }
}

fn unknown_parameter(name: &str, known: &[&str]) -> Problem {
    let suggestion = match did_you_mean(name, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the parameters are {}", known.join(", ")),
    };
    let message = format!("`{name}` is no parameter here");
    Problem::bad_request(Finding::error("unknown-parameter", name, message).suggest(suggestion))
}
