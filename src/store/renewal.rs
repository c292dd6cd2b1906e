//! A person's word that the slot be made anew, kept until that is done.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Store, StoreError, from_json, to_json};
use crate::model::Lsn;

const KEY: &str = "renewal";

/// The slot is to be made anew, and what it lost is accepted as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Whether the tables' rows as they are then come into the stream, too.
    pub snapshot: bool,
    /// Whether the source has halted because of its slot. If not, a slot that turns out to work
    /// stays.
    pub lost: bool,
    /// Where the new slot begins, once it is made.
    pub point: Option<Lsn>,
}

impl Store {
    /// The renewal that is asked for and not done.
    ///
    /// # Errors
    /// See [`StoreError`], here and below.
    pub fn renewal(&self) -> Result<Option<Renewal>, StoreError> {
        let Some(json) = self.inner.meta.get(KEY)? else { return Ok(None) };
        from_json(&json, || "the order to make the slot anew".into()).map(Some)
    }

    /// Asks for a renewal, on disk when this returns.
    pub fn ask_renewal(&self, renewal: Renewal) -> Result<(), StoreError> {
        self.note_renewal(renewal)?;
        self.inner.renewals.send_modify(|asked| *asked += 1);
        Ok(())
    }

    /// Says how far it is, on disk when this returns.
    pub fn note_renewal(&self, renewal: Renewal) -> Result<(), StoreError> {
        self.inner.meta.insert(KEY, to_json(&renewal)?)?;
        self.inner.disk.sync()?;
        Ok(())
    }

    /// It is done, or not to be done, and will not be tried again when this returns.
    pub fn end_renewal(&self) -> Result<(), StoreError> {
        self.inner.meta.remove(KEY)?;
        self.inner.disk.sync()?;
        Ok(())
    }

    /// Changes when a renewal is asked for.
    #[must_use]
    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.inner.renewals.subscribe()
    }
}
