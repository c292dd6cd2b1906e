//! The journal's blocks as batches of rows: only the tables that the pipeline takes, and of those
//! only what lies behind its cursor.

pub(super) mod copy;
mod gap;
mod place;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::rows::{Batch, Cell, Row, Span, Tables, Transaction};
use super::schema::{Gate, Halted, Redefined};
use super::{Limits, tagged};
use crate::model::pattern::{Glob, TablePattern};
use crate::model::{Column, Kind, Lsn, Offset, Op, Relation, RelationId, ReplicaIdentity};
use crate::pgoutput::{self, Message, OldKind, Tuple, Value, frame, row};
use crate::store::journal::{Block, Read, Reader};
use crate::store::{Store, StoreError};
use place::{FrameError, Place, malformed_or};

/// Why the journal could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored is no message; the block says where.
    #[error("journal block at {at}: {what}")]
    Malformed {
        /// Commit LSN of the block's first transaction.
        at: Lsn,
        /// What is wrong.
        what: String,
    },
    /// A table's definition changes next, and the pipeline waits until a person accepts it.
    #[error(transparent)]
    Schema(#[from] Halted),
    /// Retention removed changes that this pipeline had not read.
    #[error("changes up to {oldest} were removed before this pipeline read them")]
    Gap {
        /// Commit of the oldest transaction that is left.
        oldest: Lsn,
    },
}

/// What the pipeline takes of a relation.
#[derive(Debug, Clone, Copy)]
enum Taken {
    /// Not looked up yet.
    Unknown,
    /// Not one of its tables.
    No,
    /// The table at this index.
    Table(u32),
}

/// Reads the journal for one pipeline.
pub struct Changes {
    store: Store,
    reader: Reader,
    patterns: Vec<TablePattern>,
    messages: Vec<Glob>,
    /// By relation id, which are small numbers.
    taken: Vec<Taken>,
    message_table: Option<u32>,
    cursor: Offset,
    place: Option<Place>,
    gate: Gate,
    /// The change of a definition that ended the batch.
    halted: Option<Halted>,
}

impl Changes {
    /// Reads what is behind `cursor`.
    pub fn new(
        store: Store,
        patterns: Vec<TablePattern>,
        messages: Vec<Glob>,
        gate: Gate,
        cursor: Offset,
    ) -> Self {
        let reader = store.journal_reader(cursor);
        Self {
            store,
            reader,
            patterns,
            messages,
            taken: Vec::new(),
            message_table: None,
            cursor,
            place: None,
            gate,
            halted: None,
        }
    }

    /// Changes when there may be more to read.
    pub fn visible(&mut self) -> &mut watch::Receiver<Lsn> {
        self.reader.visible()
    }

    /// Forgets which tables it met: the next batch is made with new `Tables`.
    pub fn forget_tables(&mut self) {
        self.taken.clear();
        self.message_table = None;
    }

    /// The policy for changed definitions, and what it holds back.
    pub fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    /// Goes back to what is behind `cursor`, when a batch was not committed.
    pub fn seek(&mut self, cursor: Offset) {
        self.cursor = cursor;
        self.place = None;
        self.gate.roll_back();
        self.reader.seek(cursor);
    }

    /// The next batch; `None` when everything visible has been read. A batch may hold no row: its
    /// end is a new cursor all the same.
    ///
    /// # Errors
    /// See [`ChangesError`].
    pub fn next_batch(
        &mut self,
        tables: &mut Tables,
        limits: &Limits,
    ) -> Result<Option<Batch>, ChangesError> {
        let mut batch = Batch::behind(self.cursor);
        batch.whole = limits.rows <= 1;
        self.gate.refresh()?;
        self.halted = None;
        while !batch.is_full(limits.rows, limits.bytes) && self.halted.is_none() {
            if self.place.is_none() {
                match self.reader.next()? {
                    Read::Block(block) => self.place = Some(Place::new(block)),
                    Read::End => break,
                    Read::Gap { oldest } => return Err(ChangesError::Gap { oldest }),
                }
            }
            self.read_place(&mut batch, tables, limits)?;
        }
        if batch.end == self.cursor {
            return self.halted.take().map_or(Ok(None), |halted| Err(halted.into()));
        }
        self.cursor = batch.end;
        Ok(Some(batch))
    }

    /// Reads a block that did not come from the journal.
    pub fn read_block(
        &mut self,
        block: Block,
        batch: &mut Batch,
        tables: &mut Tables,
        limits: &Limits,
    ) -> Result<(), ChangesError> {
        self.place = Some(Place::new(block));
        self.read_place(batch, tables, limits)
    }

    /// Reads the block in hand until its end, or until the batch is full.
    fn read_place(
        &mut self,
        batch: &mut Batch,
        tables: &mut Tables,
        limits: &Limits,
    ) -> Result<(), ChangesError> {
        let Some(mut place) = self.place.take() else { return Ok(()) };
        let first = place.block.first;
        let malformed = |what: String| ChangesError::Malformed { at: first, what };
        let frames = place.block.frames.clone();
        let Some(buffer) = batch.add_buffer(frames.clone()) else {
            self.place = Some(place);
            return Ok(());
        };
        if let Some(transaction) = place.transaction {
            batch.transactions.push(Transaction { ends: false, ..transaction });
        }
        while !place.rest.is_empty() {
            if batch.is_full(limits.rows, limits.bytes) {
                self.place = Some(place);
                return Ok(());
            }
            self.halted = self.stops_at(&place).map_err(malformed_or(&malformed))?;
            if self.halted.is_some() {
                self.place = Some(place);
                return Ok(());
            }
            let frame = place.next_frame().ok_or_else(|| malformed("a frame is cut".into()))?;
            let base = frames.len() - place.rest.len() - frame.len();
            batch.bytes += frame.len();
            self.read_frame(batch, tables, &mut place, &frame, (buffer, base))
                .map_err(malformed_or(&malformed))?;
        }
        Ok(())
    }

    fn read_frame(
        &mut self,
        batch: &mut Batch,
        tables: &mut Tables,
        place: &mut Place,
        frame: &[u8],
        at: (u16, usize),
    ) -> Result<(), FrameError> {
        match frame.first() {
            Some(&(b'I' | b'U' | b'D' | row::TAG)) => {
                let offset = place.take_ordinal(1)?;
                batch.changes += 1;
                if offset > self.cursor
                    && let Taken::Table(table) = self.taken(relation_of(frame)?, tables)?
                {
                    let row = Row { ordinal: offset.ordinal, table, ..blank(batch) };
                    add_change(batch, tables, row, pgoutput::decode(frame)?, frame, at);
                    self.hold_back(batch, tables);
                }
                batch.end = batch.end.max(offset.end());
            }
            Some(&frame::REDEFINED) => self.read_redefined(batch, tables, place, frame)?,
            Some(&frame::GAP) => self.read_gap(batch, tables, place, frame)?,
            _ => self.read_other(batch, tables, place, frame, at)?,
        }
        Ok(())
    }

    /// Everything that is no change of one row.
    fn read_other(
        &mut self,
        batch: &mut Batch,
        tables: &mut Tables,
        place: &mut Place,
        frame: &[u8],
        at: (u16, usize),
    ) -> Result<(), FrameError> {
        match pgoutput::decode(frame)? {
            Message::Begin { final_lsn, time, xid } => {
                batch.transactions.push(place.begin(final_lsn, time, xid));
            }
            Message::Commit { .. } => {
                let open = place.transaction.take().ok_or("a commit without its begin")?;
                if let Some(last) = batch.transactions.last_mut() {
                    last.ends = true;
                }
                batch.end = batch.end.max(Offset::end_of(open.commit));
            }
            Message::Truncate { relations, .. } => {
                for relation in relations.iter() {
                    let offset = place.take_ordinal(1)?;
                    batch.changes += 1;
                    if offset > self.cursor
                        && let Taken::Table(table) = self.taken(relation, tables)?
                    {
                        let row = Row { ordinal: offset.ordinal, table, ..blank(batch) };
                        batch.rows.push(Row { op: Op::Truncate, ..row });
                        self.hold_back(batch, tables);
                    }
                    batch.end = batch.end.max(offset.end());
                }
            }
            Message::Message { prefix, content, .. } => {
                let offset = place.take_ordinal(1)?;
                batch.changes += 1;
                if offset > self.cursor && self.messages.iter().any(|glob| glob.matches(prefix)) {
                    let table = self.message_table(tables);
                    let cells =
                        [prefix.as_bytes(), content].map(|bytes| text_cell(bytes, frame, at));
                    let new = batch.add_cells(cells);
                    let row = Row { ordinal: offset.ordinal, table, new, ..blank(batch) };
                    batch.rows.push(Row { op: Op::Message, ..row });
                }
                batch.end = batch.end.max(offset.end());
            }
            other => return Err(format!("{other:?} has no place in the journal").into()),
        }
        Ok(())
    }

    fn taken(&mut self, relation: u32, tables: &mut Tables) -> Result<Taken, FrameError> {
        let index = relation as usize;
        match self.taken.get(index) {
            Some(Taken::Unknown) | None => {}
            Some(&known) => return Ok(known),
        }
        let definition = self.definition(relation)?;
        let taken = if self.takes(&definition) {
            Taken::Table(tables.add(relation, Arc::unwrap_or_clone(definition)))
        } else {
            Taken::No
        };
        if self.taken.len() <= index {
            self.taken.resize(index + 1, Taken::Unknown);
        }
        self.taken[index] = taken;
        Ok(taken)
    }

    fn definition(&self, relation: u32) -> Result<Arc<Relation>, FrameError> {
        let definition = self.store.relation(RelationId(relation)).map_err(FrameError::Store)?;
        definition.ok_or_else(|| "a change of a relation that was never described".into())
    }

    fn takes(&self, relation: &Relation) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(&relation.schema, &relation.table))
    }

    /// The change of a definition that a frame speaks of, if the pipeline takes the table under
    /// its old name or its new one.
    fn redefined(&self, frame: &[u8]) -> Result<Option<Redefined>, FrameError> {
        let (before, after) = frame::read_redefined(frame).ok_or("a definition that is cut")?;
        let change = Redefined { before: self.definition(before)?, after: self.definition(after)? };
        Ok((self.takes(&change.before) || self.takes(&change.after)).then_some(change))
    }

    /// Whether the next frame is a change of a definition that the pipeline waits before.
    fn stops_at(&self, place: &Place) -> Result<Option<Halted>, FrameError> {
        let (Some(frame::REDEFINED), Some(transaction)) = (place.next_tag(), place.transaction)
        else {
            return Ok(None);
        };
        let at = Offset::new(transaction.commit, place.ordinal);
        if at <= self.cursor {
            return Ok(None);
        }
        let frame = place.clone_frame().ok_or("a frame is cut")?;
        Ok(self.redefined(&frame)?.and_then(|change| self.gate.stops(at, &change)))
    }

    fn read_redefined(
        &mut self,
        batch: &mut Batch,
        tables: &mut Tables,
        place: &mut Place,
        frame: &[u8],
    ) -> Result<(), FrameError> {
        let offset = place.take_ordinal(1)?;
        batch.changes += 1;
        if offset > self.cursor
            && let Some(change) = self.redefined(frame)?
        {
            self.gate.pass(offset, &change);
            let data = Bytes::from(change.data());
            let len = data.len();
            let buffer = batch.add_buffer(data).ok_or("too many definitions in one batch")?;
            let new = batch.add_cells([Cell::text(buffer, 0, len)]);
            let table = tables.add_derived(Arc::unwrap_or_clone(change.after));
            let row = Row { ordinal: offset.ordinal, table, new, ..blank(batch) };
            batch.rows.push(Row { op: Op::Schema, ..row });
        }
        batch.end = batch.end.max(offset.end());
        Ok(())
    }

    /// Sets the row that was just added aside, if its table's are.
    fn hold_back(&self, batch: &mut Batch, tables: &Tables) {
        if self.gate.is_open() {
            return;
        }
        let oid = |row: &Row| tables.get(row.table).relation.oid;
        if let Some(reason) = batch.rows.last().and_then(|row| self.gate.holds(oid(row)))
            && let Some(row) = batch.rows.pop()
        {
            batch.held.push((row, reason));
        }
    }

    fn message_table(&mut self, tables: &mut Tables) -> u32 {
        *self.message_table.get_or_insert_with(|| {
            let column = |name: &str| Column {
                name: name.into(),
                type_oid: 25,
                type_mod: -1,
                type_name: "text".into(),
                kind: Kind::Text,
                key: false,
            };
            tables.add_derived(Relation {
                oid: 0,
                schema: String::new(),
                table: String::new(),
                identity: ReplicaIdentity::Nothing,
                columns: vec![column("prefix"), column("content")],
            })
        })
    }
}

fn relation_of(frame: &[u8]) -> Result<u32, FrameError> {
    let bytes = frame.get(1..5).and_then(|bytes| bytes.first_chunk::<4>());
    Ok(u32::from_be_bytes(*bytes.ok_or("a change without a relation")?))
}

fn blank(batch: &Batch) -> Row {
    Row {
        // There is one for each Begin, and changes only come behind one.
        transaction: batch.transactions.len().saturating_sub(1) as u32,
        ordinal: 0,
        emit: 0,
        op: Op::Insert,
        table: 0,
        new: Span::NONE,
        old: Span::NONE,
        hidden_key: Span::NONE,
        hidden_old: Span::NONE,
        stream: 0,
    }
}

fn add_change(
    batch: &mut Batch,
    tables: &Tables,
    row: Row,
    message: Message<'_>,
    frame: &[u8],
    at: (u16, usize),
) {
    let columns = &tables.get(row.table).relation.columns;
    let row = match message {
        Message::Insert { new, .. } => {
            Row { op: Op::Insert, new: add_tuple(batch, new, frame, at), ..row }
        }
        Message::Row { new, .. } => {
            Row { op: Op::Snapshot, new: add_tuple(batch, new, frame, at), ..row }
        }
        Message::Update { old, new, .. } => {
            let new = add_tuple(batch, new, frame, at);
            let old = match old {
                None => Span::NONE,
                Some(old) => {
                    let whole = old.kind == OldKind::Full;
                    let span = add_old_tuple(batch, columns, old.tuple, whole, frame, at);
                    if whole {
                        fill_unchanged(batch, new, span);
                    }
                    span
                }
            };
            Row { op: Op::Update, new, old, ..row }
        }
        Message::Delete { old, .. } => {
            let whole = old.kind == OldKind::Full;
            let new = add_old_tuple(batch, columns, old.tuple, whole, frame, at);
            Row { op: Op::Delete, new, ..row }
        }
        // The caller has looked at the tag.
        _ => return,
    };
    batch.rows.push(row);
}

fn add_tuple(batch: &mut Batch, tuple: Tuple<'_>, frame: &[u8], at: (u16, usize)) -> Span {
    batch.add_cells(tuple.iter().map(|value| cell(value, frame, at)))
}

/// In a key's tuple, NULL stands for every column outside the key: absent, not NULL.
fn add_old_tuple(
    batch: &mut Batch,
    columns: &[Column],
    tuple: Tuple<'_>,
    whole: bool,
    frame: &[u8],
    at: (u16, usize),
) -> Span {
    batch.add_cells(tuple.iter().enumerate().map(|(column, value)| {
        let outside = !whole && columns.get(column).is_none_or(|column| !column.key);
        if outside { Cell::ABSENT } else { cell(value, frame, at) }
    }))
}

/// With a whole old row at hand, a TOASTed value that was not sent again is known after all.
fn fill_unchanged(batch: &mut Batch, new: Span, old: Span) {
    for column in 0..batch.cells(new).len() {
        if batch.cells(new)[column].is(tagged::UNCHANGED)
            && let Some(&known) = batch.cells(old).get(column)
        {
            batch.cells_mut(new)[column] = known;
        }
    }
}

fn cell(value: Value<'_>, frame: &[u8], at: (u16, usize)) -> Cell {
    match value {
        Value::Null => Cell::NULL,
        Value::Unchanged => Cell::UNCHANGED,
        // Binary is never asked for; were it sent, its bytes would be shown as they are.
        Value::Text(bytes) | Value::Binary(bytes) => text_cell(bytes, frame, at),
    }
}

/// `bytes` lie in `frame`, which starts at `at.1` in the buffer `at.0`.
fn text_cell(bytes: &[u8], frame: &[u8], at: (u16, usize)) -> Cell {
    let inside = bytes.as_ptr().addr() - frame.as_ptr().addr();
    Cell::text(at.0, at.1 + inside, bytes.len())
}
