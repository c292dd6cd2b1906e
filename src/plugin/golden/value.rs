//! Values of cases as the interface's cells, and back (`wit/walmill.wit`, "cell tags").

use toml::Value;
use toml::value::{Date, Datetime, Offset, Time};

use super::{ABSENT, NULL, UNCHANGED, json};
use crate::plugin::bindings::Column;

/// Commit time where a case says nothing: 2026-01-01 00:00:00 UTC.
pub(super) const NO_TIME: i64 = 1_767_225_600_000_000;
const DAY: i64 = 86_400_000_000;

/// Cells one behind the other, as a batch has them.
#[derive(Default)]
pub(super) struct Cells {
    pub(super) tags: Vec<u8>,
    pub(super) data: Vec<u64>,
    pub(super) heap: Vec<u8>,
}

impl Cells {
    /// Adds a column's value.
    pub(super) fn push(&mut self, column: &Column, value: &Value) -> Result<(), String> {
        let wrong = || format!("`{}`: {value} is no {}", column.name, column.type_name);
        let (tag, data) = match (column.tag, value) {
            (_, Value::String(marker)) if marker == NULL => (0, 0),
            (_, Value::String(marker)) if marker == UNCHANGED => (32, 0),
            (_, Value::String(marker)) if marker == ABSENT => (33, 0),
            (1, Value::Boolean(truth)) => (1, u64::from(*truth)),
            (2, Value::Integer(int)) => (2, int.cast_unsigned()),
            (3, Value::Float(float)) => (3, float.to_bits()),
            (3, Value::Integer(int)) => (3, (*int as f64).to_bits()),
            (3, Value::String(text)) => (3, odd(text).ok_or_else(wrong)?.to_bits()),
            (tag @ 4..=6, value) => (tag, moment(tag, value).ok_or_else(wrong)?.cast_unsigned()),
            (17, Value::Integer(int)) => (17, self.keep(int.to_string().as_bytes())),
            (tag @ (16..=18 | 21), Value::String(text)) => (tag, self.keep(text.as_bytes())),
            (tag @ (18 | 21), Value::Array(_) | Value::Table(_)) => {
                (tag, self.keep(json::compact(value).as_bytes()))
            }
            (19, Value::String(hex)) => {
                let hex = hex.strip_prefix("\\x").ok_or_else(wrong)?;
                (19, self.keep(&bytes(hex).ok_or_else(wrong)?))
            }
            (20, Value::String(uuid)) => {
                let bytes = bytes(&uuid.replace('-', "")).filter(|bytes| bytes.len() == 16);
                (20, self.keep(&bytes.ok_or_else(wrong)?))
            }
            _ => return Err(wrong()),
        };
        self.tags.push(tag);
        self.data.push(data);
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> u64 {
        let start = self.heap.len() as u64;
        self.heap.extend_from_slice(bytes);
        start << 32 | bytes.len() as u64
    }
}

/// A cell as a case writes it. It has been checked.
pub(super) fn read(tag: u8, data: u64, heap: &[u8]) -> Result<Value, String> {
    let kept = || {
        let (start, length) = ((data >> 32) as usize, (data & 0xffff_ffff) as usize);
        heap.get(start..start.saturating_add(length)).ok_or("a cell outside the heap")
    };
    let moment = |time: Option<Datetime>| match (time, data.cast_signed()) {
        (_, i64::MAX) => Value::from("infinity"),
        (_, i64::MIN) => Value::from("-infinity"),
        (Some(time), _) => Value::from(time),
        (None, beyond) => Value::from(beyond),
    };
    Ok(match tag {
        0 => NULL.into(),
        1 => (data != 0).into(),
        2 => data.cast_signed().into(),
        3 => f64::from_bits(data).into(),
        4 => moment(timestamp(data.cast_signed())),
        5 => moment(date(data.cast_signed()).map(Datetime::from)),
        6 => moment(clock(data.cast_signed()).map(Datetime::from)),
        16..=18 | 21 => String::from_utf8_lossy(kept()?).into_owned().into(),
        19 => format!("\\x{}", hex(kept()?)).into(),
        20 => uuid(kept()?).into(),
        32 => UNCHANGED.into(),
        33 => ABSENT.into(),
        tag => return Err(format!("a cell with tag {tag}")),
    })
}

/// What of a float JSON has no number for.
fn odd(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// A timestamp, date or time; JSON has them as text. What no calendar here has is a number.
fn moment(tag: u8, value: &Value) -> Option<i64> {
    let parsed;
    let moment = match value {
        Value::Datetime(moment) => moment,
        Value::Integer(number) => return Some(*number),
        Value::String(text) if text == "infinity" => return Some(i64::MAX),
        Value::String(text) if text == "-infinity" => return Some(i64::MIN),
        Value::String(text) => {
            parsed = text.parse::<Datetime>().ok()?;
            &parsed
        }
        _ => return None,
    };
    match tag {
        4 => micros(moment).ok(),
        5 => moment.date.map(days),
        _ => moment.time.map(of_day),
    }
}

/// Microseconds since 1970 in UTC; what has no zone is taken to be in UTC.
pub(super) fn micros(moment: &Datetime) -> Result<i64, String> {
    let (Some(date), Some(time)) = (moment.date, moment.time) else {
        return Err(format!("`{moment}` is no date with a time"));
    };
    let minutes = match moment.offset {
        Some(Offset::Custom { minutes }) => i64::from(minutes),
        Some(Offset::Z) | None => 0,
    };
    Ok(days(date) * DAY + of_day(time) - minutes * 60_000_000)
}

/// Microseconds since midnight.
fn of_day(time: Time) -> i64 {
    let minutes = i64::from(time.hour) * 60 + i64::from(time.minute);
    let seconds = minutes * 60 + i64::from(time.second.unwrap_or(0));
    seconds * 1_000_000 + i64::from(time.nanosecond.unwrap_or(0)) / 1_000
}

/// Days since 1970, by the rule of 400 years that begin with a March.
fn days(date: Date) -> i64 {
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let year = if month < 3 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(date.day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// [`days`] the other way; none outside the years that TOML writes.
fn date(days: i64) -> Option<Date> {
    let days = days.checked_add(719_468)?;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    Some(Date {
        year: u16::try_from(year).ok().filter(|year| *year <= 9999)?,
        month: u8::try_from(month).ok()?,
        day: u8::try_from(of_year - (153 * shifted + 2) / 5 + 1).ok()?,
    })
}

pub(super) fn timestamp(micros: i64) -> Option<Datetime> {
    let date = date(micros.div_euclid(DAY))?;
    let time = clock(micros.rem_euclid(DAY))?;
    Some(Datetime { date: Some(date), time: Some(time), offset: Some(Offset::Z) })
}

fn clock(micros: i64) -> Option<Time> {
    let seconds = micros.div_euclid(1_000_000);
    Some(Time {
        hour: u8::try_from(seconds / 3_600).ok().filter(|hour| *hour < 24)?,
        minute: u8::try_from(seconds / 60 % 60).ok()?,
        second: Some(u8::try_from(seconds % 60).ok()?),
        nanosecond: match micros.rem_euclid(1_000_000) {
            0 => None,
            rest => Some(u32::try_from(rest * 1_000).ok()?),
        },
    })
}

/// Of hexadecimal digits, two for each.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pair = |pair: &[u8]| match *pair {
        [high, low] => Some(value(high)? << 4 | value(low)?),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn uuid(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    match digits.len() {
        32 => [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]]
            .join("-"),
        _ => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_both_ways() {
        for (text, expected) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-02-29", 11_016),
            ("2026-11-24", 20_781),
            ("9999-12-31", 2_932_896),
        ] {
            let written: Datetime = text.parse().unwrap();
            assert_eq!(days(written.date.unwrap()), expected, "{text}");
            assert_eq!(date(expected), written.date, "{text}");
        }
    }

    #[test]
    fn a_moment_comes_back_in_utc() {
        let written: Datetime = "2026-11-24T03:07:13.25+13:00".parse().unwrap();
        let micros = micros(&written).unwrap();
        assert_eq!(timestamp(micros).unwrap().to_string(), "2026-11-23T14:07:13.25Z");
    }

    #[test]
    fn what_has_an_odd_number_of_digits_is_no_row_of_bytes() {
        assert_eq!(bytes("0aFf"), Some(vec![0x0a, 0xff]));
        assert_eq!(bytes("0af"), None);
        assert_eq!(bytes("0g"), None);
    }
}
