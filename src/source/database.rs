//! The SQL side: what the catalog says, and what a stream needs there.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, CopyOutStream, Row};

use super::entry::{self, Place};
use super::fault::Fault;
use super::handover;
use super::login::{Purpose, Session};
use super::types::ArrayType;
use super::url::Url;
use crate::model::Lsn;

/// The oldest server that walmill is made for: its slots have a `wal_status`, and it publishes
/// partitioned tables.
pub(super) const OLDEST: i32 = 13;
/// The first server version that ends sessions for being idle.
const IDLE_TIMEOUT: i32 = 14;

/// What the server says of its log.
pub(super) struct Look {
    /// Its end: what is flushed, or on a standby replayed.
    pub(super) end: Option<Lsn>,
    /// Bytes kept for the slot; `None` where it has none.
    pub(super) retained: Option<u64>,
    /// Bytes until the slot may be invalidated; `None` for no limit.
    pub(super) safe: Option<u64>,
}

/// A connection for queries.
pub(super) struct Database {
    client: Client,
    url: Url,
    /// The server's major version.
    version: i32,
}

impl Database {
    /// Logs in at the server where another connection of ours is, and makes sure that it can do
    /// what walmill needs.
    pub(super) async fn beside(url: &Url, place: &Place) -> Result<Self, Fault> {
        let session = entry::enter_beside(url, Purpose::Queries, place).await?;
        let database = Self::of(session, url).await?;
        database.check_server().await?;
        Ok(database)
    }

    /// A session as it is, whatever the server can do.
    pub(super) async fn of(session: Session, url: &Url) -> Result<Self, Fault> {
        let version = i32::try_from(session.major_version()).unwrap_or_default();
        let connected = handover::client(session, url.user()).await;
        let (client, connection) =
            connected.map_err(|error| Fault::query("log in", &error, url))?;
        tokio::spawn(async move {
            // Whoever asks next learns of it, too.
            if let Err(error) = connection.await {
                tracing::debug!("SQL connection: {error}");
            }
        });
        Ok(Self { client, url: url.clone(), version })
    }

    async fn check_server(&self) -> Result<(), Fault> {
        let query = "SELECT current_setting('wal_level')";
        let row = self.row("look at the server's settings", query, &[]).await?;
        let (version, wal_level): (i32, String) = (self.version, row.get(0));
        if version < OLDEST {
            return Err(Fault::person(
                format!("the server is PostgreSQL {version}"),
                format!("use PostgreSQL {OLDEST} or later"),
            ));
        }
        if wal_level != "logical" {
            return Err(Fault::person(
                format!("the server's wal_level is `{wal_level}`, and walmill needs `logical`"),
                "run `ALTER SYSTEM SET wal_level = logical` and restart the server (on RDS: set \
                 `rds.logical_replication = 1`)",
            ));
        }
        if version >= IDLE_TIMEOUT {
            self.run("pin the session's settings", "SET idle_session_timeout TO 0").await?;
        }
        Ok(())
    }

    /// The server's major version.
    pub(super) fn version(&self) -> i32 {
        self.version
    }

    /// Who we are there.
    pub(super) fn user(&self) -> &str {
        self.url.user()
    }

    /// The columns of a table's primary key, as they are called now.
    pub(super) async fn primary_key(&self, table: u32) -> Result<Vec<String>, Fault> {
        let query = "SELECT a.attname::text FROM pg_index i \
                     JOIN pg_attribute a ON a.attrelid = i.indrelid \
                     AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) \
                     WHERE i.indrelid = $1 AND i.indisprimary";
        let rows = self.rows("look up a primary key", query, &[&table]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The array that a type is, or that its domain stands on; `None` for any other type, and for
    /// one that is gone.
    pub(super) async fn array(&self, of: u32) -> Result<Option<ArrayType>, Fault> {
        let query = "WITH RECURSIVE base AS ( \
                         SELECT oid, typtype, typbasetype, typelem, typdelim \
                         FROM pg_type WHERE oid = $1 \
                         UNION ALL \
                         SELECT t.oid, t.typtype, t.typbasetype, t.typelem, t.typdelim \
                         FROM base b JOIN pg_type t ON t.oid = b.typbasetype \
                         WHERE b.typtype = 'd'), \
                     element AS ( \
                         SELECT e.oid, e.typtype, e.typbasetype, n.nspname, e.typname, b.typdelim \
                         FROM base b \
                         JOIN pg_type e ON e.oid = b.typelem AND e.typarray = b.oid \
                         JOIN pg_namespace n ON n.oid = e.typnamespace \
                         UNION ALL \
                         SELECT t.oid, t.typtype, t.typbasetype, e.nspname, e.typname, e.typdelim \
                         FROM element e JOIN pg_type t ON t.oid = e.typbasetype \
                         WHERE e.typtype = 'd') \
                     SELECT nspname::text, typname::text, typdelim, oid \
                     FROM element WHERE typtype <> 'd'";
        let rows = self.rows("look up a type", query, &[&of]).await?;
        Ok(rows.first().map(|row| ArrayType {
            schema: row.get(0),
            name: row.get(1),
            delimiter: row.get::<_, i8>(2).cast_unsigned(),
            element: row.get(3),
        }))
    }

    /// Where the server's log ends, and what it keeps for the slot.
    pub(super) async fn look(&self, slot: &str) -> Result<Look, Fault> {
        let query = "SELECT end_lsn::text, pg_wal_lsn_diff(end_lsn, restart_lsn)::int8, \
                     safe_wal_size FROM (SELECT CASE WHEN pg_is_in_recovery() \
                     THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END) e (end_lsn) \
                     LEFT JOIN pg_replication_slots ON slot_name = $1";
        let row = self.row("ask for the log's end", query, &[&slot]).await?;
        let (end, retained, safe): (Option<String>, Option<i64>, Option<i64>) =
            (row.get(0), row.get(1), row.get(2));
        let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
        Ok(Look {
            end: end.and_then(|lsn| lsn.parse().ok()),
            retained: retained.map(bytes),
            safe: safe.map(bytes),
        })
    }

    pub(super) async fn rows(
        &self,
        doing: &str,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        self.client
            .query(query, parameters)
            .await
            .map_err(|error| Fault::query(doing, &error, &self.url))
    }

    pub(super) async fn row(
        &self,
        doing: &str,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Fault> {
        self.client
            .query_one(query, parameters)
            .await
            .map_err(|error| Fault::query(doing, &error, &self.url))
    }

    /// Rows as lines of COPY's text format, as they come.
    pub(super) async fn copy(&self, doing: &str, query: &str) -> Result<Lines, Fault> {
        let lines = self.client.copy_out(query).await;
        let lines = lines.map_err(|error| Fault::query(doing, &error, &self.url))?;
        Ok(Lines { lines: Box::pin(lines), doing: doing.into(), url: self.url.clone() })
    }

    /// Runs statements that answer nothing.
    pub(super) async fn run(&self, doing: &str, statements: &str) -> Result<(), Fault> {
        self.client
            .batch_execute(statements)
            .await
            .map_err(|error| Fault::query(doing, &error, &self.url))
    }
}

/// What COPY answers.
pub(super) struct Lines {
    lines: Pin<Box<CopyOutStream>>,
    doing: String,
    url: Url,
}

impl Lines {
    /// The next line.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let line = self.lines.next().await.transpose();
        line.map_err(|error| Fault::query(&self.doing, &error, &self.url))
    }
}
