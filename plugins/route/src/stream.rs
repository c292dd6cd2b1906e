//! Values made fit to stand in a stream's name.

use walmill_plugin::text::hex;

/// Bytes that one value may take in a name.
pub const MAX_LEN: usize = 64;

/// Makes what stands behind `start` fit. ASCII letters become small; blanks, dots and other ASCII
/// signs become `_`; every byte of any other letter becomes `_` and its hexadecimal digits. What
/// is too long is cut and ends in a checksum of the whole, so that different values still go to
/// different streams.
pub fn sanitize(name: &mut String, start: usize) {
    let value = &name.as_bytes()[start..];
    let clean = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if value.len() <= MAX_LEN && value.iter().all(clean) {
        return;
    }
    let checksum = fnv(value);
    let mut cleaned = String::with_capacity(value.len());
    for &byte in value {
        match byte {
            b'-' | b'0'..=b'9' => cleaned.push(char::from(byte)),
            b'a'..=b'z' | b'A'..=b'Z' => cleaned.push(char::from(byte.to_ascii_lowercase())),
            0..=127 => cleaned.push('_'),
            128.. => {
                cleaned.push('_');
                hex(&mut cleaned, &[byte]);
            }
        }
    }
    name.truncate(start);
    name.push_str(&cleaned);
    if cleaned.len() > MAX_LEN {
        name.truncate(start + MAX_LEN - "-01234567".len());
        name.push('-');
        hex(name, &checksum.to_be_bytes());
    }
}

/// FNV-1a: the same in every build, unlike the standard library's hashes.
fn fnv(bytes: &[u8]) -> u32 {
    let step = |hash: u32, &byte: &u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step)
}

/// Whether text of the configuration can stand in a stream's name as it is.
pub fn is_clean(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sanitized(value: &str) -> String {
        let mut name = format!("orders.{value}");
        sanitize(&mut name, "orders.".len());
        name.strip_prefix("orders.").unwrap().to_owned()
    }

    #[test]
    fn values_become_fit_for_names() {
        for (value, expected) in [
            ("nz", "nz"),
            ("NZ", "nz"),
            ("New Zealand", "new_zealand"),
            ("../a.b/*", "___a_b__"),
            ("Ōtautahi", "_c5_8ctautahi"),
            ("a_b-9", "a_b-9"),
            ("", ""),
        ] {
            assert_eq!(sanitized(value), expected, "{value}");
        }
    }

    #[test]
    fn long_values_are_cut_and_still_differ() {
        let (a, b) = (sanitized(&("x".repeat(64) + "a")), sanitized(&("x".repeat(64) + "b")));
        assert_eq!((a.len(), b.len()), (MAX_LEN, MAX_LEN));
        assert_ne!(a, b);
        assert_eq!(sanitized(&"x".repeat(64)), "x".repeat(64));
        assert_eq!(sanitized(&"é".repeat(40)).len(), MAX_LEN);
    }
}
