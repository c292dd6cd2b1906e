//! Text that comes from a guest, made fit for logs, terminals and status pages.

use std::fmt::Write;

/// At most `limit` bytes of the text, with what is left out counted, and with control characters
/// and those that change the reading direction written as escapes: a guest must not move a
/// terminal's cursor, start a new log line or make a line read as another.
pub(super) fn clean(text: &str, limit: usize) -> String {
    let kept = &text[..text.floor_char_boundary(limit)];
    let mut clean = String::with_capacity(kept.len());
    for c in kept.chars() {
        if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    if kept.len() < text.len() {
        // Writing to a string does not fail.
        let _ = write!(clean, "… ({} bytes more)", text.len() - kept.len());
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_escapes() {
        assert_eq!(clean("a\u{1b}[2Jb\n\u{202e}é", 100), "a\\u{1b}[2Jb\\n\\u{202e}é");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clean("ééé", 3), "é… (4 bytes more)");
        assert_eq!(clean("ééé", 6), "ééé");
    }
}
