//! Why a connection ends.

use axum::extract::ws::{CloseFrame, close_code};
use tracing::error;

use crate::server::connection::Stalled;
use crate::store::StoreError;

/// Why the connection ends.
#[derive(Debug)]
pub(super) enum Leave {
    /// The client is gone, or silent.
    Gone,
    Slow,
    Shutdown,
    Unreadable,
    Failed,
}

impl From<Stalled> for Leave {
    fn from(_: Stalled) -> Self {
        Self::Slow
    }
}

impl From<axum::Error> for Leave {
    fn from(_: axum::Error) -> Self {
        Self::Gone
    }
}

impl From<StoreError> for Leave {
    fn from(error: StoreError) -> Self {
        error!("read for a client: {:#}", anyhow::Error::new(error));
        Self::Failed
    }
}

impl Leave {
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Gone => "closed",
            Self::Slow => "slow",
            Self::Shutdown => "shutdown",
            Self::Unreadable | Self::Failed => "error",
        }
    }

    /// The close frame; clients connect again by themselves.
    pub(super) fn close(&self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Gone => return None,
            Self::Slow => (close_code::AGAIN, "the client took nothing for too long"),
            Self::Shutdown => (close_code::RESTART, "walmill is shutting down"),
            Self::Unreadable => (close_code::SIZE, "a message may have 5 MB at most"),
            Self::Failed => (close_code::ERROR, "the store could not be read"),
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

impl Leave {
    /// What can't be read further.
    pub(super) fn unreadable(error: axum::Error) -> Self {
        use tungstenite::Error;
        match error.into_inner().downcast::<Error>().map(|error| *error) {
            Ok(Error::Capacity(_)) => Self::Unreadable,
            _ => Self::Gone,
        }
    }
}
