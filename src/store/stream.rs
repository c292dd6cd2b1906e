//! Named sequences of events. The newest are kept in memory too, so that readers at the tail do not
//! touch the disk; every reader reads one log by offset, so nothing is between "live" and "backlog".

use tokio::sync::watch;

use super::StoreError;
use crate::model::Offset;
use crate::model::event::Events;

/// What [`Stream::read`] found.
#[derive(Debug, Clone)]
pub enum Read {
    /// A run of events, some of them behind the place asked for: take [`Events::after`].
    Events(Events),
    /// Nothing behind that place yet: wait for [`Stream::head`] to change.
    End,
    /// Retention removed events behind the place asked for. Reading goes on from `oldest`.
    Gap {
        /// Everything up to and including this place is gone.
        purged: Offset,
    },
}

/// One stream.
pub struct Stream {
    name: String,
    head: watch::Sender<Offset>,
}

impl Stream {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pipeline that it belongs to.
    #[must_use]
    pub fn owner(&self) -> &str {
        todo!()
    }

    /// Offset of the newest event ([`Offset::START`] while there is none), and when it changes.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Offset> {
        self.head.subscribe()
    }

    /// Everything up to and including this place has been removed by retention.
    #[must_use]
    pub fn purged(&self) -> Offset {
        todo!()
    }

    /// The run of events that goes on behind `after`.
    pub fn read(&self, after: Offset) -> Result<Read, StoreError> {
        todo!()
    }
}
