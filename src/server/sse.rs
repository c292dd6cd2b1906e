//! Streams by server-sent events. An event's id is its cursor, so a browser that reconnects by
//! itself goes on where it was.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use serde_json::json;
use tokio::time::{Instant, Interval, interval_at};
use tracing::error;

use super::Server;
use super::auth::{Guardian, Reader, Wishes};
use super::connection::Progress;
use super::feed::{Feed, Found};
use super::place::{Gap, Place};
use super::problem::{Parameters, Problem, name_in_path};
use super::runs::Form;
use super::visit::Visit;
use crate::model::Finding;
use crate::store::StoreError;

/// A silent stream says so often that it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What browsers wait before they reconnect, in milliseconds.
const RETRY: &str = "retry: 2000\n\n";
/// Says where reading really began.
pub(super) const REPLAY_FROM: HeaderName = HeaderName::from_static("walmill-replay-from");
/// Where a browser that reconnects was.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// `GET /v1/streams/{stream}/sse`
pub(super) async fn subscribe(
    State(server): State<Arc<Server>>,
    Extension(progress): Extension<Arc<Progress>>,
    Extension(reader): Extension<Reader>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(&uri, &["last_event_id", "from", "filter"])?;
    let (key, from) = asked_place(&parameters, &headers)?;
    let wishes = Wishes::new(from, parameters.groups());
    let (stream, access) = server.open(&name_in_path(path)?, &wishes, &reader).await?;
    let filter = parameters.filter()?;
    access.check(filter.as_ref())?;
    let start = Place::read(from, key)?.begin(&stream, &server).await?;
    let visit = server.visits.admit("sse", progress, reader.clone())?;
    let response_headers = [
        (header::CONTENT_TYPE, "text/event-stream".to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        // nginx would otherwise collect events before it passes them on.
        (HeaderName::from_static("x-accel-buffering"), "no".to_owned()),
        (REPLAY_FROM, server.cursor(start.after).to_string()),
    ];
    let mut guardian = Guardian::new(Arc::clone(&server), reader);
    let wanted = access.wanted(filter.as_ref(), server.state.store.veil());
    guardian.watch(stream.name(), access);
    let subscriber = Subscriber {
        feed: Feed::of(stream, start, wanted, Form::Sse),
        guardian,
        first_gap: start.gap,
        phase: Phase::Beginning,
        heartbeat: interval_at(Instant::now() + HEARTBEAT, HEARTBEAT),
        server,
        visit,
    };
    let chunks = unfold(subscriber, |mut subscriber| async {
        subscriber.next().await.map(|chunk| (Ok::<_, Infallible>(chunk), subscriber))
    });
    Ok((response_headers, Body::from_stream(chunks)).into_response())
}

/// A browser that reconnects says where it was in the header, and repeats the address it was first
/// given: the header is the later word. Those that can't send it put `last_event_id` behind the
/// address, where `from` may stand already.
fn asked_place<'a>(
    parameters: &'a Parameters,
    headers: &'a HeaderMap,
) -> Result<(&'static str, &'a str), Problem> {
    let header = match headers.get(LAST_EVENT_ID).map(|value| value.to_str()) {
        Some(Ok(text)) => Some(text).filter(|text| !text.is_empty()),
        Some(Err(_)) => {
            let finding = Finding::error("bad-cursor", "Last-Event-ID", "the cursor is no text");
            return Err(Problem::bad_request(finding));
        }
        None => None,
    };
    let given = [
        ("Last-Event-ID", header),
        ("last_event_id", parameters.get("last_event_id")),
        ("from", parameters.get("from")),
    ];
    let mut given = given.into_iter().filter_map(|(key, text)| Some((key, text?)));
    Ok(given.next().unwrap_or(("from", "latest")))
}

/// One SSE client. Its chunks are pulled by the connection whenever the socket has room for more.
struct Subscriber {
    server: Arc<Server>,
    feed: Feed,
    guardian: Guardian,
    first_gap: Option<Gap>,
    phase: Phase,
    heartbeat: Interval,
    visit: Visit,
}

enum Phase {
    Beginning,
    Running,
    Ended,
}

impl Subscriber {
    async fn next(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::Beginning => Some(self.beginning().into()),
            Phase::Running => Some(self.run().await),
            Phase::Ended => None,
        }
    }

    fn beginning(&mut self) -> String {
        self.phase = Phase::Running;
        let gap = self.first_gap.take().map(|gap| self.gap(gap));
        RETRY.to_owned() + &gap.unwrap_or_default()
    }

    async fn run(&mut self) -> Bytes {
        loop {
            tokio::select! {
                biased;
                () = self.server.shutdown.cancelled() => {
                    return self.closing("shutdown", "walmill is shutting down").into();
                }
                lapse = self.guardian.lapse() => {
                    let (code, message) = lapse.words();
                    return self.closing(code, message).into();
                }
                () = self.feed.ready() => {
                    if let Some(chunk) = self.read().await {
                        self.heartbeat.reset();
                        return chunk;
                    }
                }
                _ = self.heartbeat.tick() => return self.beat(),
            }
        }
    }

    /// A sign of life. Where a filter left events out it says where the reader is by now, so that
    /// one that reconnects does not go through them again.
    fn beat(&mut self) -> Bytes {
        match self.feed.settle() {
            true => format!("id: {}\n\n", self.server.cursor(self.feed.after())).into(),
            false => Bytes::from_static(b":\n\n"),
        }
    }

    async fn read(&mut self) -> Option<Bytes> {
        match self.feed.read_run(Form::Sse, usize::MAX, &self.server).await {
            Ok(Found::Run(run)) => {
                let part = run.after(self.feed.after(), usize::MAX);
                self.feed.advance(part.last()?);
                self.visit.sent(part.len());
                Some(part.to_bytes())
            }
            Ok(Found::Gap(gap)) => Some(self.gap(gap).into()),
            Ok(Found::Nothing) => None,
            Err(error) => Some(self.failed(error).into()),
        }
    }

    fn gap(&self, gap: Gap) -> String {
        let report = json!(gap.report(self.feed.name(), &self.server));
        format!("id: {}\nevent: gap\ndata: {report}\n\n", self.server.cursor(gap.purged))
    }

    /// The last event. The id stays what it was, so that a browser goes on from there.
    fn closing(&mut self, outcome: &'static str, message: &str) -> String {
        self.phase = Phase::Ended;
        self.visit.leaves(outcome);
        self.feed.settle();
        let cursor = self.server.cursor(self.feed.after()).to_string();
        let data = json!({ "code": outcome, "message": message, "cursor": cursor });
        format!("event: closing\ndata: {data}\n\n")
    }

    fn failed(&mut self, error: StoreError) -> String {
        error!("read for a client: {:#}", anyhow::Error::new(error));
        self.closing("error", "the store could not be read")
    }
}
