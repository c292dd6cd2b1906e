//! A position in PostgreSQL's write-ahead log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A position in PostgreSQL's write-ahead log, printed as PostgreSQL prints it: `16/B374D848`
/// (PostgreSQL docs, "pg_lsn Type").
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct Lsn(pub u64);

/// Text that is no LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no LSN (two hexadecimal numbers with a slash, as in 16/B374D848)")]
pub struct LsnError(String);

impl Lsn {
    /// Before every position; PostgreSQL calls it invalid.
    pub const ZERO: Self = Self(0);

    /// Bytes from `earlier` up to this position, 0 when this one is not the later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        let half = |digits: &str| match digits.len() {
            1..=8 if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u64::from_str_radix(digits, 16).ok()
            }
            _ => None,
        };
        let (high, low) = text.split_once('/').ok_or_else(|| LsnError(text.into()))?;
        match (half(high), half(low)) {
            (Some(high), Some(low)) => Ok(Self(high << 32 | low)),
            _ => Err(LsnError(text.into())),
        }
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = LsnError;

    fn try_from(text: String) -> Result<Self, LsnError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_reads_back_as_it_prints() {
        for lsn in [0, 1, 0x16_B374_D848, u64::MAX] {
            assert_eq!(Lsn(lsn).to_string().parse(), Ok(Lsn(lsn)));
        }
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
    }

    #[test]
    fn what_is_no_lsn_is_refused() {
        for text in ["", "/", "1/", "/1", "1", "+1/2", "123456789/0", "g/0", "1/2/3", " 1/2"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }
}
