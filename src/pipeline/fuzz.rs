//! Doors for the fuzz targets `value` and `block` (`tests/fuzz`): a value as JSON, and the
//! journal's blocks as events, without a journal.

use super::changes::Changes;
use super::encode::Encoder;
use super::rows::{Batch, Tables};
use super::schema::{Gate, OnSchemaChange};
use super::{ChangesError, Limits, json};
use crate::model::event::Events;
use crate::model::{EventsBuilder, Kind, Offset};
use crate::store::Store;
use crate::store::journal::Block;

/// A value in PostgreSQL's text form as JSON.
#[must_use]
pub fn value(kind: Kind, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    json::value(&mut out, kind, text);
    out
}

/// The events of a block, as a pipeline makes them that takes every table and message.
///
/// # Errors
/// What is no block of this store's journal.
pub fn events(store: &Store, block: Block) -> Result<Events, ChangesError> {
    let (tables, messages) = ("*.*".parse(), "*".parse());
    let tables: Vec<_> = tables.into_iter().collect();
    let patterns = (tables.into(), messages.into_iter().collect());
    let gate = Gate::open(store.clone(), "fuzz".into(), OnSchemaChange::Pass)?;
    let mut changes = Changes::new(store.clone(), patterns.0, patterns.1, gate, Offset::START);
    let (mut batch, mut tables) = (Batch::behind(Offset::START), Tables::default());
    changes.read_block(block, &mut batch, &mut tables, &Limits::default())?;
    let mut encoder = Encoder::new("/fuzz/1/1", store.veil().clone());
    let mut out = EventsBuilder::default();
    for row in &batch.rows {
        encoder.event(&mut out, &batch, &tables, row, "fuzz", false);
    }
    Ok(out.finish())
}
