//! Which stream an event goes to: the pipeline's own, or one that a plugin picked among those that
//! the pipeline allows.

use std::collections::HashMap;
use std::sync::Arc;

use super::stage::Routes;
use crate::model::pattern::Glob;
use crate::store::{Store, StoreError};

/// Streams that one pipeline may make; a route built from values could otherwise go on for ever.
const MAX_STREAMS: usize = 10_000;
/// Bytes of a stream's name.
const MAX_NAME: usize = 200;

/// Why a pipeline cannot have its streams.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another pipeline writes to one of them.
    #[error("{0}; give the stream or the pipeline another name")]
    Taken(String),
}

/// The streams of a pipeline, by index. Index 0 is the one that bears its name.
pub struct Streams {
    store: Store,
    pipeline: String,
    allowed: Vec<Glob>,
    names: Vec<Arc<str>>,
    index: HashMap<String, u32>,
}

impl Streams {
    /// The streams of a pipeline, which may also pick names that fit `allowed`. Those without a
    /// `*` exist from the start, so that readers can wait for them.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(store: Store, pipeline: &str, allowed: Vec<Glob>) -> Result<Self, OpenError> {
        let own = std::iter::once(pipeline);
        let literal: Vec<String> =
            own.chain(allowed.iter().filter_map(Glob::literal)).map(str::to_owned).collect();
        let mut streams = Self {
            store,
            pipeline: pipeline.into(),
            allowed,
            names: Vec::new(),
            index: HashMap::new(),
        };
        for name in literal {
            streams.add(&name)?.map_err(OpenError::Taken)?;
        }
        Ok(streams)
    }

    /// The name of the stream at an index.
    #[must_use]
    pub fn name(&self, index: u32) -> &Arc<str> {
        &self.names[index as usize]
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.names.len()
    }

    fn add(&mut self, name: &str) -> Result<Result<u32, String>, StoreError> {
        if let Some(&index) = self.index.get(name) {
            return Ok(Ok(index));
        }
        let stream = self.store.declare_stream(name, &self.pipeline)?;
        if stream.owner() != self.pipeline {
            let owner = stream.owner();
            return Ok(Err(format!("stream `{name}` belongs to the pipeline `{owner}`")));
        }
        // Bounded by MAX_STREAMS and what the config names.
        let index = self.names.len() as u32;
        self.names.push(name.into());
        self.index.insert(name.into(), index);
        Ok(Ok(index))
    }
}

impl Routes for Streams {
    fn stream(&mut self, name: &str) -> Result<u32, String> {
        if let Some(&index) = self.index.get(name) {
            return Ok(index);
        }
        check(name, &self.pipeline, &self.allowed, self.names.len())?;
        self.add(name).unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// Whether a pipeline that has so many streams may have this one, too.
fn check(name: &str, pipeline: &str, allowed: &[Glob], count: usize) -> Result<(), String> {
    if !valid_name(name) {
        return Err(format!(
            "route {name:?} is no stream name: 1 to {MAX_NAME} letters, digits, `.`, `_`, `-`"
        ));
    }
    if !allowed.iter().any(|glob| glob.matches(name)) {
        return Err(format!(
            "route `{name}` is not among the `streams` of the pipeline `{pipeline}`"
        ));
    }
    if count >= MAX_STREAMS {
        return Err(format!("route `{name}` would be stream number {}", MAX_STREAMS + 1));
    }
    Ok(())
}

/// The streams of a pipeline in a dry run: names only.
pub struct DryStreams {
    allowed: Vec<Glob>,
    names: Vec<Arc<str>>,
}

impl DryStreams {
    /// The pipeline's own, and what fits `allowed`.
    #[must_use]
    pub fn new(pipeline: &str, allowed: Vec<Glob>) -> Self {
        Self { allowed, names: vec![pipeline.into()] }
    }

    /// The name of the stream at an index.
    #[must_use]
    pub fn name(&self, index: u32) -> &Arc<str> {
        &self.names[index as usize]
    }
}

impl Routes for DryStreams {
    fn stream(&mut self, name: &str) -> Result<u32, String> {
        let known = self.names.iter().position(|known| **known == *name);
        let index = match known {
            Some(index) => index,
            None => {
                check(name, &self.names[0], &self.allowed, self.names.len())?;
                self.names.push(name.into());
                self.names.len() - 1
            }
        };
        // Bounded by MAX_STREAMS.
        Ok(index as u32)
    }
}

/// Whether a stream can have this name: it stands in addresses, subjects and files.
#[must_use]
pub fn valid_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_name_stands_in_addresses_as_it_is() {
        for name in ["orders", "orders.nz", "a_b-c.D9"] {
            assert!(valid_name(name), "{name}");
        }
        for name in ["", ".", ".hidden", "a b", "a/b", "a\nb", "é", &"x".repeat(201)] {
            assert!(!valid_name(name), "{name:?}");
        }
    }
}
