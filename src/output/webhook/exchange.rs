//! What was sent and what came back, as dead letters keep it: without secrets, and cut.

use reqwest::header::{HeaderMap, SET_COOKIE};
use reqwest::{Request, Response};

use super::{Endpoint, Headers};
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
/// as its status. What repeats a secret that was sent is hidden.
pub async fn response(mut response: Response, secrets: &Secrets) -> attempt::Response {
    let (status, headers) = (response.status().as_u16(), headers(response.headers()));
    let (mut kept, mut read, mut whole) = (Vec::new(), 0, false);
    while read < READ && !whole {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                read += chunk.len();
                let room = KEPT + secrets.longest() - kept.len();
                kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            Ok(None) => whole = read == kept.len(),
            Err(_) => break,
        }
    }
    let body = secrets.hide_in_part(&String::from_utf8_lossy(&kept), whole);
    let headers = headers.into_iter().map(|(name, value)| (name, secrets.hide(&value)));
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

/// What a request has in it that nobody else may see, the longest first.
#[derive(Clone)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// The values of one's own headers, and what the URL does not show of itself.
    pub fn of(url: &Endpoint, headers: &Headers) -> Self {
        let values = headers.0.values().filter_map(|value| value.to_str().ok());
        // `Bearer x` is as secret in its second word alone.
        let words = values.flat_map(|value| [value].into_iter().chain(value.split(' ')));
        let mut secrets: Vec<String> = words.map(str::to_owned).collect();
        secrets.extend(url.hidden());
        // Shorter ones stand in every text.
        secrets.retain(|secret| secret.len() >= 6);
        secrets.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        secrets.dedup();
        Self(secrets)
    }

    fn longest(&self) -> usize {
        self.0.first().map_or(0, String::len)
    }

    fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| match text.contains(&**secret) {
            true => text.replace(&**secret, HIDDEN),
            false => text,
        })
    }

    /// The same, cut. Where it is not `whole`, its end may be the beginning of a secret.
    fn hide_in_part(&self, text: &str, whole: bool) -> String {
        let mut text = self.hide(text);
        let sure = if whole { text.len() } else { text.len().saturating_sub(self.longest()) };
        text.truncate(text.floor_char_boundary(sure.min(KEPT)));
        text
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let url = "https://hooks.example/services/T0SECRET/b%20secret?token=q%2Bsecret&flag-secret";
        let headers = "Authorization = 'Bearer h3ader'";
        Secrets::of(&super::super::config::tests::endpoint(url), &toml::from_str(headers).unwrap())
    }

    #[test]
    fn what_repeats_a_url_or_a_header_shows_none_of_its_secrets() {
        for text in [
            "no route for /services/T0SECRET/b%20secret?token=q%2Bsecret&flag-secret",
            r"\/services\/T0SECRET\/b%20secret",
            "T0SECRET and b secret and b%20secret",
            "token is q+secret or q%2Bsecret; flag-secret",
            "Bearer h3ader, h3ader",
        ] {
            let hidden = secrets().hide(text);
            assert!(!hidden.contains("ecret") && !hidden.contains("SECRET"), "{hidden}");
            assert!(!hidden.contains("h3ader") && hidden.contains(HIDDEN), "{hidden}");
        }
        assert_eq!(secrets().hide("no /services here"), "no /services here");
    }

    #[test]
    fn a_secret_at_which_an_answer_is_cut_does_not_show_its_beginning() {
        for before in KEPT - 40..=KEPT + 40 {
            let text = "T0SECRET ".to_owned() + &"x".repeat(before) + "T0SECRET";
            let cut = &text[..text.len().min(KEPT + secrets().longest())];
            let shown = secrets().hide_in_part(cut, cut.len() == text.len());
            assert!(!shown.contains("T0") && shown.len() <= KEPT, "{before}");
        }
    }
}
