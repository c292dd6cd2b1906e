//! Values of events beside values that a client wrote: compared as PostgreSQL would, as far as
//! that can be known here. Numbers are exact; texts are compared by their bytes.

use std::borrow::Cow;
use std::cmp::Ordering;

/// How a column's values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Number,
    Bool,
    /// `timestamp`, `timestamptz`, `date`
    Time,
    Text,
}

impl Sort {
    /// Of a type by its PostgreSQL name; where that is not known, what the JSON looks like.
    pub(super) fn of(type_name: Option<&str>, json: &str) -> Self {
        match type_name {
            Some(
                "int2" | "int4" | "int8" | "oid" | "xid" | "xid8" | "cid" | "float4" | "float8"
                | "numeric",
            ) => Self::Number,
            Some("bool") => Self::Bool,
            Some("timestamp" | "timestamptz" | "date") => Self::Time,
            Some(_) => Self::Text,
            None => match json.as_bytes().first() {
                Some(b'0'..=b'9' | b'-') => Self::Number,
                Some(b't' | b'f') => Self::Bool,
                _ => Self::Text,
            },
        }
    }
}

/// Compares an event's value with a literal; `None` where the literal is none of that sort.
pub(super) fn compare(sort: Sort, json: &str, literal: &str) -> Option<Ordering> {
    match sort {
        Sort::Number => Some(Number::read(&plain(json))?.cmp(&Number::read(literal.trim())?)),
        Sort::Bool => Some(bool_of(&plain(json))?.cmp(&bool_of(literal)?)),
        Sort::Time => Some(time_of(&plain(json))?.cmp(&time_of(literal)?)),
        Sort::Text => Some(plain(json).as_bytes().cmp(literal.as_bytes())),
    }
}

/// A JSON value as text: a string without its quotes, anything else as it stands.
pub(super) fn plain(json: &str) -> Cow<'_, str> {
    match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Cow::Borrowed(text),
        Some(_) => Cow::Owned(serde_json::from_str(json).unwrap_or_default()),
        None => Cow::Borrowed(json),
    }
}

/// As PostgreSQL reads a boolean (PostgreSQL docs, "Boolean Type").
fn bool_of(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(text.as_str());
    match () {
        () if begins("true", 1) || begins("yes", 1) || begins("on", 2) || text == "1" => Some(true),
        () if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" => {
            Some(false)
        }
        () => None,
    }
}

/// A decimal number of any length.
#[derive(Debug, Clone, Copy)]
enum Number<'a> {
    NegativeInfinity,
    Finite {
        negative: bool,
        /// Digits with a point among them, without zeros in front.
        digits: &'a str,
        /// Power of ten of the first digit.
        magnitude: i64,
    },
    Infinity,
    /// Above everything else, and equal to itself, as PostgreSQL has it.
    NaN,
}

impl<'a> Number<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if unsigned.eq_ignore_ascii_case("nan") {
            return Some(Self::NaN);
        }
        if ["inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
            return Some(if negative { Self::NegativeInfinity } else { Self::Infinity });
        }
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (unsigned, 0),
        };
        let well_formed = mantissa.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
            && mantissa.bytes().filter(|byte| *byte == b'.').count() <= 1
            && mantissa.bytes().any(|byte| byte.is_ascii_digit());
        if !well_formed {
            return None;
        }
        let point = mantissa.find('.').unwrap_or(mantissa.len());
        let Some(first) = mantissa.find(|digit: char| matches!(digit, '1'..='9')) else {
            return Some(Self::Finite { negative: false, digits: "", magnitude: i64::MIN });
        };
        let place = i64::try_from(point).ok()? - i64::try_from(first).ok()?;
        let magnitude = place - i64::from(place > 0) + i64::from(exponent);
        Some(Self::Finite { negative, digits: &mantissa[first..], magnitude })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |number: &Self| match number {
            Self::NegativeInfinity => 0,
            Self::Finite { .. } => 1,
            Self::Infinity => 2,
            Self::NaN => 3,
        };
        let (
            Self::Finite { negative, digits, magnitude },
            Self::Finite { negative: other_negative, digits: others, magnitude: other_magnitude },
        ) = (self, other)
        else {
            return rank(self).cmp(&rank(other));
        };
        let size = || magnitude.cmp(other_magnitude).then_with(|| compare_digits(digits, others));
        match (negative, other_negative) {
            (false, false) => size(),
            (true, true) => size().reverse(),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

/// Of the same magnitude: digit by digit, zeros at the end counting for nothing.
fn compare_digits(left: &str, right: &str) -> Ordering {
    let digits = |text: &'_ str| text.bytes().filter(|byte| *byte != b'.').collect::<Vec<u8>>();
    let (left, right) = (digits(left), digits(right));
    let len = left.len().max(right.len());
    let at = |digits: &[u8], place: usize| digits.get(place).copied().unwrap_or(b'0');
    (0..len)
        .map(|place| at(&left, place).cmp(&at(&right, place)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Microseconds since 1970-01-01 of a date or a time stamp in ISO form, UTC unless it says another
/// zone; infinities at the ends.
fn time_of(text: &str) -> Option<i64> {
    let text = text.trim();
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (date, rest) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], text.get(at + 1..)?),
        None => (text, ""),
    };
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() < 4 {
        return None;
    }
    let (year, month, day) =
        (year.parse::<i64>().ok()?, month.parse::<i64>().ok()?, day.parse::<i64>().ok()?);
    let sound = (1..=12).contains(&month) && (1..=31).contains(&day) && year < 300_000;
    let days = sound.then(|| days_from_civil(year, month, day))?;
    let (clock, zone) = match rest.find(['Z', 'z', '+', '-']) {
        Some(at) => (&rest[..at], zone_of(&rest[at..])?),
        None => (rest, 0),
    };
    Some(days * 86_400_000_000 + clock_of(clock)? - zone)
}

/// Microseconds since midnight.
fn clock_of(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let mut parts = text.trim().split(':');
    let (hours, minutes) = (digits(parts.next()?)?, digits(parts.next()?)?);
    let seconds = parts.next().unwrap_or("0");
    if parts.next().is_some() {
        return None;
    }
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    if fraction.len() > 6 {
        return None;
    }
    let micros = digits(&format!("{fraction:0<6}"))?;
    Some(((hours * 60 + minutes) * 60 + digits(seconds)?) * 1_000_000 + micros)
}

/// `Z`, `+02`, `-05:30` in microseconds.
fn zone_of(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (sign, text) = text.split_at_checked(1)?;
    let (hours, minutes) = match text.split_once(':') {
        Some(parts) => parts,
        None if text.len() == 4 => text.split_at(2),
        None => (text, "0"),
    };
    let offset = (digits(hours)? * 60 + digits(minutes)?) * 60_000_000;
    Some(if sign == "-" { -offset } else { offset })
}

/// A short number of digits alone.
fn digits(text: &str) -> Option<i64> {
    let all = !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit());
    all.then(|| text.parse().ok())?
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last of one.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sort: Sort, json: &str, literal: &str, expected: Option<Ordering>) {
        assert_eq!(compare(sort, json, literal), expected, "{json} beside {literal}");
    }

    #[test]
    fn numbers_are_compared_by_every_digit() {
        use Ordering::{Equal, Greater, Less};
        for (json, literal, expected) in [
            ("9007199254740993", "9007199254740992", Greater),
            ("1.10", "1.1", Equal),
            ("-5", "3", Less),
            ("-5", "-3", Less),
            ("0.05", "0.5", Less),
            ("0.05", "5e-2", Equal),
            ("1e3", "1000", Equal),
            ("0", "-0.0", Equal),
            ("100", "99.99", Greater),
            ("12345678901234567890.1", "12345678901234567890.2", Less),
            ("\"NaN\"", "1e9", Greater),
            ("\"NaN\"", "NaN", Equal),
            ("\"-Infinity\"", "-1e400", Less),
            ("7", "infinity", Less),
        ] {
            check(Sort::Number, json, literal, Some(expected));
        }
        for literal in ["", "x", "1.2.3", "--1", "1e", ".", "0x10"] {
            check(Sort::Number, "1", literal, None);
        }
    }

    #[test]
    fn times_are_compared_as_moments() {
        use Ordering::{Equal, Greater, Less};
        for (json, literal, expected) in [
            ("\"2026-02-01T10:00:00Z\"", "2026-02-01 12:00:00+02", Equal),
            ("\"2026-02-01T10:00:00Z\"", "2026-02-01T04:30:00-05:30", Equal),
            ("\"2026-02-01T10:00:00.25\"", "2026-02-01 10:00:00.250001", Less),
            ("\"2026-02-01\"", "2026-01-31", Greater),
            ("\"2024-03-01\"", "2024-02-29", Greater),
            ("\"infinity\"", "9999-12-31", Greater),
        ] {
            check(Sort::Time, json, literal, Some(expected));
        }
        for literal in ["", "now", "2026", "2026-13-01", "2026-1-1-1", "10:00"] {
            check(Sort::Time, "\"2026-02-01\"", literal, None);
        }
        assert_eq!(time_of("1970-01-02"), Some(86_400_000_000));
        assert_eq!(time_of("2000-01-01T00:00:00Z"), Some(946_684_800_000_000));
    }

    #[test]
    fn booleans_and_texts() {
        check(Sort::Bool, "true", "t", Some(Ordering::Equal));
        check(Sort::Bool, "false", "yes", Some(Ordering::Less));
        check(Sort::Bool, "false", "maybe", None);
        check(Sort::Text, r#""a\"b""#, "a\"b", Some(Ordering::Equal));
        check(Sort::Text, r#""Ann""#, "Bob", Some(Ordering::Less));
    }
}
