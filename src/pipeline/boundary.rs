//! A door for measuring (`walmill plugin bench`, `benches/boundary.rs`): a stage with rows in hand,
//! as a pipeline runs it, and nothing around it.

use std::sync::Arc;

use bytes::Bytes;

use super::rows::{Batch, Cell, Mark, Row, Span, Tables, Transaction};
use super::stage::{Routes, Stage, StageError};
use super::tagged;
use crate::model::{Column, Lsn, Offset, Op, Relation, ReplicaIdentity};
use crate::plugin::{Plugin, bindings};
use crate::store::Store;

/// A plugin's stage, and rows of one table in PostgreSQL's text form.
pub struct Boundary {
    stage: Stage,
    tables: Tables,
    batch: Batch,
    rows: Vec<Row>,
    mark: Mark,
}

/// What became of the rows of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that went on.
    pub emitted: u64,
    /// Rows that were dropped.
    pub dropped: u64,
    /// Rows that the plugin rejected or broke on.
    pub failed: u64,
}

/// Every stream is allowed and is the same.
struct OneStream;

impl Routes for OneStream {
    fn stream(&mut self, _: &str) -> Result<u32, String> {
        Ok(0)
    }
}

impl Boundary {
    /// So many rows of a table, each an insert; `value` gives each column's text, or null.
    pub fn new(
        plugin: Arc<Plugin>,
        store: Store,
        relation: &bindings::Relation,
        rows: usize,
        value: impl Fn(usize, usize) -> Option<Vec<u8>>,
    ) -> Self {
        let mut batch = Batch::behind(Offset::START);
        let (mut text, mut cells) = (Vec::new(), Vec::new());
        for row in 0..rows {
            for column in 0..relation.columns.len() {
                cells.push(match value(row, column) {
                    Some(value) => {
                        let start = text.len();
                        text.extend_from_slice(&value);
                        Cell::text(0, start, value.len())
                    }
                    None => Cell::NULL,
                });
            }
        }
        batch.add_buffer(Bytes::from(text));
        batch.transactions.push(Transaction { commit: Lsn(1), time: 0, xid: 1, ends: true });
        let mut tables = Tables::default();
        let table = tables.add(relation.id, described(relation));
        let width = relation.columns.len().max(1);
        let rows = (0..).zip(cells.chunks(width)).map(|(ordinal, cells)| Row {
            transaction: 0,
            ordinal,
            emit: 0,
            op: Op::Insert,
            table,
            new: batch.add_cells(cells.iter().copied()),
            old: Span::NONE,
            hidden_key: Span::NONE,
            hidden_old: Span::NONE,
            stream: 0,
        });
        let rows = rows.collect();
        let mark = batch.mark();
        Self { stage: Stage::new(plugin, store), tables, batch, rows, mark }
    }

    /// Runs every row through the plugin, so many at a time.
    ///
    /// # Errors
    /// See [`StageError`].
    pub fn run(&mut self, size: usize) -> Result<Counts, StageError> {
        let mut counts = Counts::default();
        for rows in self.rows.chunks(size.max(1)) {
            self.batch.rewind(self.mark);
            self.batch.rows.extend_from_slice(rows);
            let report = self.stage.run(&mut self.batch, &mut self.tables, &mut OneStream)?;
            counts.emitted += self.batch.rows.len() as u64;
            counts.dropped += report.dropped;
            counts.failed += report.failures.len() as u64;
        }
        Ok(counts)
    }
}

fn described(relation: &bindings::Relation) -> Relation {
    let column = |column: &bindings::Column| Column {
        name: column.name.clone(),
        type_oid: column.type_oid,
        type_mod: -1,
        type_name: column.type_name.clone(),
        kind: tagged::kind(column.tag).0,
        key: column.key,
    };
    Relation {
        oid: 1,
        schema: relation.schema.clone(),
        table: relation.table.clone(),
        identity: ReplicaIdentity::Default,
        columns: relation.columns.iter().map(column).collect(),
    }
}
