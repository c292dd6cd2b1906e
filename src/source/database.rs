//! The SQL side: what the catalog says, and what a stream needs there.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::entry::{self, Place};
use super::fault::Fault;
use super::handover;
use super::login::{Purpose, Session};
use super::url::Url;
use crate::model::Lsn;

/// The oldest server that walmill is made for: its slots have a `wal_status`, and it publishes
/// partitioned tables.
pub(super) const OLDEST: i32 = 13;
/// The first server version that ends sessions for being idle.
const IDLE_TIMEOUT: i32 = 14;

/// A connection for queries.
pub(super) struct Database {
    client: Client,
    url: Url,
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
        let connected = handover::client(session, url.user()).await;
        let (client, connection) =
            connected.map_err(|error| Fault::query("log in", &error, url))?;
        tokio::spawn(async move {
            // Whoever asks next learns of it, too.
            if let Err(error) = connection.await {
                tracing::debug!("SQL connection: {error}");
            }
        });
        Ok(Self { client, url: url.clone() })
    }

    async fn check_server(&self) -> Result<(), Fault> {
        let query = "SELECT current_setting('server_version_num')::int / 10000, \
                     current_setting('wal_level')";
        let row = self.row("look at the server's settings", query, &[]).await?;
        let (version, wal_level): (i32, String) = (row.get(0), row.get(1));
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

    /// The columns of a table's primary key, as they are called now.
    pub(super) async fn primary_key(&self, table: u32) -> Result<Vec<String>, Fault> {
        let query = "SELECT a.attname::text FROM pg_index i \
                     JOIN pg_attribute a ON a.attrelid = i.indrelid \
                     AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) \
                     WHERE i.indrelid = $1 AND i.indisprimary";
        let rows = self.rows("look up a primary key", query, &[&table]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// End of the server's log; `None` on a standby.
    pub(super) async fn log_end(&self) -> Result<Option<Lsn>, Fault> {
        let query = "SELECT CASE WHEN NOT pg_is_in_recovery() \
                     THEN pg_current_wal_flush_lsn()::text END";
        let row = self.row("ask for the log's end", query, &[]).await?;
        let lsn: Option<String> = row.get(0);
        Ok(lsn.and_then(|lsn| lsn.parse().ok()))
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

    /// Runs statements that answer nothing.
    pub(super) async fn run(&self, doing: &str, statements: &str) -> Result<(), Fault> {
        self.client
            .batch_execute(statements)
            .await
            .map_err(|error| Fault::query(doing, &error, &self.url))
    }
}
