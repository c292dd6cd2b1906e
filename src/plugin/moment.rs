//! When a call takes place, as the plugin may learn it: what its clocks say, and what its random
//! numbers are made from. A replay that cuts changes into other batches must tell it the same.

use std::cell::Cell;

/// When a call takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    time: i64,
    scope: Scope,
}

/// How much of what a call is about shares one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Events of several transactions: there is no one time.
    Mixed,
    /// Events of one transaction: its time is theirs, but random numbers would depend on how many
    /// of them come together.
    Transaction,
    /// One event, or none: everything can be said.
    Event(u64),
}

/// What a plugin asked that has no answer for a call of several events. The call is to be made
/// again with fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Asked {
    /// The time: a call must be about one transaction.
    #[error("asks for the time of events of several transactions")]
    Time,
    /// A random number: a call must be about one event.
    #[error("asks for random numbers for several events")]
    Random,
}

impl Moment {
    /// No event is under way: a plugin starts, or is told of a table. Every start is the same.
    pub const START: Self = Self { time: 0, scope: Scope::Event(0) };

    /// Events of several transactions; the first was committed at this time, in microseconds since
    /// 1970-01-01 UTC.
    #[must_use]
    pub fn of_several(time: i64) -> Self {
        Self { time, scope: Scope::Mixed }
    }

    /// Events of one transaction.
    #[must_use]
    pub fn of_transaction(time: i64) -> Self {
        Self { time, scope: Scope::Transaction }
    }

    /// One event: by the LSN of its commit and its ordinal, which its id is made of.
    #[must_use]
    pub fn of_event(time: i64, commit: u64, ordinal: u32) -> Self {
        Self { time, scope: Scope::Event(mix(commit ^ mix(ordinal.into()))) }
    }

    /// Now, with numbers that nobody can foresee: for what is never replayed.
    #[must_use]
    pub fn now() -> Self {
        Self { time: crate::model::clock::now(), scope: Scope::Event(rand::random()) }
    }

    /// The time of all that the call is about.
    pub(super) fn time(&self) -> Result<i64, Asked> {
        if self.scope == Scope::Mixed { Err(Asked::Time) } else { Ok(self.time) }
    }

    /// Random numbers for the call.
    pub(super) fn random(&self) -> Random {
        match self.scope {
            Scope::Mixed | Scope::Transaction => Random(None),
            Scope::Event(seed) => Random(Some(Cell::new(seed))),
        }
    }
}

/// A sequence that follows from an event's id. Good enough for sampling and names, and foreseeable
/// by whoever knows the id: no secret must be made of it.
#[derive(Debug, Clone)]
pub(super) struct Random(Option<Cell<u64>>);

impl Random {
    /// SplitMix64.
    pub(super) fn next(&self) -> Result<u64, Asked> {
        let state = self.0.as_ref().ok_or(Asked::Random)?;
        state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        Ok(mix(state.get()))
    }

    pub(super) fn bytes(&self, len: usize) -> Result<Vec<u8>, Asked> {
        let mut bytes = Vec::with_capacity(len.next_multiple_of(8));
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next()?.to_le_bytes());
        }
        bytes.truncate(len);
        Ok(bytes)
    }
}

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_same_numbers_every_time_and_no_other_event_has_them() {
        let numbers = |commit, ordinal| {
            let random = Moment::of_event(7, commit, ordinal).random();
            [random.next().unwrap(), random.next().unwrap()]
        };
        assert_eq!(numbers(256, 0), numbers(256, 0));
        let mut all: Vec<_> = (0..50)
            .flat_map(|commit| (0..50).flat_map(move |ordinal| numbers(commit, ordinal)))
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5_000);
    }

    #[test]
    fn what_several_events_do_not_share_is_not_told() {
        assert_eq!(Moment::of_several(7).time(), Err(Asked::Time));
        assert_eq!(Moment::of_several(7).random().next(), Err(Asked::Random));
        assert_eq!(Moment::of_transaction(7).time(), Ok(7));
        assert_eq!(Moment::of_transaction(7).random().next(), Err(Asked::Random));
        assert_eq!(Moment::START.random().bytes(3).unwrap().len(), 3);
    }
}
