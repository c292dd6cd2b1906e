//! The rows that a plugin makes: where each column comes from, and the table that they then have.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::rows::{Batch, Cell, Row, Span, Table, Tables};
use super::tagged;
use crate::model::{Column, Relation, ReplicaIdentity};
use crate::plugin::bindings;

/// A plugin's shape for one table, ready for use. The host has checked every index in it.
pub struct Shape {
    /// Index of the table that rows of this shape have.
    table: u32,
    /// Its columns, in order.
    pieces: Vec<Piece>,
    /// How many columns.
    width: usize,
    /// Constants, one behind the other.
    fixed: Bytes,
    /// The key's columns in the input, when not all of them come through as they are.
    hidden_key: Option<Vec<usize>>,
    /// Whether a column of the input comes more than once.
    repeats: bool,
}

/// Where the values of a column, or of several in a row, come from.
#[derive(Debug, Clone, Copy)]
enum Piece {
    /// So many columns of the input from there on: most often, most columns stay in their order.
    Inputs(usize, usize),
    Computed,
    /// A place in the constants.
    Fixed(usize, usize),
}

impl Shape {
    /// Reads a shape of rows of `input`, and adds the table that it makes.
    #[must_use]
    pub fn new(shape: &bindings::Shape, input: &Arc<Table>, tables: &mut Tables) -> Self {
        let mut fixed = Vec::new();
        let mut pieces = Vec::new();
        for column in &shape.columns {
            match (&column.source, pieces.last_mut()) {
                (bindings::Source::Input(index), Some(Piece::Inputs(from, len)))
                    if *from + *len == *index as usize =>
                {
                    *len += 1;
                }
                (bindings::Source::Input(index), _) => {
                    pieces.push(Piece::Inputs(*index as usize, 1));
                }
                (bindings::Source::Computed(_), _) => pieces.push(Piece::Computed),
                (bindings::Source::Fixed(text), _) => {
                    pieces.push(Piece::Fixed(fixed.len(), text.len()));
                    fixed.extend_from_slice(text.as_bytes());
                }
            }
        }
        let comes_through = |key: &usize| {
            let holds = |column: &bindings::OutColumn| match column.source {
                bindings::Source::Input(index) => index as usize == *key,
                bindings::Source::Computed(_) | bindings::Source::Fixed(_) => false,
            };
            shape.columns.iter().any(holds)
        };
        let hides = !input.key.iter().all(comes_through);
        let table = tables.add_derived(derived(shape, &input.relation));
        let hidden_key = hides.then(|| input.key.clone());
        let (repeats, width) = (repeats(shape), shape.columns.len());
        Self { table, pieces, width, fixed: fixed.into(), hidden_key, repeats }
    }
}

impl Shape {
    /// Bytes of the row's own values and of constants in a row of this shape.
    #[must_use]
    pub fn size(&self, batch: &Batch, row: &Row) -> u64 {
        let of_row = |span: Span| {
            let cells = batch.cells(span);
            let inputs = self.pieces.iter().flat_map(|piece| {
                let (from, len) = match *piece {
                    Piece::Inputs(from, len) => (from, len),
                    Piece::Computed | Piece::Fixed(..) => (0, 0),
                };
                cells.iter().skip(from).take(len)
            });
            inputs.map(|cell| cell.size() as u64).sum::<u64>()
        };
        of_row(row.new) + of_row(row.old) + self.fixed.len() as u64
    }
}

fn derived(shape: &bindings::Shape, input: &Relation) -> Relation {
    let columns = shape.columns.iter().map(|column| match &column.source {
        bindings::Source::Input(index) => {
            Column { name: column.name.clone(), ..input.columns[*index as usize].clone() }
        }
        bindings::Source::Computed(tag) => computed(&column.name, *tag),
        bindings::Source::Fixed(_) => computed(&column.name, tagged::TEXT),
    });
    Relation {
        oid: input.oid,
        schema: input.schema.clone(),
        table: shape.table.clone().unwrap_or_else(|| input.table.clone()),
        identity: match input.identity {
            // What a plugin computes is not computed again from the old row.
            ReplicaIdentity::Full if has_computed(shape) => ReplicaIdentity::Default,
            identity => identity,
        },
        columns: columns.collect(),
    }
}

fn repeats(shape: &bindings::Shape) -> bool {
    let mut seen = HashSet::new();
    shape.columns.iter().any(|column| match column.source {
        bindings::Source::Input(index) => !seen.insert(index),
        bindings::Source::Computed(_) | bindings::Source::Fixed(_) => false,
    })
}

fn has_computed(shape: &bindings::Shape) -> bool {
    shape.columns.iter().any(|column| matches!(column.source, bindings::Source::Computed(_)))
}

fn computed(name: &str, tag: u8) -> Column {
    let (kind, type_name) = tagged::kind(tag);
    let name = name.to_owned();
    Column { name, type_oid: 0, type_mod: -1, type_name: type_name.into(), kind, key: false }
}

/// The row in its new shape; `computed` are its computed cells, in order. `None` where the batch
/// has no place for the shape's constants.
pub fn derive(batch: &mut Batch, shape: &Shape, row: &Row, computed: &[Cell]) -> Option<Row> {
    let fixed = if shape.fixed.is_empty() { 0 } else { batch.constants(&shape.fixed)? };
    let repeated = if shape.repeats { shape.size(batch, row) } else { 0 };
    let computes: usize = computed.iter().map(|cell| cell.size()).sum();
    let cells = 2 * shape.width * size_of::<Cell>();
    let repeated = usize::try_from(repeated).unwrap_or(usize::MAX);
    let made = size_of::<Row>() + cells + shape.fixed.len() + computes;
    batch.count_made(made.saturating_add(repeated));
    let (hidden_key, hidden_old) = match &shape.hidden_key {
        Some(key) if !row.hidden_key.is_some() => {
            (key_cells(batch, key, row.new), key_cells(batch, key, row.old))
        }
        _ => (row.hidden_key, row.hidden_old),
    };
    let new = reshape(batch, shape, row.new, fixed, computed);
    let old = reshape(batch, shape, row.old, fixed, &[]);
    Some(Row { table: shape.table, new, old, hidden_key, hidden_old, ..*row })
}

/// The key's cells of a row, if there is one.
fn key_cells(batch: &mut Batch, key: &[usize], of: Span) -> Span {
    if !of.is_some() {
        return of;
    }
    let start = batch.begin_row(key.len());
    for &at in key {
        if let Some(cell) = cell(batch, of, at) {
            batch.push_cell(cell);
        }
    }
    batch.span_from(start)
}

fn cell(batch: &Batch, span: Span, at: usize) -> Option<Cell> {
    batch.cells(span).get(at).copied()
}

#[inline]
fn reshape(batch: &mut Batch, shape: &Shape, span: Span, fixed: u16, computed: &[Cell]) -> Span {
    if !span.is_some() || batch.cells(span).is_empty() {
        return span;
    }
    let mut computed = computed.iter();
    let start = batch.begin_row(shape.width);
    for piece in &shape.pieces {
        match *piece {
            Piece::Inputs(from, len) => batch.repeat_cells(span, from, len),
            Piece::Computed => {
                batch.push_cell(computed.next().copied().unwrap_or(Cell::ABSENT));
            }
            Piece::Fixed(start, len) => {
                batch.push_cell(Cell::heap(tagged::TEXT, fixed, start, len));
            }
        }
    }
    batch.span_from(start)
}
