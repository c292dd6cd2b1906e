//! Sizes and spans of time as people write them in the config: `10GiB`, `500kB`, `7d`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes, at least one: `64MiB`, `500kB`, `10GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ByteSize(u64);

/// A span of time, at least a millisecond: `100ms`, `30s`, `7d`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Period(Duration);

/// Text that is no size, or no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a whole number with a unit.
    #[error(
        "`{0}` is no size: write a whole number and a unit (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB), as in `64MiB`"
    )]
    Size(String),
    /// Not whole numbers with units, from the largest unit to the smallest.
    #[error(
        "`{0}` is no span of time: write a whole number and a unit (ms, s, m, h, d), as in `30s`, `7d` or `1h30m`"
    )]
    Period(String),
    /// Zero.
    #[error("`{0}` is nothing: it must be more than zero")]
    Zero(String),
    /// More than can be meant.
    #[error("`{0}` is too much: at most {1}")]
    TooMuch(String, &'static str),
}

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];
const LARGEST_SIZE: u64 = 1 << 60;

/// In milliseconds, from the largest to the smallest.
const PERIODS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const LONGEST_PERIOD: u64 = 100 * 365 * 86_400_000;

impl ByteSize {
    /// That many bytes, one at least.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(if bytes == 0 { 1 } else { bytes })
    }

    /// How many bytes.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Rounded down to a unit of which there are at least ten: for a size that was measured.
    #[must_use]
    pub fn about(self) -> Self {
        let fits = |(_, factor): &&(&str, u64)| self.0 / factor >= 10;
        let factor = SIZES.iter().find(fits).map_or(1, |(_, factor)| *factor);
        Self(self.0 - self.0 % factor)
    }
}

impl Period {
    /// That many milliseconds, one at least.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(if millis == 0 { 1 } else { millis }))
    }

    /// As the standard library has it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = || QuantityError::Size(text.into());
        let (number, unit) = leading_number(text).ok_or_else(wrong)?;
        let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        match number.checked_mul(*factor) {
            Some(0) => Err(QuantityError::Zero(text.into())),
            Some(bytes) if bytes <= LARGEST_SIZE => Ok(Self(bytes)),
            _ => Err(QuantityError::TooMuch(text.into(), "1048576TiB")),
        }
    }
}

impl FromStr for Period {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = || QuantityError::Period(text.into());
        let too_much = || QuantityError::TooMuch(text.into(), "36500d");
        let (mut rest, mut millis, mut smaller) = (text.trim(), 0_u64, PERIODS.as_slice());
        loop {
            let (number, behind) = leading_number(rest).ok_or_else(wrong)?;
            let end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
            let (unit, next) = behind.split_at(end);
            let at = smaller.iter().position(|(name, _)| *name == unit).ok_or_else(wrong)?;
            let part = number.checked_mul(smaller[at].1).ok_or_else(too_much)?;
            millis = millis.checked_add(part).ok_or_else(too_much)?;
            (rest, smaller) = (next, &smaller[at + 1..]);
            if rest.is_empty() {
                break;
            }
        }
        match millis {
            0 => Err(QuantityError::Zero(text.into())),
            1..=LONGEST_PERIOD => Ok(Self(Duration::from_millis(millis))),
            _ => Err(too_much()),
        }
    }
}

/// The digits at the front as a number, and what is behind them. Signs, points and `NaN` are no
/// digits. More digits than fit are the largest number, which every unit then finds too much.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (!digits.is_empty()).then(|| (digits.parse().unwrap_or(u64::MAX), rest))
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, factor): &&(&str, u64)| self.0.is_multiple_of(*factor);
        let (unit, factor) = SIZES.iter().find(fits).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Built from milliseconds within a hundred years, so it is a u64 of them.
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        for (unit, factor) in PERIODS {
            if millis >= factor {
                write!(f, "{}{unit}", millis / factor)?;
                millis %= factor;
            }
        }
        Ok(())
    }
}

macro_rules! as_text {
    ($($type:ty),+) => {$(
        impl From<$type> for String {
            fn from(quantity: $type) -> Self {
                quantity.to_string()
            }
        }

        impl TryFrom<String> for $type {
            type Error = QuantityError;

            fn try_from(text: String) -> Result<Self, QuantityError> {
                text.parse()
            }
        }
    )+};
}

as_text!(ByteSize, Period);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_measured_size_is_shown_with_the_digits_that_matter() {
        let about = |bytes| ByteSize::new(bytes).about().to_string();
        assert_eq!(about(3_882_732 << 10), "3791MiB");
        assert_eq!(about((25 << 30) + 17), "25GiB");
        assert_eq!(about(9), "9B");
    }

    #[test]
    fn sizes_and_periods_are_read_as_people_write_them() {
        let size = |text: &str| text.parse::<ByteSize>().map(ByteSize::bytes);
        assert_eq!(size("10GiB"), Ok(10 << 30));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("500kB"), Ok(500_000));
        assert_eq!(size("1 B"), Ok(1));
        let period = |text: &str| text.parse::<Period>().map(Period::duration);
        assert_eq!(period("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(period("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(period("1h30m"), Ok(Duration::from_secs(5_400)));
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_reason() {
        for text in ["", "10", "GiB", "-1GiB", "1.5GiB", "NaN", "inf", "10gib", "1GiB 2B", "0x1B"] {
            assert_eq!(text.parse::<ByteSize>(), Err(QuantityError::Size(text.into())), "{text}");
        }
        assert_eq!("0GiB".parse::<ByteSize>(), Err(QuantityError::Zero("0GiB".into())));
        for text in ["99999999999999999999B", "18446744073709551615TiB", "1048577TiB"] {
            assert!(matches!(text.parse::<ByteSize>(), Err(QuantityError::TooMuch(..))), "{text}");
        }
    }

    #[test]
    fn what_is_no_period_is_refused_with_the_reason() {
        for text in ["", "7", "d", "-7d", "1.5h", "NaNs", "1m1h", "1h1h", "7D", "1h-3m", "5 s s"] {
            assert_eq!(text.parse::<Period>(), Err(QuantityError::Period(text.into())), "{text}");
        }
        assert_eq!("0s".parse::<Period>(), Err(QuantityError::Zero("0s".into())));
        for text in ["99999999999999999999d", "36501d"] {
            assert!(matches!(text.parse::<Period>(), Err(QuantityError::TooMuch(..))), "{text}");
        }
    }

    #[test]
    fn toml_takes_text_and_says_what_is_wrong_with_it() {
        #[derive(Deserialize)]
        struct Retention {
            age: Period,
        }
        let good: Retention = toml::from_str("age = \"7d\"").unwrap();
        assert_eq!(good.age.to_string(), "7d");
        let error = toml::from_str::<Retention>("age = \"soon\"").err().unwrap().to_string();
        assert!(error.contains("`soon` is no span of time"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_the_same(bytes in 1..=LARGEST_SIZE, ms in 1..=LONGEST_PERIOD) {
            prop_assert_eq!(ByteSize::new(bytes).to_string().parse(), Ok(ByteSize::new(bytes)));
            let period = Period::from_millis(ms);
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<Period>();
        }
    }
}
