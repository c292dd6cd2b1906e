//! ISO 8601 dates and times, as the numbers that cells hold.

const MICROS: i64 = 1_000_000;
const DAY: i64 = 86_400 * MICROS;

/// Days since 1970-01-01 of `2026-11-24`, or an infinity.
pub fn date(text: &str) -> Option<i64> {
    infinity(text).or_else(|| {
        let mut reader = Reader(text);
        let days = reader.date()?;
        reader.is_at_end().then_some(days)
    })
}

/// Microseconds since midnight of `03:07`, `03:07:13` or `03:07:13.5`.
pub fn time(text: &str) -> Option<i64> {
    let mut reader = Reader(text);
    let micros = reader.time()?;
    reader.is_at_end().then_some(micros)
}

/// Microseconds since 1970-01-01 UTC of `2026-11-24`, `2026-11-24 03:07` or `2026-11-24T03:07:13Z`,
/// or an infinity. Where the type has no time zone, an offset is none of its text.
pub fn timestamp(text: &str, zoned: bool) -> Option<i64> {
    infinity(text).or_else(|| {
        let mut reader = Reader(text);
        let midnight = reader.date()? * DAY;
        if reader.is_at_end() {
            return Some(midnight);
        }
        reader.one_of(b"T ")?;
        let local = midnight + reader.time()?;
        let offset = if zoned && !reader.is_at_end() { reader.offset()? } else { 0 };
        reader.is_at_end().then_some(local - offset)
    })
}

fn infinity(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(i64::MAX),
        "-infinity" => Some(i64::MIN),
        _ => None,
    }
}

struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn date(&mut self) -> Option<i64> {
        let year = self.digits(4)?;
        self.one_of(b"-")?;
        let month = self.digits(2).filter(|month| (1..=12).contains(month))?;
        self.one_of(b"-")?;
        let day = self.digits(2).filter(|day| (1..=days_in(year, month)).contains(day))?;
        Some(days_since_1970(year, month, day))
    }

    fn time(&mut self) -> Option<i64> {
        let hours = self.digits(2).filter(|&hours| hours < 24)?;
        self.one_of(b":")?;
        let minutes = self.digits(2).filter(|&minutes| minutes < 60)?;
        let mut micros = (hours * 60 + minutes) * 60 * MICROS;
        if self.one_of(b":").is_some() {
            micros += self.digits(2).filter(|&seconds| seconds < 60)? * MICROS;
            if self.one_of(b".").is_some() {
                micros += self.fraction()?;
            }
        }
        Some(micros)
    }

    /// `Z`, `+13`, `+13:00` or `+1300`, in microseconds.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = self.digits(2).filter(|&hours| hours < 16)?;
        let minutes = match self.one_of(b":") {
            Some(_) => self.digits(2)?,
            None if self.is_at_end() => 0,
            None => self.digits(2)?,
        };
        (minutes < 60).then_some(sign * (hours * 60 + minutes) * 60 * MICROS)
    }

    /// One to six digits behind the point, in microseconds.
    fn fraction(&mut self) -> Option<i64> {
        let count = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let scale = 6_usize.checked_sub(count).filter(|_| count > 0)?;
        Some(self.digits(count)? * 10_i64.pow(scale as u32))
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        let digits = self.0.get(..count).filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
        self.0 = &self.0[count..];
        digits.parse().ok()
    }

    fn one_of(&mut self, wanted: &[u8]) -> Option<u8> {
        let first = *self.0.as_bytes().first().filter(|first| wanted.contains(first))?;
        self.0 = &self.0[1..];
        Some(first)
    }

    fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant's `days_from_civil`, for years from 0 on: a year begins in March, so that the
/// leap day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_since_1970() {
        let known = [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-02-29", 11_016),
            ("2026-11-24", 20_781),
            ("0001-01-01", -719_162),
            ("9999-12-31", 2_932_896),
            ("infinity", i64::MAX),
        ];
        for (text, days) in known {
            assert_eq!(date(text), Some(days), "{text}");
        }
        for wrong in ["2026-02-29", "2026-13-01", "2026-1-1", "26-01-01", "2026-11-24 ", "today"] {
            assert_eq!(date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn timestamps_are_microseconds_and_heed_offsets() {
        let noon = 20_781 * DAY + DAY / 2;
        for text in [
            "2026-11-24 12:00",
            "2026-11-24T12:00:00",
            "2026-11-24T12:00:00.000Z",
            "2026-11-25 01:00+13",
            "2026-11-25 01:00:00+13:00",
            "2026-11-24T08:30:00-0330",
        ] {
            assert_eq!(timestamp(text, true), Some(noon), "{text}");
        }
        assert_eq!(timestamp("2026-11-24 12:00:00.25", false), Some(noon + 250_000));
        assert_eq!(timestamp("2026-11-24", false), Some(noon - DAY / 2));
        for wrong in ["2026-11-24 24:00", "2026-11-24 12", "2026-11-24 12:00:60", "2026-11-24T"] {
            assert_eq!(timestamp(wrong, true), None, "{wrong}");
        }
        assert_eq!(timestamp("2026-11-24 12:00Z", false), None);
    }

    #[test]
    fn times_are_microseconds_since_midnight() {
        assert_eq!(time("01:02:03.000004"), Some(3_723_000_004));
        assert_eq!(time("01:02:03.0000045"), None);
    }
}
