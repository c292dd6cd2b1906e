//! One topic that a client has joined.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Values;
use super::change::Change;
use super::frame::{self, Reference, Version};
use super::join::Binding;
use super::reading::Reading;
use super::rooms::Seat;
use crate::server::Server;
use crate::server::feed::Feed;

/// One topic that a client has joined.
pub(super) struct Channel {
    pub(super) topic: Arc<str>,
    /// The reference of the join, which some frames have to bear.
    pub(super) reference: Option<Reference>,
    pub(super) bindings: Vec<Binding>,
    /// Of the first generation, which is sent changes in other words.
    pub(super) first: bool,
    pub(super) reading: Reading,
    /// In the second generation.
    pub(super) seat: Option<Seat>,
    pub(super) acknowledge: bool,
    pub(super) presence: bool,
    /// It asked to be told where it has come to.
    pub(super) resumes: bool,
}

impl Channel {
    /// The frames that a change is for this channel, in order; none if it is not meant.
    pub(super) fn frames(&self, version: Version, values: Values, change: &Change) -> Vec<String> {
        let mut meant = self.bindings.iter().filter(|binding| binding.means(change)).peekable();
        if meant.peek().is_none() {
            return Vec::new();
        }
        if self.first {
            let payload = change.first(values);
            let frame = |event| frame::text(version, (None, None), (&self.topic, event), payload);
            // The oldest clients hear only `*`, the others only the type.
            return vec![frame("*"), frame(change.kind.name())];
        }
        let frame = |ids: &[u64], data: &str| {
            let payload = format!("{{\"ids\":{},\"data\":{data}}}", json!(ids));
            frame::text(version, (None, None), (&self.topic, "postgres_changes"), &payload)
        };
        let (mut whole, mut frames) = (Vec::new(), Vec::new());
        for binding in meant {
            match &binding.select {
                None => whole.push(binding.id),
                Some(select) => frames.push(frame(&[binding.id], &change.second_of(select))),
            }
        }
        if !whole.is_empty() {
            frames.insert(0, frame(&whole, change.second()));
        }
        frames
    }

    /// Where it has come to in each stream, for `walmill: {resume: …}` of a later join.
    pub(super) fn place(&self, server: &Server) -> Value {
        let place = |feed: &Feed| format!("{}={}", feed.name(), server.cursor(feed.after()));
        let places = self.reading.feeds.iter().map(place).collect::<Vec<String>>().join(",");
        self.system("walmill", "ok", ("the place of this channel", Some(places)))
    }

    /// A message about the channel.
    pub(super) fn system(
        &self,
        extension: &str,
        status: &str,
        (message, cursor): (&str, Option<String>),
    ) -> Value {
        let mut system = json!({
            "extension": extension, "status": status, "message": message, "channel": self.name(),
        });
        if let Some(cursor) = cursor {
            system["cursor"] = cursor.into();
        }
        system
    }

    fn name(&self) -> &str {
        self.topic.strip_prefix("realtime:").unwrap_or(&self.topic)
    }

    /// What the join is answered: the bindings as they were asked for, in their order, with ids.
    pub(super) fn granted(&self) -> Value {
        if self.first {
            return json!({});
        }
        let bindings = self.bindings.iter().map(|binding| {
            let mut granted = binding.asked.clone();
            granted.insert("id".into(), binding.id.into());
            Value::Object(granted)
        });
        json!({ "postgres_changes": bindings.collect::<Vec<Value>>() })
    }

    /// What is said of the bindings behind the answer: that they are live, or why not; `why` is
    /// why they get less than they asked for.
    pub(super) fn verdicts(&self, why: Option<String>) -> Vec<Value> {
        if self.first || self.bindings.is_empty() {
            return Vec::new();
        }
        let broken = self.bindings.iter().filter_map(|binding| binding.broken.as_ref());
        let system =
            |status, message: &str| self.system("postgres_changes", status, (message, None));
        let broken: Vec<Value> = broken
            .chain(&why)
            .map(|why| system("error", &format!("Unable to subscribe to changes: {why}")))
            .collect();
        match broken.is_empty() {
            true => vec![system("ok", "Subscribed to PostgreSQL")],
            false => broken,
        }
    }
}
