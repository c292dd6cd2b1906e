//! How far the journal has got in PostgreSQL's log. It is written in the same batch as the blocks
//! that lead up to it, so it is never ahead of them.

use fjall::{Keyspace, OwnedWriteBatch};

use super::StoreError;
use crate::model::Lsn;

const KEY: &str = "position";

pub(super) fn read(meta: &Keyspace) -> Result<Lsn, StoreError> {
    let Some(bytes) = meta.get(KEY)? else { return Ok(Lsn::ZERO) };
    let bytes = <[u8; 8]>::try_from(&*bytes)
        .map_err(|_| StoreError::Damaged { what: "journal: its position".into() })?;
    Ok(Lsn(u64::from_be_bytes(bytes)))
}

pub(super) fn write(batch: &mut OwnedWriteBatch, meta: &Keyspace, position: Lsn) {
    batch.insert(meta, KEY, position.0.to_be_bytes());
}
