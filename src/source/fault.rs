//! What goes wrong between us and PostgreSQL, and what a person can do about it.

use std::io;
use std::time::Duration;

use super::url::Url;
use super::wire::ServerError;
use crate::store::StoreError;

/// Why there is no stream. Each variant is what the source does next.
#[derive(Debug)]
pub(super) enum Fault {
    /// Tries again, soon and then less and less often.
    Away(Report),
    /// Another reader has the slot: waits for its turn, as a standby does.
    Taken(Report),
    /// Tries again, seldom: somebody has to do something first.
    Person(Report),
    /// The slot cannot give what comes next: going on would lose changes, until a person gives
    /// them up.
    Lost(Report),
    /// Going on would lose or invent changes.
    Halt(Report),
    /// Ends: what is on disk is unknown until it is opened again.
    Store(StoreError),
}

/// For the one who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) error: String,
    pub(super) remedy: String,
}

/// What a fault that mends itself asks of a person.
const NOTHING: &str = "nothing, if the server is just starting or the network is down for a moment";

impl Fault {
    pub(super) fn away(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Away(Report { error: error.into(), remedy: remedy.into() })
    }

    pub(super) fn person(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Person(Report { error: error.into(), remedy: remedy.into() })
    }

    pub(super) fn halt(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Halt(Report { error: error.into(), remedy: remedy.into() })
    }

    pub(super) fn lost(error: impl Into<String>, slot: &str, cure: &str) -> Self {
        Self::Lost(Report { error: error.into(), remedy: format!("{cure}{}", start_anew(slot)) })
    }

    /// What there is to say of it, unless the store failed.
    pub(super) fn report(self) -> Result<Report, StoreError> {
        match self {
            Self::Away(report)
            | Self::Taken(report)
            | Self::Person(report)
            | Self::Lost(report)
            | Self::Halt(report) => Ok(report),
            Self::Store(error) => Err(error),
        }
    }

    /// The connection broke, or did not come about.
    pub(super) fn broken(doing: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Self::away(format!("{doing}: the server closed the connection"), NOTHING)
            }
            _ => Self::away(format!("{doing}: {error}"), NOTHING),
        }
    }

    /// The server did not answer in time.
    pub(super) fn silent(doing: &str, limit: Duration) -> Self {
        let error = format!("{doing}: no answer within {} s", limit.as_secs());
        Self::away(error, "check that host and port are right and no firewall is between")
    }

    /// The server refused, at any time but while it streams.
    pub(super) fn refused(doing: &str, server: &ServerError, url: &Url) -> Self {
        let error = format!("{doing}: {server}");
        let (user, database) = (url.user(), url.database());
        match server.code.as_str() {
            "28P01" => {
                Self::person(error, format!("check the password of `{user}` in `source.url`"))
            }
            "28000" => Self::person(
                error,
                format!(
                    "let `{user}` log in (`ALTER ROLE {} LOGIN REPLICATION`) and allow its \
                     connections to `{database}` in pg_hba.conf",
                    quote(user)
                ),
            ),
            "3D000" => Self::person(
                error,
                format!(
                    "create the database, or name another one than `{database}` in `source.url`"
                ),
            ),
            "42501" => Self::person(
                error,
                format!(
                    "give the role what it needs, as a superuser: `ALTER ROLE {} REPLICATION` (on \
                     RDS: `GRANT rds_replication TO {}`)",
                    quote(user),
                    quote(user)
                ),
            ),
            "08P01" | "42704" if server.message.contains("startup parameter") => Self::person(
                error,
                "connect to PostgreSQL itself: a connection pooler does not pass replication on",
            ),
            "25006" => Self::person(error, "connect to the primary server: this is a standby"),
            "53300" => Self::away(
                error,
                "raise `max_connections` or `max_wal_senders`, or end connections that nobody uses",
            ),
            "53400" => Self::person(
                error,
                "raise `max_replication_slots`, or drop a slot that is not used any more: \
                 `SELECT slot_name, active FROM pg_replication_slots`",
            ),
            "55006" => Self::Taken(Report {
                error,
                remedy: "nothing, if this is a standby: it takes over when the slot is freed; \
                         otherwise give this walmill a slot of its own (`source.slot`)"
                    .into(),
            }),
            "57P01" | "57P02" | "57P03" => Self::away(error, NOTHING),
            _ => Self::away(error, "see the server's log"),
        }
    }

    /// The server refused to stream, or stopped.
    pub(super) fn stopped(server: &ServerError, url: &Url, slot: &str) -> Self {
        let error = format!("stream from slot `{slot}`: {server}");
        match server.code.as_str() {
            // The next try looks at the slot, and says what is lost.
            "55000" | "58P01" => Self::away(error, start_anew(slot)),
            "42704" if server.message.contains("publication") => Self::lost(
                error,
                slot,
                "the slot holds changes from before the publication was made, which PostgreSQL \
                 cannot decode; ",
            ),
            "42704" => Self::lost(error, slot, ""),
            "22021" => Self::person(
                error,
                "a value is no text in the server's encoding: correct the row, or skip it with \
                 pg_replication_slot_advance",
            ),
            "XX000" if server.message.contains("memory alloc") => Self::person(
                error,
                "a row is larger than PostgreSQL can send: skip it with \
                 pg_replication_slot_advance",
            ),
            _ => Self::refused("stream", server, url),
        }
    }

    /// A query on the SQL connection failed.
    pub(super) fn query(doing: &str, error: &tokio_postgres::Error, url: &Url) -> Self {
        match error.as_db_error() {
            Some(db) => {
                let server =
                    ServerError { code: db.code().code().into(), message: db.message().into() };
                Self::refused(doing, &server, url)
            }
            None => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                Self::away(format!("{doing}: {}", cause.unwrap_or(error.to_string())), NOTHING)
            }
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What is left to do when the slot's changes are gone.
pub(super) fn start_anew(slot: &str) -> String {
    format!(
        "go on from a new slot `{slot}`, behind a gap that every reader is told of: `walmill slot \
         recreate --snapshot` (without `--snapshot` the tables' rows are not brought in again)"
    )
}

/// An identifier as SQL wants it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
