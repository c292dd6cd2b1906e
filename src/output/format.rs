//! What an event looks like on its way out: a CloudEvent, its data alone, or as Debezium writes it.

mod debezium;

use std::borrow::Cow;

use serde::Deserialize;

use super::envelope::Envelope;
pub use debezium::Debezium;

/// `format = "cloudevents"`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A CloudEvent in binary mode: its attributes beside its data.
    #[default]
    CloudEvents,
    /// The event's data alone.
    Plain,
    /// Debezium's envelope: `before`, `after`, `source`, `op`, `ts_ms`, `transaction`.
    Debezium,
}

/// What brokers carry.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The event's id, and what distinguishes several messages of one event.
    pub id: String,
    /// What the message's order goes by.
    pub key: Cow<'a, [u8]>,
    /// The CloudEvents attributes, if it is one.
    pub attributes: &'a [(Cow<'a, str>, Cow<'a, str>)],
    /// JSON; none for a tombstone.
    pub body: Option<Cow<'a, [u8]>>,
}

/// Makes messages of events.
#[derive(Debug, Clone)]
pub enum Encoder {
    /// See [`Format::CloudEvents`].
    CloudEvents,
    /// See [`Format::Plain`].
    Plain,
    /// See [`Format::Debezium`].
    Debezium(Debezium),
}

impl Encoder {
    /// Messages of this format, of events of this database. `tombstones`: whether a Debezium
    /// delete is followed by a message that has the key alone.
    #[must_use]
    pub fn new(format: Format, database: &str, tombstones: bool) -> Self {
        match format {
            Format::CloudEvents => Self::CloudEvents,
            Format::Plain => Self::Plain,
            Format::Debezium => Self::Debezium(Debezium::new(database, tombstones)),
        }
    }

    /// The messages of an event, one at least.
    #[must_use]
    pub fn messages<'e>(&self, event: &'e Envelope<'_>) -> Vec<Message<'e>> {
        let attributes = match self {
            Self::CloudEvents => event.attributes.as_slice(),
            Self::Plain => &[],
            Self::Debezium(debezium) => return debezium.messages(event),
        };
        vec![Message {
            id: event.id().to_string(),
            key: Cow::Borrowed(event.key()),
            attributes,
            body: Some(Cow::Borrowed(event.data.as_bytes())),
        }]
    }
}
