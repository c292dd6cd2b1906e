//! What a client wants to read, and each stream it reads.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;

use serde_json::json;

use super::message::{From, Groups, Request};
use crate::model::{Finding, Offset};
use crate::server::Server;
use crate::server::auth::{Access, Reader, Wishes};
use crate::server::feed::Feed;
use crate::server::filter::Filter;
use crate::server::place::{Gap, Place};
use crate::server::problem::Parameters;
use crate::server::runs::Form;

/// Events that may be on their way to a client that asked for a window.
const MAX_WINDOW: u32 = 65_536;

/// What a client wants to read.
#[derive(Debug)]
pub(super) struct Wish {
    id: Option<String>,
    /// Each stream once, and where to begin, as it was written and as it was read.
    streams: Vec<(String, String, Place)>,
    /// As it was written.
    groups: Vec<String>,
    filter: Option<Filter>,
    window: Option<NonZeroU32>,
}

impl Wish {
    pub(super) fn from_message(request: Request) -> Result<Self, Finding> {
        let (mut each, mut all) = (HashMap::new(), "latest".to_owned());
        match request.from {
            None => {}
            Some(From::All(text)) => all = text,
            Some(From::Each(places)) => each = places,
        }
        let groups = request.filter.as_ref().map(Groups::texts).unwrap_or_default().to_vec();
        let filter = request.filter.map(|groups| groups.read()).transpose()?;
        let begin = Place::read(&all, "from")?;
        let place_of = |name: String| match each.remove(&name) {
            None => Ok((name, all.clone(), begin)),
            Some(text) => {
                let place = Place::read(&text, &format!("from.{name}"))?;
                Ok((name, text, place))
            }
        };
        let streams = request.streams.into_iter().map(place_of);
        let streams = streams.collect::<Result<Vec<_>, Finding>>()?;
        match each.into_keys().next() {
            None => {
                Self { id: request.id, streams, groups, filter, window: request.window }.checked()
            }
            Some(name) => Err(Finding::error(
                "bad-message",
                format!("from.{name}"),
                format!("`{name}` is not in `streams`"),
            )),
        }
    }

    /// `streams=a,b` with `from` for all of them, or `from=x,y`, one for each.
    pub(super) fn from_address(
        streams: &str,
        from: Option<&str>,
        parameters: &Parameters,
    ) -> Result<Self, Finding> {
        let filter = parameters.filter()?;
        let groups = parameters.groups().map(str::to_owned).collect();
        let names: Vec<String> = streams.split(',').map(str::to_owned).collect();
        let texts: Vec<&str> = from.unwrap_or("latest").split(',').collect();
        let texts = match texts.as_slice() {
            [one] => vec![*one; names.len()],
            each if each.len() == names.len() => texts,
            _ => {
                return Err(Finding::error(
                    "bad-from",
                    "from",
                    "`from` and `streams` do not match",
                )
                .suggest("give one place for all streams, or one for each, with commas"));
            }
        };
        let read = |(name, text): (String, &str)| {
            Place::read(text, "from").map(|place| (name, text.to_owned(), place))
        };
        let streams = names.into_iter().zip(texts).map(read).collect::<Result<_, _>>()?;
        Self { id: None, streams, groups, filter, window: None }.checked()
    }

    fn checked(self) -> Result<Self, Finding> {
        if self.streams.is_empty() {
            return Err(Finding::error("no-streams", "streams", "no stream is named"));
        }
        if self.window.is_some_and(|window| window.get() > MAX_WINDOW) {
            let message = format!("a window holds at most {MAX_WINDOW} events");
            return Err(Finding::error("bad-window", "window", message));
        }
        Ok(self)
    }

    /// Every stream of the wish, or the first reason against it.
    pub(super) async fn grant(
        self,
        present: &[Subscription],
        form: Form,
        reader: &Reader,
        server: &Arc<Server>,
    ) -> Result<Vec<Subscription>, Finding> {
        let most = server.config.max_streams.get();
        if present.len() + self.streams.len() > most {
            let message = format!("one connection reads at most {most} streams");
            return Err(Finding::error("too-many-streams", "streams", message)
                .suggest("open another connection for the others"));
        }
        let mut granted: Vec<Subscription> = Vec::with_capacity(self.streams.len());
        for (name, from, place) in self.streams {
            if present.iter().chain(&granted).any(|other| other.feed.name() == name) {
                let message = format!("`{name}` is read on this connection already");
                return Err(Finding::error("already-subscribed", name, message));
            }
            let wishes = Wishes::new(&from, self.groups.iter().map(String::as_str));
            let (stream, access) = server.open(&name, &wishes, reader).await?;
            access.check(self.filter.as_ref())?;
            let start = place.begin(&stream, server).await?;
            let wanted = access.wanted(self.filter.as_ref(), server.state.store.veil());
            granted.push(Subscription {
                id: self.id.clone(),
                feed: Feed::of(stream, start, wanted, form),
                access: Some(access),
                gap: start.gap,
                window: self.window.map(Window::new),
            });
        }
        Ok(granted)
    }
}

/// One stream that a client reads.
pub(super) struct Subscription {
    pub(super) id: Option<String>,
    pub(super) feed: Feed,
    /// What was granted, until somebody watches over it.
    pub(super) access: Option<Access>,
    /// A gap at its very beginning that the client has not been told of.
    pub(super) gap: Option<Gap>,
    pub(super) window: Option<Window>,
}

impl Subscription {
    /// Waits until there is something to send, and the client's window is open.
    pub(super) async fn ready(&mut self) {
        if self.window.as_ref().is_some_and(|window| window.room() == 0) {
            // An acknowledgement opens it, and then everyone is asked again.
            std::future::pending::<()>().await;
        }
        self.feed.ready().await;
    }

    /// How many events may be sent.
    pub(super) fn room(&self) -> usize {
        self.window.as_ref().map_or(usize::MAX, Window::room)
    }

    /// Notes that an event is on its way.
    pub(super) fn sent(&mut self, offset: Offset) {
        self.feed.advance(offset);
        if let Some(window) = &mut self.window {
            window.unacknowledged.push_back(offset);
        }
    }

    /// Notes that the client is done with everything up to and including `offset`.
    pub(super) fn acknowledged(&mut self, offset: Offset) {
        if let Some(window) = &mut self.window {
            window.acknowledge(offset);
        }
    }
}

/// The answer to a wish that was granted.
pub(super) fn subscribed(granted: &[Subscription], server: &Server) -> String {
    let streams: Vec<_> = granted
        .iter()
        .map(|Subscription { feed, .. }| {
            let [from, head] =
                [feed.after(), feed.newest()].map(|offset| server.cursor(offset).to_string());
            json!({ "name": feed.name(), "from": from, "head": head })
        })
        .collect();
    let id = granted.first().and_then(|first| first.id.as_deref());
    json!({ "type": "subscribed", "id": id, "streams": streams }).to_string()
}

/// Events that were sent and not acknowledged, at most so many.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    unacknowledged: VecDeque<Offset>,
}

impl Window {
    fn new(size: NonZeroU32) -> Self {
        Self { size: size.get() as usize, unacknowledged: VecDeque::new() }
    }

    fn room(&self) -> usize {
        self.size - self.unacknowledged.len()
    }

    fn acknowledge(&mut self, offset: Offset) {
        while self.unacknowledged.front().is_some_and(|oldest| *oldest <= offset) {
            self.unacknowledged.pop_front();
        }
    }
}
