//! Where a reader asks to begin, and where it really can.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::http::StatusCode;
use serde::Serialize;
use tracing::error;

use super::Server;
use super::auth::{Access, Reader, Wishes};
use super::problem::Problem;
use crate::model::{Cursor, CursorError, EventId, Finding, Lsn, Offset, clock};
use crate::store::stream::{Since, Stream};

/// Where a reader asks to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// With the oldest event there is.
    Earliest,
    /// With the next event to come.
    Latest,
    /// Behind a cursor.
    Cursor(Cursor),
    /// Behind an event, by its id: for protocols whose events come without a cursor.
    Event(Offset),
    /// With the first event that committed at this time or later, microseconds since 1970-01-01
    /// UTC.
    Time(i64),
}

impl FromStr for Place {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            text => match text.parse() {
                Ok(EventId(offset)) => Ok(Self::Event(offset)),
                Err(_) => match clock::parse(text) {
                    Some(time) => Ok(Self::Time(time)),
                    None => text.parse().map(Self::Cursor),
                },
            },
        }
    }
}

impl Place {
    /// Reads a place that came from outside; `path` is where it came from.
    pub(super) fn read(text: &str, path: &str) -> Result<Self, Finding> {
        text.parse().map_err(|error: CursorError| {
            Finding::error("bad-cursor", path, format!("this is {error}")).suggest(
                "a place is `earliest`, `latest`, a cursor, an event's id, or a time as in \
                 2026-11-25T09:30:00Z; in an address, + is written %2B",
            )
        })
    }

    /// Where reading this stream really begins, without keeping anyone waiting for the disk.
    pub(super) async fn begin(
        self,
        stream: &Arc<Stream>,
        server: &Arc<Server>,
    ) -> Result<Start, Finding> {
        if !matches!(self, Self::Time(_)) {
            return self.resolve(stream, server);
        }
        let (stream, server) = (Arc::clone(stream), Arc::clone(server));
        let search = tokio::task::spawn_blocking(move || self.resolve(&stream, &server));
        search.await.unwrap_or_else(|_| Err(unreadable()))
    }

    /// Where reading this stream really begins.
    pub(super) fn resolve(self, stream: &Stream, server: &Server) -> Result<Start, Finding> {
        let purged = stream.purged();
        let after = match self {
            Self::Earliest => return Ok(Start { after: purged, gap: None }),
            Self::Latest => return Ok(Start { after: *stream.head().borrow(), gap: None }),
            // Nothing can be said of what lies between a place in another store and this one.
            Self::Cursor(cursor) if cursor.epoch != server.state.store.epoch() => {
                let gap = Gap { purged, reason: Reason::OtherStore };
                return Ok(Start { after: purged, gap: Some(gap) });
            }
            Self::Cursor(cursor) => cursor.offset,
            Self::Event(offset) => offset,
            Self::Time(time) => return since(stream, time),
        };
        if after < purged {
            let gap = Gap { purged, reason: Reason::Retention };
            return Ok(Start { after: purged, gap: Some(gap) });
        }
        server.refuse_unreached(stream, after)?;
        Ok(Start { after, gap: None })
    }
}

fn since(stream: &Stream, time: i64) -> Result<Start, Finding> {
    let found = stream.since(time).map_err(|error| {
        error!("read for a client: {:#}", anyhow::Error::new(error));
        unreadable()
    });
    Ok(match found? {
        Since::Kept(after) => Start { after, gap: None },
        Since::Removed(purged) => {
            let gap = Gap { purged, reason: Reason::Retention };
            Start { after: purged, gap: Some(gap) }
        }
    })
}

fn unreadable() -> Finding {
    Finding::error("store-failed", "", "the store could not be read")
        .suggest("see walmill's log; it ends by itself when its store fails")
}

impl Server {
    /// A place before the log's end may well be ahead of a stream: after a power cut its tail is
    /// made again, and a client that saw it waits for what follows. A place behind the log's end
    /// was never given to anyone.
    fn refuse_unreached(&self, stream: &Stream, after: Offset) -> Result<(), Finding> {
        let Some(end) = self.log_end(stream) else { return Ok(()) };
        if after.commit <= end {
            return Ok(());
        }
        let message = format!(
            "this cursor lies at {}, and PostgreSQL's log ends at {end}: it is from another \
             database, or from before this one was restored",
            after.commit
        );
        Err(Finding::error("cursor-ahead", stream.name(), message)
            .suggest("begin again from `earliest` or `latest`"))
    }

    /// The furthest position known of PostgreSQL's log; `None` until the source has heard of it.
    fn log_end(&self, stream: &Stream) -> Option<Lsn> {
        let source = self.state.source.borrow();
        (source.server_lsn > Lsn::ZERO).then(|| {
            let head = stream.head().borrow().commit;
            source.server_lsn.max(source.received_lsn).max(head)
        })
    }

    /// The cursor that stands for an offset.
    pub(super) fn cursor(&self, offset: Offset) -> Cursor {
        Cursor { epoch: self.state.store.epoch(), offset }
    }

    /// The stream of that name and what the reader may see of it, or an error that lists the ones
    /// that there are for this reader.
    pub(super) async fn open(
        &self,
        name: &str,
        wishes: &Wishes,
        reader: &Reader,
    ) -> Result<(Arc<Stream>, Access), Finding> {
        // Asked first, so that nobody can tell a stream that is not theirs from one that is not.
        if !reader.may_list(name, &self.config) {
            return Err(reader.refusal(name));
        }
        let stream = self.stream(name, reader)?;
        let access = reader.access_for(name, wishes, self).await?;
        Ok((stream, access))
    }

    fn stream(&self, name: &str, reader: &Reader) -> Result<Arc<Stream>, Finding> {
        self.state.store.stream(name).ok_or_else(|| {
            let streams = self.state.store.streams();
            let theirs =
                streams.iter().filter(|stream| reader.may_list(stream.name(), &self.config));
            let names: Vec<&str> = theirs.take(50).map(|stream| stream.name()).collect();
            let suggestion = match names.as_slice() {
                [] => "there is no stream yet; a pipeline in the config makes one".to_owned(),
                names => format!("the streams are: {}", names.join(", ")),
            };
            Finding::error("unknown-stream", name, format!("there is no stream `{name}`"))
                .suggest(suggestion)
        })
    }
}

/// Where reading begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// Behind this place.
    pub(super) after: Offset,
    /// What is missing between the place asked for and this one.
    pub(super) gap: Option<Gap>,
}

/// Events between a reader's place and the next one it gets are not there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    /// Reading goes on behind this place.
    pub(super) purged: Offset,
    /// Why they are not there.
    pub(super) reason: Reason,
}

/// Why events are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reason {
    /// Retention removed them.
    Retention,
    /// The cursor is from another store, so what was missed is unknown.
    OtherStore,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retention => "retention removed events behind the place asked for",
            Self::OtherStore => "the cursor is from another store, so what was missed is unknown",
        })
    }
}

/// A gap as clients get it.
#[derive(Debug, Serialize)]
pub(super) struct GapReport<'a> {
    stream: &'a str,
    /// Reading goes on behind this cursor.
    purged: String,
    reason: Reason,
    message: String,
}

impl Gap {
    pub(super) fn report<'a>(self, stream: &'a str, server: &Server) -> GapReport<'a> {
        let purged = server.cursor(self.purged).to_string();
        GapReport { stream, purged, reason: self.reason, message: self.reason.to_string() }
    }
}

impl From<Finding> for Problem {
    fn from(finding: Finding) -> Self {
        let status = match finding.code {
            "unknown-stream" | "unknown-part" => StatusCode::NOT_FOUND,
            "cursor-ahead" => StatusCode::CONFLICT,
            "unauthorized" => StatusCode::UNAUTHORIZED,
            "forbidden" => StatusCode::FORBIDDEN,
            "store-failed" => StatusCode::INTERNAL_SERVER_ERROR,
            "undecided" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Epoch;

    #[test]
    fn a_place_is_a_word_a_cursor_or_an_event_id() {
        let offset = Offset { commit: Lsn(0x1_0000_0002), ordinal: 3, emit: 4 };
        let cursor = Cursor { epoch: Epoch(9), offset };
        assert_eq!("earliest".parse(), Ok(Place::Earliest));
        assert_eq!("latest".parse(), Ok(Place::Latest));
        assert_eq!("1/2/3/4".parse(), Ok(Place::Event(offset)));
        assert_eq!(cursor.to_string().parse(), Ok(Place::Cursor(cursor)));
        assert_eq!("2026-11-25T09:30:00Z".parse(), Ok(Place::Time(1_795_599_000_000_000)));
        for text in [
            "",
            "Latest",
            "2026-11-25T09:30:00",
            "1/2",
            "0",
            "../../etc",
            "1/2/3/4/5",
            "\u{0}",
            "AAAA",
        ] {
            assert_eq!(text.parse::<Place>(), Err(CursorError), "{text:?}");
        }
    }
}
