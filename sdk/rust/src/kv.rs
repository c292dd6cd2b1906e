//! The plugin's own keyed state, which outlives a swap. It needs `allow = { kv = true }` in the
//! plugin's configuration.
//!
//! What is written is seen at once, becomes durable together with the batch's events, and vanishes
//! if the batch fails: so a count that is kept here counts each event once, whatever is killed
//! when. Read it anew in each batch rather than keep it in the plugin, and a failed batch is
//! forgotten there, too.

use crate::bindings::walmill::plugin::kv;

/// Why the state did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The key has more than 1 KiB, or the value more than 1 MiB.
    TooLarge,
    /// The plugin has used up its share.
    Quota,
    /// walmill can't reach it now.
    Unavailable(String),
}

/// The value of a key.
///
/// # Errors
/// See [`Error`].
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(kv::get(key)?)
}

/// The values of several keys, in their order.
///
/// # Errors
/// See [`Error`].
pub fn get_many(keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
    Ok(kv::get_many(keys)?)
}

/// Sets a key.
///
/// # Errors
/// See [`Error`].
pub fn set(key: &str, value: &[u8]) -> Result<(), Error> {
    Ok(kv::set(key, value)?)
}

/// Removes a key; one that is not there is as good.
///
/// # Errors
/// See [`Error`].
pub fn delete(key: &str) -> Result<(), Error> {
    Ok(kv::delete(key)?)
}

impl From<kv::Error> for Error {
    fn from(error: kv::Error) -> Self {
        match error {
            kv::Error::TooLarge => Self::TooLarge,
            kv::Error::Quota => Self::Quota,
            kv::Error::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

/// A plugin's calls fail with a text.
impl From<Error> for String {
    fn from(error: Error) -> Self {
        match error {
            Error::TooLarge => "keyed state: the key or the value is too large".into(),
            Error::Quota => "keyed state: the plugin's share is used up".into(),
            Error::Unavailable(why) => format!("keyed state: {why}"),
        }
    }
}
