//! Names for values that must not be shown: the same for the same value, and of no use to whoever
//! would find out the value by trying.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Bytes of a name, before it is written as hexadecimal digits: enough that no two values of a
/// table will ever share one.
const NAMED: usize = 12;

/// Makes the names, with a secret that only the store has. Without one, whoever sees a name could
/// make those of all likely values, of every small number or known e-mail address, and look for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Veil([u8; 32]);

/// A value that is about to be named, part by part.
pub struct Veiled(Hmac<Sha256>);

impl Veil {
    /// Names made with this secret.
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// Begins a value.
    #[must_use]
    pub fn begin(&self) -> Veiled {
        // HMAC takes keys of any length.
        Veiled(Hmac::new_from_slice(&self.0).expect("a key of any length"))
    }
}

impl fmt::Debug for Veil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Veil(***)")
    }
}

impl Veiled {
    /// The next part. Where several make a value, the caller says where each ends.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Appends the value's name: `/~` and 24 hexadecimal digits.
    pub fn write(self, out: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        out.extend_from_slice(b"/~");
        for byte in self.0.finalize().into_bytes().into_iter().take(NAMED) {
            out.extend_from_slice(&[
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(secret: u8, parts: &[&str]) -> String {
        let mut veiled = Veil::new([secret; 32]).begin();
        parts.iter().for_each(|part| veiled.part(part.as_bytes()));
        let mut out = Vec::new();
        veiled.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_name_is_the_same_for_the_same_value_and_secret_alone() {
        assert_eq!(name(1, &["a@b"]), name(1, &["a", "@b"]));
        assert_ne!(name(1, &["a@b"]), name(1, &["c@d"]));
        assert_ne!(name(1, &["a@b"]), name(2, &["a@b"]), "who lacks the secret can't make it");
        let name = name(1, &["a@b"]);
        assert!(name.starts_with("/~") && name.len() == 26, "{name}");
    }

    #[test]
    fn the_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Veil::new([7; 32])), "Veil(***)");
    }
}
