//! A plugin's plan for a table: what a row of it is turned into for a call, and what comes back.

use std::sync::Arc;

use super::super::rows::{Batch, Cell, Row, Span, Table, Tables, Value};
use super::super::shape::Shape;
use super::super::tagged;
use super::input::op_code;
use crate::model::Kind;
use crate::plugin::bindings;

/// A plugin's plan for one table, ready for use.
pub(super) struct Plan {
    /// As the plugin gave it.
    pub(super) answer: bindings::Plan,
    pub(super) shapes: Vec<Shape>,
    pub(super) pass_shape: Option<usize>,
    /// The columns that cross, and their kinds.
    needs: Vec<(usize, Kind)>,
}

impl Plan {
    pub(super) fn new(answer: bindings::Plan, table: &Arc<Table>, tables: &mut Tables) -> Self {
        let shapes = answer.shapes.iter().map(|shape| Shape::new(shape, table, tables)).collect();
        let pass_shape = answer.pass_shape.map(|shape| shape as usize);
        let needs = answer.needs.iter().map(|&need| need as usize);
        let needs = needs.map(|need| (need, table.kind(need))).collect();
        Self { answer, shapes, pass_shape, needs }
    }

    pub(super) fn pass() -> Self {
        let answer = bindings::Plan {
            mode: bindings::Mode::Pass,
            needs: Vec::new(),
            old: false,
            envelope: false,
            shapes: Vec::new(),
            pass_shape: None,
        };
        Self { answer, shapes: Vec::new(), pass_shape: None, needs: Vec::new() }
    }

    /// Bytes that a row takes in a call.
    pub(super) fn size(&self, batch: &Batch, row: &Row) -> usize {
        let cells = batch.cells(row.new);
        let needed = self.needs.iter().filter_map(|&(need, _)| cells.get(need));
        needed.map(|cell| cell.size() + 9).sum()
    }

    /// Adds rows, all of the table that the plan is for.
    pub(super) fn fill(
        &self,
        input: &mut bindings::Batch,
        batch: &Batch,
        tables: &Tables,
        rows: &[Row],
    ) {
        let Some(first) = rows.first() else { return };
        // A call has at most `CALL_EVENTS` of them.
        input.count += rows.len() as u32;
        input.ops.extend(rows.iter().map(|row| op_code(row.op)));
        input.relations.resize(input.ops.len(), tables.get(first.table).id);
        input.starts.reserve(rows.len());
        input.tags.reserve(rows.len() * self.needs.len());
        input.data.reserve(rows.len() * self.needs.len());
        for row in rows {
            self.fill_row(input, batch, row.new);
            if self.answer.old {
                self.fill_row(input, batch, row.old);
            }
            input.starts.push(u32::try_from(input.tags.len()).unwrap_or(u32::MAX));
        }
    }

    #[inline]
    fn fill_row(&self, input: &mut bindings::Batch, batch: &Batch, span: Span) {
        let cells = batch.cells(span);
        if cells.is_empty() {
            return;
        }
        for &(need, kind) in &self.needs {
            let cell = cells.get(need).copied().unwrap_or(Cell::ABSENT);
            let (tag, data) = match batch.value(cell) {
                Value::Text(text) => tagged::read(kind, text, &mut input.heap),
                Value::Inline(tag, data) => (tag, data),
                Value::Heap(tag, bytes) => {
                    let start = input.heap.len();
                    input.heap.extend_from_slice(bytes);
                    (tag, tagged::place(start, bytes.len()))
                }
            };
            input.tags.push(tag);
            input.data.push(data);
        }
    }
}
