//! A plugin's keyed state, as its calls see it. The pipeline implements it, so that writes commit
//! with the batch.

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
