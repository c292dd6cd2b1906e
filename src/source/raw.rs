//! The least that can be done with a slot: read its stream and throw it away. What a benchmark
//! measures everything else against.

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt as _;

use super::connection::Connection;
use super::options::Transactions;
use super::{Config, Fault};
use crate::model::Lsn;

/// Reads a slot's stream until a change behind `until` has come, and gives the bytes of its
/// messages. Confirms nothing, so the server gives up on it after `wal_sender_timeout`.
///
/// # Errors
/// What went wrong, for a person.
pub async fn read(config: &Config, until: Lsn) -> Result<u64, String> {
    stream(config, until).await.map_err(|fault| match fault {
        Fault::Store(error) => error.to_string(),
        Fault::Away(report)
        | Fault::Taken(report)
        | Fault::Person(report)
        | Fault::Lost(report)
        | Fault::Halt(report) => report.error,
    })
}

async fn stream(config: &Config, until: Lsn) -> Result<u64, Fault> {
    let broken = |error| Fault::broken("receive", &error);
    let connection = Connection::open(config, 0).await?;
    let (mut wire, mut writer) = connection.stream(Lsn::ZERO, Transactions::AsConfigured).await?;
    let mut bytes = 0;
    loop {
        wire.fill().await.map_err(broken)?;
        while let Some((tag, body)) = wire.take().map_err(broken)? {
            let (b'd', Some((b'w', data))) = (tag, body.split_first()) else { continue };
            bytes += data.len().saturating_sub(24) as u64;
            let start = data.first_chunk().map(|start| Lsn(u64::from_be_bytes(*start)));
            if start > Some(until) {
                let mut goodbye = BytesMut::new();
                frontend::terminate(&mut goodbye);
                let _ = writer.write_all(&goodbye).await;
                return Ok(bytes);
            }
        }
    }
}
