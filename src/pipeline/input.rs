//! A pipeline's input as a person or a plugin's author reads it: each change as the first plugin
//! is given it, in the form of golden cases. Nothing is kept of who reads, and nothing is held up.

use super::changes::{Changes, ChangesError};
use super::rows::{Batch, Row, Span, Table, Tables, Value};
use super::schema::{Gate, OnSchemaChange};
use super::stage::{describe, is_of_table};
use super::{Config, Limits, tagged};
use crate::model::input::Page;
use crate::model::{EventId, Offset};
use crate::plugin::golden::Taken;
use crate::store::Store;

/// Bytes of the journal that are looked through for one page, however few of them are wanted.
const FARTHEST: usize = 32 << 20;
/// The same in one step.
const STEP: usize = 1 << 20;

/// The changes behind a place, `most` of them or a few more: those of one TRUNCATE stay together.
///
/// # Errors
/// The journal could not be read.
pub fn read(
    store: &Store,
    config: &Config,
    after: Offset,
    most: usize,
) -> Result<Page, ChangesError> {
    // What a policy for changed definitions holds back is there all the same.
    let gate = Gate::open(store.clone(), config.name.clone(), OnSchemaChange::Pass)?;
    let (tables, messages) = (config.tables.clone(), Vec::new());
    let mut changes = Changes::new(store.clone(), tables, messages, gate, after);
    let mut page = Page { changes: Vec::new(), end: after, gap: None };
    let (mut tables, mut looked_at) = (Tables::default(), 0);
    while page.changes.len() < most && looked_at < FARTHEST {
        let limits = Limits { rows: most - page.changes.len(), bytes: STEP };
        let batch = match changes.next_batch(&mut tables, &limits) {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            // A gap begins a page, so that it is told in its place.
            Err(ChangesError::Gap { .. }) if !page.changes.is_empty() => break,
            Err(ChangesError::Gap { .. }) => {
                let purged = Offset::end_of(store.journal_purged());
                (page.end, page.gap) = (purged.max(page.end), Some(purged));
                continue;
            }
            Err(error) => return Err(error),
        };
        looked_at += batch.bytes;
        for row in batch.rows.iter().filter(|row| is_of_table(row.op)) {
            let written = written(&batch, &tables, row)
                .map_err(|what| ChangesError::Malformed { at: batch.offset(row).commit, what })?;
            page.changes.push(written);
        }
        page.end = batch.end;
    }
    Ok(page)
}

fn written(batch: &Batch, tables: &Tables, row: &Row) -> Result<String, String> {
    let table = tables.get(row.table);
    let mut heap = Vec::new();
    let (new, old) =
        (cells(batch, table, row.new, &mut heap), cells(batch, table, row.old, &mut heap));
    let taken = Taken {
        id: EventId(batch.offset(row)).to_string(),
        relation: &describe(table),
        time: batch.transactions[row.transaction as usize].time,
        op: row.op.name(),
        row: &new,
        old: &old,
        heap: &heap,
    };
    taken.written()
}

/// Every column's value, whatever a plugin would ask for.
fn cells(batch: &Batch, table: &Table, span: Span, heap: &mut Vec<u8>) -> Vec<(u8, u64)> {
    let cells = batch.cells(span).iter().enumerate();
    let cell = |(at, cell): (usize, &super::rows::Cell)| match batch.value(*cell) {
        Value::Text(text) => tagged::read(table.kind(at), text, heap),
        Value::Inline(tag, data) => (tag, data),
        Value::Heap(tag, bytes) => {
            let start = heap.len();
            heap.extend_from_slice(bytes);
            (tag, tagged::place(start, bytes.len()))
        }
    };
    cells.map(cell).collect()
}
