//! A stored event taken apart again: its CloudEvents attributes and its data. Nothing is copied but
//! texts with escapes in them.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::DeliverError;
use crate::model::event::Order;
use crate::model::{EventId, EventRecord};

/// An event, as outputs that do not send its JSON as it stands see it.
#[derive(Debug)]
pub struct Envelope<'a> {
    record: &'a EventRecord,
    /// Names and values in their order, `specversion` first and without `data`.
    pub attributes: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The JSON of `data`.
    pub data: &'a str,
}

/// What `data` holds unless a plugin replaced it.
#[derive(Debug, Default, Deserialize)]
pub struct Row<'a> {
    /// The table's schema.
    #[serde(borrow, default)]
    pub schema: Option<Cow<'a, str>>,
    /// The table.
    #[serde(borrow, default)]
    pub table: Option<Cow<'a, str>>,
    /// What happened: `insert`, …
    #[serde(borrow, default)]
    pub op: Option<Cow<'a, str>>,
    /// The key's columns.
    #[serde(borrow, default)]
    pub key: Option<&'a RawValue>,
    /// The row.
    #[serde(borrow, default)]
    pub record: Option<&'a RawValue>,
    /// The row before.
    #[serde(borrow, default)]
    pub old_record: Option<&'a RawValue>,
    /// Columns that PostgreSQL did not send, for they did not change.
    #[serde(borrow, default)]
    pub unchanged: Vec<Cow<'a, str>>,
}

impl<'a> Envelope<'a> {
    /// Takes an event apart.
    ///
    /// # Errors
    /// It is no JSON, which a plugin's own `data` can bring about; it is refused then.
    pub fn read(record: &'a EventRecord) -> Result<Self, DeliverError> {
        let refused = |cause: anyhow::Error| DeliverError::Refused {
            event: record.id(),
            cause: cause.context("the event is no CloudEvent in JSON"),
            answer: String::new(),
        };
        let text = std::str::from_utf8(&record.json).map_err(|error| refused(error.into()))?;
        let members: Members = serde_json::from_str(text).map_err(|error| refused(error.into()))?;
        Ok(Self { record, attributes: members.attributes, data: members.data })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.record.id()
    }

    /// The value of an attribute; empty if it has none of this name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    /// The row's key, `schema.table/key`; what is about all rows of a table has the table's name.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        match self.record.order() {
            Order::Key(key) | Order::Keys { new: key, .. } => key,
            Order::All => self.record.key.strip_suffix(&[0]).unwrap_or(&self.record.key),
        }
    }

    /// Whether an update gave the row another key.
    #[must_use]
    pub fn changes_key(&self) -> bool {
        matches!(self.record.order(), Order::Keys { .. })
    }

    /// The row in `data`; all of it is missing where `data` is something else.
    #[must_use]
    pub fn row(&self) -> Row<'a> {
        serde_json::from_str(self.data).unwrap_or_default()
    }
}

/// A JSON value as text: a string without its quotes, everything else as it is written; nothing for
/// null.
#[must_use]
pub fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get() {
        "null" => None,
        raw if raw.starts_with('"') => Some(unquoted(raw)),
        raw => Some(Cow::Borrowed(raw)),
    }
}

/// One member of a JSON object, without reading the others.
#[must_use]
pub fn member<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    struct Find<'n>(&'n str);
    impl<'de> Visitor<'de> for Find<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(Text(name)) = map.next_key()? {
                let value: &RawValue = map.next_value()?;
                if name == self.0 {
                    found = Some(value);
                }
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(object.get()).deserialize_map(Find(name)).ok().flatten()
}

fn unquoted(raw: &str) -> Cow<'_, str> {
    serde_json::from_str::<Text>(raw).map(|Text(text)| text).unwrap_or_default()
}

/// A string that is borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Members<'a> {
    attributes: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    data: &'a str,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        // As many as walmill writes.
        let mut members = Members { attributes: Vec::with_capacity(12), data: "null" };
        while let Some(Text(name)) = map.next_key()? {
            let value: &RawValue = map.next_value()?;
            match (&*name, text(value)) {
                ("data", _) => members.data = value.get(),
                (_, Some(text)) => members.attributes.push((name, text)),
                (_, None) => {}
            }
        }
        Ok(members)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::Offset;

    /// An event with these bytes.
    pub(in crate::output) fn record(key: &str, json: &str) -> EventRecord {
        EventRecord {
            offset: Offset::START,
            key: Bytes::copy_from_slice(key.as_bytes()),
            json: Bytes::copy_from_slice(json.as_bytes()),
        }
    }

    #[test]
    fn attributes_are_texts_and_data_stays_json() {
        let record = record(
            "public.t/1",
            r#"{"specversion":"1.0","subject":"a\"b","txend":true,"none":null,"data":{"n": 1.50}}"#,
        );
        let envelope = Envelope::read(&record).unwrap();
        assert_eq!(envelope.attribute("subject"), "a\"b");
        assert_eq!(envelope.attribute("txend"), "true");
        assert_eq!((envelope.attribute("none"), envelope.attributes.len()), ("", 3));
        assert_eq!(envelope.data, r#"{"n": 1.50}"#);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for json in ["", "{", "[]", r#"{"data":nonsense}"#] {
            let record = record("t", json);
            let Err(DeliverError::Refused { .. }) = Envelope::read(&record) else {
                panic!("{json}")
            };
        }
    }

    #[test]
    fn a_row_s_columns_are_found_and_keep_their_digits() {
        let record = record(
            "public.t/1",
            r#"{"data":{"schema":"public","table":"t","op":"insert","key":{"id":1},
                "record":{"id":1,"a\"b":"x\ny","n":1.50,"gone":null},"old_record":null}}"#,
        );
        let row = Envelope::read(&record).unwrap().row();
        let columns = row.record.unwrap();
        let column = |name| member(columns, name).and_then(text);
        assert_eq!(column("a\"b").as_deref(), Some("x\ny"));
        assert_eq!(column("n").as_deref(), Some("1.50"));
        assert_eq!((column("gone"), column("other")), (None, None));
        assert!(row.old_record.is_none() && row.unchanged.is_empty());
    }

    #[test]
    fn a_barrier_s_key_is_the_table_s_name() {
        let key = |key| Envelope::read(&record(key, "{}")).unwrap().key().to_vec();
        assert_eq!(key("public.t\0"), b"public.t");
        assert_eq!(key("public.t/2\0public.t/1"), b"public.t/2");
    }
}
