//! Ways to hide a value, and what is left of it.

use std::fmt::{self, Write};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use walmill_plugin::text::hex;

/// How a column's values are hidden. What is null stays null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mask {
    /// `***`
    Redact,
    /// Null, whatever the value.
    Null,
    /// `a***@example.com`
    Email,
    /// `****-****-****-1234`
    Last4,
    /// SHA-256 of salt and value, in hexadecimal: equal values stay equal.
    Hash,
}

/// What stands where nothing of a value is left.
const REDACTED: &str = "***";

/// Letters and digits that a value must have before `last4` shows any of them.
const LAST4_MIN: usize = 8;

impl Mask {
    /// Appends what is left of a value.
    pub fn append(self, out: &mut impl Write, value: &str, salt: &str) {
        // What is written here is memory, which does not fail.
        let _ = match self {
            Self::Redact | Self::Null => out.write_str(REDACTED),
            Self::Email => email(out, value),
            Self::Last4 => last4(out, value),
            Self::Hash => {
                hex(out, &Sha256::new().chain_update(salt).chain_update(value).finalize());
                Ok(())
            }
        };
    }
}

/// The first letter and the domain; nothing of what is no address.
fn email(out: &mut impl Write, value: &str) -> fmt::Result {
    let at = value.bytes().rposition(|byte| byte == b'@');
    match at.and_then(|at| value.split_at_checked(at)) {
        Some((name, domain)) if domain.len() > 1 => {
            if let Some(first) = name.chars().next() {
                out.write_char(first)?;
            }
            out.write_str(REDACTED)?;
            out.write_str(domain)
        }
        _ => out.write_str(REDACTED),
    }
}

/// The last four letters or digits; a star for each before them. What stands between stays.
fn last4(out: &mut impl Write, value: &str) -> fmt::Result {
    let count = value.chars().filter(|c| c.is_alphanumeric()).count();
    let mut hidden = if count < LAST4_MIN { count } else { count - 4 };
    for c in value.chars() {
        if c.is_alphanumeric() && hidden > 0 {
            hidden -= 1;
            out.write_char('*')?;
        } else {
            out.write_char(c)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mask: Mask, value: &str, masked: &str) {
        let mut out = String::new();
        mask.append(&mut out, value, "pepper");
        assert_eq!(out, masked, "{value}");
    }

    #[test]
    fn an_email_keeps_its_first_letter_and_its_domain() {
        check(Mask::Email, "ada@example.com", "a***@example.com");
        check(Mask::Email, "\"a@b\"@example.com", "\"***@example.com");
        check(Mask::Email, "ß@example.com", "ß***@example.com");
        check(Mask::Email, "@example.com", "***@example.com");
    }

    #[test]
    fn nothing_is_left_of_what_is_no_email() {
        for value in ["", "ada", "ada@", "+64 21 123 456"] {
            check(Mask::Email, value, "***");
        }
    }

    #[test]
    fn last4_keeps_separators_and_hides_short_values_whole() {
        check(Mask::Last4, "4111-1111-1111-1234", "****-****-****-1234");
        check(Mask::Last4, "GB29 NWBK 6016", "**** **** 6016");
        check(Mask::Last4, "12345678", "****5678");
        check(Mask::Last4, "1234567", "*******");
        check(Mask::Last4, "", "");
    }

    #[test]
    fn a_hash_is_the_one_that_postgresql_makes() {
        // select encode(sha256(('pepper' || 'ada')::bytea), 'hex')
        let hash = "d4c84e6c";
        let mut out = String::new();
        Mask::Hash.append(&mut out, "ada", "pepper");
        assert_eq!((out.len(), &out[..8]), (64, hash));
    }
}
