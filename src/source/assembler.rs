//! From messages to the journal's blocks: whole transactions, a few at a time, or the parts of one
//! that is larger than a block. Pure but for the numbers of new table definitions, and the files of
//! transactions that are not decided yet.

mod blocks;
mod prepared;
mod schema;
mod streamed;
mod tables;
pub(super) mod watermark;

use super::types::ArrayType;
use crate::model::{Lsn, RelationId};
use crate::pgoutput::{self, DecodeError, Message, frame, row};
use crate::store::StoreError;
use crate::store::journal::{Append, Block};
use crate::store::spill::{SpillError, Spills};
use blocks::{Blocks, Committed};
use streamed::{Commit, Streamed};
use tables::Tables;
use watermark::Watermarks;

pub(super) use schema::Definitions;
pub(super) use tables::Intern;

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
    /// A savepoint was rolled back, and PostgreSQL does not say whose its messages are.
    #[error(
        "a savepoint of open transaction {0} was rolled back, and PostgreSQL does not say which of \
         its logical messages went with it"
    )]
    Unclear(u32),
    /// It was prepared before we were there, or for another data folder.
    #[error("prepared transaction `{0}` has committed, and its changes are not here")]
    Unprepared(String),
    /// What is in its file, PostgreSQL does not send again.
    #[error("a prepared transaction cannot be read: {0}")]
    Sealed(SpillError),
    #[error(transparent)]
    Spill(#[from] SpillError),
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
    /// The stream does not say whether this type is an array: look it up and give it to
    /// [`Assembler::set_array`].
    Array(u32),
    /// A transaction was prepared: run what [`Assembler::seal`] gives, which takes its time, and
    /// then tell [`Assembler::sealed`].
    Seal,
}

/// Puts blocks together.
pub(super) struct Assembler {
    tables: Tables,
    blocks: Blocks,
    streamed: Streamed,
    watermarks: Watermarks,
    /// A position up to which nothing is in flight.
    idle: Option<Lsn>,
    /// Everything up to here has been handed on.
    handed_on: Lsn,
    counts: Counts,
}

/// What has come in since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) transactions: u64,
    pub(super) changes: u64,
    /// Bytes that went to files of open and prepared transactions.
    pub(super) spilled: u64,
    /// Commit time of the last transaction.
    pub(super) commit_time: Option<i64>,
}

impl Assembler {
    /// Starts behind `last_commit`, whose journal left the tables like this.
    pub(super) fn new(
        last_commit: Lsn,
        definitions: Definitions,
        intern: Intern,
        spills: Spills,
    ) -> Result<Self, SpillError> {
        Ok(Self {
            tables: Tables::new(intern),
            blocks: Blocks::new(last_commit, definitions),
            streamed: Streamed::open(spills, last_commit)?,
            watermarks: Watermarks::new(),
            idle: None,
            handed_on: Lsn::ZERO,
            counts: Counts::default(),
        })
    }

    /// The connection is gone: what came of an open transaction will come again, and tables will be
    /// described again.
    pub(super) fn disconnect(&mut self) {
        self.blocks.forget_open();
        self.streamed.clear();
        self.tables.clear();
        self.watermarks.disconnect();
        self.idle = None;
    }

    /// Takes one message, which came at `received` (microseconds since 1970-01-01 UTC).
    pub(super) fn push(&mut self, bytes: &[u8], received: i64) -> Result<Step, AssembleError> {
        match self.streamed.is_in_block() {
            true => self.push_streamed(bytes, received),
            false => self.take(pgoutput::decode(bytes)?, bytes, received),
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
            Message::Commit { end_lsn, .. } => self.commit(end_lsn)?,
            Message::Relation(relation) => return Ok(self.tables.describe(relation)),
            Message::Type { oid, schema, name } => {
                return Ok(self.tables.name_type(oid, schema, name));
            }
            Message::Origin { .. } => {}
            // Ours: it has no place in the stream.
            Message::Row { .. } => return Err(DecodeError::UnknownMessage(row::TAG).into()),
            Message::Insert { relation, .. }
            | Message::Update { relation, .. }
            | Message::Delete { relation, .. } => self.change(relation, bytes)?,
            Message::Truncate { relations, .. } => self.truncate(relations, bytes)?,
            Message::Message { transactional: false, lsn, prefix, content }
                if watermark::is_ours(prefix, content) =>
            {
                self.watermark(lsn, content, received)?;
            }
            Message::Message { transactional: false, lsn, .. } if !self.is_inside() => {
                self.lone_message(lsn, bytes, received)?;
            }
            Message::Message { .. } => self.append_change("a message", bytes, 1).map(drop)?,
            Message::StreamStart { xid, first } => self.stream_start(xid, first)?,
            Message::StreamStop => self.stream_stop()?,
            Message::StreamAbort { xid, subxid, .. } => self.stream_abort(xid, subxid)?,
            Message::StreamCommit { xid, commit_lsn, end_lsn, time } => {
                let (commit, end) = (commit_lsn, end_lsn);
                self.stream_commit(Commit { xid, commit, end, time })?;
            }
            Message::BeginPrepare(prepared) => self.begin_prepare(prepared)?,
            Message::Prepare(prepared) => return self.prepare(prepared),
            Message::StreamPrepare(prepared) => return self.stream_prepare(prepared),
            Message::CommitPrepared { commit_lsn, end_lsn, time, xid, gid } => {
                let (commit, end) = (commit_lsn, end_lsn);
                self.commit_prepared(Commit { xid, commit, end, time }, gid)?;
            }
            Message::RollbackPrepared { xid, end_lsn, .. } => {
                self.roll_back_prepared(xid, end_lsn)?;
            }
        }
        Ok(Step::Done)
    }

    /// Whether a transaction, or a block of an open one, is coming in, or is on its way from its
    /// file to the journal.
    fn is_inside(&self) -> bool {
        self.blocks.is_open() || self.streamed.is_inside()
    }

    /// Whether what comes now is to be noted for a backfill. What comes undecided is noted with its
    /// commit.
    fn is_noting(&self) -> bool {
        self.watermarks.are_on() && !self.streamed.is_inside()
    }

    fn begin(&mut self, commit: Lsn, time: i64, xid: u32) -> Result<(), AssembleError> {
        if self.is_inside() {
            return Err(AssembleError::Nested);
        }
        self.idle = None;
        self.blocks.begin(commit, time, xid);
        self.watermarks.committed(xid);
        Ok(())
    }

    fn commit(&mut self, end: Lsn) -> Result<(), AssembleError> {
        match self.blocks.commit(end).ok_or(AssembleError::Outside("a commit"))? {
            Committed::Transaction(time) => {
                self.counts.transactions += 1;
                self.counts.commit_time = Some(time);
            }
            // Nothing of it goes to the journal, but its place in the log is behind us.
            Committed::Nothing => self.idle = Some(end),
        }
        Ok(())
    }

    fn change(&mut self, oid: u32, bytes: &[u8]) -> Result<(), AssembleError> {
        if self.blocks.is_skipping() {
            return Ok(());
        }
        let id = self.tables.id_of(oid)?;
        self.blocks.uses(id)?;
        if self.is_noting() {
            self.watermarks.note(self.tables.numbered(id), &pgoutput::decode(bytes)?);
        }
        if let Some(message) = self.append_change("a change", bytes, 1)? {
            frame::set_row_relation(message, id.0);
        }
        self.blocks.split_if_large();
        Ok(())
    }

    fn truncate(&mut self, tables: pgoutput::Oids<'_>, bytes: &[u8]) -> Result<(), AssembleError> {
        if self.blocks.is_skipping() {
            return Ok(());
        }
        let ids: Vec<RelationId> =
            tables.iter().map(|oid| self.tables.id_of(oid)).collect::<Result<_, _>>()?;
        for id in &ids {
            self.blocks.uses(*id)?;
        }
        if self.is_noting() {
            ids.iter().for_each(|id| self.watermarks.emptied(self.tables.numbered(*id)));
        }
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        if let Some(message) = self.append_change("a truncate", bytes, count)? {
            for (index, id) in ids.into_iter().enumerate() {
                frame::set_truncate_relation(message, index, id.0);
            }
        }
        self.blocks.split_if_large();
        Ok(())
    }

    /// A message that belongs to no transaction becomes one of its own.
    fn lone_message(&mut self, lsn: Lsn, bytes: &[u8], time: i64) -> Result<(), AssembleError> {
        self.begin(place_of_message(lsn), time, 0)?;
        self.append_change("a message", bytes, 1)?;
        self.commit(lsn)
    }

    /// One of our own messages, which is no event. Behind a high watermark a chunk's rows come, as
    /// a transaction of their own.
    fn watermark(&mut self, lsn: Lsn, content: &[u8], time: i64) -> Result<(), AssembleError> {
        let Some(placing) = self.watermarks.reached(content) else {
            self.idle = Some(lsn);
            return Ok(());
        };
        let commit = place_of_message(lsn);
        self.begin(commit, time, 0)?;
        let blocks = &mut self.blocks;
        // All of a chunk's rows are of one definition.
        let mut used = Ok(());
        let placed = placing.place(commit, |row| {
            if let Some(id) = row::relation(row).filter(|_| used.is_ok()) {
                used = blocks.uses(RelationId(id));
            }
            blocks.change(row, 1);
            blocks.split_if_large();
        });
        used?;
        self.watermarks.settle(placed);
        self.commit(lsn)
    }

    /// Does what a backfill asks.
    pub(super) fn ask(&mut self, ask: watermark::Ask) {
        self.watermarks.ask(ask);
    }

    /// Appends a change, unless the journal has it; its place in the buffer. Inside a block of an
    /// open transaction it goes to that one's file.
    fn append_change(
        &mut self,
        what: &'static str,
        bytes: &[u8],
        ordinals: u32,
    ) -> Result<Option<&mut [u8]>, AssembleError> {
        if self.streamed.is_inside() {
            return self.streamed.append(bytes, ordinals).map(Some);
        }
        if !self.blocks.is_open() {
            return Err(AssembleError::Outside(what));
        }
        let appended = self.blocks.change(bytes, ordinals);
        if appended.is_some() {
            self.counts.changes += u64::from(ordinals);
        }
        Ok(appended)
    }

    /// The last commit that is complete, here or in the journal.
    pub(super) fn last_commit(&self) -> Lsn {
        self.blocks.last_commit()
    }

    /// Whether there is a block to hand on.
    pub(super) fn has_block(&self) -> bool {
        self.is_replaying() || self.blocks.has_block()
    }

    /// Whether a block should be handed on before more is taken in.
    pub(super) fn is_full(&self) -> bool {
        self.is_replaying() || self.blocks.is_full()
    }

    /// Whether a transaction is on its way from its file to the journal: until its blocks are
    /// taken, no message may be pushed.
    pub(super) fn is_replaying(&self) -> bool {
        self.streamed.is_replaying()
    }

    /// Whether transactions have to come whole from now on.
    pub(super) fn wants_whole(&self) -> bool {
        self.streamed.wants_whole()
    }

    /// Open transactions are not to be had from this server.
    pub(super) fn ask_for_whole(&mut self) {
        self.streamed.ask_for_whole();
    }

    /// The next block, in the order of commits; none may be left of a transaction in a file.
    fn take_block(&mut self) -> Result<Option<Block>, AssembleError> {
        self.go_on_replaying()?;
        let Some(block) = self.blocks.take() else { return Ok(None) };
        if block.complete {
            self.handed_on = self.handed_on.max(block.end);
        }
        Ok(Some(block))
    }

    /// The same, as it goes to the journal.
    pub(super) fn take_append(&mut self) -> Result<Option<Append>, AssembleError> {
        Ok(self.take_block()?.map(|block| self.watermarks.send_off(block)))
    }

    /// The server's log has reached `end`, and everything before it that is for us has come.
    pub(super) fn reached(&mut self, end: Lsn) {
        // What is still open, PostgreSQL keeps whatever we confirm.
        if !self.is_inside() {
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
        let spilled = self.streamed.take_spilled();
        Counts { spilled, ..std::mem::take(&mut self.counts) }
    }

    /// The primary key that was asked for. A table without one is identified by all its columns.
    pub(super) fn set_primary_key(&mut self, names: &[String]) {
        self.tables.set_primary_key(names);
    }

    /// The definitions that changes have used so far, for rows that come another way.
    pub(super) fn definitions(&mut self) -> &mut Definitions {
        self.blocks.definitions()
    }

    /// What a type is that was asked about.
    pub(super) fn set_array(&mut self, of: u32, array: Option<ArrayType>) {
        self.tables.set_array(of, array);
    }
}

/// Where a message stands that belongs to no transaction. The server names the end of its record,
/// which is where the next one begins, and that may be a commit. One byte before it is no other
/// record's place.
fn place_of_message(lsn: Lsn) -> Lsn {
    Lsn(lsn.0.saturating_sub(1))
}

#[cfg(test)]
mod tests;
