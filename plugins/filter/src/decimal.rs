//! Decimal numbers as text, compared exactly.

use std::cmp::Ordering;

/// As PostgreSQL orders `numeric`: -Infinity, numbers, Infinity, NaN.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (Decimal::read(left), Decimal::read(right));
    let by_magnitude = || {
        left.whole.len().cmp(&right.whole.len()).then_with(|| {
            left.whole.cmp(right.whole).then_with(|| left.fraction.cmp(right.fraction))
        })
    };
    left.rank.cmp(&right.rank).then_with(|| match left.rank {
        Rank::Negative => by_magnitude().reverse(),
        Rank::Positive => by_magnitude(),
        _ => Ordering::Equal,
    })
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    NegativeInfinity,
    Negative,
    Zero,
    Positive,
    Infinity,
    NaN,
}

struct Decimal<'a> {
    rank: Rank,
    /// Digits without leading zeros.
    whole: &'a str,
    /// Digits without trailing zeros.
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    fn read(text: &'a str) -> Self {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let rank = match digits.as_bytes().first() {
            Some(b'N') => Rank::NaN,
            Some(b'I') if negative => Rank::NegativeInfinity,
            Some(b'I') => Rank::Infinity,
            _ if whole.is_empty() && fraction.is_empty() => Rank::Zero,
            _ if negative => Rank::Negative,
            _ => Rank::Positive,
        };
        Self { rank, whole, fraction }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_order() {
        let ordered = [
            "-Infinity",
            "-1000000000000000000000.5",
            "-10",
            "-9.99",
            "-9.9",
            "-0.01",
            "0",
            "0.001",
            "0.01",
            "0.1",
            "1",
            "1.0000000000000000001",
            "9",
            "10",
            "99.99",
            "100",
            "100.001",
            "18446744073709551616",
            "Infinity",
            "NaN",
        ];
        for (i, left) in ordered.iter().enumerate() {
            for (j, right) in ordered.iter().enumerate() {
                assert_eq!(compare(left, right), i.cmp(&j), "{left} and {right}");
            }
        }
    }

    #[test]
    fn zeros_that_mean_nothing_change_nothing() {
        for (left, right) in
            [("1", "1.00"), ("-0.0", "0"), ("007.50", "7.5"), ("NaN", "NaN"), (".5", "0.50")]
        {
            assert_eq!(compare(left, right), Ordering::Equal, "{left} and {right}");
        }
    }
}
