//! A batch of changes on its way through a pipeline: rows whose cells point into shared buffers.
//!
//! A cell is 16 bytes and owns nothing. Values stay where they arrived, in the journal's blocks or
//! in what a plugin handed back, until they are written as JSON.

use std::sync::Arc;

use bytes::Bytes;

use super::{json, tagged};
use crate::model::{Column, Kind, Lsn, Offset, Op, Relation};

/// Changes between two cursors of a pipeline, and what plugins have made of them so far.
#[derive(Debug, Default)]
pub struct Batch {
    /// Journal blocks and plugins' heaps; cells point into them.
    buffers: Vec<Bytes>,
    /// Which buffer holds which shape's constants, by their address.
    constants: Vec<(usize, u16)>,
    cells: Vec<Cell>,
    /// In commit order.
    pub rows: Vec<Row>,
    /// Rows that go to the dead letters before any plugin sees them, each with the reason.
    pub held: Vec<(Row, String)>,
    /// The transactions of the rows, in commit order.
    pub transactions: Vec<Transaction>,
    /// Everything up to and including this place is in this batch or one before it.
    pub end: Offset,
    /// Changes in it when it was read.
    pub changes: u64,
    /// Bytes of change messages in it.
    pub bytes: usize,
    /// It cannot be read again as smaller batches.
    pub whole: bool,
    /// Bytes of what plugins have made of it: rows, cells and values, these as often as they come.
    made: usize,
    /// There was no place for a buffer, so what points into it is missing.
    overflowed: bool,
}

/// What plugins may make of a batch that can be read again as smaller ones.
pub const MOST_MADE: usize = 64 << 20;
/// Buffers beyond which no call is begun: those of the call under way still have a place.
const MOST_BUFFERS: usize = u16::MAX as usize - 4096;

/// The transaction that a row belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Transaction {
    /// LSN of its commit record.
    pub commit: Lsn,
    /// Commit time, microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// PostgreSQL's transaction id.
    pub xid: u32,
    /// Whether its last change is in this batch.
    pub ends: bool,
}

/// One row of a change, as it came or as a plugin made it.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Index into [`Batch::transactions`].
    pub transaction: u32,
    /// Which change of the transaction.
    pub ordinal: u32,
    /// Which of the rows made from that change.
    pub emit: u32,
    /// What happened.
    pub op: Op,
    /// Index into the pipeline's [`Tables`].
    pub table: u32,
    /// The new row; the old one for a delete.
    pub new: Span,
    /// The old row, where there is one beside the new.
    pub old: Span,
    /// The key's cells, once a plugin has dropped or replaced one of its columns.
    pub hidden_key: Span,
    /// Likewise of the key that the row had before, where there is an old row.
    pub hidden_old: Span,
    /// Index into the pipeline's streams.
    pub stream: u32,
}

/// A run of cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// No row at all.
    pub const NONE: Self = Self { start: u32::MAX, len: 0 };

    /// Whether there is a row.
    #[inline]
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// How much there was in a batch: see [`Batch::mark`].
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    buffers: usize,
    cells: usize,
}

/// One value of a row.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    form: Form,
    tag: u8,
    buffer: u16,
    len: u32,
    data: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// PostgreSQL's text form of the column's kind; `data` is the offset in the buffer.
    Text,
    /// A tagged value without heap; `data` is its data.
    Inline,
    /// A tagged value; `data` is the offset in the buffer.
    Heap,
}

/// A cell's value, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// PostgreSQL's text form.
    Text(&'a [u8]),
    /// A tagged value without heap (NULL, unchanged and absent are such).
    Inline(u8, u64),
    /// A tagged value's bytes.
    Heap(u8, &'a [u8]),
}

impl Cell {
    /// NULL.
    pub const NULL: Self = Self::inline(tagged::NULL, 0);
    /// A TOASTed value that PostgreSQL did not send.
    pub const UNCHANGED: Self = Self::inline(tagged::UNCHANGED, 0);
    /// A column of an old row outside the replica identity.
    pub const ABSENT: Self = Self::inline(tagged::ABSENT, 0);

    /// A tagged value without heap.
    #[inline]
    #[must_use]
    pub const fn inline(tag: u8, data: u64) -> Self {
        Self { form: Form::Inline, tag, buffer: 0, len: 0, data }
    }

    /// PostgreSQL's text form, at a place in a buffer.
    #[inline]
    #[must_use]
    pub fn text(buffer: u16, offset: usize, len: usize) -> Self {
        // A PostgreSQL value is at most 1 GiB.
        Self { form: Form::Text, tag: 0, buffer, len: len as u32, data: offset as u64 }
    }

    /// A tagged value's bytes, at a place in a buffer.
    #[inline]
    #[must_use]
    pub fn heap(tag: u8, buffer: u16, offset: usize, len: usize) -> Self {
        Self { form: Form::Heap, tag, buffer, len: len as u32, data: offset as u64 }
    }

    /// Bytes of its value outside the cell.
    #[inline]
    #[must_use]
    pub fn size(self) -> usize {
        self.len as usize
    }

    /// Whether it is the marker or NULL with this tag.
    #[inline]
    #[must_use]
    pub fn is(self, tag: u8) -> bool {
        self.form == Form::Inline && self.tag == tag
    }
}

impl Batch {
    /// Nothing yet, behind this place.
    #[must_use]
    pub fn behind(cursor: Offset) -> Self {
        Self { end: cursor, ..Self::default() }
    }

    /// Whether nothing more should be added: every index and bound still holds then.
    #[must_use]
    pub fn is_full(&self, max_rows: usize, max_bytes: usize) -> bool {
        // Half of the buffers are left for what plugins hand back.
        self.rows.len() + self.held.len() >= max_rows
            || self.bytes >= max_bytes
            || self.buffers.len() >= usize::from(u16::MAX / 2)
    }

    /// Adds a buffer for cells to point into; `None` when there are too many.
    pub fn add_buffer(&mut self, buffer: Bytes) -> Option<u16> {
        if buffer.is_empty() {
            // Nothing in it is ever looked up.
            return Some(0);
        }
        let Ok(index) = u16::try_from(self.buffers.len()) else {
            self.overflowed = true;
            return None;
        };
        self.buffers.push(buffer);
        Some(index)
    }

    /// Counts bytes that a plugin has made.
    #[inline]
    pub fn count_made(&mut self, bytes: usize) {
        self.made = self.made.saturating_add(bytes);
    }

    /// Whether plugins have made more of it than `bound`, or there is no place for more.
    #[must_use]
    pub fn is_heavier_than(&self, bound: usize) -> bool {
        self.made > bound || self.overflowed || self.buffers.len() > MOST_BUFFERS
    }

    /// Whether something is missing, since there was no place for it.
    #[must_use]
    pub fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// The buffer of a shape's constants, added when it is first asked for.
    pub fn constants(&mut self, bytes: &Bytes) -> Option<u16> {
        let address = bytes.as_ptr().addr();
        let known = self.constants.iter().find(|(known, _)| *known == address);
        if let Some((_, buffer)) = known {
            return Some(*buffer);
        }
        let buffer = self.add_buffer(bytes.clone())?;
        self.constants.push((address, buffer));
        Some(buffer)
    }

    /// Adds cells as a row's span.
    pub fn add_cells(&mut self, cells: impl IntoIterator<Item = Cell>) -> Span {
        let start = self.cells.len();
        self.cells.extend(cells);
        self.span_from(start)
    }

    /// What is in it now, beside rows.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { buffers: self.buffers.len(), cells: self.cells.len() }
    }

    /// Forgets the rows, and what was added since the mark.
    pub fn rewind(&mut self, mark: Mark) {
        self.rows.clear();
        self.constants.clear();
        (self.made, self.overflowed) = (0, false);
        self.buffers.truncate(mark.buffers);
        self.cells.truncate(mark.cells);
    }

    /// Where the next row's cells start; makes room for so many.
    #[inline]
    pub fn begin_row(&mut self, width: usize) -> usize {
        self.cells.reserve(width);
        self.cells.len()
    }

    /// Adds one cell.
    #[inline]
    pub fn push_cell(&mut self, cell: Cell) {
        self.cells.push(cell);
    }

    /// Adds again `len` cells of a row from `from` on; absent ones where it has none.
    #[inline]
    pub fn repeat_cells(&mut self, span: Span, from: usize, len: usize) {
        let there = len.min((span.len as usize).saturating_sub(from));
        if there > 0 {
            let start = span.start as usize + from;
            self.cells.extend_from_within(start..start + there);
        }
        if there < len {
            self.cells.resize(self.cells.len() + len - there, Cell::ABSENT);
        }
    }

    /// The cells added since there were `start`, as a row's span.
    #[inline]
    #[must_use]
    pub fn span_from(&self, start: usize) -> Span {
        // A batch is bounded in bytes, and each cell takes some in its message.
        Span { start: start as u32, len: (self.cells.len() - start) as u32 }
    }

    /// A row's cells.
    #[inline]
    #[must_use]
    pub fn cells(&self, span: Span) -> &[Cell] {
        if span.is_some() {
            &self.cells[span.start as usize..(span.start + span.len) as usize]
        } else {
            &[]
        }
    }

    /// A row's cells, to be changed in place.
    pub fn cells_mut(&mut self, span: Span) -> &mut [Cell] {
        if span.is_some() {
            &mut self.cells[span.start as usize..(span.start + span.len) as usize]
        } else {
            &mut []
        }
    }

    /// A cell's value.
    #[inline]
    #[must_use]
    pub fn value(&self, cell: Cell) -> Value<'_> {
        let bytes = || {
            if cell.len == 0 {
                return &[][..];
            }
            let start = cell.data as usize;
            &self.buffers[usize::from(cell.buffer)][start..start + cell.len as usize]
        };
        match cell.form {
            Form::Text => Value::Text(bytes()),
            Form::Inline => Value::Inline(cell.tag, cell.data),
            Form::Heap => Value::Heap(cell.tag, bytes()),
        }
    }

    /// The place of a row's event.
    #[must_use]
    pub fn offset(&self, row: &Row) -> Offset {
        let commit = self.transactions[row.transaction as usize].commit;
        Offset { commit, ordinal: row.ordinal, emit: row.emit }
    }
}

/// A table as a pipeline sees it: PostgreSQL's, or the shape that a plugin gives its rows.
#[derive(Debug)]
pub struct Table {
    /// The number under which plugins know it.
    pub id: u32,
    /// Name, columns and replica identity.
    pub relation: Relation,
    /// The columns of the key, by index.
    pub key: Vec<usize>,
    /// `,"name":` of each column, ready to be copied into JSON.
    labels: Vec<Vec<u8>>,
    /// `"schema":"…","table":"…"`, ready likewise.
    pub names: Vec<u8>,
}

impl Table {
    /// A table of these columns.
    #[must_use]
    pub fn new(id: u32, relation: Relation) -> Self {
        let key = (0..relation.columns.len()).filter(|&at| relation.columns[at].key).collect();
        let label = |column: &Column| {
            let mut label = Vec::with_capacity(column.name.len() + 4);
            label.push(b',');
            json::string(&mut label, column.name.as_bytes());
            label.push(b':');
            label
        };
        let labels = relation.columns.iter().map(label).collect();
        let mut names = b"\"schema\":".to_vec();
        json::string(&mut names, relation.schema.as_bytes());
        names.extend_from_slice(b",\"table\":");
        json::string(&mut names, relation.table.as_bytes());
        Self { id, relation, key, labels, names }
    }

    /// The kind of a column; text for a cell beyond the columns.
    #[inline]
    #[must_use]
    pub fn kind(&self, column: usize) -> Kind {
        self.relation.columns.get(column).map_or(Kind::Text, |column| column.kind)
    }

    /// What stands before a column's value in JSON, `,"name":`, and its kind.
    #[inline]
    pub fn members(&self) -> impl Iterator<Item = (&[u8], Kind)> {
        self.labels.iter().map(Vec::as_slice).zip(self.relation.columns.iter().map(|c| c.kind))
    }

    /// A column's `,"name":`.
    #[inline]
    #[must_use]
    pub fn label(&self, column: usize) -> &[u8] {
        self.labels.get(column).map_or(&[], Vec::as_slice)
    }
}

/// The tables that a pipeline has met, by index.
#[derive(Debug, Default)]
pub struct Tables {
    tables: Vec<Arc<Table>>,
    derived: u32,
}

/// Ids of derived tables start here; PostgreSQL's tables have their relation's id.
const FIRST_DERIVED: u32 = 0x8000_0000;

impl Tables {
    /// Adds a table as PostgreSQL described it, if it is not there yet: each reader of a pipeline
    /// meets it by itself.
    pub fn add(&mut self, id: u32, relation: Relation) -> u32 {
        match self.tables.iter().position(|table| table.id == id) {
            Some(known) => known as u32,
            None => self.push(Table::new(id, relation)),
        }
    }

    /// Adds a table that a plugin's rows have from now on.
    pub fn add_derived(&mut self, relation: Relation) -> u32 {
        let id = FIRST_DERIVED.wrapping_add(self.derived);
        self.derived = self.derived.wrapping_add(1);
        self.push(Table::new(id, relation))
    }

    /// The table at an index that [`Tables::add`] gave.
    #[inline]
    #[must_use]
    pub fn get(&self, index: u32) -> &Arc<Table> {
        &self.tables[index as usize]
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.tables.len()
    }

    fn push(&mut self, table: Table) -> u32 {
        self.tables.push(Arc::new(table));
        // Far fewer tables than 2^32: each took a message to describe.
        (self.tables.len() - 1) as u32
    }
}
