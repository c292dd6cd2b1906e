//! JSON strings, a few bytes at a time.

/// Writes a JSON string. A text with bytes that are not UTF-8 (a SQL_ASCII server sends such, and
/// `"char"`) has each of them as `\xHH` and its own backslashes doubled, so that nothing is lost.
pub fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    string_part(out, text);
    out.push(b'"');
}

/// What stands between the quotes of a JSON string.
pub fn string_part(out: &mut Vec<u8>, text: &[u8]) {
    if is_plain(text) {
        return out.extend_from_slice(text);
    }
    match std::str::from_utf8(text) {
        Ok(_) => escape(out, text),
        Err(_) => escape(out, &readable(text)),
    }
}

/// Whether a text is ASCII that a JSON string has as it is, as most texts are. Eight bytes are
/// looked at in one go; the last go may look at some of them twice.
fn is_plain(text: &[u8]) -> bool {
    let plain = |bytes: &[u8; 8]| {
        let word = u64::from_le_bytes(*bytes);
        (special_in(word) | word) & EACH_TOP_BIT == 0
    };
    match text.last_chunk() {
        Some(last) => text.as_chunks().0.iter().all(plain) && plain(last),
        None => text.iter().all(|&byte| byte.is_ascii() && !is_special(byte)),
    }
}

const EACH_TOP_BIT: u64 = 0x8080_8080_8080_8080;

/// The top bit of each byte that is special; where one is, perhaps of bytes above it as well.
fn special_in(word: u64) -> u64 {
    const EACH_ONE: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, bound: u8| word.wrapping_sub(EACH_ONE * u64::from(bound)) & !word;
    let equal = |byte: u8| below(word ^ (EACH_ONE * u64::from(byte)), 1);
    (below(word, b' ') | equal(b'"') | equal(b'\\')) & EACH_TOP_BIT
}

/// What no JSON string has as it is.
fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Text with bytes that are not UTF-8 as text that is, and from which the bytes can be told.
#[must_use]
pub fn readable(text: &[u8]) -> Vec<u8> {
    let mut readable = Vec::with_capacity(text.len() + 16);
    for chunk in text.utf8_chunks() {
        for &byte in chunk.valid().as_bytes() {
            if byte == b'\\' {
                readable.push(b'\\');
            }
            readable.push(byte);
        }
        for &byte in chunk.invalid() {
            readable.extend_from_slice(b"\\x");
            hex(&mut readable, byte);
        }
    }
    readable
}

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = special(rest) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                hex(out, control);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Where the first special byte is.
fn special(text: &[u8]) -> Option<usize> {
    let clean = |bytes: &&[u8; 8]| special_in(u64::from_le_bytes(**bytes)) == 0;
    let clean = text.as_chunks().0.iter().take_while(clean).count() * 8;
    let at = text[clean..].iter().position(|&byte| is_special(byte))?;
    Some(clean + at)
}

pub(super) fn hex(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(DIGITS[usize::from(byte >> 4)]);
    out.push(DIGITS[usize::from(byte & 15)]);
}
