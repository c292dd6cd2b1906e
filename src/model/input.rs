//! What a pipeline takes in, for those who want to see it.

use super::{Finding, Offset};

/// Changes of a pipeline's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Each as one line of JSON, in the form that golden cases have.
    pub changes: Vec<String>,
    /// Everything up to here has been looked at.
    pub end: Offset,
    /// Changes up to here were removed before they could be read.
    pub gap: Option<Offset>,
}

/// Reads what pipelines take in.
pub trait ReadInput: Send + Sync {
    /// The changes behind a place, about `most` of them. Blocks on the disk.
    ///
    /// # Errors
    /// There is no such pipeline, or the journal could not be read.
    fn read(&self, pipeline: &str, after: Offset, most: usize) -> Result<Page, Finding>;
}
