//! The newest entries of a log, kept in memory and shared by all who read at its end.

use std::collections::VecDeque;

use super::log::Entry;
use crate::model::Offset;

/// The newest entries, oldest first, up to a bound in bytes.
pub(super) struct Tail<T> {
    items: VecDeque<(Entry, T)>,
    bytes: u64,
    bound: u64,
}

impl<T: Clone> Tail<T> {
    pub(super) fn new(bound: u64) -> Self {
        Self { items: VecDeque::new(), bytes: 0, bound }
    }

    /// Adds the newest entry, with what it decodes to. The oldest make room; it stays itself.
    pub(super) fn push(&mut self, entry: Entry, item: T) {
        self.bytes += entry.len();
        self.items.push_back((entry, item));
        while self.bytes > self.bound && self.items.len() > 1 {
            if let Some((oldest, _)) = self.items.pop_front() {
                self.bytes -= oldest.len();
            }
        }
    }

    /// Takes entries back, from this key on.
    pub(super) fn cut_from(&mut self, key: Offset) {
        while let Some((newest, _)) = self.items.pop_back_if(|(entry, _)| entry.key >= key) {
            self.bytes -= newest.len();
        }
    }

    /// The first entry whose key is `key` or more, if it is certain that there is none on disk
    /// between that key and this entry: `after` is known to lie before it.
    pub(super) fn at_or_behind(&self, key: Offset, after: Offset) -> Option<&(Entry, T)> {
        let at = self.items.partition_point(|(entry, _)| entry.key < key);
        let found = self.items.get(at)?;
        (at > 0 || found.0.header.before <= after).then_some(found)
    }

    /// The entries whose key is `key` or less, newest first.
    pub(super) fn up_to(&self, key: Offset) -> impl Iterator<Item = &(Entry, T)> {
        let end = self.items.partition_point(|(entry, _)| entry.key <= key);
        self.items.range(..end).rev()
    }
}
