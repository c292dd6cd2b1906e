//! Values as text: what is written into JSON by hand here, and PostgreSQL's text form, which is
//! what the first clients read.

use std::borrow::Cow;

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".into())
}

/// `before` and a list.
pub(super) fn list<T>(
    out: &mut String,
    before: &str,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    out.push_str(before);
    out.push('[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

/// An object whose values are JSON already.
pub(super) fn object(out: &mut String, entries: &[(&str, &str)]) {
    out.push('{');
    for (at, (name, value)) in entries.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&quoted(name));
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
}

/// A value of an event, which is JSON, as a JSON string of PostgreSQL's text form; null stays null.
pub(super) fn postgres(out: &mut String, type_name: Option<&str>, json: &str) {
    if json == "null" {
        return out.push_str(json);
    }
    out.push_str(&quoted(&postgres_text(type_name, json)));
}

fn postgres_text(type_name: Option<&str>, json: &str) -> String {
    match type_name {
        Some("json" | "jsonb") => json.to_owned(),
        Some("timestamp") => spaced(&plain(json)),
        Some("timestamptz") => match spaced(&plain(json)) {
            text if text.ends_with('Z') => format!("{}+00", &text[..text.len() - 1]),
            text => text,
        },
        Some(array) if array.starts_with('_') && json.starts_with('[') => {
            array_text(&array[1..], json)
        }
        _ => match json {
            "true" => "t".into(),
            "false" => "f".into(),
            json => plain(json).into_owned(),
        },
    }
}

/// PostgreSQL has a space where ISO has a T.
fn spaced(time: &str) -> String {
    time.replacen('T', " ", 1)
}

/// `{a,b}` (PostgreSQL docs, "Array Input and Output Syntax").
fn array_text(element: &str, json: &str) -> String {
    let Ok(elements) = serde_json::from_str::<Vec<&serde_json::value::RawValue>>(json) else {
        return plain(json).into_owned();
    };
    let mut out = String::from("{");
    for (at, value) in elements.iter().map(|value| value.get()).enumerate() {
        if at > 0 {
            out.push(',');
        }
        match value {
            "null" => out.push_str("NULL"),
            value if value.starts_with('[') && !matches!(element, "json" | "jsonb") => {
                out.push_str(&array_text(element, value));
            }
            value => push_element(&mut out, &postgres_text(Some(element), value)),
        }
    }
    out.push('}');
    out
}

fn push_element(out: &mut String, text: &str) {
    let special = |c: char| c.is_ascii_whitespace() || matches!(c, '{' | '}' | ',' | '"' | '\\');
    if !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(special) {
        return out.push_str(text);
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// A JSON value as text: a string without its quotes, anything else as it stands.
fn plain(json: &str) -> Cow<'_, str> {
    match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Cow::Borrowed(text),
        Some(_) => Cow::Owned(serde_json::from_str(json).unwrap_or_default()),
        None => Cow::Borrowed(json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_postgresql_prints_them() {
        for (type_name, json, expected) in [
            ("int8", "9007199254740993", "9007199254740993"),
            ("bool", "true", "t"),
            ("text", r#""a \"b\"""#, "a \"b\""),
            ("jsonb", r#"{"a": [1]}"#, r#"{"a": [1]}"#),
            ("timestamp", r#""2026-02-01T10:00:00.25""#, "2026-02-01 10:00:00.25"),
            ("timestamptz", r#""2026-02-01T04:30:00Z""#, "2026-02-01 04:30:00+00"),
            (
                "_text",
                r#"["a","b c",null,"","NULL","q\"\\"]"#,
                r#"{a,"b c",NULL,"","NULL","q\"\\"}"#,
            ),
            ("_int4", "[[1,2],[3,4]]", "{{1,2},{3,4}}"),
            ("_bool", "[true,false]", "{t,f}"),
            ("numeric", "\"NaN\"", "NaN"),
        ] {
            assert_eq!(postgres_text(Some(type_name), json), expected, "{type_name} {json}");
        }
        let mut out = String::new();
        postgres(&mut out, Some("int4"), "null");
        postgres(&mut out, None, "7");
        assert_eq!(out, "null\"7\"");
    }
}
