//! PostgreSQL's text forms written as JSON, straight into the output and without a value between.
//!
//! Numbers keep every digit: they are copied, never parsed. What JSON cannot say as a number (NaN,
//! infinities) becomes a string.

mod text;

use crate::model::relation::Element;
use crate::model::{EventId, Kind, Lsn, Offset};
use text::hex;
pub use text::{readable, string, string_part};

/// Writes a value that came in PostgreSQL's text form.
pub fn value(out: &mut Vec<u8>, kind: Kind, text: &[u8]) {
    match kind {
        Kind::Bool => boolean(out, text),
        Kind::Int | Kind::Float | Kind::Numeric => number(out, text),
        Kind::Timestamp | Kind::TimestampTz => timestamp(out, text),
        Kind::Json => raw(out, text),
        Kind::Array(element) => array(out, element, text),
        Kind::Date | Kind::Time | Kind::Text | Kind::Bytea | Kind::Uuid => string(out, text),
    }
}

fn boolean(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(if text == b"t" || text == b"true" { b"true" } else { b"false" });
}

/// A number as PostgreSQL prints it; NaN and the infinities as strings.
pub fn number(out: &mut Vec<u8>, text: &[u8]) {
    match text.last() {
        Some(b'0'..=b'9') => out.extend_from_slice(text),
        _ => string(out, text),
    }
}

/// `2026-11-24 03:07:13.5+00` as RFC 3339; infinities and years before Christ as they are.
fn timestamp(out: &mut Vec<u8>, text: &[u8]) {
    let Some(space) = text.iter().position(|&b| b == b' ').filter(|_| !text.ends_with(b"BC"))
    else {
        return string(out, text);
    };
    out.push(b'"');
    string_part(out, &text[..space]);
    out.push(b'T');
    match text[space + 1..].strip_suffix(b"+00") {
        Some(time) => {
            string_part(out, time);
            out.push(b'Z');
        }
        None => string_part(out, &text[space + 1..]),
    }
    out.push(b'"');
}

/// JSON that is already JSON. Line breaks can only stand between its tokens (inside strings they
/// are escaped), so a space says the same and an event stays one line.
pub fn raw(out: &mut Vec<u8>, json: &[u8]) {
    let start = out.len();
    match std::str::from_utf8(json) {
        Ok(_) => out.extend_from_slice(json),
        // Such bytes stand in strings only. There, a backslash begins an escape and stays.
        Err(_) => {
            for chunk in json.utf8_chunks() {
                out.extend_from_slice(chunk.valid().as_bytes());
                for &byte in chunk.invalid() {
                    out.extend_from_slice(b"\\\\x");
                    hex(out, byte);
                }
            }
        }
    }
    let written = &mut out[start..];
    if let Some(first) = memchr::memchr2(b'\n', b'\r', written) {
        for byte in &mut written[first..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
}

/// An array in PostgreSQL's text form (PostgreSQL docs, "Array Input and Output Syntax") as a JSON
/// array, nested for each dimension. Lower bounds other than 1 are left out.
pub fn array(out: &mut Vec<u8>, element: Element, text: &[u8]) {
    let start = out.len();
    let body = match text.first() {
        Some(b'[') => text.iter().position(|&b| b == b'=').map_or(text, |at| &text[at + 1..]),
        _ => text,
    };
    if array_body(out, element, body).is_none() {
        // Not the syntax we know: as text rather than wrong.
        out.truncate(start);
        string(out, text);
    }
}

fn array_body(out: &mut Vec<u8>, element: Element, text: &[u8]) -> Option<()> {
    let delimiter = delimiter(element);
    let mut depth = 0_usize;
    // An element or a list may come; the list that was just opened may end.
    let (mut awaited, mut opened) = (true, false);
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'{' if awaited && depth < MAX_DIMENSIONS => {
                out.push(b'[');
                (depth, opened) = (depth + 1, true);
                at += 1;
            }
            b'}' if depth > 0 && (opened || !awaited) => {
                out.push(b']');
                (depth, awaited, opened) = (depth - 1, false, false);
                at += 1;
            }
            byte if byte == delimiter && depth > 0 && !awaited => {
                out.push(b',');
                awaited = true;
                at += 1;
            }
            b'"' if awaited && depth > 0 => {
                at = quoted_element(out, element, text, at + 1)?;
                (awaited, opened) = (false, false);
            }
            _ if awaited && depth > 0 => {
                at = bare_element(out, element, text, at)?;
                (awaited, opened) = (false, false);
            }
            _ => return None,
        }
    }
    (depth == 0 && !text.is_empty()).then_some(())
}

/// What PostgreSQL allows (`MAXDIM`).
const MAX_DIMENSIONS: usize = 6;

fn delimiter(element: Element) -> u8 {
    match element {
        Element::Delimited(delimiter) => delimiter,
        _ => b',',
    }
}

/// Writes the element that stands there without quotes; gives the place behind it.
fn bare_element(out: &mut Vec<u8>, element: Element, text: &[u8], from: usize) -> Option<usize> {
    let delimiter = delimiter(element);
    let len = text[from..].iter().position(|&byte| byte == delimiter || byte == b'}')?;
    let item = &text[from..from + len];
    match item {
        b"" => return None,
        b"NULL" => out.extend_from_slice(b"null"),
        item => array_element(out, element, item),
    }
    Some(from + len)
}

/// Writes the element whose text starts behind an opening quote; gives the place behind it.
fn quoted_element(out: &mut Vec<u8>, element: Element, text: &[u8], from: usize) -> Option<usize> {
    let mut end = from;
    let mut escaped = false;
    while *text.get(end)? != b'"' {
        escaped |= text[end] == b'\\';
        end += if text[end] == b'\\' { 2 } else { 1 };
    }
    if escaped {
        let mut plain = Vec::with_capacity(end - from);
        let mut bytes = text[from..end].iter();
        while let Some(&byte) = bytes.next() {
            plain.push(if byte == b'\\' { *bytes.next()? } else { byte });
        }
        array_element(out, element, &plain);
    } else {
        array_element(out, element, &text[from..end]);
    }
    Some(end + 1)
}

fn array_element(out: &mut Vec<u8>, element: Element, text: &[u8]) {
    match element {
        Element::Bool => boolean(out, text),
        Element::Int | Element::Float | Element::Numeric => number(out, text),
        Element::Timestamp | Element::TimestampTz => timestamp(out, text),
        Element::Json => raw(out, text),
        Element::Text | Element::Delimited(_) => string(out, text),
    }
}

/// A point in time as RFC 3339 in UTC with microseconds, or before the year 1 as PostgreSQL writes
/// it; `micros` since 1970-01-01.
pub fn time(out: &mut Vec<u8>, micros: i64) {
    let (days, of_day) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let before_christ = year_month_day(out, days);
    out.push(if before_christ { b' ' } else { b'T' });
    time_of_day(out, of_day);
    out.extend_from_slice(if before_christ { b"+00 BC" } else { b"Z" });
}

/// `HH:MM:SS.ffffff`
pub fn time_of_day(out: &mut Vec<u8>, micros: i64) {
    let seconds = micros / 1_000_000;
    digits(out, seconds / 3600, 2);
    out.push(b':');
    digits(out, seconds / 60 % 60, 2);
    out.push(b':');
    digits(out, seconds % 60, 2);
    out.push(b'.');
    digits(out, micros % 1_000_000, 6);
}

/// `YYYY-MM-DD`, days since 1970-01-01, in the proleptic Gregorian calendar; years before 1 as
/// PostgreSQL writes them, with ` BC`.
pub fn date(out: &mut Vec<u8>, days: i64) {
    if year_month_day(out, days) {
        out.extend_from_slice(b" BC");
    }
}

/// A date without its era: true for one before the year 1.
fn year_month_day(out: &mut Vec<u8>, days: i64) -> bool {
    // Days to civil date, after Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms".
    let z = days.saturating_add(719_468);
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    digits(out, if year > 0 { year } else { 1 - year }, 4);
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
    year <= 0
}

/// A number's absolute value, with at least `width` digits.
fn digits(out: &mut Vec<u8>, number: i64, width: usize) {
    let mut text = [b'0'; 20];
    let mut at = text.len();
    let mut rest = number.unsigned_abs();
    while rest > 0 {
        at -= 1;
        // A digit is below ten.
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text[at.min(text.len() - width)..]);
}

/// An integer.
pub fn integer(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    digits(out, number, 1);
}

/// An LSN as PostgreSQL prints it, without quotes.
pub fn lsn(out: &mut Vec<u8>, lsn: Lsn) {
    hex_word(out, lsn.0 >> 32);
    out.push(b'/');
    hex_word(out, lsn.0 & 0xFFFF_FFFF);
}

/// An event's id, as its `Display` writes it, without quotes.
pub fn event_id(out: &mut Vec<u8>, EventId(Offset { commit, ordinal, emit }): EventId) {
    lsn(out, commit);
    out.push(b'/');
    integer(out, i64::from(ordinal));
    if emit > 0 {
        out.push(b'/');
        integer(out, i64::from(emit));
    }
}

fn hex_word(out: &mut Vec<u8>, word: u64) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let nibbles = (u64::BITS - word.leading_zeros()).div_ceil(4).max(1);
    for nibble in (0..nibbles).rev() {
        out.push(DIGITS[(word >> (nibble * 4) & 15) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, text: &str, json: &str) {
        let mut out = Vec::new();
        value(&mut out, kind, text.as_bytes());
        let written = String::from_utf8(out).expect("JSON is UTF-8");
        assert_eq!(written, json);
        serde_json::from_str::<serde_json::Value>(&written).expect(json);
    }

    #[test]
    fn scalars_read_as_their_kind() {
        check(Kind::Bool, "t", "true");
        check(Kind::Int, "9223372036854775807", "9223372036854775807");
        check(Kind::Numeric, "0.10000000000000000000", "0.10000000000000000000");
        check(Kind::Numeric, "NaN", "\"NaN\"");
        check(Kind::Float, "-Infinity", "\"-Infinity\"");
        check(Kind::Float, "1e+20", "1e+20");
        check(Kind::Text, "a\"b\\c\n\u{1}é\u{10FFFF}", "\"a\\\"b\\\\c\\n\\u0001é\u{10FFFF}\"");
        check(Kind::Bytea, "\\xdead", "\"\\\\xdead\"");
        check(Kind::Json, "{\"a\":\n 1}", "{\"a\":  1}");
    }

    #[test]
    fn what_must_be_escaped_is_found_at_every_place() {
        for odd in ["\"", "\\", "\u{1}", "\u{1F}", "\u{7F}", "é", "\n"] {
            for before in 0..40 {
                let text = format!("{}{odd}{}", "x".repeat(before), "y".repeat(40 - before));
                check(Kind::Text, &text, &serde_json::to_string(&text).expect("text"));
            }
        }
    }

    #[test]
    fn times_become_rfc_3339_and_odd_ones_stay_text() {
        check(Kind::TimestampTz, "2026-11-24 03:07:13.5+00", "\"2026-11-24T03:07:13.5Z\"");
        check(Kind::Timestamp, "2026-11-24 03:07:13", "\"2026-11-24T03:07:13\"");
        check(Kind::TimestampTz, "infinity", "\"infinity\"");
        check(Kind::Timestamp, "0044-03-15 00:00:00 BC", "\"0044-03-15 00:00:00 BC\"");
    }

    #[test]
    fn arrays_keep_nesting_nulls_and_quoted_text() {
        check(Kind::Array(Element::Int), "{1,NULL,3}", "[1,null,3]");
        check(Kind::Array(Element::Int), "{{1,2},{3,4}}", "[[1,2],[3,4]]");
        check(Kind::Array(Element::Int), "[0:1]={1,2}", "[1,2]");
        check(
            Kind::Array(Element::Text),
            r#"{a,"NULL","b,\"c\\",""}"#,
            r#"["a","NULL","b,\"c\\",""]"#,
        );
        check(Kind::Array(Element::Bool), "{t,f}", "[true,false]");
        check(Kind::Array(Element::Json), r#"{"{\"a\": 1}"}"#, r#"[{"a": 1}]"#);
        check(Kind::Array(Element::Text), "{}", "[]");
        check(
            Kind::Array(Element::Delimited(b';')),
            "{(1,1),(0,0);NULL}",
            r#"["(1,1),(0,0)",null]"#,
        );
    }

    #[test]
    fn what_is_no_array_stays_text() {
        for text in [
            "{",
            "}",
            "{\"a",
            "{a",
            "",
            "{\"a\\",
            "}{",
            "{,}",
            "{1,}",
            "{1,,2}",
            "{1}2",
            "{1}{2}",
            "{{{{{{{1}}}}}}}",
            "[1:",
            "[1:1]=",
        ] {
            check(Kind::Array(Element::Text), text, &serde_json::to_string(text).expect("text"));
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_shown_not_replaced() {
        let mut out = Vec::new();
        string(&mut out, b"caf\xE9!");
        assert_eq!(out, br#""caf\\xe9!""#);
        out.clear();
        string(&mut out, b"\\xe9 \xE9");
        assert_eq!(out, br#""\\\\xe9 \\xe9""#);
        out.clear();
        raw(&mut out, b"{\"a\": \"\xE9\"}");
        assert_eq!(out, br#"{"a": "\\xe9"}"#);
    }

    proptest::proptest! {
        #[test]
        fn any_text_of_any_kind_of_string_or_array_is_json(text: Vec<u8>, at in 0..5_usize) {
            let elements =
                [Element::Text, Element::Bool, Element::Timestamp, Element::Delimited(b';')];
            let kind = elements.get(at).map_or(Kind::Text, |element| Kind::Array(*element));
            let mut out = Vec::new();
            value(&mut out, kind, &text);
            serde_json::from_slice::<serde_json::Value>(&out).expect("JSON");
        }

        #[test]
        fn bytes_can_be_told_from_what_is_written_for_them(text: Vec<u8>) {
            if std::str::from_utf8(&text).is_ok() {
                return Ok(());
            }
            let written = String::from_utf8(readable(&text)).expect("UTF-8");
            let mut told = Vec::new();
            let mut parts = written.split('\\');
            told.extend(parts.next().unwrap_or_default().bytes());
            while let Some(part) = parts.next() {
                match part.strip_prefix('x').and_then(|hex| hex.split_at_checked(2)) {
                    Some((hex, rest)) => {
                        told.push(u8::from_str_radix(hex, 16).expect("hex"));
                        told.extend(rest.bytes());
                    }
                    None => {
                        told.push(b'\\');
                        told.extend(parts.next().unwrap_or_default().bytes());
                    }
                }
            }
            proptest::prop_assert_eq!(told, text);
        }
    }

    #[test]
    fn points_in_time_and_numbers_print_exactly() {
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(text(&|out| time(out, 0)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(text(&|out| time(out, 1_795_489_633_123_456)), "2026-11-24T03:07:13.123456Z");
        assert_eq!(text(&|out| time(out, -1)), "1969-12-31T23:59:59.999999Z");
        assert_eq!(text(&|out| date(out, -719_163)), "0001-12-31 BC");
        assert_eq!(text(&|out| integer(out, i64::MIN)), i64::MIN.to_string());
        assert_eq!(text(&|out| integer(out, 0)), "0");
        for word in [0, 0xF, 0x10, 0x16_B374_D848, u64::MAX] {
            assert_eq!(text(&|out| lsn(out, Lsn(word))), Lsn(word).to_string());
            for (ordinal, emit) in [(0, 0), (7, 0), (u32::MAX, 12)] {
                let id = EventId(Offset { commit: Lsn(word), ordinal, emit });
                assert_eq!(text(&|out| event_id(out, id)), id.to_string());
            }
        }
    }
}
