//! Where a channel begins to read: with what comes next, where the same topic was on this
//! connection, or where the client says that it was.

use super::channel::Channel;
use crate::model::Finding;
use crate::server::Server;
use crate::server::place::{Place, Start};
use crate::store::stream::Stream;

/// Where a channel begins to read.
pub(super) struct Places<'a> {
    /// The place that it asked to go on from, as [`Channel::place`] said it.
    resume: Option<&'a str>,
    /// The same topic on this connection, which it takes over from.
    before: Option<Channel>,
    server: &'a Server,
    /// What can't be had of what was asked for.
    lost: Option<String>,
}

impl<'a> Places<'a> {
    pub(super) fn new(
        resume: Option<&'a str>,
        mut before: Option<Channel>,
        server: &'a Server,
    ) -> Self {
        before.as_mut().map(|before| before.reading.settle());
        Self { resume: resume.filter(|places| !places.is_empty()), before, server, lost: None }
    }

    /// Where it begins in a stream.
    pub(super) fn start(&mut self, stream: &Stream) -> Start {
        let latest = Start { after: *stream.head().borrow(), gap: None };
        let Some(places) = self.resume else { return self.taken_over(stream).unwrap_or(latest) };
        match asked(places, stream.name()).and_then(|place| place.resolve(stream, self.server)) {
            Ok(start) => {
                if start.gap.is_some() {
                    self.lost = Some("changes behind this place are no longer kept".to_owned());
                }
                start
            }
            Err(finding) => {
                self.lost = Some(finding.message);
                latest
            }
        }
    }

    /// What can't be had of what was asked for.
    pub(super) fn lost(self) -> Option<String> {
        self.lost
    }

    fn taken_over(&self, stream: &Stream) -> Option<Start> {
        let after = self.before.as_ref()?.reading.place_in_known(stream)?;
        Some(Start { after, gap: None })
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
