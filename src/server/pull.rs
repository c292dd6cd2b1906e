//! Streams page by page, for clients that would rather ask than hold a connection.

mod room;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::Server;
use super::auth::{Reader, Wishes};
use super::fanout::Seat;
use super::feed::{Feed, Found};
use super::filter::Filter;
use super::place::{Gap, Place};
use super::problem::{Parameters, Problem, name_in_path};
use super::runs::Form;
use super::sse::REPLAY_FROM;
use super::visit::{self, count_events};
use crate::model::event::Events;
use crate::model::{Finding, Offset, Period};
use crate::store::StoreError;
pub(super) use room::Room;
use room::Share;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
const MAX_WAIT: Duration = Duration::from_secs(60);
/// A page is full when its events have so many bytes, however few they are.
const FULL: usize = 4 << 20;
/// Bytes of events that are looked at for one page, however few of them are wanted.
const MOST_LOOKED_AT: usize = 32 << 20;

/// `GET /v1/streams/{stream}/events`
pub(super) async fn events(
    State(server): State<Arc<Server>>,
    Extension(reader): Extension<Reader>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    let name = name_in_path(path)?;
    let asked = Asked::read(&uri);
    // Who may not see the stream is told nothing about the rest.
    let wishes = asked.as_ref().map(|asked| asked.wishes.clone()).unwrap_or_default();
    let (stream, access) = server.open(&name, &wishes, &reader).await?;
    let asked = asked?;
    access.check(asked.filter.as_ref())?;
    let visitor = server.visits.place()?;
    let veil = server.state.store.veil();
    let seat = access
        .wanted(asked.filter.as_ref(), veil)
        .map(|wanted| Seat::new(wanted, Form::CloudEvents));
    let start = asked.place.begin(&stream, &server).await?;
    let mut feed = Feed::new(stream, start);
    let mut page = Page::new(start.after, start.gap, asked.limit, seat);
    page.fill(&mut feed, &server.pages).await?;
    let waiting = async {
        while page.is_empty() {
            feed.ready().await;
            page.fill(&mut feed, &server.pages).await?;
        }
        Ok::<_, Problem>(())
    };
    tokio::select! {
        // Nothing is waited for when there is something already.
        biased;
        waited = timeout(asked.wait, waiting) => waited.unwrap_or(Ok(()))?,
        () = server.shutdown.cancelled() => {}
    }
    count_events(&server.state.metrics, "pull", page.count);
    let more = feed.newest() > page.next;
    // What committed at a time may be yet to come.
    let fixed = matches!(asked.place, Place::Cursor(_) | Place::Event(_));
    let caching = match fixed && page.is_full() && more && page.gap.is_none() {
        // Events never change, so neither does a full page behind a given cursor.
        true if !server.config.is_guarded() => "public, max-age=3600, immutable",
        true => "private, max-age=3600, immutable",
        false => "no-store",
    };
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CACHE_CONTROL, caching.to_owned()),
        (REPLAY_FROM, server.cursor(start.after).to_string()),
    ];
    Ok((headers, page.finish(feed.name(), (more, visitor), &server)?).into_response())
}

/// What a request asks for.
struct Asked {
    wishes: Wishes,
    place: Place,
    filter: Option<Filter>,
    limit: usize,
    wait: Duration,
}

impl Asked {
    fn read(uri: &Uri) -> Result<Self, Problem> {
        let parameters = Parameters::read(uri, &["after", "from", "limit", "wait", "filter"])?;
        let (key, from) = match (parameters.get("after"), parameters.get("from")) {
            (Some(_), Some(_)) => {
                let message = "`from` and `after` both say where to begin";
                return Err(Finding::error("bad-from", "from", message).suggest("give one").into());
            }
            (Some(text), None) => ("after", text),
            (None, text) => ("from", text.unwrap_or("earliest")),
        };
        Ok(Self {
            wishes: Wishes::new(from, parameters.groups()),
            place: Place::read(from, key)?,
            filter: parameters.filter()?,
            limit: parameters.get("limit").map_or(Ok(DEFAULT_LIMIT), read_limit)?,
            wait: parameters.get("wait").map_or(Ok(Duration::ZERO), read_wait)?,
        })
    }
}

pub(super) fn read_limit(text: &str) -> Result<usize, Finding> {
    match text.parse() {
        Ok(limit @ 1..=MAX_LIMIT) => Ok(limit),
        _ => {
            let message = format!("`limit` is a number from 1 to {MAX_LIMIT}");
            Err(Finding::error("bad-limit", "limit", message))
        }
    }
}

/// Seconds, or a span of time as in the config.
pub(super) fn read_wait(text: &str) -> Result<Duration, Finding> {
    let seconds = text.parse().map(Duration::from_secs).ok();
    let wait = seconds.or_else(|| text.parse().map(Period::duration).ok());
    wait.filter(|wait| *wait <= MAX_WAIT).ok_or_else(|| {
        let message = "`wait` is a span of time up to 60s, as in `wait=30s`";
        Finding::error("bad-wait", "wait", message)
    })
}

/// Events of one answer, as the JSON array's inside.
struct Page {
    json: Vec<u8>,
    count: usize,
    limit: usize,
    next: Offset,
    gap: Option<Gap>,
    /// Where not every event is wanted, or seen as it is.
    seat: Option<Seat>,
    /// Bytes of events that were looked at.
    looked_at: usize,
    /// Memory for it, while there is something in it.
    share: Option<Share>,
}

impl Page {
    fn new(next: Offset, gap: Option<Gap>, limit: usize, seat: Option<Seat>) -> Self {
        Self { json: Vec::new(), count: 0, limit, next, gap, seat, looked_at: 0, share: None }
    }

    /// Whether it is worth waiting for more.
    fn is_empty(&self) -> bool {
        self.count == 0 && self.gap.is_none() && self.looked_at < MOST_LOOKED_AT
    }

    fn is_full(&self) -> bool {
        self.count >= self.limit || self.json.len() >= FULL || self.looked_at >= MOST_LOOKED_AT
    }

    /// Takes what there is. A gap begins a page of its own, so that it is told in its place.
    async fn fill(&mut self, feed: &mut Feed, room: &Room) -> Result<(), Problem> {
        let share = self.share.take().map_or_else(|| room.share(), Ok)?;
        self.read(feed).await?;
        // Who waits for the first event needs no memory yet.
        self.share = (self.count > 0).then_some(share);
        Ok(())
    }

    async fn read(&mut self, feed: &mut Feed) -> Result<(), StoreError> {
        while !self.is_full() {
            match feed.read().await? {
                Found::Run(events) => self.take(&events),
                Found::Gap(_) if self.count > 0 => break,
                Found::Gap(gap) => (self.next, self.gap) = (feed.after(), Some(gap)),
                Found::Nothing => break,
            }
            feed.advance(self.next);
        }
        Ok(())
    }

    fn take(&mut self, events: &Events) {
        for event in events.after(self.next) {
            if self.is_full() {
                return;
            }
            self.next = event.offset;
            let seen = match &mut self.seat {
                None => Some(event.json),
                Some(seat) => {
                    self.looked_at += event.json.len();
                    seat.see(&event)
                }
            };
            let Some(json) = seen else { continue };
            if self.count > 0 {
                self.json.push(b',');
            }
            self.json.extend_from_slice(&json);
            self.count += 1;
        }
    }

    fn finish(
        self,
        stream: &str,
        (more, visitor): (bool, visit::Place),
        server: &Server,
    ) -> Result<Body, Problem> {
        let next = server.cursor(self.next);
        let gap = self.gap.map(|gap| gap.report(stream, server));
        let gap = serde_json::json!(gap);
        let mut body = self.json;
        body.splice(..0, *b"{\"events\":[");
        body.extend_from_slice(
            format!("],\"next\":\"{next}\",\"more\":{more},\"gap\":{gap}}}").as_bytes(),
        );
        match self.share {
            Some(share) => share.hold(body, visitor),
            None => Ok(Body::from(body)),
        }
    }
}
