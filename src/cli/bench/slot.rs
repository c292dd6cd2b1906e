//! The throw-away server, the slot that a case reads from, and the walsender that serves it.

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio_postgres::{Client, NoTls};

use super::process::Process;
use super::{GLANCE, PATIENCE};
use crate::cluster::{Cluster, Options};
use crate::model::Lsn;

/// The slot that a case reads from.
pub(super) const COPY: &str = "walmill_bench_case";

/// A server that does nothing by itself while others are measured, and a client of it.
pub(super) async fn server() -> anyhow::Result<(Cluster, Client)> {
    eprintln!("Starting a throw-away PostgreSQL …");
    let options = Options::default()
        .set("autovacuum", "off")
        .set("max_wal_size", "16GB")
        .set("checkpoint_timeout", "1d")
        .set("wal_sender_timeout", "0");
    let cluster = Cluster::start(&options)?;
    let (database, connection) = tokio_postgres::connect(&cluster.url(), NoTls).await?;
    tokio::spawn(connection);
    Ok((cluster, database))
}

/// From now on it keeps what is written.
pub(super) async fn make(database: &Client, name: &str) -> anyhow::Result<()> {
    let make = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
    database.execute(make, &[&name]).await?;
    Ok(())
}

/// The process that serves the case's slot, once there is one.
pub(super) async fn walsender(database: &Client, process: &mut Process) -> anyhow::Result<u32> {
    let ask = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
    let ask = database.prepare(ask).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pid: Option<i32> = database.query_one(&ask, &[&COPY]).await?.get(0);
        match pid {
            Some(pid) => return Ok(pid.unsigned_abs()),
            None if Instant::now() > deadline => bail!("it does not connect"),
            None => process.check()?,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether PostgreSQL was told that everything up to here is on disk.
pub(super) async fn is_confirmed(database: &Client, until: Lsn) -> anyhow::Result<bool> {
    let ask = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
    let place: String = database.query_one(ask, &[&COPY]).await?.get(0);
    Ok(place.parse::<Lsn>()? > until)
}

/// Once its walsender has noticed that nobody reads any more.
pub(super) async fn discard(database: &Client) -> anyhow::Result<()> {
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                WHERE slot_name = $1 AND NOT active";
    while database.query_opt(drop, &[&COPY]).await?.is_none() {
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}
