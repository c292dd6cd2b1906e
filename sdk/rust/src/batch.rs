//! A batch of changes: its events, their rows, the rows' cells.

use std::ops::Range;

use crate::bindings::walmill::plugin::types;
use crate::{PerRelation, Relation, tag};

/// What the plan for a relation says about the cells that come with its events.
#[derive(Debug)]
pub struct Announced {
    /// The columns that were asked for, in the order of the cells.
    names: Vec<String>,
}

impl Announced {
    pub(crate) fn new(relation: &Relation, plan: &types::Plan) -> Self {
        let columns = plan.needs.iter().filter_map(|&index| relation.columns.get(index as usize));
        Self { names: columns.map(|column| column.name.clone()).collect() }
    }
}

/// Changes, in the order in which they were committed.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    flat: &'a types::Batch,
    heap: Heap<'a>,
    announced: &'a PerRelation<Announced>,
}

/// Where the values lie that do not fit into a cell.
#[derive(Debug, Clone, Copy)]
struct Heap<'a> {
    bytes: &'a [u8],
    /// The same as text, where all of it is: then no value has to be looked at by itself.
    text: Option<&'a str>,
}

impl<'a> Heap<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, text: std::str::from_utf8(bytes).ok() }
    }

    #[inline]
    fn bytes(self, data: u64) -> &'a [u8] {
        self.bytes.get(range(data)).unwrap_or_default()
    }

    /// `None` where the bytes are no text.
    #[inline]
    fn text(self, data: u64) -> Option<&'a str> {
        match self.text {
            Some(text) => text.get(range(data)),
            None => std::str::from_utf8(self.bytes(data)).ok(),
        }
    }
}

#[inline]
fn range(data: u64) -> Range<usize> {
    let (start, length) = ((data >> 32) as usize, (data & u64::from(u32::MAX)) as usize);
    start..start.saturating_add(length)
}

impl<'a> Batch<'a> {
    pub(crate) fn new(flat: &'a types::Batch, announced: &'a PerRelation<Announced>) -> Self {
        Self { flat, heap: Heap::new(&flat.heap), announced }
    }

    /// How many events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flat.count as usize
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The events.
    pub fn events(&self) -> impl Iterator<Item = Event<'a>> + use<'a> {
        let Self { flat, heap, announced } = *self;
        let heads = flat.ops.iter().zip(&flat.relations).zip(flat.starts.windows(2));
        heads.enumerate().map(move |(index, ((&op, &relation), range))| {
            let (start, end) = (range[0] as usize, range[1] as usize);
            let names: &[String] = announced.get(relation).map_or(&[], |known| &known.names);
            let row = Row {
                names,
                tags: flat.tags.get(start..end).unwrap_or_default(),
                data: flat.data.get(start..end).unwrap_or_default(),
                heap,
                from: 0,
            };
            Event { index, op: Op::from(op), relation, row, flat }
        })
    }
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A new row.
    Insert,
    /// A changed row.
    Update,
    /// A row that is gone.
    Delete,
    /// All rows of a table are gone.
    Truncate,
    /// `pg_logical_emit_message`, no row at all.
    Message,
    /// A row that was there before the slot.
    Snapshot,
    /// A code of a later version.
    Other(u8),
}

impl From<u8> for Op {
    #[inline]
    fn from(code: u8) -> Self {
        match code {
            0 => Self::Insert,
            1 => Self::Update,
            2 => Self::Delete,
            3 => Self::Truncate,
            4 => Self::Message,
            5 => Self::Snapshot,
            code => Self::Other(code),
        }
    }
}

/// One change.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub(crate) index: usize,
    op: Op,
    relation: u32,
    row: Row<'a>,
    flat: &'a types::Batch,
}

impl<'a> Event<'a> {
    /// What happened.
    #[inline]
    #[must_use]
    pub fn op(&self) -> Op {
        self.op
    }

    /// [`Relation::id`] of its table.
    #[inline]
    #[must_use]
    pub fn relation(&self) -> u32 {
        self.relation
    }

    /// The row as it is now; of a delete the row as it was. It has the columns that the plan
    /// asked for, and no cells at all for a truncate or a message.
    ///
    /// A large value that an update left as it was is taken from the old row, where there is one:
    /// PostgreSQL doesn't send it again.
    #[inline]
    #[must_use]
    pub fn row(&self) -> Row<'a> {
        self.row
    }

    /// The row as it was, where the plan asked for it and PostgreSQL sent it.
    #[inline]
    #[must_use]
    pub fn old(&self) -> Option<Row<'a>> {
        let width = self.row.names.len();
        (self.row.tags.len() > width).then_some(Row { from: width, ..self.row })
    }

    /// Position of the commit, where the plan asked for the envelope. Equal ones are of the same
    /// transaction.
    #[must_use]
    pub fn lsn(&self) -> Option<u64> {
        self.flat.lsns.get(self.index).copied()
    }

    /// Time of the commit in microseconds since 1970-01-01 UTC, where the plan asked for the
    /// envelope.
    #[must_use]
    pub fn time(&self) -> Option<i64> {
        self.flat.times.get(self.index).copied()
    }
}

/// The columns of a row that the plan asked for, by index into the plan's `needs` or by name.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    names: &'a [String],
    /// All cells of the event: of the row, then of the old row where there is one.
    tags: &'a [u8],
    data: &'a [u64],
    heap: Heap<'a>,
    /// Where this row's cells start.
    from: usize,
}

impl<'a> Row<'a> {
    /// The cell of the column that stands at `index` in the plan's `needs`.
    #[inline]
    #[must_use]
    pub fn cell(&self, index: usize) -> Cell<'a> {
        if index >= self.names.len() {
            return Cell::Absent;
        }
        match self.at(self.from + index) {
            Cell::Unchanged => self.unchanged(index),
            cell => cell,
        }
    }

    /// All its cells, in the order of the plan's `needs`.
    #[inline]
    pub fn cells(self) -> impl Iterator<Item = Cell<'a>> {
        (0..self.names.len()).map(move |index| self.cell(index))
    }

    /// What the old row has in place of a value that the update left as it was.
    #[cold]
    fn unchanged(&self, index: usize) -> Cell<'a> {
        match self.at(self.names.len() + index) {
            Cell::Absent => Cell::Unchanged,
            cell => cell,
        }
    }

    #[inline]
    fn at(&self, place: usize) -> Cell<'a> {
        match (self.tags.get(place), self.data.get(place)) {
            (Some(&tag), Some(&data)) => Cell::read(tag, data, self.heap),
            _ => Cell::Absent,
        }
    }

    /// The cell of a column that the plan asked for; of any other [`Cell::Absent`].
    #[must_use]
    pub fn get(&self, name: &str) -> Cell<'a> {
        let index = self.names.iter().position(|column| column == name);
        index.map_or(Cell::Absent, |index| self.cell(index))
    }

    /// The text in a column; `None` where there is none.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        match self.get(name) {
            Cell::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer in a column; `None` where there is none.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Cell::Int(int) => Some(int),
            _ => None,
        }
    }

    /// The floating-point number in a column; `None` where there is none.
    #[must_use]
    pub fn float(&self, name: &str) -> Option<f64> {
        match self.get(name) {
            Cell::Float(float) => Some(float),
            _ => None,
        }
    }

    /// The boolean in a column; `None` where there is none.
    #[must_use]
    pub fn bool(&self, name: &str) -> Option<bool> {
        match self.get(name) {
            Cell::Bool(bool) => Some(bool),
            _ => None,
        }
    }

    /// Whether a column is null.
    #[must_use]
    pub fn is_null(&self, name: &str) -> bool {
        self.get(name) == Cell::Null
    }
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// SQL's null.
    Null,
    /// `boolean`
    Bool(bool),
    /// `smallint`, `integer`, `bigint`
    Int(i64),
    /// `real`, `double precision`
    Float(f64),
    /// `timestamp`, `timestamptz`: microseconds since 1970-01-01 UTC; [`i64::MIN`] and
    /// [`i64::MAX`] are the infinities.
    Timestamp(i64),
    /// `date`: days since 1970-01-01; infinities as above.
    Date(i64),
    /// `time`: microseconds since midnight.
    Time(i64),
    /// Text, and every type with no variant of its own in PostgreSQL's text form.
    Text(&'a str),
    /// `numeric`, as PostgreSQL prints it.
    Numeric(&'a str),
    /// `json`, `jsonb`
    Json(&'a str),
    /// `bytea`
    Bytea(&'a [u8]),
    /// `uuid`, 16 bytes
    Uuid(&'a [u8]),
    /// A JSON array.
    Array(&'a str),
    /// A large value that an update left as it was, and PostgreSQL did not send.
    Unchanged,
    /// A column of an old row outside the replica identity, or one that was not asked for.
    Absent,
    /// A tag of a later version, or text that is not UTF-8.
    Other(u8),
}

impl<'a> Cell<'a> {
    #[inline]
    fn read(tag: u8, data: u64, heap: Heap<'a>) -> Self {
        match tag {
            tag::NULL => Self::Null,
            tag::BOOL => Self::Bool(data != 0),
            tag::INT => Self::Int(data.cast_signed()),
            tag::FLOAT => Self::Float(f64::from_bits(data)),
            tag::TIMESTAMP => Self::Timestamp(data.cast_signed()),
            tag::DATE => Self::Date(data.cast_signed()),
            tag::TIME => Self::Time(data.cast_signed()),
            16..32 => Self::read_heap(tag, data, heap),
            tag::UNCHANGED => Self::Unchanged,
            tag::ABSENT => Self::Absent,
            tag => Self::Other(tag),
        }
    }

    #[inline]
    fn read_heap(tag: u8, data: u64, heap: Heap<'a>) -> Self {
        let of: fn(&'a str) -> Self = match tag {
            tag::TEXT => Self::Text,
            tag::NUMERIC => Self::Numeric,
            tag::JSON => Self::Json,
            tag::ARRAY => Self::Array,
            tag::BYTEA => return Self::Bytea(heap.bytes(data)),
            tag::UUID => return Self::Uuid(heap.bytes(data)),
            _ => return Self::Other(tag),
        };
        heap.text(data).map_or(Self::Other(tag), of)
    }

    /// Its tag and data; what belongs on the heap is appended there.
    pub(crate) fn write(self, heap: &mut Vec<u8>) -> (u8, u64) {
        let mut keep = |tag, bytes: &[u8]| {
            let start = heap.len() as u64;
            heap.extend_from_slice(bytes);
            (tag, start << 32 | bytes.len() as u64)
        };
        match self {
            Self::Null => (tag::NULL, 0),
            Self::Bool(bool) => (tag::BOOL, bool.into()),
            Self::Int(int) => (tag::INT, int.cast_unsigned()),
            Self::Float(float) => (tag::FLOAT, float.to_bits()),
            Self::Timestamp(time) => (tag::TIMESTAMP, time.cast_unsigned()),
            Self::Date(days) => (tag::DATE, days.cast_unsigned()),
            Self::Time(time) => (tag::TIME, time.cast_unsigned()),
            Self::Text(text) => keep(tag::TEXT, text.as_bytes()),
            Self::Numeric(text) => keep(tag::NUMERIC, text.as_bytes()),
            Self::Json(text) => keep(tag::JSON, text.as_bytes()),
            Self::Bytea(bytes) => keep(tag::BYTEA, bytes),
            Self::Uuid(bytes) => keep(tag::UUID, bytes),
            Self::Array(text) => keep(tag::ARRAY, text.as_bytes()),
            Self::Unchanged => (tag::UNCHANGED, 0),
            Self::Absent => (tag::ABSENT, 0),
            Self::Other(tag) => (tag, 0),
        }
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Cell<'_> {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<bool> for Cell<'_> {
    fn from(bool: bool) -> Self {
        Self::Bool(bool)
    }
}
