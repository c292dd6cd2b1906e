//! HTTP for a plugin that was granted it: requests to the origins that the config names, and to
//! addresses that are safe to connect to, checked whenever a connection is made. All that a call
//! asks for must be there within one span of time, and each answer within a size.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{Request, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::model::address::check_public;
use crate::plugin::limits::Limits;

/// Requests of one instance that are under way, or whose answers it holds; more of them wait.
const MOST_REQUESTS: usize = 16;

/// What the config grants, ready for use.
#[derive(Clone)]
pub(in crate::plugin) struct Http {
    client: reqwest::Client,
    /// `scheme://host:port`.
    origins: Arc<[String]>,
    size: usize,
}

impl Http {
    /// A client that goes to these origins. A name among them must resolve to public addresses,
    /// unless private ones are allowed; an address that is written as such is meant.
    pub(in crate::plugin) fn new(
        origins: &[Url],
        private: bool,
        limits: &Limits,
    ) -> reqwest::Result<Self> {
        let builder = reqwest::Client::builder().redirect(redirect::Policy::none()).no_proxy();
        let client = builder.dns_resolver(Arc::new(Guard { private })).build()?;
        Ok(Self {
            client,
            origins: origins.iter().map(|url| url.origin().ascii_serialization()).collect(),
            size: usize::try_from(limits.http_size.bytes()).unwrap_or(usize::MAX),
        })
    }

    fn allows(&self, url: &Url) -> bool {
        self.origins.contains(&url.origin().ascii_serialization())
    }

    async fn send(
        self,
        request: Request<WasiBody>,
        left: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Result<Answer, Error> {
        let (parts, body) = request.into_parts();
        let url: Url = parts.uri.to_string().parse().map_err(|_| Error::HttpRequestUriInvalid)?;
        if !self.allows(&url) {
            return Err(Error::HttpRequestDenied);
        }
        let body = Limited::new(body, self.size).collect().await;
        let body = body.map_err(|_| Error::HttpRequestBodySize(None))?.to_bytes();
        let request = self.client.request(parts.method, url).headers(parts.headers).body(body);
        let mut answer = request.timeout(left).send().await.map_err(failure)?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(failure)? {
            if bytes.len() + chunk.len() > self.size {
                return Err(Error::HttpResponseBodySize(Some(self.size as u64)));
            }
            bytes.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body_of(bytes.freeze(), permit));
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok((response, Box::new(async { Ok(()) })))
    }
}

type Answer = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

/// The permit goes with the body: until then, its bytes are in memory.
fn body_of(bytes: Bytes, permit: OwnedSemaphorePermit) -> WasiBody {
    let never = move |never| {
        let _held = &permit;
        Error::from(never)
    };
    Full::new(bytes).map_err(never).boxed_unsync()
}

/// As a guest is told of it.
fn failure(error: reqwest::Error) -> Error {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        if error.is::<crate::model::address::NotPublic>() {
            return Error::DestinationIpProhibited;
        }
        cause = error.source();
    }
    match error {
        error if error.is_timeout() => Error::HttpResponseTimeout,
        error if error.is_connect() => Error::ConnectionRefused,
        _ => Error::HttpProtocolError,
    }
}

/// What names resolve to on this machine, without what is not for a plugin.
struct Guard {
    private: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let private = self.private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.collect();
            if !private {
                // One among them is enough to refuse the name.
                addresses.iter().try_for_each(|address| check_public(address.ip()))?;
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// One instance's requests.
pub(super) struct Hooks {
    http: Option<Http>,
    /// How long a call may wait for all that it asks for.
    time: Duration,
    /// By when all of a call's answers must be there; set by its first request or its first wait.
    until: Option<Instant>,
    /// One for each request under way, and each answer that the guest holds.
    permits: Arc<Semaphore>,
}

impl Hooks {
    pub(super) fn new(http: Option<Http>, time: Duration) -> Self {
        Self { http, time, until: None, permits: Arc::new(Semaphore::new(MOST_REQUESTS)) }
    }

    pub(super) fn begin_call(&mut self) {
        self.until = None;
    }

    /// By when the call must have all that it waits for.
    pub(super) fn until(&mut self) -> Instant {
        *self.until.get_or_insert_with(|| Instant::now() + self.time)
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        let until = self.until();
        let Some(http) = self.http.clone() else {
            return Box::new(async { Err(Error::HttpRequestDenied) });
        };
        let permits = Arc::clone(&self.permits);
        Box::new(async move {
            let answer = async {
                // Nobody closes it.
                let permit = permits.acquire_owned().await;
                let permit = permit.map_err(|_| Error::ConnectionLimitReached)?;
                http.send(request, until.saturating_duration_since(Instant::now()), permit).await
            };
            let answer = tokio::time::timeout_at(until.into(), answer);
            answer.await.unwrap_or(Err(Error::HttpResponseTimeout))
        })
    }
}
