//! What can go wrong, by what is done about it.

use std::path::PathBuf;

/// Why the data folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another walmill runs on it.
    #[error("data folder {0} is in use by another walmill")]
    Locked(PathBuf),
    /// Made by a version whose layout this one does not know.
    #[error("data folder {path} has layout {found}; this walmill reads layout {known}")]
    Layout {
        /// The folder.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What we know.
        known: u32,
    },
    /// It cannot be made, read or written.
    #[error("data folder {path}")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        cause: anyhow::Error,
    },
}

/// The store refused a read or a write. After a failed write it refuses every further one: what is
/// on disk is then unknown until it is opened again, so walmill ends and starts anew.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Input or output failed.
    #[error("store")]
    Failed(#[from] fjall::Error),
    /// What was read is not what was written.
    #[error("store: {what} is damaged")]
    Damaged {
        /// Which record.
        what: String,
    },
    /// What was to be written does not follow on what is there. It was not written.
    #[error("store: written out of order: {0}")]
    OutOfOrder(String),
}
