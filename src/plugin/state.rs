//! A plugin's keyed state, as its calls see it. The pipeline implements it, so that writes commit
//! with the batch.

use std::collections::BTreeMap;

/// Bytes in a key.
pub const LONGEST_KEY: usize = 1 << 10;
/// Bytes in a value.
pub const LARGEST_VALUE: usize = 1 << 20;

/// A plugin's keyed state.
pub trait State: Send {
    /// The value of a key.
    ///
    /// # Errors
    /// See [`StateError`].
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, StateError>;

    /// Sets a key.
    ///
    /// # Errors
    /// See [`StateError`].
    fn set(&mut self, key: &str, value: Vec<u8>) -> Result<(), StateError>;

    /// Removes a key.
    ///
    /// # Errors
    /// See [`StateError`].
    fn delete(&mut self, key: &str) -> Result<(), StateError>;
}

/// Why the state did not answer; the plugin is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The key or the value is larger than allowed.
    #[error("too large")]
    TooLarge,
    /// The plugin's share of the store is used up.
    #[error("quota reached")]
    Quota,
    /// The store does not answer.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// For plugins without the grant: nothing is there and nothing is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoState;

impl State for NoState {
    fn get(&mut self, _: &str) -> Result<Option<Vec<u8>>, StateError> {
        Err(not_granted())
    }

    fn set(&mut self, _: &str, _: Vec<u8>) -> Result<(), StateError> {
        Err(not_granted())
    }

    fn delete(&mut self, _: &str) -> Result<(), StateError> {
        Err(not_granted())
    }
}

fn not_granted() -> StateError {
    StateError::Unavailable("the plugin has no `allow.kv`".into())
}

/// Bytes of keys and values that a [`Scratch`] takes.
const SCRATCH_QUOTA: usize = 16 << 20;

/// Empty at first and soon forgotten: for instances that only show whether a version works.
#[derive(Debug, Default)]
pub struct Scratch {
    values: BTreeMap<String, Vec<u8>>,
    used: usize,
}

impl State for Scratch {
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.values.get(key).cloned())
    }

    fn set(&mut self, key: &str, value: Vec<u8>) -> Result<(), StateError> {
        self.delete(key)?;
        let size = key.len() + value.len();
        if self.used + size > SCRATCH_QUOTA {
            return Err(StateError::Quota);
        }
        self.used += size;
        self.values.insert(key.into(), value);
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), StateError> {
        if let Some(value) = self.values.remove(key) {
            self.used -= key.len() + value.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_keeps_what_it_is_given_within_its_quota() {
        let mut state = Scratch::default();
        state.set("a", vec![1]).unwrap();
        state.set("a", vec![2]).unwrap();
        assert_eq!(state.get("a"), Ok(Some(vec![2])));
        assert_eq!(state.set("b", vec![0; SCRATCH_QUOTA]), Err(StateError::Quota));
        state.delete("a").unwrap();
        assert_eq!(state.set("b", vec![0; SCRATCH_QUOTA - 1]), Ok(()));
    }
}
