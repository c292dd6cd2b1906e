//! Phoenix Channels on the wire: one message a frame, as an object (`vsn` 1.0.0) or an array
//! (2.0.0), and the two binary frames that carry broadcasts.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Which framing a client speaks: the query parameter `vsn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Version {
    /// `{"topic", "event", "payload", "ref"}`
    One,
    /// `[join_ref, ref, topic, event, payload]`, and binary frames.
    Two,
}

/// A reference as the client wrote it: text or number, given back as it came, since clients
/// compare it without looking at what it means.
pub(super) type Reference = Box<RawValue>;

/// What a client sent.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) join_ref: Option<Reference>,
    pub(super) reference: Option<Reference>,
    pub(super) topic: Cow<'a, str>,
    pub(super) event: Cow<'a, str>,
    pub(super) payload: Payload<'a>,
}

/// What a message bears.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'a> {
    /// JSON.
    Json(&'a str),
    /// A broadcast's own payload: its event is the message's, its content JSON or bytes.
    User { meta: &'a str, json: bool, content: &'a [u8] },
}

/// The longest reference that is given back.
const LONGEST_REFERENCE: usize = 64;
/// Client to server: a broadcast.
const USER_PUSH: u8 = 3;
/// Server to client: a broadcast.
const USER_BROADCAST: u8 = 4;

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    join_ref: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Array<'a>(
    #[serde(borrow)] Option<&'a RawValue>,
    #[serde(borrow)] Option<&'a RawValue>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Option<&'a RawValue>,
);

impl<'a> Message<'a> {
    /// Reads a text frame; `None` where it is none of this protocol.
    pub(super) fn read(version: Version, text: &'a str) -> Option<Self> {
        let (topic, event, payload, reference, join_ref) = match version {
            Version::One => {
                let Object { topic, event, payload, reference, join_ref } =
                    serde_json::from_str(text).ok()?;
                (topic, event, payload, reference, join_ref)
            }
            Version::Two => {
                let Array(join_ref, reference, topic, event, payload) =
                    serde_json::from_str(text).ok()?;
                (topic, event, payload, reference, join_ref)
            }
        };
        Some(Self {
            join_ref: keep(join_ref)?,
            reference: keep(reference)?,
            topic,
            event,
            payload: Payload::Json(payload.map_or("{}", RawValue::get)),
        })
    }

    /// Reads a binary frame, of which clients send one kind.
    pub(super) fn read_binary(bytes: &'a [u8]) -> Option<Self> {
        let (&[kind, join_ref, reference, topic, event, meta, encoding], mut rest) =
            bytes.split_first_chunk()?;
        if kind != USER_PUSH {
            return None;
        }
        let mut text = |len: u8| {
            let (text, behind) = rest.split_at_checked(len.into())?;
            rest = behind;
            std::str::from_utf8(text).ok()
        };
        let (join_ref, reference) = (text(join_ref)?, text(reference)?);
        let (topic, event, meta) = (text(topic)?, text(event)?, text(meta)?);
        let json = match encoding {
            0 => false,
            1 => serde_json::from_slice::<serde::de::IgnoredAny>(rest).is_ok().then_some(true)?,
            _ => return None,
        };
        Some(Self {
            join_ref: quoted(join_ref),
            reference: quoted(reference),
            topic: topic.into(),
            event: event.into(),
            payload: Payload::User { meta, json, content: rest },
        })
    }
}

/// A reference to give back: none for null, and nothing that is no short text or number.
fn keep(raw: Option<&RawValue>) -> Option<Option<Reference>> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Some(None) };
    let fits = raw.get().len() <= LONGEST_REFERENCE && !raw.get().starts_with(['{', '[']);
    fits.then(|| Some(raw.to_owned()))
}

fn quoted(text: &str) -> Option<Reference> {
    let json = (!text.is_empty()).then(|| serde_json::to_string(text).ok())??;
    RawValue::from_string(json).ok()
}

/// A text frame; `payload` is JSON.
pub(super) fn text(
    version: Version,
    (join_ref, reference): (Option<&Reference>, Option<&Reference>),
    (topic, event): (&str, &str),
    payload: &str,
) -> String {
    let raw = |reference: Option<&Reference>| reference.map_or("null", |raw| raw.get()).to_owned();
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_else(|_| "\"\"".into());
    let (topic, event, reference) = (quoted(topic), quoted(event), raw(reference));
    match version {
        Version::One => {
            format!(r#"{{"topic":{topic},"event":{event},"payload":{payload},"ref":{reference}}}"#)
        }
        Version::Two => {
            format!("[{},{reference},{topic},{event},{payload}]", raw(join_ref))
        }
    }
}

/// A binary broadcast, where its names fit into one.
pub(super) fn broadcast(
    topic: &str,
    event: &str,
    (meta, json): (&str, bool),
    content: &[u8],
) -> Option<Vec<u8>> {
    let len = |text: &str| u8::try_from(text.len()).ok();
    let head = [USER_BROADCAST, len(topic)?, len(event)?, len(meta)?, u8::from(json)];
    Some([&head, topic.as_bytes(), event.as_bytes(), meta.as_bytes(), content].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_framings_say_the_same() {
        let one = r#"{"topic":"realtime:a","event":"phx_join","payload":{"x":1},"ref":"7"}"#;
        let two = r#"["7","7","realtime:a","phx_join",{"x":1}]"#;
        for (version, frame) in [(Version::One, one), (Version::Two, two)] {
            let message = Message::read(version, frame).unwrap();
            assert_eq!((&*message.topic, &*message.event), ("realtime:a", "phx_join"));
            assert_eq!(message.reference.unwrap().get(), "\"7\"");
            assert!(matches!(message.payload, Payload::Json(r#"{"x":1}"#)));
        }
        let reference = RawValue::from_string("\"7\"".into()).unwrap();
        let refs = (Some(&reference), Some(&reference));
        let names = ("realtime:a", "phx_join");
        assert_eq!(text(Version::One, refs, names, r#"{"x":1}"#), one);
        assert_eq!(text(Version::Two, refs, names, r#"{"x":1}"#), two);
    }

    #[test]
    fn what_is_no_message_is_none() {
        for frame in ["", "{", "[]", "null", "1", r#"{"topic":1,"event":"a"}"#, r#"{"topic":"a"}"#]
        {
            assert!(Message::read(Version::One, frame).is_none(), "{frame}");
            assert!(Message::read(Version::Two, frame).is_none(), "{frame}");
        }
        let nested = format!(r#"{{"topic":"a","event":"b","ref":{}}}"#, "[".repeat(100));
        assert!(Message::read(Version::One, &nested).is_none());
        let reference = format!(r#"{{"topic":"a","event":"b","ref":"{}"}}"#, "r".repeat(100));
        assert!(Message::read(Version::One, &reference).is_none());
        assert!(Message::read(Version::Two, r#"[null,{"a":1},"t","e",{}]"#).is_none());
    }

    #[test]
    fn a_binary_push_is_read_and_a_broadcast_written() {
        let push = b"\x03\x01\x02\x0a\x06\x02\x0112realtime:cursor{}{\"x\":1}";
        assert!(Message::read_binary(push).is_none(), "the lengths are of another message");
        let push = b"\x03\x01\x01\x0a\x06\x02\x0112realtime:acursor{}{\"x\":1}";
        let message = Message::read_binary(push).unwrap();
        assert_eq!((&*message.topic, &*message.event), ("realtime:a", "cursor"));
        assert_eq!(message.reference.unwrap().get(), "\"2\"");
        let Payload::User { meta: "{}", json: true, content } = message.payload else {
            panic!("{:?}", message.payload)
        };
        assert_eq!(content, b"{\"x\":1}");
        let sent = broadcast("realtime:a", "cursor", ("{}", true), content).unwrap();
        assert_eq!(sent, b"\x04\x0a\x06\x02\x01realtime:acursor{}{\"x\":1}");
        assert!(broadcast(&"t".repeat(256), "e", ("", true), b"1").is_none());
        for len in 0..push.len() - 7 {
            assert!(Message::read_binary(&push[..len]).is_none(), "{len}");
        }
        assert!(Message::read_binary(b"\x00\0\0\0\0\0\0").is_none());
    }
}
