//! The server's replication slots, for a person who looks at them or makes one by hand.

use serde::Serialize;

use super::config::Config;
use super::database::Database;
use super::fault::{Fault, Report};
use super::login::Purpose;
use super::{entry, publication, slot};
use crate::model::Finding;

/// One slot, as `pg_replication_slots` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotStatus {
    /// Its name.
    pub name: String,
    /// Its output plugin; none for a physical slot.
    pub plugin: Option<String>,
    /// Its database; none for a physical slot.
    pub database: Option<String>,
    /// Whether someone reads it now.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes of the log that are kept for it.
    pub retained_bytes: Option<u64>,
    /// Up to where its reader has everything.
    pub confirmed: Option<String>,
}

/// Every slot of the server, by name.
///
/// # Errors
/// What went wrong, for a person; here and below.
pub async fn list(config: &Config) -> Result<Vec<SlotStatus>, Finding> {
    let query = "SELECT slot_name::text, plugin::text, database::text, active, wal_status, \
                 pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                 ELSE pg_current_wal_flush_lsn() END, restart_lsn)::int8, \
                 confirmed_flush_lsn::text FROM pg_replication_slots ORDER BY 1";
    let listed = async {
        let database = open(config).await?;
        database.rows("list the slots", query, &[]).await
    };
    let rows = listed.await.map_err(finding)?;
    let slot = |row: &tokio_postgres::Row| SlotStatus {
        name: row.get(0),
        plugin: row.get(1),
        database: row.get(2),
        active: row.get(3),
        wal_status: row.get(4),
        retained_bytes: row.get::<_, Option<i64>>(5).and_then(|bytes| u64::try_from(bytes).ok()),
        confirmed: row.get(6),
    };
    Ok(rows.iter().map(slot).collect())
}

/// Makes the publication and the slot of the config, where they are not there.
pub async fn create(config: &Config) -> Result<(), Finding> {
    let created = async {
        let database = open(config).await?;
        let found = slot::find(&database, config).await?;
        publication::ensure(&database, config, found.is_some(), true).await?;
        match found {
            Some(_) => Ok(()),
            None => slot::create(&database, config).await,
        }
    };
    created.await.map_err(finding)
}

/// Drops the config's slot; whether there was one.
pub async fn remove(config: &Config) -> Result<bool, Finding> {
    let removed = async {
        let database = open(config).await?;
        slot::remove(&database, config.slot.as_str()).await
    };
    removed.await.map_err(finding)
}

async fn open(config: &Config) -> Result<Database, Fault> {
    let (session, _) = entry::enter(&config.url, Purpose::Queries, 0).await?;
    Database::of(session, &config.url).await
}

fn finding(fault: Fault) -> Finding {
    match fault {
        Fault::Store(error) => Finding::error("store", "store.path", error.to_string()),
        Fault::Away(report)
        | Fault::Taken(report)
        | Fault::Person(report)
        | Fault::Lost(report)
        | Fault::Halt(report) => {
            let Report { error, remedy } = report;
            Finding::error("source", "source", error).suggest(remedy)
        }
    }
}
