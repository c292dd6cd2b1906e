//! An event of a stream as a change that Supabase's clients know, in the words of either of their
//! generations. It is made once for all clients that read it.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::types::Types;
use super::{Values, text};
use crate::server::filter::Filter;

/// What happened, in their words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Insert,
    Update,
    Delete,
    Truncate,
}

impl Kind {
    /// As events have it.
    pub(super) fn op(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
        }
    }

    /// `INSERT`, …
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
        }
    }
}

/// One change.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) kind: Kind,
    pub(super) schema: Box<str>,
    pub(super) table: Box<str>,
    time: Box<str>,
    json: Bytes,
    record: Option<Fields>,
    old: Option<Fields>,
    key: Option<Fields>,
    types: Types,
    first: OnceLock<Box<str>>,
    second: OnceLock<Box<str>>,
}

/// A row's columns, as places in the event's JSON.
#[derive(Debug, Default)]
struct Fields(Vec<Field>);

#[derive(Debug, Clone)]
struct Field {
    name: Box<str>,
    value: Range<usize>,
}

/// The parts of an event that count here.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    time: &'a str,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    schema: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    table: std::borrow::Cow<'a, str>,
    op: &'a str,
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    record: Option<&'a RawValue>,
    #[serde(borrow, default)]
    old_record: Option<&'a RawValue>,
    #[serde(borrow, default)]
    unchanged: Vec<std::borrow::Cow<'a, str>>,
}

impl Change {
    /// The change that an event tells of; `None` for those of which these clients know nothing
    /// (rows that were there before, logical messages, data that a plugin replaced).
    pub(super) fn of(json: Bytes, types: impl FnOnce(&str, &str) -> Types) -> Option<Self> {
        let Event { time, data } = serde_json::from_slice(&json).ok()?;
        let kind = match data.op {
            "insert" => Kind::Insert,
            "update" => Kind::Update,
            "delete" => Kind::Delete,
            "truncate" => Kind::Truncate,
            _ => return None,
        };
        let fields = |raw: Option<&RawValue>| raw.and_then(|raw| Fields::read(raw.get(), &json));
        let (mut record, old) = (fields(data.record), fields(data.old_record));
        if let (Some(record), Some(old)) = (&mut record, &old) {
            // What an update left as it was, the old row may have.
            let left = |field: &&Field| data.unchanged.iter().any(|name| **name == *field.name);
            record.0.extend(old.0.iter().filter(left).cloned());
        }
        Some(Self {
            kind,
            types: types(&data.schema, &data.table),
            time: time.into(),
            record,
            old,
            key: fields(data.key),
            schema: data.schema.into(),
            table: data.table.into(),
            json: json.clone(),
            first: OnceLock::new(),
            second: OnceLock::new(),
        })
    }

    /// Whether a filter means it: its row, or the whole table, where that is emptied.
    pub(super) fn fits(&self, filter: &Filter) -> bool {
        self.kind == Kind::Truncate || filter.holds(|label| self.column(label))
    }

    /// A column's value by its name as it stands in JSON.
    fn column(&self, label: &[u8]) -> Option<&[u8]> {
        let is_meant = |field: &&Field| match label {
            [b'"', name @ .., b'"'] if !name.contains(&b'\\') => *name == *field.name.as_bytes(),
            label => *crate::server::filter::label(&field.name) == *label,
        };
        let field = self.row()?.0.iter().find(is_meant)?;
        self.json.get(field.value.clone())
    }

    /// The payload of the first generation.
    pub(super) fn first(&self, values: Values) -> &str {
        self.first.get_or_init(|| self.write_first(values).into())
    }

    /// The `data` of the second generation, with all columns.
    pub(super) fn second(&self) -> &str {
        self.second.get_or_init(|| self.write_second(|_| true).into())
    }

    /// The same with some columns only.
    pub(super) fn second_of(&self, select: &[String]) -> String {
        self.write_second(|name| select.iter().any(|selected| selected == name))
    }

    /// The row that filters look at: the new one, or of a delete the old one.
    fn row(&self) -> Option<&Fields> {
        match self.kind {
            Kind::Delete => self.old.as_ref(),
            _ => self.record.as_ref(),
        }
    }

    fn value(&self, field: &Field) -> &str {
        self.json
            .get(field.value.clone())
            .and_then(|v| std::str::from_utf8(v).ok())
            .unwrap_or("null")
    }

    fn write_second(&self, wanted: impl Fn(&str) -> bool) -> String {
        let mut out = String::with_capacity(self.json.len() + 256);
        self.write_head(&mut out, &milliseconds(&self.time));
        out.push_str(",\"errors\":null");
        if self.kind != Kind::Truncate {
            let columns = self.row().map(|row| &row.0[..]).unwrap_or_default();
            text::list(
                &mut out,
                ",\"columns\":",
                columns.iter().filter(|f| wanted(&f.name)),
                |out, f| {
                    let type_name = self.types.name(&f.name, self.value(f));
                    text::object(
                        out,
                        &[("name", &text::quoted(&f.name)), ("type", &text::quoted(&type_name))],
                    );
                },
            );
        }
        let value = |out: &mut String, field: &Field| self.write_json(out, field);
        if self.kind != Kind::Delete
            && let Some(record) = &self.record
        {
            record.write(&mut out, ",\"record\":", &wanted, value);
        }
        match (self.kind, &self.old) {
            (Kind::Update, None) => {
                let empty = Fields::default();
                let key = self.key.as_ref().unwrap_or(&empty);
                key.write(&mut out, ",\"old_record\":", &wanted, value);
            }
            (Kind::Update | Kind::Delete, Some(old)) => {
                old.write(&mut out, ",\"old_record\":", &wanted, value);
            }
            _ => {}
        }
        out.push('}');
        out
    }

    /// A value as PostgreSQL's `to_jsonb` has it.
    fn write_json(&self, out: &mut String, field: &Field) {
        let json = self.value(field);
        match self.types.known(&field.name) {
            Some("bytea") if json.starts_with("\"\\\\x") => {
                out.push('"');
                out.push_str(&json[4..]);
            }
            Some("timestamptz") if json.ends_with("Z\"") => {
                out.push_str(&json[..json.len() - 2]);
                out.push_str("+00:00\"");
            }
            _ => out.push_str(json),
        }
    }

    fn write_first(&self, values: Values) -> String {
        let mut out = String::with_capacity(self.json.len() + 256);
        self.write_head(&mut out, &seconds(&self.time));
        if self.kind == Kind::Truncate {
            out.push('}');
            return out;
        }
        let columns = self.row().map(|row| &row.0[..]).unwrap_or_default();
        text::list(&mut out, ",\"columns\":", columns.iter(), |out, f| {
            let type_name = self.types.name(&f.name, self.value(f));
            let key = self.key.as_ref().is_some_and(|key| key.0.iter().any(|k| k.name == f.name));
            text::object(
                out,
                &[
                    ("name", &text::quoted(&f.name)),
                    ("type", &text::quoted(&type_name)),
                    ("flags", if key { "[\"key\"]" } else { "[]" }),
                    ("type_modifier", &self.types.modifier(&f.name).to_string()),
                ],
            );
        });
        let value = |out: &mut String, field: &Field| match values {
            Values::Json => self.write_json(out, field),
            Values::Text => {
                let json = self.value(field);
                text::postgres(out, self.types.known(&field.name), json);
            }
        };
        let all = |_: &str| true;
        if self.kind != Kind::Delete
            && let Some(record) = &self.record
        {
            record.write(&mut out, ",\"record\":", all, value);
        }
        let empty = Fields::default();
        match self.kind {
            Kind::Update => {
                // Only with all of it: what the key alone says, they know from the record.
                let full = self.old.as_ref().filter(|old| old.0.len() >= columns.len());
                full.unwrap_or(&empty).write(&mut out, ",\"old_record\":", all, value);
            }
            Kind::Delete => {
                self.old.as_ref().unwrap_or(&empty).write(&mut out, ",\"old_record\":", all, value);
            }
            Kind::Insert | Kind::Truncate => {}
        }
        out.push('}');
        out
    }

    fn write_head(&self, out: &mut String, time: &str) {
        for (before, value) in [
            ("{\"type\":", text::quoted(self.kind.name())),
            (",\"schema\":", text::quoted(&self.schema)),
            (",\"table\":", text::quoted(&self.table)),
            (",\"commit_timestamp\":", text::quoted(time)),
        ] {
            out.push_str(before);
            out.push_str(&value);
        }
    }
}

impl Fields {
    /// Reads an object that lies within `whole`; `None` for what is none.
    fn read(object: &str, whole: &Bytes) -> Option<Self> {
        struct InOrder(usize);
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((name, value)) = map.next_entry::<Box<str>, &'de RawValue>()? {
                    let start = (value.get().as_ptr() as usize).wrapping_sub(self.0);
                    fields.push(Field { name, value: start..start + value.get().len() });
                }
                Ok(Fields(fields))
            }
        }
        let mut reader = serde_json::Deserializer::from_str(object);
        let start = whole.as_ptr() as usize;
        serde::Deserializer::deserialize_map(&mut reader, InOrder(start)).ok()
    }

    fn write(
        &self,
        out: &mut String,
        before: &str,
        wanted: impl Fn(&str) -> bool,
        value: impl Fn(&mut String, &Field),
    ) {
        out.push_str(before);
        out.push('{');
        let mut first = true;
        for field in self.0.iter().filter(|field| wanted(&field.name)) {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            out.push_str(&text::quoted(&field.name));
            out.push(':');
            value(out, field);
        }
        out.push('}');
    }
}

/// RFC 3339 in UTC, cut to milliseconds as the second generation has it.
fn milliseconds(time: &str) -> String {
    cut(time, 3)
}

/// The same cut to seconds, as the first has it.
fn seconds(time: &str) -> String {
    cut(time, 0)
}

fn cut(time: &str, places: usize) -> String {
    let bare = time.trim_end_matches('Z');
    let (whole, fraction) = bare.split_once('.').unwrap_or((bare, ""));
    match places {
        0 => format!("{whole}Z"),
        places => format!("{whole}.{:0<places$.places$}Z", fraction),
    }
}
