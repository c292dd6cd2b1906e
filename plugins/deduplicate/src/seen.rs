//! Which keys have come, and when: in walmill's keyed state, so that it holds exactly what the
//! events that went out say.
//!
//! Keys are spread over a fixed number of shelves by a digest. A shelf is one value of the state: a
//! digest and a time for each of its keys, in the order in which they came. Whoever writes to a
//! shelf takes away what is older than the window, so what is kept stays as large as what came
//! within it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use walmill_plugin::kv;

const SHELVES: u64 = 1 << 12;
/// Bytes of a digest and a time.
const ENTRY: usize = 24;

/// The shelves that a batch has touched.
pub struct Seen {
    window: i64,
    shelves: BTreeMap<u64, Shelf>,
}

#[derive(Default)]
struct Shelf {
    /// Digest and time, one behind the other.
    entries: Vec<u8>,
    changed: bool,
}

impl Seen {
    /// Remembers for so many microseconds.
    pub fn within(window: i64) -> Self {
        Self { window, shelves: BTreeMap::new() }
    }

    /// Whether the key has come within the window before this time; if not, it has now.
    pub fn is_repeat(&mut self, key: &str, time: i64) -> Result<bool, String> {
        let digest = digest(key.as_bytes());
        let number = digest as u64 % SHELVES;
        let shelf = match self.shelves.entry(number) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let entries = kv::get(&name(number))?.unwrap_or_default();
                new.insert(Shelf { entries, changed: false })
            }
        };
        Ok(shelf.is_repeat(digest, time, self.window))
    }

    /// Writes the shelves that have changed.
    pub fn write(self) -> Result<(), String> {
        for (number, shelf) in self.shelves.into_iter().filter(|(_, shelf)| shelf.changed) {
            kv::set(&name(number), &shelf.entries)?;
        }
        Ok(())
    }
}

fn name(shelf: u64) -> String {
    format!("seen/{shelf:03x}")
}

impl Shelf {
    fn is_repeat(&mut self, digest: u128, time: i64, window: i64) -> bool {
        // Commit times can go back a little, since clocks do.
        let fresh = |then: i64| time.saturating_sub(then) < window;
        let wanted = digest.to_le_bytes();
        let mut entries = self.entries.chunks_exact(ENTRY);
        if entries.any(|entry| entry.starts_with(&wanted) && fresh(time_of(entry))) {
            return true;
        }
        let kept = self.entries.chunks_exact(ENTRY).filter(|entry| fresh(time_of(entry)));
        let mut entries: Vec<u8> = kept.flatten().copied().collect();
        entries.extend_from_slice(&wanted);
        entries.extend_from_slice(&time.to_le_bytes());
        (self.entries, self.changed) = (entries, true);
        false
    }
}

fn time_of(entry: &[u8]) -> i64 {
    entry[16..].try_into().map_or(i64::MIN, i64::from_le_bytes)
}

/// FNV-1a in 128 bits: it is the same in every build, and two keys among many share it with no
/// likelihood that counts.
fn digest(bytes: &[u8]) -> u128 {
    const START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(START, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_counts_again_when_the_window_is_over() {
        let mut shelf = Shelf::default();
        let mut at = |digest, time| shelf.is_repeat(digest, time, 10);
        assert_eq!(
            [at(1, 100), at(1, 109), at(2, 109), at(1, 110), at(1, 111)],
            [false, true, false, false, true]
        );
    }

    #[test]
    fn what_is_older_than_the_window_takes_no_room() {
        let mut shelf = Shelf::default();
        for time in 0..1_000 {
            assert!(!shelf.is_repeat(time as u128, time, 10));
        }
        assert_eq!(shelf.entries.len(), 10 * ENTRY);
    }

    #[test]
    fn the_digest_is_the_one_that_others_compute() {
        assert_eq!(digest(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(digest(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
