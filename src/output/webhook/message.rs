//! Events as requests: one by itself, as JSON or as headers and data, or several in one body
//! (CloudEvents 1.0.2, HTTP Protocol Binding).

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::model::EventRecord;

/// How events are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each event is a CloudEvent in JSON.
    #[default]
    Structured,
    /// Each event's attributes are headers, and its data is the body.
    Binary,
    /// Several events are one JSON array.
    Batch,
}

/// What is POSTed.
#[derive(Debug)]
pub struct Message {
    /// `webhook-id`: the same for the same events, whenever they are sent.
    pub id: String,
    /// What belongs to the events, `Content-Type` among it.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Message {
    /// Writes events, one at least.
    ///
    /// # Errors
    /// One is no JSON, which a plugin's own `data` can bring about, or has no place in headers.
    pub fn new(mode: Mode, events: &[EventRecord]) -> anyhow::Result<Self> {
        let (headers, body) = match (mode, events) {
            (Mode::Structured, [event]) => {
                (of_type("application/cloudevents+json"), event.json.clone())
            }
            (Mode::Binary, [event]) => binary(event)?,
            _ => (of_type("application/cloudevents-batch+json"), array(events)),
        };
        let mut message = Self { id: id(events), headers, body };
        if events.iter().all(EventRecord::is_replayed) {
            let name = HeaderName::from_static("walmill-replayed");
            message.headers.insert(name, HeaderValue::from_static("true"));
        }
        Ok(message)
    }
}

fn of_type(media: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media))])
}

/// One event's own id. Of several a digest of theirs, so that the same batch has the same id.
fn id(events: &[EventRecord]) -> String {
    if let [event] = events {
        return event.id().to_string();
    }
    let mut digest = Sha256::new();
    for event in events {
        digest.update(event.id().to_string());
        digest.update(b"\n");
    }
    let hex =
        digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("batch_{hex}")
}

fn array(events: &[EventRecord]) -> Bytes {
    let mut body = b"[".to_vec();
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&event.json);
    }
    body.push(b']');
    body.into()
}

fn binary(event: &EventRecord) -> anyhow::Result<(HeaderMap, Bytes)> {
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_slice(&event.json).context("the event is no CloudEvent in JSON")?;
    let (mut headers, mut data) = (HeaderMap::new(), Bytes::new());
    for (name, value) in members {
        if name == "data" {
            data = event.json.slice_ref(value.get().as_bytes());
            continue;
        }
        let text = match value.get() {
            text if text.starts_with('"') => serde_json::from_str(text)?,
            text => text.to_owned(),
        };
        let header = match name.as_str() {
            "datacontenttype" => CONTENT_TYPE,
            // CloudEvents names its attributes in lower-case letters and digits.
            name => HeaderName::from_bytes(format!("ce-{name}").as_bytes())?,
        };
        headers.insert(header, HeaderValue::from_str(&encoded(&text))?);
    }
    Ok((headers, data))
}

/// A value as a header may have it: everything but printable ASCII, and `"` and `%`, is
/// percent-encoded UTF-8. So what stands in a row cannot end the header.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'"' | b'%') => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, Offset};

    fn event(ordinal: u32, json: &str) -> EventRecord {
        let json = Bytes::copy_from_slice(json.as_bytes());
        EventRecord { offset: Offset::new(Lsn(7), ordinal), key: Bytes::new(), json }
    }

    const ONE: &str = "{\"specversion\":\"1.0\",\"id\":\"0/7/0\",\"subject\":\"public.t/é \\\"%\\r\\n\",\
                       \"datacontenttype\":\"application/json\",\"txend\":true,\"data\":{\"n\":1.10}}";

    #[test]
    fn attributes_are_headers_and_a_value_cannot_end_its_header() {
        let message = Message::new(Mode::Binary, &[event(0, ONE)]).unwrap();
        assert_eq!(message.body, "{\"n\":1.10}");
        let header = |name: &str| message.headers[name].to_str().unwrap();
        assert_eq!(header("ce-subject"), "public.t/%C3%A9%20%22%25%0D%0A");
        assert_eq!(header("content-type"), "application/json");
        assert_eq!((header("ce-txend"), header("ce-specversion")), ("true", "1.0"));
        assert!(!message.headers.contains_key("ce-data"));
    }

    #[test]
    fn a_batch_is_an_array_whose_id_says_which_events_it_has() {
        let events = [event(0, "{\"id\":\"a\"}"), event(1, "{\"id\":\"b\"}")];
        let message = |events| Message::new(Mode::Batch, events).unwrap();
        let both = message(&events);
        assert_eq!(both.body, "[{\"id\":\"a\"},{\"id\":\"b\"}]");
        assert_eq!(both.id, message(&events).id);
        assert!(both.id.starts_with("batch_") && !both.id.contains('.'));
        assert_eq!(message(&events[..1]).id, "0/7/0");
        assert_eq!(message(&events[..1]).body, "[{\"id\":\"a\"}]");
    }

    #[test]
    fn what_is_no_json_has_no_headers() {
        assert!(Message::new(Mode::Binary, &[event(0, "{")]).is_err());
    }
}
