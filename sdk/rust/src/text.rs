//! Values as text, in the form in which they stand in events.

use std::fmt::Write;

use crate::{Cell, Column};

/// `timestamp`, the one without a time zone.
const TIMESTAMP: u32 = 1114;

/// Whether a point in time of this column is one of UTC, and so ends in `Z`.
#[must_use]
pub fn is_zoned(column: &Column) -> bool {
    column.type_oid != TIMESTAMP
}

/// Appends a value; false for the cells that hold none.
pub fn append(out: &mut String, cell: Cell, zoned: bool) -> bool {
    match cell {
        Cell::Text(text) | Cell::Numeric(text) | Cell::Json(text) | Cell::Array(text) => {
            out.push_str(text);
        }
        Cell::Bool(bool) => out.push_str(if bool { "true" } else { "false" }),
        Cell::Int(int) => format(out, format_args!("{int}")),
        Cell::Float(float) => format(out, format_args!("{float}")),
        Cell::Timestamp(i64::MAX) | Cell::Date(i64::MAX) => out.push_str("infinity"),
        Cell::Timestamp(i64::MIN) | Cell::Date(i64::MIN) => out.push_str("-infinity"),
        Cell::Timestamp(micros) => {
            date(out, micros.div_euclid(DAY));
            out.push('T');
            time(out, micros.rem_euclid(DAY));
            out.push_str(if zoned { "Z" } else { "" });
        }
        Cell::Date(days) => date(out, days),
        Cell::Time(micros) => time(out, micros),
        Cell::Bytea(bytes) => {
            out.push_str("\\x");
            hex(out, bytes);
        }
        Cell::Uuid(bytes) => uuid(out, bytes),
        Cell::Null | Cell::Unchanged | Cell::Absent | Cell::Other(_) => return false,
    }
    true
}

/// Appends bytes as hexadecimal digits.
pub fn hex(out: &mut impl Write, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            // What is written here is memory, which does not fail.
            let _ = out.write_char(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
}

const DAY: i64 = 86_400_000_000;

fn uuid(out: &mut String, bytes: &[u8]) {
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        hex(out, &[*byte]);
    }
}

fn time(out: &mut String, micros: i64) {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format(out, format_args!("{hours:02}:{minutes:02}:{seconds:02}"));
    if fraction != 0 {
        format(out, format_args!(".{fraction:06}"));
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// Howard Hinnant's `civil_from_days`: a year begins in March, so that the leap day is its last.
fn date(out: &mut String, days: i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format(out, format_args!("{year:04}-{month:02}-{day:02}"));
}

/// Writing to a string cannot fail.
fn format(out: &mut String, arguments: std::fmt::Arguments) {
    let _ = out.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cell: Cell) -> String {
        let mut out = String::new();
        assert!(append(&mut out, cell, true));
        out
    }

    #[test]
    fn points_in_time_are_iso_8601() {
        assert_eq!(text(Cell::Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(text(Cell::Timestamp(-1)), "1969-12-31T23:59:59.999999Z");
        assert_eq!(text(Cell::Timestamp(20_781 * DAY + 500_000)), "2026-11-24T00:00:00.5Z");
        assert_eq!(text(Cell::Timestamp(i64::MIN)), "-infinity");
        assert_eq!(text(Cell::Date(11_016)), "2000-02-29");
        assert_eq!(text(Cell::Date(-719_162)), "0001-01-01");
        assert_eq!(text(Cell::Time(3_723_000_040)), "01:02:03.00004");
    }

    #[test]
    fn bytes_are_hexadecimal() {
        assert_eq!(text(Cell::Bytea(&[0, 0xab])), "\\x00ab");
        let id: Vec<u8> = (0..16).collect();
        assert_eq!(text(Cell::Uuid(&id)), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn a_cell_without_a_value_has_no_text() {
        for cell in [Cell::Null, Cell::Unchanged, Cell::Absent] {
            assert!(!append(&mut String::new(), cell, true));
        }
    }
}
