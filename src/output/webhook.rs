//! Webhooks: events are POSTed as CloudEvents, signed by Standard Webhooks.
//!
//! What an answer means, unless the config's `on_status` says otherwise:
//!
//! | answer | what happens |
//! | --- | --- |
//! | 2xx | taken |
//! | 410 | the output is disabled until a person enables it; its checkpoint stays |
//! | 413 | the event goes to the dead letters, for it does not get smaller |
//! | everything else, redirects too, or none | tried again on the schedule, then a dead letter |
//!
//! A 404 or a 401 is tried again because receivers answer so while they are deployed or while a
//! secret is rotated. `Retry-After` is honoured, for all keys, up to an hour. A batch that is not
//! taken is taken apart: what failed goes by itself from then on.

mod config;
mod exchange;
mod guard;
mod message;
mod policy;
mod signature;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use reqwest::dns::Resolve;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Identity, Request, Response};
use tokio::time::timeout;

use super::{Batch, DeliverError, Output, Undelivered};
use crate::model::EventRecord;
use crate::model::attempt::{self, Exchange};
pub use config::{Batching, Config, Endpoint, Headers, Tls};
use message::Message;
pub use message::Mode;
pub use policy::Policies;
pub use signature::SigningKey;

/// A webhook endpoint.
#[derive(Debug)]
pub struct Webhook {
    client: Client,
    url: Endpoint,
    keys: Vec<SigningKey>,
    headers: HeaderMap,
    secrets: exchange::Secrets,
    mode: Mode,
    batch: Batch,
    linger: Duration,
    header_timeout: Duration,
    on_status: Policies,
}

impl Webhook {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The system's TLS certificates cannot be read, or the config's are none.
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
            .connect_timeout(config.connect_timeout.duration());
        let client = with_certificates(client, &config.tls).and_then(|client| Ok(client.build()?));
        let client = client.with_context(|| format!("set up webhook {}", config.name))?;
        let (batch, linger) = match config.mode {
            Mode::Batch => {
                let Batching { events, bytes, linger } = &config.batch;
                let bytes = usize::try_from(bytes.bytes()).unwrap_or(usize::MAX);
                // A request is taken whole or not at all.
                (Batch { events: *events, bytes, same_key: true }, linger.duration())
            }
            Mode::Structured | Mode::Binary => (Batch::ONE, Duration::ZERO),
        };
        Ok(Self {
            client,
            url: config.url.clone(),
            keys: config.keys.clone(),
            headers: config.headers.0.clone(),
            secrets: exchange::Secrets::of(&config.url, &config.headers),
            mode: config.mode,
            batch,
            linger,
            header_timeout: config.header_timeout.duration(),
            on_status: config.on_status.clone(),
        })
    }

    fn request(&self, message: Message) -> Result<Request, reqwest::Error> {
        let Message { id, headers, body } = message;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = self
            .client
            .post(self.url.0.clone())
            .headers(self.headers.clone())
            .headers(headers)
            .header("webhook-id", &id)
            .header("webhook-timestamp", now);
        if !self.keys.is_empty() {
            let signature = signature::header(&self.keys, &id, now, &body);
            request = request.header("webhook-signature", signature);
        }
        request.body(body).build()
    }
}

fn with_certificates(mut client: ClientBuilder, tls: &Tls) -> anyhow::Result<ClientBuilder> {
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        let pem = [certificate.reveal(), "\n", key.reveal()].concat();
        let identity = Identity::from_pem(pem.as_bytes());
        client = client.identity(identity.context("read `tls.certificate` and `tls.key`")?);
    }
    if let Some(ca) = &tls.ca {
        let ca = Certificate::from_pem_bundle(ca.reveal().as_bytes()).context("read `tls.ca`")?;
        client = client.tls_certs_merge(ca);
    }
    Ok(client)
}

impl Output for Webhook {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn target(&self) -> String {
        self.url.to_string()
    }

    fn batch(&self) -> Batch {
        self.batch
    }

    fn linger(&self) -> Duration {
        self.linger
    }

    async fn deliver(&self, events: &[EventRecord]) -> Result<(), Undelivered> {
        if self.mode == Mode::Batch {
            return Ok(self.post(events).await?);
        }
        for (taken, event) in events.iter().enumerate() {
            let posted = self.post(std::slice::from_ref(event)).await;
            posted.map_err(|error| Undelivered { taken, error })?;
        }
        Ok(())
    }
}

impl Webhook {
    async fn post(&self, events: &[EventRecord]) -> Result<(), DeliverError> {
        let message = Message::new(self.mode, events)
            .map_err(|cause| refused(events, cause, String::new()))?;
        let request = self.request(message);
        // The URL may hold a secret in its path.
        let request = request.map_err(|error| unavailable(error.without_url().into()))?;
        let sent = exchange::request(&request, &self.url);
        let cause = match timeout(self.header_timeout, self.client.execute(request)).await {
            Ok(Ok(response)) => return self.judge(events, sent, response).await,
            Ok(Err(error)) => Some(anyhow::Error::new(error.without_url())),
            Err(_) => Some(anyhow!("no headers within {:?}", self.header_timeout)),
        };
        let what = "no answer".to_owned();
        Err(unavailable(Exchange { request: sent, response: None, what, cause }.into()))
    }

    async fn judge(
        &self,
        events: &[EventRecord],
        request: attempt::Request,
        response: Response,
    ) -> Result<(), DeliverError> {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        // Also where it is not needed: a connection whose answer was read can be used again.
        let response = exchange::response(response, &self.secrets).await;
        let policy = self.on_status.of(status);
        if policy == policy::Policy::Taken {
            return Ok(());
        }
        let answer = response.body.clone();
        let what = format!("answered {status}");
        let exchange = Exchange { request, response: Some(response), what, cause: None };
        let cause = anyhow::Error::new(exchange);
        Err(match policy {
            policy::Policy::Taken | policy::Policy::Retry => {
                DeliverError::Unavailable { cause, answer, retry_after }
            }
            policy::Policy::DeadLetter => refused(events, cause, answer),
            policy::Policy::Stop => {
                DeliverError::Gone(cause.context("the receiver wants no more webhooks"))
            }
        })
    }
}

fn unavailable(cause: anyhow::Error) -> DeliverError {
    DeliverError::Unavailable { cause, answer: String::new(), retry_after: None }
}

/// The receiver will not take this. Of several events nobody knows which it means, so the first is
/// tried by itself, then the others.
fn refused(events: &[EventRecord], cause: anyhow::Error, answer: String) -> DeliverError {
    match events {
        [event] => DeliverError::Refused { event: event.id(), cause, answer },
        _ => DeliverError::Unavailable { cause, answer, retry_after: None },
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
    use reqwest::header::HeaderValue;

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
