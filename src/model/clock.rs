//! The wall clock, in the unit that everything here uses.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01 UTC.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Microseconds since 1970-01-01 UTC of a time as RFC 3339 writes it, `2026-11-25T09:30:00Z` or
/// `2026-11-25 09:30:00.5+13:00`; a date alone is its midnight in UTC.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.splitn(3, '-').map(digits);
    let days = days(parts.next()??, parts.next()??, parts.next()??)?;
    let rest = match rest.split_at_checked(1) {
        None => return days.checked_mul(86_400_000_000),
        Some(("T" | "t" | " ", rest)) => rest,
        Some(_) => return None,
    };
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone);
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        ("+", zone) => seconds(zone)?,
        ("-", zone) => -seconds(zone)?,
        _ => return None,
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let micros = digits(&format!("{fraction:0<6}")).filter(|_| fraction.len() <= 6)?;
    let seconds = days.checked_mul(86_400)?.checked_add(seconds(time)? - offset)?;
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

/// `09:30` or `09:30:15`
fn seconds(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':').map(digits);
    let (hours, minutes) = (parts.next()??, parts.next()??);
    let seconds = parts.next().unwrap_or(Some(0))?;
    (hours < 24 && minutes < 60 && seconds <= 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

fn digits(text: &str) -> Option<i64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let in_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(year * 365 + year / 4 - year / 100 + year / 400 + in_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01", 0),
            ("2000-02-29T12:00:00Z", 951_825_600_000_000),
            ("2026-11-25T09:30:00.25Z", 1_795_599_000_250_000),
            ("2026-11-25 22:30:00.25+13:00", 1_795_599_000_250_000),
            ("2026-11-24T23:30:00.250000-10:00", 1_795_599_000_250_000),
        ] {
            assert_eq!(parse(text), Some(micros), "{text}");
        }
        for text in [
            "",
            "now",
            "2026-02-29",
            "2026-13-01",
            "2026-11-25T25:00:00Z",
            "2026-1-1",
            "2026-11-25T09:30:00",
            "2026-11-25T09:30:00.1234567Z",
            "2026-11-25T+1:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
