//! What has been read from a stream and is not behind the checkpoint yet. Events are done in any
//! order; the checkpoint only moves over those that are all done from the front.

use std::collections::VecDeque;

use crate::model::Offset;
use crate::store::dead_letter::DeadLetter;

/// The events between a feed's checkpoint and its reader.
#[derive(Debug, Default)]
pub struct Window {
    entries: VecDeque<Entry>,
    /// Number of the first entry.
    first: u64,
    runs: VecDeque<Run>,
    /// Bytes that are kept in memory on behalf of the entries: runs in use, and dead letters.
    held: usize,
}

#[derive(Debug)]
struct Entry {
    offset: Offset,
    done: bool,
    /// Whether it still needs the bytes of its run.
    in_run: bool,
    /// Written together with the checkpoint that moves over it.
    letter: Option<Box<DeadLetter>>,
}

/// A run of events as the stream gave it, which lives as long as one of them needs it.
#[derive(Debug)]
struct Run {
    /// Number behind its last entry.
    end: u64,
    bytes: usize,
    users: usize,
}

impl Window {
    /// Begins a run of so many bytes: what is pushed from now on, one event at least, is part of
    /// it.
    pub fn begin_run(&mut self, bytes: usize) {
        self.runs.push_back(Run { end: self.end(), bytes, users: 0 });
        self.held += bytes;
    }

    /// Adds an event of the last run, and gives it its number.
    pub fn push(&mut self, offset: Offset) -> u64 {
        let seq = self.end();
        self.entries.push_back(Entry { offset, done: false, in_run: true, letter: None });
        if let Some(run) = self.runs.back_mut() {
            run.end = seq + 1;
            run.users += 1;
        }
        seq
    }

    /// Adds a place that there is nothing to deliver for.
    pub fn push_done(&mut self, offset: Offset) {
        self.entries.push_back(Entry { offset, done: true, in_run: false, letter: None });
    }

    /// The event no longer needs the bytes of its run.
    pub fn release(&mut self, seq: u64) {
        let Some(entry) = self.entry(seq) else { return };
        if !std::mem::take(&mut entry.in_run) {
            return;
        }
        let run = self.runs.partition_point(|run| run.end <= seq);
        if let Some(run) = self.runs.get_mut(run) {
            run.users -= 1;
            if run.users == 0 {
                self.held -= std::mem::take(&mut run.bytes);
            }
        }
    }

    /// The event is delivered, or given up with a dead letter.
    pub fn finish(&mut self, seq: u64, letter: Option<DeadLetter>) {
        self.release(seq);
        self.held += letter.as_ref().map_or(0, size);
        if let Some(entry) = self.entry(seq) {
            entry.done = true;
            entry.letter = letter.map(Box::new);
        }
    }

    /// Takes everything that is done off the front: where the checkpoint now belongs, and the dead
    /// letters of what was given up on the way there.
    pub fn advance(&mut self) -> Option<(Offset, Vec<DeadLetter>)> {
        let (mut reached, mut letters) = (None, Vec::new());
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.done) {
            self.first += 1;
            reached = Some(entry.offset);
            letters.extend(entry.letter.map(|letter| *letter));
        }
        self.held -= letters.iter().map(size).sum::<usize>();
        while self.runs.pop_front_if(|run| run.end <= self.first && run.users == 0).is_some() {}
        reached.map(|offset| (offset, letters))
    }

    /// Whether [`Window::advance`] would move.
    #[must_use]
    pub fn can_advance(&self) -> bool {
        self.entries.front().is_some_and(|entry| entry.done)
    }

    /// How many events it spans.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes that are kept in memory on behalf of its events.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn entry(&mut self, seq: u64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }
}

fn size(letter: &DeadLetter) -> usize {
    letter.payload.get().len() + letter.reason.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Lsn;

    fn at(place: usize) -> Offset {
        Offset::new(Lsn(place as u64 + 1), 0)
    }

    proptest! {
        /// `runs`: how many events each has. `order`: in which order they are done.
        #[test]
        fn the_checkpoint_is_the_last_of_those_that_are_all_done_from_the_front(
            (runs, order) in prop::collection::vec(1_usize..4, 0..8).prop_flat_map(|runs| {
                let count = runs.iter().sum::<usize>();
                (Just(runs), Just((0..count).collect::<Vec<_>>()).prop_shuffle())
            })
        ) {
            let mut window = Window::default();
            let mut seqs = Vec::new();
            for &events in &runs {
                window.begin_run(100 * events);
                for _ in 0..events {
                    seqs.push(window.push(at(seqs.len())));
                }
            }
            let mut done = vec![false; seqs.len()];
            let mut checkpoint = None;
            for &next in &order {
                window.finish(seqs[next], None);
                done[next] = true;
                checkpoint = window.advance().map(|(offset, _)| offset).or(checkpoint);
                let prefix = done.iter().take_while(|done| **done).count();
                prop_assert_eq!(checkpoint, prefix.checked_sub(1).map(at));
            }
            prop_assert_eq!((window.len(), window.held(), window.runs.len()), (0, 0, 0));
        }
    }

    #[test]
    fn a_run_is_held_while_one_of_its_events_needs_it() {
        let mut window = Window::default();
        window.begin_run(1000);
        let seqs = [window.push(at(0)), window.push(at(1))];
        window.finish(seqs[1], None);
        assert_eq!((window.held(), window.advance().is_none()), (1000, true));
        window.release(seqs[0]);
        assert_eq!((window.held(), window.len()), (0, 2));
        window.finish(seqs[0], None);
        assert_eq!(window.advance().map(|(offset, _)| offset), Some(at(1)));
        assert_eq!((window.held(), window.len()), (0, 0));
    }
}
