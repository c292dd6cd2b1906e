//! Debezium's envelope, as its PostgreSQL connector writes it without schemas.
//!
//! What differs is in docs/outputs.md, and comes from what an event knows: its place is that of its
//! transaction's commit, and values read as in all other events.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Message;
use crate::model::clock;
use crate::output::envelope::{Envelope, Row, member, text};

/// Stands for a value that PostgreSQL did not send.
const UNAVAILABLE: &str = "\"__debezium_unavailable_value\"";

/// Writes Debezium's envelope.
#[derive(Debug, Clone)]
pub struct Debezium {
    /// The database's name, as JSON.
    database: String,
    tombstones: bool,
}

/// A logical message's data.
#[derive(Debug, Default, Deserialize)]
struct Logical<'a> {
    #[serde(borrow, default)]
    prefix: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content_base64: Option<Cow<'a, str>>,
}

impl Debezium {
    /// Events of this database.
    #[must_use]
    pub fn new(database: &str, tombstones: bool) -> Self {
        Self { database: json_string(database), tombstones }
    }

    /// An event's messages: one, or for a delete two (with its tombstone), or, where an update
    /// changed the key, those of a delete and of a create.
    pub fn messages<'e>(&self, event: &'e Envelope<'_>) -> Vec<Message<'e>> {
        let row = event.row();
        let id = event.id().to_string();
        let before = row.old_record.map(RawValue::get);
        let key = row.key.map_or("null", RawValue::get).to_owned();
        let mut messages = Vec::with_capacity(1);
        match row.op.as_deref() {
            Some("insert") => self.push(&mut messages, id, key, event, &row, "c"),
            Some("snapshot") => self.push(&mut messages, id, key, event, &row, "r"),
            Some("update") => match before.filter(|_| event.changes_key()) {
                None => self.push(&mut messages, id, key, event, &row, "u"),
                Some(before) => {
                    let old_key = old_key(&row, before);
                    self.push_delete(&mut messages, format!("{id}/delete"), old_key, event, &row);
                    self.push(&mut messages, id, key, event, &row, "c");
                }
            },
            Some("delete") => self.push_delete(&mut messages, id, key, event, &row),
            Some("truncate") => self.push(&mut messages, id, "null".into(), event, &row, "t"),
            _ => messages.push(self.logical(id, event)),
        }
        messages
    }

    fn push<'e>(
        &self,
        messages: &mut Vec<Message<'e>>,
        id: String,
        key: String,
        event: &Envelope<'_>,
        row: &Row<'_>,
        op: &str,
    ) {
        let mut out = String::with_capacity(event.data.len() + 512);
        let before = match op {
            "u" | "d" => row.old_record.map_or("null", RawValue::get),
            _ => "null",
        };
        out.push_str("{\"before\":");
        out.push_str(before);
        out.push_str(",\"after\":");
        match op {
            "d" => out.push_str("null"),
            _ => push_after(&mut out, row),
        }
        self.push_rest(&mut out, event, row, op);
        out.push('}');
        messages.push(message(id, key, Some(out)));
    }

    fn push_delete<'e>(
        &self,
        messages: &mut Vec<Message<'e>>,
        id: String,
        key: String,
        event: &Envelope<'_>,
        row: &Row<'_>,
    ) {
        let tombstone =
            self.tombstones.then(|| message(format!("{id}/tombstone"), key.clone(), None));
        self.push(messages, id, key, event, row, "d");
        messages.extend(tombstone);
    }

    /// What is about no row: logical messages, and walmill's own (`walmill.gap`,
    /// `walmill.schema.changed`), which Debezium has no other place for.
    fn logical<'e>(&self, id: String, event: &Envelope<'_>) -> Message<'e> {
        let own = json_string(event.attribute("type"));
        let (prefix, content) = match event.attribute("type") {
            "walmill.message" => {
                let logical: Logical<'_> = serde_json::from_str(event.data).unwrap_or_default();
                let content = logical.content.map_or(Cow::Borrowed(""), |content| {
                    text(content).unwrap_or(Cow::Borrowed("null"))
                });
                let content = logical
                    .content_base64
                    .map_or_else(|| STANDARD.encode(content.as_bytes()), Cow::into_owned);
                (logical.prefix.map_or("\"\"", RawValue::get), content)
            }
            _ => (own.as_str(), STANDARD.encode(event.data)),
        };
        let mut out = String::with_capacity(content.len() + 512);
        out.push('{');
        self.push_source(&mut out, event, &Row::default(), "m");
        out.push_str(",\"transaction\":null");
        // Base64 needs no escapes.
        let _ = write!(out, ",\"message\":{{\"prefix\":{prefix},\"content\":\"{content}\"}}}}");
        message(id, format!("{{\"prefix\":{prefix}}}"), Some(out))
    }

    fn push_rest(&self, out: &mut String, event: &Envelope<'_>, row: &Row<'_>, op: &str) {
        out.push(',');
        self.push_source(out, event, row, op);
        out.push_str(",\"transaction\":null");
    }

    /// `"source":…,"op":…,"ts_ms":…`
    fn push_source(&self, out: &mut String, event: &Envelope<'_>, row: &Row<'_>, op: &str) {
        let (name, database) = (json_string(source_name(event)), &self.database);
        let micros = micros(event.attribute("time")).unwrap_or_default();
        let snapshot = op == "r";
        let lsn = lsn(event.attribute("lsn")).unwrap_or_default();
        let xid = match event.attribute("xid") {
            "" => "null",
            xid => xid,
        };
        let version = env!("CARGO_PKG_VERSION");
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "\"source\":{{\"version\":\"walmill {version}\",\"connector\":\"postgresql\",\
             \"name\":{name},\"ts_ms\":{},\"snapshot\":\"{snapshot}\",\"db\":{database},\
             \"sequence\":\"[null,\\\"{lsn}\\\"]\",\"ts_us\":{micros},\"ts_ns\":{},",
            micros.div_euclid(1000),
            micros.saturating_mul(1000),
        );
        let table =
            |name: &Option<Cow<'_, str>>| name.as_deref().map_or("\"\"".into(), json_string);
        let _ = write!(
            out,
            "\"schema\":{},\"table\":{},\"txId\":{xid},\"lsn\":{lsn},\"xmin\":null,\
             \"origin\":null,\"origin_lsn\":null}}",
            table(&row.schema),
            table(&row.table),
        );
        let now = clock::now();
        let _ = write!(
            out,
            ",\"op\":\"{op}\",\"ts_ms\":{},\"ts_us\":{now},\"ts_ns\":{}",
            now / 1000,
            now.saturating_mul(1000)
        );
    }
}

fn message<'e>(id: String, key: String, body: Option<String>) -> Message<'e> {
    let body = body.map(|body| Cow::Owned(body.into_bytes()));
    Message { id, key: Cow::Owned(key.into_bytes()), attributes: &[], body }
}

/// The row, with a mark where PostgreSQL did not send a value.
fn push_after(out: &mut String, row: &Row<'_>) {
    let Some(record) = row.record.map(RawValue::get) else { return out.push_str("null") };
    let open = record.strip_suffix('}').filter(|_| !row.unchanged.is_empty());
    let Some(open) = open else { return out.push_str(record) };
    out.push_str(open);
    let mut empty = open.trim_end().ends_with('{');
    for column in &row.unchanged {
        if !std::mem::take(&mut empty) {
            out.push(',');
        }
        out.push_str(&json_string(column));
        out.push(':');
        out.push_str(UNAVAILABLE);
    }
    out.push('}');
}

/// The key's columns with the values that they had before.
fn old_key(row: &Row<'_>, before: &str) -> String {
    let names = row.key.map(RawValue::get).and_then(|key| {
        serde_json::from_str::<std::collections::BTreeMap<Cow<'_, str>, &RawValue>>(key).ok()
    });
    let before: Option<&RawValue> = serde_json::from_str(before).ok();
    let (Some(names), Some(before)) = (names, before) else { return "null".into() };
    let mut out = String::from("{");
    for (at, (name, new)) in names.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&json_string(name));
        out.push(':');
        out.push_str(member(before, name).unwrap_or(new).get());
    }
    out.push('}');
    out
}

/// The first part of `/<source name>/<system identifier>/<timeline>`.
fn source_name<'e>(event: &'e Envelope<'_>) -> &'e str {
    let source = event.attribute("source");
    source.trim_start_matches('/').split('/').next().unwrap_or(source)
}

fn json_string(text: &str) -> String {
    // Text can always be written.
    serde_json::to_string(text).unwrap_or_default()
}

/// `16/B374D848` as a number.
fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}

/// Microseconds since 1970 of an RFC 3339 time in UTC, as walmill writes it.
fn micros(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    // Days from 1 March 0000, where leap days end a year: Howard Hinnant's civil calendar.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::output::envelope::tests::record;

    const HEAD: &str = r#""specversion":"1.0","source":"/shop/7301/1","time":"2026-11-25T12:06:32.000123Z","lsn":"16/B374D848","xid":"771""#;

    /// Keys and bodies, without what is different each time.
    fn messages(key: &str, data: &str) -> Vec<(String, String)> {
        let record = record(key, &format!("{{{HEAD},\"type\":\"walmill.gap\",\"data\":{data}}}"));
        let envelope = Envelope::read(&record).unwrap();
        let messages = Debezium::new("shop", true).messages(&envelope).into_iter();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        messages
            .map(|message| {
                let body = message.body.map_or("nothing".into(), |body| text(&body));
                let (source, rest) = body.split_once(",\"source\":").unwrap_or((&body, ""));
                let op = rest.split_once("\"op\":").map_or("", |(_, op)| &op[..3]);
                (text(&message.key), format!("{source} {op}"))
            })
            .collect()
    }

    #[test]
    fn a_changed_key_is_a_delete_and_a_create() {
        let data = r#"{"schema":"public","table":"t","op":"update","key":{"id":2},
            "record":{"id":2,"v":"x"},"old_record":{"id":1},"unchanged":["big"]}"#;
        expect![[r#"
            [
                (
                    "{\"id\":1}",
                    "{\"before\":{\"id\":1},\"after\":null \"d\"",
                ),
                (
                    "{\"id\":1}",
                    "nothing ",
                ),
                (
                    "{\"id\":2}",
                    "{\"before\":null,\"after\":{\"id\":2,\"v\":\"x\",\"big\":\"__debezium_unavailable_value\"} \"c\"",
                ),
            ]
        "#]]
        .assert_debug_eq(&messages("public.t/2\0public.t/1", data));
    }

    #[test]
    fn every_message_is_json_and_none_is_silent_about_a_gap() {
        for data in [
            "null",
            "[]",
            r#"{"prefix":"p","content":{"a":1}}"#,
            r#"{"op":"update","record":{},"unchanged":["a","b"]}"#,
            r#"{"op":"truncate","schema":"s","table":"a\"b"}"#,
        ] {
            let json = format!("{{{HEAD},\"type\":\"walmill.gap\",\"data\":{data}}}");
            let record = record("t", &json);
            let envelope = Envelope::read(&record).unwrap();
            for message in Debezium::new("a\"b", false).messages(&envelope) {
                let body = message.body.unwrap();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(body["source"]["lsn"], 0x16_B374_D848_u64);
                assert_eq!(body["source"]["ts_us"], 1_795_608_392_000_123_u64);
                let _: serde_json::Value = serde_json::from_slice(&message.key).unwrap();
                if body["op"] == "m" {
                    assert_eq!(body["message"]["prefix"], "walmill.gap");
                    assert_eq!(body["message"]["content"], STANDARD.encode(data));
                }
            }
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        assert_eq!(micros("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(micros("2000-02-29T23:59:59.5Z"), Some(951_868_799_500_000));
        assert_eq!(micros("1969-12-31T23:59:59.999999Z"), Some(-1));
        for text in ["", "infinity", "2000-02-29", "2000-02-29T1Z", "T.Z"] {
            assert_eq!(micros(text), None, "{text}");
        }
    }
}
