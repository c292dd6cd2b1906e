//! What a channel reads of the streams: those that whoever it is for may read, the rows of them
//! that they may see, and of these the ones that its bindings ask for.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use super::join::Binding;
use super::pass::Pass;
use crate::model::veil::Veil;
use crate::model::{Finding, Offset};
use crate::server::Server;
use crate::server::auth::{Access, Guardian, Lapse};
use crate::server::feed::Feed;
use crate::server::filter::Filter;
use crate::server::place::Start;
use crate::server::runs::Form;
use crate::store::stream::Stream;

/// What a channel reads of the streams.
pub(super) struct Reading {
    /// One for each stream.
    pub(super) feeds: Vec<Feed>,
    pub(super) guardian: Guardian,
    pub(super) pass: Pass,
    /// What its bindings ask for; `None` where it has none that could be served.
    wanted: Option<Filter>,
    /// Streams that are not theirs.
    refused: HashSet<String>,
    /// Why it reads less than it asked for.
    why: Option<Finding>,
}

impl Reading {
    /// For them, and nothing yet.
    pub(super) fn new(server: &Arc<Server>, pass: Pass, bindings: &[Binding]) -> Self {
        let sound = bindings.iter().filter(|binding| binding.broken.is_none());
        let guardian = Guardian::new(Arc::clone(server), pass.reader.clone());
        Self {
            feeds: Vec::new(),
            guardian,
            pass,
            wanted: sound.map(Binding::wanted).reduce(Filter::or),
            refused: HashSet::new(),
            why: None,
        }
    }

    /// Begins to read every stream that is there and theirs, each from its place.
    pub(super) async fn open(
        &mut self,
        server: &Arc<Server>,
        mut place: impl FnMut(&Arc<Stream>) -> Start,
    ) {
        if self.wanted.is_none() {
            return;
        }
        for stream in server.supabase_streams() {
            let (name, known) = (stream.name(), |feed: &Feed| feed.name() == stream.name());
            if self.refused.contains(name) || self.feeds.iter().any(known) {
                continue;
            }
            match self.pass.reader.access(name, server).await {
                Ok(access) => {
                    let start = place(&stream);
                    self.read(stream, start, access, server.state.store.veil());
                }
                Err(why) => {
                    self.refused.insert(name.to_owned());
                    self.why.get_or_insert(why);
                }
            }
        }
        if !self.feeds.is_empty() && !self.refused.is_empty() {
            // Others are theirs, and nobody can tell in which of them a table is.
            self.why.take_if(|why| matches!(why.code, "forbidden" | "unauthorized"));
        }
    }

    fn read(&mut self, stream: Arc<Stream>, start: Start, access: Access, veil: &Veil) {
        let Some(wanted) = &self.wanted else { return };
        if let Err(why) = access.check(Some(wanted)) {
            self.why.get_or_insert(why);
        }
        let filter = (!wanted.is_everything()).then_some(wanted);
        let wanted = access.wanted(filter, veil);
        self.guardian.watch(stream.name(), access);
        self.feeds.push(Feed::of(stream, start, wanted, Form::Bare));
    }

    /// Where it is in a stream that it reads.
    pub(super) fn place_in_known(&self, stream: &Stream) -> Option<Offset> {
        let feed = self.feeds.iter().find(|feed| feed.name() == stream.name())?;
        Some(feed.after())
    }

    /// Where whoever takes over from it begins in a stream: behind what it read, with what comes
    /// where the stream was not theirs, and with all of one that is new.
    pub(super) fn place_in(&self, stream: &Stream) -> Offset {
        let otherwise = || match self.refused.contains(stream.name()) {
            true => *stream.head().borrow(),
            false => stream.purged(),
        };
        self.place_in_known(stream).unwrap_or_else(otherwise)
    }

    /// Why it reads less than it asked for, if it does; said once.
    pub(super) fn why(&mut self) -> Option<String> {
        self.why.take().map(|why| why.message)
    }

    /// Moves on behind what was left out; whether that was anything.
    pub(super) fn settle(&mut self) -> bool {
        self.feeds.iter_mut().fold(false, |moved, feed| feed.settle() | moved)
    }

    /// What happens to it next.
    pub(super) fn waits(&mut self) -> impl Iterator<Item = Waiting<'_>> {
        let Self { feeds, guardian, .. } = self;
        let feeds = feeds.iter_mut().enumerate().map(|(at, feed)| {
            let ready = async move {
                feed.ready().await;
                Next::Ready(at)
            };
            Box::pin(ready) as Waiting<'_>
        });
        let lapse = guardian.is_needed().then(|| {
            let lapse = async { Next::Lapsed(guardian.lapse().await) };
            Box::pin(lapse) as Waiting<'_>
        });
        lapse.into_iter().chain(feeds)
    }
}

/// Something that happens next.
type Waiting<'a> = Pin<Box<dyn Future<Output = Next> + Send + 'a>>;

/// What happens to a channel's reading.
pub(super) enum Next {
    /// This feed has something.
    Ready(usize),
    /// What they were granted has ended.
    Lapsed(Lapse),
}
