//! Finds the parts of an event in its JSON by skipping over everything else: nothing is copied,
//! nothing is built. What is no JSON ends early.

use crate::server::filter::{OP, SCHEMA, TABLE};

/// The members of a JSON object in their order: each key with its quotes, and the value's bytes.
pub(super) struct Members<'a> {
    rest: &'a [u8],
}

impl<'a> Members<'a> {
    /// Of an object; of anything else there are none.
    pub(super) fn of(object: &'a [u8]) -> Self {
        Self { rest: trim(object).strip_prefix(b"{").unwrap_or_default() }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = trim(self.rest);
        let rest = trim(rest.strip_prefix(b",").unwrap_or(rest));
        let (key, rest) = rest.split_at_checked(string_end(rest)?)?;
        let rest = trim(trim(rest).strip_prefix(b":")?);
        let (value, rest) = rest.split_at_checked(value_end(rest)?)?;
        self.rest = rest;
        Some((key, value))
    }
}

/// The value of a member.
pub(super) fn member<'a>(object: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    Members::of(object).find(|(own, _)| *own == key).map(|(_, value)| value)
}

/// What an event says of a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rows<'a> {
    /// As it is now.
    pub(super) record: &'a [u8],
    /// As it was.
    pub(super) old_record: &'a [u8],
    /// What was done, and where: the labels that filters know these by, and what stands there.
    pub(super) about: [(&'static [u8], &'a [u8]); 3],
}

impl<'a> Rows<'a> {
    /// Of an event; none of it in one that is about no row.
    pub(super) fn of(event: &'a [u8]) -> Self {
        let mut rows = Self { about: [(TABLE, b""), (SCHEMA, b""), (OP, b"")], ..Self::default() };
        let Some(data) = member(event, b"\"data\"") else { return rows };
        for (key, value) in Members::of(data) {
            match key {
                b"\"record\"" => rows.record = value,
                b"\"old_record\"" => rows.old_record = value,
                b"\"table\"" => rows.about[0].1 = value,
                b"\"schema\"" => rows.about[1].1 = value,
                b"\"op\"" => rows.about[2].1 = value,
                _ => {}
            }
        }
        rows
    }
}

fn trim(bytes: &[u8]) -> &[u8] {
    match bytes.first() {
        Some(b' ' | b'\t' | b'\n' | b'\r') => bytes.trim_ascii_start(),
        _ => bytes,
    }
}

/// The end of the string that begins here.
fn string_end(bytes: &[u8]) -> Option<usize> {
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// The end of the value that begins here.
fn value_end(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'"' => string_end(bytes),
        b'{' | b'[' => nested_end(bytes),
        _ => {
            let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n');
            Some(bytes.iter().position(is_end).unwrap_or(bytes.len()))
        }
    }
}

fn nested_end(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match bytes.get(at)? {
            b'"' => {
                at += string_end(&bytes[at..])?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return Some(at + 1),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_whatever_stands_in_others() {
        let event = br#"{"subject":"x\"data\":{","data": {"op":"update","key":{"id":1},
            "record":{"a":"}\\\"","b":[1,{"c":"]"}],"c":-1.5e3} , "old_record":null}}"#;
        let rows = Rows::of(event);
        let members: Vec<_> = Members::of(rows.record)
            .map(|(key, value)| {
                (std::str::from_utf8(key).unwrap(), std::str::from_utf8(value).unwrap())
            })
            .collect();
        let expected =
            [("\"a\"", r#""}\\\"""#), ("\"b\"", r#"[1,{"c":"]"}]"#), ("\"c\"", "-1.5e3")];
        assert_eq!(members, expected);
        assert_eq!(rows.old_record, b"null");
        assert!(Members::of(rows.old_record).next().is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_somewhere(bytes: Vec<u8>) {
            let _ = Members::of(&bytes).count();
        }

        #[test]
        fn any_json_object_has_the_members_that_a_parser_finds(
            members in proptest::collection::btree_map(".*", "(?s).*", 0..6)
        ) {
            let json = serde_json::to_vec(&serde_json::json!({ "x": members, "y": [members] })).unwrap();
            let inner = member(&json, b"\"x\"").unwrap();
            let found = Members::of(inner).map(|(key, value)| {
                let text = |json| serde_json::from_slice::<String>(json).unwrap();
                (text(key), text(value))
            });
            proptest::prop_assert_eq!(found.collect::<std::collections::BTreeMap<_, _>>(), members);
        }
    }
}
