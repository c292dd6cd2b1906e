//! What was sent and what came back, as dead letters keep it: without secrets, and cut.

use reqwest::header::{HeaderMap, SET_COOKIE};
use reqwest::{Request, Response};

use super::Endpoint;
use crate::model::attempt;

/// So much of an answer is kept.
const KEPT: usize = 4 << 10;
/// So much of an answer is read, so that the connection can be used again; the rest is cut off.
const READ: usize = 64 << 10;
/// In place of what is secret.
const HIDDEN: &str = "***";

/// A request as it is about to be sent.
pub fn request(request: &Request, url: &Endpoint) -> attempt::Request {
    let body = request.body().and_then(|body| body.as_bytes()).map_or(0, <[u8]>::len);
    attempt::Request {
        method: request.method().to_string(),
        url: url.to_string(),
        headers: headers(request.headers()),
        bytes: body as u64,
    }
}

/// An answer, read to its end or until it is enough. One that breaks off, or is no text, is as good
/// as its status. `secrets` are the headers that were sent: what repeats their values is hidden.
pub async fn response(mut response: Response, secrets: &HeaderMap) -> attempt::Response {
    let (status, headers) = (response.status().as_u16(), headers(response.headers()));
    let (mut kept, mut read) = (Vec::new(), 0);
    while read < READ {
        let Ok(Some(chunk)) = response.chunk().await else { break };
        read += chunk.len();
        let room = KEPT - kept.len();
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    let body = without(String::from_utf8_lossy(&kept).into_owned(), secrets);
    let headers = headers.into_iter().map(|(name, value)| (name, without(value, secrets)));
    attempt::Response { status, headers: headers.collect(), body }
}

fn headers(headers: &HeaderMap) -> std::collections::BTreeMap<String, String> {
    let shown = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
        let hidden = value.is_sensitive() || name == SET_COOKIE || name == "webhook-signature";
        let text = String::from_utf8_lossy(value.as_bytes());
        (name.to_string(), if hidden { HIDDEN.to_owned() } else { text.into_owned() })
    };
    headers.iter().map(shown).collect()
}

fn without(text: String, secrets: &HeaderMap) -> String {
    let values = secrets.values().filter_map(|value| value.to_str().ok());
    // `Bearer x` is as secret in its second word alone.
    let words = values.flat_map(|value| [value].into_iter().chain(value.split(' ')));
    words.filter(|word| word.len() >= 6).fold(text, |text, word| {
        if text.contains(word) { text.replace(word, HIDDEN) } else { text }
    })
}
