//! What a frame is an answer to, and about.

use super::channel::Channel;
use super::frame::Reference;

/// What a frame is an answer to, and about.
pub(super) struct To {
    pub(super) join_ref: Option<Reference>,
    pub(super) reference: Option<Reference>,
    pub(super) topic: String,
}

impl To {
    /// Something that the client did not ask for.
    pub(super) fn pushed_to(topic: &str) -> Self {
        Self { join_ref: None, reference: None, topic: topic.into() }
    }

    pub(super) fn pushed(&self) -> Self {
        Self::pushed_to(&self.topic)
    }

    /// The end of a channel, which clients know by the reference of its join.
    pub(super) fn close_of(channel: &Channel) -> Self {
        let (join_ref, reference) = (channel.reference.clone(), channel.reference.clone());
        Self { join_ref, reference, topic: channel.topic.to_string() }
    }
}
