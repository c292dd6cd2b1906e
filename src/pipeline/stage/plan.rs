//! A plugin's plan for a table: what a row of it is turned into for a call, and what comes back.

use std::sync::Arc;

use super::super::rows::{Batch, Cell, Row, Span, Table, Tables, Value};
use super::super::shape::Shape;
use super::super::tagged;
use super::input::op_code;
use crate::plugin::bindings;

/// A plugin's plan for one table, ready for use.
pub(super) struct Plan {
    /// As the plugin gave it.
    pub(super) answer: bindings::Plan,
    pub(super) shapes: Vec<Shape>,
    pub(super) pass_shape: Option<usize>,
}

impl Plan {
    pub(super) fn new(answer: bindings::Plan, table: &Arc<Table>, tables: &mut Tables) -> Self {
        let shapes = answer.shapes.iter().map(|shape| Shape::new(shape, table, tables)).collect();
        let pass_shape = answer.pass_shape.map(|shape| shape as usize);
        Self { answer, shapes, pass_shape }
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
        Self { answer, shapes: Vec::new(), pass_shape: None }
    }

    /// Bytes that a row takes in a call.
    pub(super) fn size(&self, batch: &Batch, row: &Row) -> usize {
        let cells = batch.cells(row.new);
        self.answer
            .needs
            .iter()
            .filter_map(|&need| cells.get(need as usize))
            .map(|cell| cell.size() + 9)
            .sum()
    }

    pub(super) fn fill(
        &self,
        input: &mut bindings::Batch,
        batch: &Batch,
        tables: &Tables,
        row: &Row,
    ) {
        let table = tables.get(row.table);
        input.count += 1;
        input.ops.push(op_code(row.op));
        input.relations.push(table.id);
        self.fill_row(input, batch, table, row.new);
        if self.answer.old {
            self.fill_row(input, batch, table, row.old);
        }
        input.starts.push(u32::try_from(input.tags.len()).unwrap_or(u32::MAX));
    }

    fn fill_row(&self, input: &mut bindings::Batch, batch: &Batch, table: &Table, span: Span) {
        let cells = batch.cells(span);
        if cells.is_empty() {
            return;
        }
        for &need in &self.answer.needs {
            let cell = cells.get(need as usize).copied().unwrap_or(Cell::ABSENT);
            let kind = table.kind(need as usize);
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
