//! Where a channel begins to read: with what comes next, where the same topic was on this
//! connection, or where the client says that it was.

use super::channel::Channel;
use crate::model::Finding;
use crate::server::Server;
use crate::server::feed::Feed;
use crate::server::place::{Place, Start};
use crate::store::stream::Stream;

/// Where a channel begins to read.
pub(super) struct Places<'a> {
    /// The place that it asked to go on from, as [`Channel::place`] said it.
    pub(super) resume: Option<&'a str>,
    /// The same topic on this connection, which it takes over from.
    pub(super) before: Option<&'a Channel>,
}

impl Places<'_> {
    /// The feeds of all streams, and what can't be had of what was asked for.
    pub(super) fn feeds(&self, server: &Server) -> (Vec<Feed>, Option<String>) {
        let (mut feeds, mut lost) = (Vec::new(), None);
        for stream in server.supabase_streams() {
            let latest = Start { after: *stream.head().borrow(), gap: None };
            let start = match self.resume.filter(|places| !places.is_empty()) {
                None => self.taken_over(&stream).unwrap_or(latest),
                Some(places) => match asked(places, stream.name())
                    .and_then(|place| place.resolve(&stream, server))
                {
                    Ok(start) if start.gap.is_none() => start,
                    Ok(start) => {
                        lost = Some("changes behind this place are no longer kept".to_owned());
                        start
                    }
                    Err(finding) => {
                        lost = Some(finding.message);
                        latest
                    }
                },
            };
            feeds.push(Feed::new(stream, start));
        }
        (feeds, lost)
    }

    fn taken_over(&self, stream: &Stream) -> Option<Start> {
        let feed = self.before?.feeds.iter().find(|feed| feed.name() == stream.name())?;
        Some(Start { after: feed.after(), gap: None })
    }
}

/// The place in a stream; one that is not named is newer than the place, so all of it is.
fn asked(places: &str, stream: &str) -> Result<Place, Finding> {
    let mut named = places.split(',').filter_map(|place| place.rsplit_once('='));
    match named.find(|(name, _)| *name == stream) {
        Some((_, cursor)) => Place::read(cursor, "resume"),
        None if !places.contains('=') => Place::read(places, "resume"),
        None => Ok(Place::Earliest),
    }
}
