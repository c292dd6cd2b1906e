//! Reads blocks in order, from memory at the end and from disk before that.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Block, Read, Records, block};
use crate::model::{Lsn, Offset};
use crate::store::StoreError;
use crate::store::log::Entry;
use crate::store::tail::Tail;

/// One reader's place in the journal.
pub struct Reader {
    records: Arc<Records>,
    visible: watch::Receiver<Lsn>,
    /// Everything up to here has been read, or was never asked for.
    after: Offset,
    /// Key of the next block, once a block has been read.
    next: Option<Offset>,
}

impl Reader {
    pub(in crate::store) fn new(records: Arc<Records>, after: Offset) -> Self {
        let visible = records.visible();
        Self { records, visible, after, next: None }
    }

    /// The next block of committed changes. Never shows an incomplete transaction.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the next block is not what was written, or is missing.
    #[expect(clippy::should_implement_trait, reason = "it goes on behind its end, and can fail")]
    pub fn next(&mut self) -> Result<Read, StoreError> {
        let visible = *self.visible.borrow_and_update();
        if self.next.unwrap_or(self.after) >= block::end_of(visible) {
            return Ok(Read::End);
        }
        if let Some(gap) = self.gap()? {
            return Ok(gap);
        }
        match self.find()? {
            Some((_, block)) if block.last > visible => Ok(Read::End),
            Some((entry, block)) if self.follows(&entry, &block) => {
                self.advance(&block);
                Ok(Read::Block(block))
            }
            // Retention may have removed it a moment ago.
            _ => self.gap()?.ok_or_else(|| {
                let from = self.after.commit;
                self.records.log.damaged(format_args!("a block between {from} and {visible}"))
            }),
        }
    }

    /// Commit LSN of the last visible transaction; changes when there is more to read.
    pub fn visible(&mut self) -> &mut watch::Receiver<Lsn> {
        &mut self.visible
    }

    /// Goes back, or forward, to read what is behind `after`. A reader that is done with a whole
    /// transaction says so with [`Offset::end_of`].
    pub fn seek(&mut self, after: Offset) {
        (self.after, self.next) = (after, None);
    }

    /// Whether something behind our place is gone. If so, we go on behind that.
    fn gap(&mut self) -> Result<Option<Read>, StoreError> {
        let purged = self.records.log.purged();
        if self.after >= purged {
            return Ok(None);
        }
        self.seek(purged);
        let first = self.records.log.first()?;
        let oldest = first.map_or(purged.commit, |entry| entry.key.commit);
        Ok(Some(Read::Gap { oldest }))
    }

    fn find(&self) -> Result<Option<(Entry, Block)>, StoreError> {
        let in_tail = self.records.in_tail(|tail| match self.next {
            Some(next) => tail.at_or_behind(next, self.after).cloned(),
            None => containing(tail, self.after),
        });
        if in_tail.is_some() {
            return Ok(in_tail);
        }
        let found = match self.next {
            Some(next) => self.records.log.at_or_behind(next)?,
            None => self.seek_on_disk()?,
        };
        found.map(|entry| self.records.decode(&entry).map(|block| (entry, block))).transpose()
    }

    /// The entry that holds the first change behind our place.
    fn seek_on_disk(&self) -> Result<Option<Entry>, StoreError> {
        let Offset { commit, ordinal, .. } = self.after;
        let log = &self.records.log;
        let Some(entry) = log.at_or_before(block::key(commit, u32::MAX))? else {
            return log.first();
        };
        if entry.header.last <= self.after {
            return log.at_or_behind(block::key(Lsn(commit.0.saturating_add(1)), 0));
        }
        if entry.key.commit < commit || entry.key.ordinal == 0 {
            return Ok(Some(entry));
        }
        // Parts of one transaction: the last that begins at our ordinal, or before it.
        let (mut found, mut low, mut high) = (None, 0, entry.key.ordinal);
        while low <= high {
            let part = low + (high - low) / 2;
            let key = block::key(commit, part);
            let entry = log.get(key)?.ok_or_else(|| self.records.damaged_at(commit))?;
            if self.records.decode(&entry)?.ordinal <= ordinal {
                (found, low) = (Some(entry), part + 1);
            } else if part == 0 {
                break;
            } else {
                high = part - 1;
            }
        }
        Ok(found)
    }

    /// Whether nothing is missing between our place and this block.
    fn follows(&self, entry: &Entry, block: &Block) -> bool {
        match self.next {
            Some(next) if next.ordinal > 0 => entry.key == next,
            _ if block.part > 0 => entry.key.commit == self.after.commit,
            _ => entry.header.before <= self.after,
        }
    }

    fn advance(&mut self, block: &Block) {
        if block.complete {
            self.after = block::end_of(block.last);
            self.next = Some(block::key(Lsn(block.last.0.saturating_add(1)), 0));
        } else {
            self.after = self.after.max(Offset::new(block.first, block.ordinal));
            self.next = Some(block::key(block.first, block.part.saturating_add(1)));
        }
    }
}

/// The entry in memory that holds the first change behind `after`.
fn containing(tail: &Tail<Block>, after: Offset) -> Option<(Entry, Block)> {
    let found = tail
        .up_to(block::key(after.commit, u32::MAX))
        .find(|(entry, block)| entry.key.commit < after.commit || block.ordinal <= after.ordinal);
    match found {
        Some((entry, _)) if entry.header.last <= after => {
            tail.at_or_behind(block::key(Lsn(after.commit.0.saturating_add(1)), 0), after).cloned()
        }
        Some(found) => Some(found.clone()),
        None => tail.at_or_behind(block::key(after.commit, 0), after).cloned(),
    }
}
