//! From messages to the journal's blocks: whole transactions, a few at a time, or the parts of one
//! that is larger than a block. Pure but for the numbers of new table definitions.

use std::collections::{HashMap, VecDeque};

use bytes::{BufMut as _, BytesMut};

use super::types::Types;
use crate::model::{Column, Lsn, Relation, RelationId, ReplicaIdentity};
use crate::pgoutput::{self, DecodeError, Message, frame};
use crate::store::StoreError;
use crate::store::journal::Block;

/// Whole transactions of this size are enough for a block.
const BLOCK: usize = 64 << 10;
/// A transaction of this size is stored in parts.
const PART: usize = 1 << 20;

/// Messages that do not make a stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssembleError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{0} outside a transaction")]
    Outside(&'static str),
    #[error("a transaction begins inside another")]
    Nested,
    #[error("a change of table {0}, which was not described")]
    UnknownRelation(u32),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a message leaves to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Done,
    /// The stream does not say what the table's key is: look its primary key up and give it to
    /// [`Assembler::set_primary_key`].
    PrimaryKey(u32),
}

/// Gives a definition its number.
pub(super) type Intern = Box<dyn FnMut(&Relation) -> Result<RelationId, StoreError> + Send>;

/// Puts blocks together.
pub(super) struct Assembler {
    intern: Intern,
    types: Types,
    relations: HashMap<u32, Known>,
    /// The one that was used last: changes of one table often come in a row.
    recent: Option<(u32, RelationId)>,
    /// A definition that waits for its primary key.
    keyless: Option<Relation>,
    /// The last commit that is complete, here or in the journal: it and all before it are not
    /// taken a second time.
    last_commit: Lsn,
    /// Whole transactions, and behind them what has come of the open one.
    frames: BytesMut,
    whole: Option<Whole>,
    open: Option<Open>,
    /// Blocks that are finished, before everything in `frames`.
    ready: VecDeque<Block>,
    /// A position up to which nothing is in flight.
    idle: Option<Lsn>,
    /// Everything up to here has been handed on.
    handed_on: Lsn,
    counts: Counts,
}

struct Known {
    relation: Relation,
    /// Drawn when a change first needs it.
    id: Option<RelationId>,
}

/// The whole transactions in the buffer.
struct Whole {
    len: usize,
    first: Lsn,
    last: Lsn,
    end: Lsn,
    time: i64,
}

/// The transaction that is coming in.
struct Open {
    commit: Lsn,
    time: i64,
    xid: u32,
    /// The journal has it already.
    skip: bool,
    part: u32,
    /// Ordinal of the first change in this part.
    ordinal: u32,
    /// Ordinal of the next change.
    next: u32,
}

/// What has come in since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) transactions: u64,
    pub(super) changes: u64,
    /// Commit time of the last transaction.
    pub(super) commit_time: Option<i64>,
}

impl Assembler {
    /// Starts behind `last_commit`.
    pub(super) fn new(last_commit: Lsn, intern: Intern) -> Self {
        Self {
            intern,
            types: Types::default(),
            relations: HashMap::new(),
            recent: None,
            keyless: None,
            last_commit,
            frames: BytesMut::new(),
            whole: None,
            open: None,
            ready: VecDeque::new(),
            idle: None,
            handed_on: Lsn::ZERO,
            counts: Counts::default(),
        }
    }

    /// The connection is gone: what came of an open transaction will come again, and tables will be
    /// described again.
    pub(super) fn disconnect(&mut self) {
        self.frames.truncate(self.whole_len());
        (self.open, self.idle, self.recent, self.keyless) = (None, None, None, None);
        self.relations.clear();
        self.types.clear();
    }

    /// Takes one message, which came at `received` (microseconds since 1970-01-01 UTC).
    pub(super) fn push(&mut self, bytes: &[u8], received: i64) -> Result<Step, AssembleError> {
        match pgoutput::decode(bytes) {
            Ok(message) => self.take(message, bytes, received),
            // Nothing that was committed is in it.
            Err(DecodeError::UnknownMessage(b'A')) => Ok(Step::Done),
            Err(error) => Err(error.into()),
        }
    }

    fn take(
        &mut self,
        message: Message<'_>,
        bytes: &[u8],
        received: i64,
    ) -> Result<Step, AssembleError> {
        match message {
            Message::Begin { final_lsn, time, xid } => self.begin(final_lsn, time, xid)?,
            Message::Commit { commit_lsn, end_lsn, .. } => self.commit(commit_lsn, end_lsn)?,
            Message::Relation(relation) => return Ok(self.describe(relation)),
            Message::Type { oid, schema, name } => self.types.name(oid, schema, name),
            Message::Origin { .. } => {}
            Message::Insert { relation, .. }
            | Message::Update { relation, .. }
            | Message::Delete { relation, .. } => self.change(relation, bytes)?,
            Message::Truncate { relations, .. } => self.truncate(relations, bytes)?,
            Message::Message { transactional: false, lsn, .. } if self.open.is_none() => {
                self.lone_message(lsn, bytes, received)?;
            }
            Message::Message { .. } => self.append_change("a message", bytes, 1).map(drop)?,
        }
        Ok(Step::Done)
    }

    fn begin(&mut self, commit: Lsn, time: i64, xid: u32) -> Result<(), AssembleError> {
        if self.open.is_some() {
            return Err(AssembleError::Nested);
        }
        self.idle = None;
        let skip = commit <= self.last_commit;
        self.open = Some(Open { commit, time, xid, skip, part: 0, ordinal: 0, next: 0 });
        if !skip {
            self.append(&frame::begin(commit, time, xid));
        }
        Ok(())
    }

    fn commit(&mut self, commit: Lsn, end: Lsn) -> Result<(), AssembleError> {
        let open = self.open.take().ok_or(AssembleError::Outside("a commit"))?;
        if open.skip || open.next == 0 {
            // Nothing of it goes to the journal, but its place in the log is behind us.
            self.frames.truncate(self.whole_len());
            self.idle = Some(end);
            return Ok(());
        }
        self.append(&frame::commit(commit, end, open.time));
        self.counts.transactions += 1;
        self.counts.commit_time = Some(open.time);
        self.last_commit = open.commit;
        let len = self.frames.len();
        match &mut self.whole {
            _ if open.part > 0 => self.finish_part(&open, Some(end)),
            Some(whole) => {
                (whole.len, whole.last, whole.end, whole.time) = (len, open.commit, end, open.time);
            }
            none => {
                let (first, last) = (open.commit, open.commit);
                *none = Some(Whole { len, first, last, end, time: open.time });
            }
        }
        Ok(())
    }

    fn change(&mut self, oid: u32, bytes: &[u8]) -> Result<(), AssembleError> {
        if self.is_skipping() {
            return Ok(());
        }
        let id = self.id_of(oid)?;
        if let Some(message) = self.append_change("a change", bytes, 1)? {
            frame::set_row_relation(message, id.0);
        }
        self.split_if_large();
        Ok(())
    }

    fn truncate(&mut self, tables: pgoutput::Oids<'_>, bytes: &[u8]) -> Result<(), AssembleError> {
        if self.is_skipping() {
            return Ok(());
        }
        let ids: Vec<RelationId> =
            tables.iter().map(|oid| self.id_of(oid)).collect::<Result<_, _>>()?;
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        if let Some(message) = self.append_change("a truncate", bytes, count)? {
            for (index, id) in ids.into_iter().enumerate() {
                frame::set_truncate_relation(message, index, id.0);
            }
        }
        self.split_if_large();
        Ok(())
    }

    /// A message that belongs to no transaction becomes one of its own.
    fn lone_message(&mut self, lsn: Lsn, bytes: &[u8], time: i64) -> Result<(), AssembleError> {
        self.begin(lsn, time, 0)?;
        self.append_change("a message", bytes, 1)?;
        self.commit(lsn, lsn)
    }

    /// Appends a change, unless the journal has it; its place in the buffer.
    fn append_change(
        &mut self,
        what: &'static str,
        bytes: &[u8],
        ordinals: u32,
    ) -> Result<Option<&mut [u8]>, AssembleError> {
        let open = self.open.as_mut().ok_or(AssembleError::Outside(what))?;
        if open.skip {
            return Ok(None);
        }
        open.next = open.next.saturating_add(ordinals);
        self.counts.changes += u64::from(ordinals);
        let at = self.append(bytes);
        Ok(Some(&mut self.frames[at..]))
    }

    /// Appends a frame; where its message begins.
    fn append(&mut self, message: &[u8]) -> usize {
        self.frames.reserve((4 + message.len()).max(BLOCK / 8));
        // A message is at most 1 GiB.
        self.frames.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        self.frames.put_slice(message);
        self.frames.len() - message.len()
    }

    fn is_skipping(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.skip)
    }

    fn whole_len(&self) -> usize {
        self.whole.as_ref().map_or(0, |whole| whole.len)
    }

    fn split_if_large(&mut self) {
        if self.frames.len() - self.whole_len() < PART {
            return;
        }
        self.finish_whole();
        let Some(mut open) = self.open.take() else { return };
        self.finish_part(&open, None);
        (open.part, open.ordinal) = (open.part.saturating_add(1), open.next);
        self.append(&frame::begin(open.commit, open.time, open.xid));
        self.open = Some(open);
    }

    /// Makes a block of the whole transactions.
    fn finish_whole(&mut self) {
        let Some(Whole { len, first, last, end, time }) = self.whole.take() else { return };
        let frames = self.frames.split_to(len).freeze();
        let (part, ordinal, complete) = (0, 0, true);
        self.ready.push_back(Block { first, part, ordinal, last, complete, end, time, frames });
    }

    /// Makes a block of what has come of the open transaction; `end` with its commit.
    fn finish_part(&mut self, open: &Open, end: Option<Lsn>) {
        self.ready.push_back(Block {
            first: open.commit,
            part: open.part,
            ordinal: open.ordinal,
            last: open.commit,
            complete: end.is_some(),
            end: end.unwrap_or(open.commit),
            time: open.time,
            frames: self.frames.split().freeze(),
        });
    }

    /// Whether there is a block to hand on.
    pub(super) fn has_block(&self) -> bool {
        !self.ready.is_empty() || self.whole.is_some()
    }

    /// Whether a block should be handed on before more is taken in.
    pub(super) fn is_full(&self) -> bool {
        !self.ready.is_empty() || self.whole_len() >= BLOCK
    }

    /// The next block, in the order of commits.
    pub(super) fn take_block(&mut self) -> Option<Block> {
        if self.ready.is_empty() {
            self.finish_whole();
        }
        let block = self.ready.pop_front()?;
        if block.complete {
            self.handed_on = self.handed_on.max(block.end);
        }
        Some(block)
    }

    /// The server's log has reached `end`, and everything before it that is for us has come.
    pub(super) fn reached(&mut self, end: Lsn) {
        if self.open.is_none() {
            self.idle = Some(end);
        }
    }

    /// A position up to which all is handed on, if it is news.
    pub(super) fn idle(&self) -> Option<Lsn> {
        self.idle.filter(|lsn| !self.has_block() && *lsn > self.handed_on)
    }

    /// The position has been handed on.
    pub(super) fn handed_on(&mut self, position: Lsn) {
        self.handed_on = self.handed_on.max(position);
    }

    /// Everything up to here has been handed on.
    pub(super) fn position(&self) -> Lsn {
        self.handed_on
    }

    /// What has come in since this was last called.
    pub(super) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    fn id_of(&mut self, oid: u32) -> Result<RelationId, AssembleError> {
        if let Some((_, id)) = self.recent.filter(|(recent, _)| *recent == oid) {
            return Ok(id);
        }
        let known = self.relations.get_mut(&oid).ok_or(AssembleError::UnknownRelation(oid))?;
        let id = match known.id {
            Some(id) => id,
            None => *known.id.insert((self.intern)(&known.relation)?),
        };
        self.recent = Some((oid, id));
        Ok(id)
    }

    fn describe(&mut self, described: pgoutput::Relation<'_>) -> Step {
        let relation = self.relation(described);
        // FULL marks every column, and a table without identity none.
        let says_key = relation.identity != ReplicaIdentity::Full
            && relation.columns.iter().any(|column| column.key);
        if says_key {
            self.learn(relation);
            return Step::Done;
        }
        let oid = relation.oid;
        self.keyless = Some(relation);
        Step::PrimaryKey(oid)
    }

    /// The primary key that was asked for. A table without one is identified by all its columns.
    pub(super) fn set_primary_key(&mut self, names: &[String]) {
        let Some(mut relation) = self.keyless.take() else { return };
        for column in &mut relation.columns {
            column.key = names.contains(&column.name);
        }
        if !relation.columns.iter().any(|column| column.key) {
            relation.columns.iter_mut().for_each(|column| column.key = true);
        }
        self.learn(relation);
    }

    fn learn(&mut self, relation: Relation) {
        let oid = relation.oid;
        if self.relations.get(&oid).is_none_or(|known| known.relation != relation) {
            self.recent = None;
            self.relations.insert(oid, Known { relation, id: None });
        }
    }

    fn relation(&self, described: pgoutput::Relation<'_>) -> Relation {
        let column = |column: pgoutput::Column<'_>| Column {
            name: column.name.into(),
            type_oid: column.type_oid,
            type_mod: column.type_mod,
            type_name: self.types.name_of(column.type_oid, column.type_mod),
            kind: self.types.kind_of(column.type_oid),
            key: column.key,
        };
        let schema = if described.schema.is_empty() { "pg_catalog" } else { described.schema };
        Relation {
            oid: described.oid,
            schema: schema.into(),
            table: described.table.into(),
            identity: described.identity,
            columns: described.columns.iter().map(column).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
