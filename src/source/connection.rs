//! The replication connection: who the server is, and the start of the stream (PostgreSQL docs,
//! "Streaming Replication Protocol").

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::config::Config;
use super::entry::{self, Place};
use super::fault::{Fault, quote};
use super::login::{Purpose, Session};
use super::net::Socket;
use super::options::{self, Transactions};
use super::wire::{Wire, broken, server_error};
use crate::model::Lsn;

/// For the server to answer anything but the start of the stream.
const ANSWER: Duration = Duration::from_secs(30);
/// The first server version that ends sessions for being idle.
const WITH_IDLE_TIMEOUT: u32 = 14;
/// The first server version that ends transactions for being long.
const WITH_TRANSACTION_TIMEOUT: u32 = 17;

/// A connection that can stream, and does not yet.
pub(super) struct Connection<'a> {
    session: Session,
    place: Place,
    config: &'a Config,
}

/// What IDENTIFY_SYSTEM says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) system_identifier: String,
    pub(super) timeline: u32,
    /// End of the log that is on the server's disk.
    pub(super) flushed: Lsn,
}

/// A new slot, and what was committed before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    /// Where the slot begins.
    pub(super) point: Lsn,
    /// Name of the snapshot, which lasts until the next word on this connection.
    pub(super) snapshot: String,
}

/// The two halves of a running stream.
pub(super) type Halves = (Wire<ReadHalf<Box<dyn Socket>>>, WriteHalf<Box<dyn Socket>>);

impl<'a> Connection<'a> {
    /// Connects and logs in.
    pub(super) async fn open(config: &'a Config, attempt: usize) -> Result<Self, Fault> {
        let (session, place) = entry::enter(&config.url, Purpose::Replication, attempt).await?;
        let mut connection = Self { session, place, config };
        if connection.major_version() >= WITH_IDLE_TIMEOUT {
            connection.ask("SET idle_session_timeout TO 0").await?;
        }
        if connection.session.parameters.get("server_encoding").is_some_and(|e| e == "SQL_ASCII") {
            // Such a server cannot convert what it has; it would stop at the first odd byte.
            connection.ask("SET client_encoding TO 'SQL_ASCII'").await?;
        }
        Ok(connection)
    }

    /// Where this server is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// `server_version`, as the server writes it.
    pub(super) fn server_version(&self) -> &str {
        self.session.parameters.get("server_version").map_or("", String::as_str)
    }

    /// The first number of the server's version.
    pub(super) fn major_version(&self) -> u32 {
        self.session.major_version()
    }

    pub(super) async fn identify(&mut self) -> Result<Identity, Fault> {
        let row = self.ask("IDENTIFY_SYSTEM").await?;
        let field = |index: usize| row.get(index).map_or("", String::as_str);
        match (field(1).parse(), field(2).parse()) {
            (Ok(timeline), Ok(flushed)) => {
                Ok(Identity { system_identifier: field(0).into(), timeline, flushed })
            }
            _ => Err(Fault::broken("identify the server", &broken("IDENTIFY_SYSTEM"))),
        }
    }

    /// Where the timelines before this one ended.
    pub(super) async fn history(&mut self, timeline: u32) -> Result<String, Fault> {
        let row = self.ask(&format!("TIMELINE_HISTORY {timeline}")).await?;
        Ok(row.into_iter().nth(1).unwrap_or_default())
    }

    /// How long the server waits for a word of ours; `None`: for ever.
    pub(super) async fn wal_sender_timeout(&mut self) -> Result<Option<Duration>, Fault> {
        let row = self.ask("SHOW wal_sender_timeout").await?;
        Ok(row.first().and_then(|value| guc_duration(value)))
    }

    /// Starts the stream behind `from`.
    pub(super) async fn stream(
        mut self,
        from: Lsn,
        transactions: Transactions,
    ) -> Result<Halves, Fault> {
        let slot = &self.config.slot;
        let options = options::stream(self.config, self.major_version(), transactions);
        let command =
            format!("START_REPLICATION SLOT {} LOGICAL {from} ({options})", quote(slot.as_str()),);
        self.query(&command).await.map_err(|error| Fault::broken("start the stream", &error))?;
        loop {
            let next = timeout(ANSWER, self.session.wire.next()).await;
            let (tag, body) = next
                .map_err(|_| Fault::silent("start the stream", ANSWER))?
                .map_err(|error| Fault::broken("start the stream", &error))?;
            match tag {
                b'W' => return Ok(self.session.wire.split(tokio::io::split)),
                b'E' => {
                    let refusal = server_error(&body);
                    return Err(Fault::stopped(&refusal, &self.config.url, slot.as_str()));
                }
                _ => {}
            }
        }
    }

    /// Creates the slot and exports its snapshot. PostgreSQL waits here for every transaction that
    /// is open now. The inner error: the server said no, so there is no slot of ours.
    pub(super) async fn create_slot(&mut self) -> Result<Result<Made, Fault>, Fault> {
        if self.major_version() >= WITH_TRANSACTION_TIMEOUT {
            self.ask("SET transaction_timeout TO 0").await?;
        }
        let export = options::exporting_slot(self.config, self.major_version());
        let slot = quote(self.config.slot.as_str());
        let query = format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput {export}");
        let doing = "create the slot";
        let row = match self.session.try_ask(doing, &query).await? {
            Ok(row) => row,
            Err(refusal) => return Ok(Err(Fault::refused(doing, &refusal, &self.config.url))),
        };
        match (row.get(1).map(|point| point.parse()), row.get(2)) {
            (Some(Ok(point)), Some(snapshot)) => Ok(Ok(Made { point, snapshot: snapshot.clone() })),
            _ => Err(Fault::broken(doing, &broken("CREATE_REPLICATION_SLOT"))),
        }
    }

    async fn query(&mut self, query: &str) -> io::Result<()> {
        let mut message = BytesMut::new();
        frontend::query(query, &mut message)?;
        self.session.wire.socket.write_all(&message).await?;
        self.session.wire.socket.flush().await
    }

    /// The first row of the answer.
    async fn ask(&mut self, query: &str) -> Result<Vec<String>, Fault> {
        let doing = query.to_lowercase();
        let answer = timeout(ANSWER, self.session.ask(&doing, query, &self.config.url)).await;
        answer.map_err(|_| Fault::silent(&doing, ANSWER))?
    }
}

/// A setting with a unit: `1min`, `30s`, `2500ms`; `None` for 0.
fn guc_duration(value: &str) -> Option<Duration> {
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let number: u64 = value[..end].parse().ok().filter(|number| *number > 0)?;
    let millis = match value[end..].trim() {
        "d" => 86_400_000,
        "h" => 3_600_000,
        "min" => 60_000,
        "s" => 1_000,
        _ => 1,
    };
    Some(Duration::from_millis(number.saturating_mul(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_with_their_units() {
        assert_eq!(guc_duration("1min"), Some(Duration::from_secs(60)));
        assert_eq!(guc_duration("3s"), Some(Duration::from_secs(3)));
        assert_eq!(guc_duration("2500ms"), Some(Duration::from_millis(2500)));
        assert_eq!(guc_duration("0"), None);
    }
}
