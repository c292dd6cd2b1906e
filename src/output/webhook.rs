//! Webhooks: each event is POSTed as a structured CloudEvent, signed by Standard Webhooks.
//!
//! What an answer means:
//!
//! | answer | what happens |
//! | --- | --- |
//! | 2xx | taken |
//! | 410 | the output stops and says so; its checkpoint stays, and a restart tries again |
//! | 413 | the event goes to the dead letters, for it does not get smaller |
//! | everything else, redirects too, or none | tried again on the schedule, then a dead letter |
//!
//! A 404 or a 401 is tried again because receivers answer so while they are deployed or while a
//! secret is rotated. `Retry-After` is honoured, for all keys, up to an hour.

mod config;
mod exchange;
mod guard;
mod signature;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use reqwest::dns::Resolve;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};

use super::{DeliverError, Output, Undelivered};
use crate::model::attempt::{self, Exchange};
use crate::model::{EventId, EventRecord};
pub use config::{Config, Endpoint, Headers};
pub use signature::SigningKey;

/// Connecting takes no longer than this, whatever the timeout for the whole is.
const CONNECT: Duration = Duration::from_secs(10);

/// A webhook endpoint.
#[derive(Debug)]
pub struct Webhook {
    client: Client,
    url: Endpoint,
    keys: Vec<SigningKey>,
    headers: HeaderMap,
}

impl Webhook {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The system's TLS certificates cannot be read.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Self::with_resolver(config, guard::resolver(config.allow_private))
    }

    fn with_resolver(config: &Config, resolver: Arc<dyn Resolve>) -> anyhow::Result<Self> {
        let client = Client::builder()
            .user_agent(concat!("walmill/", env!("CARGO_PKG_VERSION")))
            // A redirect or a proxy would lead past the guard.
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(resolver)
            .timeout(config.timeout.duration())
            .connect_timeout(CONNECT)
            .build()
            .with_context(|| format!("set up webhook {}", config.name))?;
        Ok(Self {
            client,
            url: config.url.clone(),
            keys: config.keys.clone(),
            headers: config.headers.0.clone(),
        })
    }

    fn request(&self, event: &EventRecord) -> reqwest::RequestBuilder {
        let id = event.id().to_string();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = self
            .client
            .post(self.url.0.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json"))
            .header("webhook-id", &id)
            .header("webhook-timestamp", now);
        if !self.keys.is_empty() {
            let signature = signature::header(&self.keys, &id, now, &event.json);
            request = request.header("webhook-signature", signature);
        }
        request.body(event.json.clone())
    }
}

impl Output for Webhook {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn target(&self) -> String {
        self.url.to_string()
    }

    async fn deliver(&self, events: &[EventRecord]) -> Result<(), Undelivered> {
        for (taken, event) in events.iter().enumerate() {
            self.post(event).await.map_err(|error| Undelivered { taken, error })?;
        }
        Ok(())
    }
}

impl Webhook {
    async fn post(&self, event: &EventRecord) -> Result<(), DeliverError> {
        let unavailable =
            |cause| DeliverError::Unavailable { cause, answer: String::new(), retry_after: None };
        let request = self.request(event).build();
        let request =
            request.map_err(|error| unavailable(anyhow::Error::new(error.without_url())))?;
        let sent = exchange::request(&request, &self.url);
        match self.client.execute(request).await {
            Ok(response) => self.judge(event.id(), sent, response).await,
            Err(error) => {
                // The URL may hold a secret in its path.
                let cause = Some(anyhow::Error::new(error.without_url()));
                let what = "no answer".to_owned();
                let exchange = Exchange { request: sent, response: None, what, cause };
                Err(unavailable(exchange.into()))
            }
        }
    }

    async fn judge(
        &self,
        event: EventId,
        request: attempt::Request,
        response: Response,
    ) -> Result<(), DeliverError> {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        // Also where it is not needed: a connection whose answer was read can be used again.
        let response = exchange::response(response, &self.headers).await;
        if status.is_success() {
            return Ok(());
        }
        let answer = response.body.clone();
        let what = format!("answered {status}");
        let cause: anyhow::Error =
            Exchange { request, response: Some(response), what, cause: None }.into();
        Err(match status {
            StatusCode::GONE => DeliverError::Gone(cause.context(
                "the receiver wants no more webhooks; take the output out of the config, or \
                 restart walmill to try again",
            )),
            StatusCode::PAYLOAD_TOO_LARGE => DeliverError::Refused { event, cause, answer },
            _ => DeliverError::Unavailable { cause, answer, retry_after },
        })
    }
}

/// `Retry-After` in either of its forms: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Option<Duration> {
        retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(header("120"), Some(Duration::from_secs(120)));
        assert_eq!(header("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let ahead = SystemTime::now() + Duration::from_secs(3600);
        let wait = header(&httpdate::fmt_http_date(ahead)).unwrap();
        assert!(wait <= Duration::from_secs(3600) && wait > Duration::from_secs(3000));
        for text in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(header(text), None, "{text:?}");
        }
    }
}
