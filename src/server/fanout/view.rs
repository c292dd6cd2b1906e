//! What one kind of reader may see of an event: without hidden columns, and without an old row that
//! it had no right to.

use bytes::Bytes;

use super::scan::{Members, Rows, member};
use crate::model::EventRecord;
use crate::model::event::Order;
use crate::model::veil::Veil;
use crate::server::filter::label;

/// What is left out of events. Two readers with equal views get the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// Names keys that have a hidden column.
    veil: Veil,
    /// Columns that are left out, as they stand in JSON.
    hidden: Vec<Box<[u8]>>,
    /// Columns that decide which rows it sees: an old row that differs in one of them was perhaps
    /// not for its eyes.
    limits: Vec<Box<[u8]>>,
}

impl View {
    pub(crate) fn new<'a>(
        veil: Veil,
        hidden: impl IntoIterator<Item = &'a str>,
        limits: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut view = Self {
            veil,
            hidden: hidden.into_iter().map(label).collect(),
            limits: limits.into_iter().map(label).collect(),
        };
        view.hidden.sort_unstable();
        view.limits.sort_unstable();
        view
    }

    /// Whether every event is seen as it is.
    pub(crate) fn is_whole(&self) -> bool {
        self.hidden.is_empty() && self.limits.is_empty()
    }

    /// `"schema.table/~…"`: still the same for the same row, and nothing of its key in it.
    fn write_hidden_key(&self, out: &mut Vec<u8>, subject: &[u8]) {
        out.extend_from_slice(subject.split(|&byte| byte == b'/').next().unwrap_or_default());
        let mut veiled = self.veil.begin();
        veiled.part(subject);
        veiled.write(out);
        out.push(b'"');
    }

    fn hides(&self, label: &[u8]) -> bool {
        self.hidden.iter().any(|hidden| **hidden == *label)
    }

    /// The event as it is seen; `None` where it is not for this reader at all.
    pub(crate) fn of(&self, event: &EventRecord) -> Option<Bytes> {
        if self.is_whole() {
            return Some(event.json.clone());
        }
        let kind = member(&event.json, b"\"type\"").unwrap_or_default();
        match event.order() {
            // It tells the table's columns.
            Order::All if kind == b"\"walmill.schema.changed\"" && !self.hidden.is_empty() => None,
            Order::All => Some(event.json.clone()),
            _ => Some(self.rewrite(&event.json)),
        }
    }

    fn rewrite(&self, json: &[u8]) -> Bytes {
        let rows = Rows::of(json);
        let data = member(json, b"\"data\"").unwrap_or_default();
        let key = member(data, b"\"key\"").unwrap_or_default();
        let hides_key = Members::of(key).any(|(label, _)| self.hides(label));
        let mut out = Vec::with_capacity(json.len());
        write_object(&mut out, Members::of(json), |out, label, value| match label {
            b"\"subject\"" | b"\"partitionkey\"" if hides_key => self.write_hidden_key(out, value),
            b"\"data\"" => self.write_data(out, value, rows),
            _ => out.extend_from_slice(value),
        });
        out.into()
    }

    fn write_data(&self, out: &mut Vec<u8>, data: &[u8], rows: Rows<'_>) {
        write_object(out, Members::of(data), |out, label, value| match label {
            b"\"old_record\"" if !self.may_see_old(rows) => out.extend_from_slice(b"null"),
            b"\"record\"" | b"\"old_record\"" | b"\"key\"" if value.starts_with(b"{") => {
                let shown = Members::of(value).filter(|(label, _)| !self.hides(label));
                write_object(out, shown, |out, _, value| out.extend_from_slice(value));
            }
            b"\"unchanged\"" => self.write_unchanged(out, value),
            _ => out.extend_from_slice(value),
        });
    }

    fn write_unchanged(&self, out: &mut Vec<u8>, list: &[u8]) {
        let names: Vec<String> = serde_json::from_slice(list).unwrap_or_default();
        let shown = names.into_iter().map(|name| label(&name)).filter(|label| !self.hides(label));
        out.push(b'[');
        for (at, label) in shown.enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&label);
        }
        out.push(b']');
    }

    /// Whether the old row is known to have been for this reader, as the new one is.
    fn may_see_old(&self, rows: Rows<'_>) -> bool {
        if !rows.record.starts_with(b"{") {
            // It is gone, and what it was has let this event through.
            return true;
        }
        self.limits.iter().all(|limit| {
            let old = member(rows.old_record, limit);
            let new = member(rows.record, limit);
            old.is_some() && (new.is_none() || new == old)
        })
    }
}

fn write_object<'a>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    mut write: impl FnMut(&mut Vec<u8>, &[u8], &[u8]),
) {
    out.push(b'{');
    for (at, (label, value)) in members.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(label);
        out.push(b':');
        write(out, label, value);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Offset;

    const VEIL: Veil = Veil::new([7; 32]);

    fn seen(view: &View, key: &'static [u8], json: &str) -> Option<String> {
        let json = Bytes::from(json.to_owned());
        let event = EventRecord { offset: Offset::START, key: Bytes::from_static(key), json };
        view.of(&event).map(|json| String::from_utf8(json.to_vec()).unwrap())
    }

    #[test]
    fn hidden_columns_are_nowhere_in_the_event() {
        let view = View::new(VEIL, ["email"], []);
        let json = r#"{"id":"1","subject":"s.t/a@b","partitionkey":"s.t/a@b","data":{"op":"update","key":{"email":"a@b"},"record":{"email":"a@b","n":1},"old_record":{"n":0,"email":"c@d"},"unchanged":["email","big"]}}"#;
        let text = seen(&view, b"s.t/a@b", json).unwrap();
        assert!(!text.contains('@') && !text.contains("email"), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["data"]["record"], serde_json::json!({ "n": 1 }));
        assert_eq!(value["data"]["unchanged"], serde_json::json!(["big"]));
        let subject = value["subject"].as_str().unwrap();
        assert!(subject.starts_with("s.t/~"));
        assert_eq!(value["partitionkey"], subject, "the same for the same row");
        let other = seen(&View::new(Veil::new([8; 32]), ["email"], []), b"s.t/a@b", json).unwrap();
        assert!(!other.contains(subject), "whoever lacks the secret can't make it");
        let schema = r#"{"type":"walmill.schema.changed","data":{"columns":["email"]}}"#;
        assert_eq!(seen(&view, b"s.t\0", schema), None);
        let gap = r#"{"type":"walmill.gap","data":{}}"#;
        assert_eq!(seen(&view, b"gap\0", gap).unwrap(), gap);
    }

    #[test]
    fn an_old_row_is_shown_only_to_who_could_see_it() {
        let view = View::new(VEIL, [], ["tenant"]);
        let old = |new: &str, old: &str| {
            let json = format!(r#"{{"data":{{"record":{new},"old_record":{old}}}}}"#);
            let text = seen(&view, b"s.t/1", &json).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["data"]["old_record"].clone()
        };
        let (ours, theirs) = (r#"{"tenant":1,"x":1}"#, r#"{"tenant":2,"x":2}"#);
        assert!(old(ours, r#"{"tenant":1,"x":0}"#).is_object());
        assert!(old(ours, theirs).is_null());
        assert!(old(ours, r#"{"id":1}"#).is_null());
        assert!(old("null", ours).is_object());
    }
}
