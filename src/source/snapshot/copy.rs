//! Lines of COPY's text format as rows of the journal (PostgreSQL docs, "COPY", "Text Format").
//!
//! The values are what the types' output functions write, as in the stream.

use bytes::{BufMut as _, BytesMut};

use crate::model::RelationId;
use crate::pgoutput::row;

/// A line that is no row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of COPY has {found} columns and not {wanted}")]
pub(in crate::source) struct CopyError {
    wanted: u16,
    found: usize,
}

/// Appends a line, with or without its end, as a frame: its length and its message.
pub(in crate::source) fn append_row(
    out: &mut BytesMut,
    line: &[u8],
    relation: RelationId,
    columns: u16,
) -> Result<(), CopyError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let start = out.len();
    out.put_u32(0);
    row::begin(out, relation.0, columns);
    let mut found = 0;
    if columns > 0 {
        // A tab inside a value is written as `\t`, so every one that is here is a border.
        for field in line.split(|byte| *byte == b'\t') {
            append_value(out, field);
            found += 1;
        }
    }
    if found != usize::from(columns) {
        out.truncate(start);
        return Err(CopyError { wanted: columns, found });
    }
    let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

fn append_value(out: &mut BytesMut, mut field: &[u8]) {
    if field == b"\\N" {
        return row::null(out);
    }
    let start = row::begin_text(out);
    while let Some(at) = memchr::memchr(b'\\', field) {
        out.put_slice(&field[..at]);
        let escaped = field.get(at + 1).copied();
        out.put_slice(match &escaped {
            Some(b'b') => b"\x08",
            Some(b'f') => b"\x0C",
            Some(b'n') => b"\n",
            Some(b'r') => b"\r",
            Some(b't') => b"\t",
            Some(b'v') => b"\x0B",
            Some(itself) => std::slice::from_ref(itself),
            None => b"",
        });
        field = field.get(at + 2..).unwrap_or_default();
    }
    out.put_slice(field);
    row::end_text(out, start);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::{self, Message, Value};

    fn check(line: &str, columns: u16, values: &[Option<&'static str>]) {
        let mut out = BytesMut::new();
        append_row(&mut out, line.as_bytes(), RelationId(3), columns).unwrap();
        assert_eq!(out[..4], u32::try_from(out.len() - 4).unwrap().to_be_bytes());
        let Ok(Message::Row { relation: 3, new }) = pgoutput::decode(&out[4..]) else {
            panic!("{out:?}")
        };
        let value = |text: &Option<&'static str>| {
            text.map_or(Value::Null, |text| Value::Text(text.as_bytes()))
        };
        let wanted: Vec<_> = values.iter().map(value).collect();
        assert_eq!(new.iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_line_is_its_values() {
        check("1\tone\n", 2, &[Some("1"), Some("one")]);
        check("1\t\\N\n", 2, &[Some("1"), None]);
        check("\n", 1, &[Some("")]);
        check("\n", 0, &[]);
        check("\t\n", 2, &[Some(""), Some("")]);
    }

    #[test]
    fn what_is_escaped_is_what_it_was() {
        check("a\\tb\\nc\\\\d\n", 1, &[Some("a\tb\nc\\d")]);
        check("\\b\\f\\r\\v\n", 1, &[Some("\x08\x0C\r\x0B")]);
        check("\\\\N\n", 1, &[Some("\\N")]);
        check("\\\\x00ff\t\\\\.\n", 2, &[Some("\\x00ff"), Some("\\.")]);
    }

    #[test]
    fn a_line_of_another_table_is_refused_and_leaves_nothing() {
        for (line, columns) in [("1\t2\n", 1), ("1\n", 2), ("", 3)] {
            let mut out = BytesMut::new();
            assert!(append_row(&mut out, line.as_bytes(), RelationId(3), columns).is_err());
            assert!(out.is_empty());
        }
    }
}
