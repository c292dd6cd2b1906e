//! Values of an event's record, as they stand in its JSON, compared with what a filter says:
//! numbers with all their digits, points in time as such, everything else as text.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::hash::Hasher;

/// Takes what writes a value into a hasher, once for each way in which the value can be read.
pub(crate) type EachHash<'a> = dyn FnMut(&dyn Fn(&mut dyn Hasher)) + 'a;

/// A value as a filter has it: a text, and whatever else it can be read as.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Literal {
    text: String,
    time: Option<i128>,
    boolean: Option<bool>,
}

impl Literal {
    /// Reads a value.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { time: time(&text), boolean: boolean(&text), text }
    }

    /// Everything that equal values of an event hash to, one for each kind of value.
    pub(crate) fn hashes(&self, each: &mut EachHash<'_>) {
        each(&|hasher| hash_text(&self.text, hasher));
        if let Some(number) = Number::read(self.text.as_bytes()) {
            each(&|hasher| number.hash(hasher));
        }
        if let Some(time) = self.time {
            each(&|hasher| hash_time(time, hasher));
        }
        if let Some(boolean) = self.boolean {
            each(&|hasher| hash_boolean(boolean, hasher));
        }
    }
}

/// As PostgreSQL reads a boolean (PostgreSQL docs, "Boolean Type").
fn boolean(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&*text);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || text == "1" {
        return Some(true);
    }
    let is_false = begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0";
    is_false.then_some(false)
}

/// Compares a JSON value with a literal; `None` where that has no answer.
pub(super) fn compare(json: &[u8], literal: &Literal) -> Option<Ordering> {
    match json.first()? {
        b'n' => None,
        b't' => literal.boolean.map(|other| true.cmp(&other)),
        b'f' => literal.boolean.map(|other| false.cmp(&other)),
        b'-' | b'0'..=b'9' => {
            let (ours, theirs) = (Number::read(json)?, Number::read(literal.text.as_bytes())?);
            Some(ours.compare(&theirs))
        }
        b'"' => Some(compare_text(&content(json)?, literal)),
        _ => Some(json.cmp(literal.text.as_bytes())),
    }
}

fn compare_text(text: &str, literal: &Literal) -> Ordering {
    if let Some(theirs) = literal.time
        && let Some(ours) = time(text)
    {
        return ours.cmp(&theirs);
    }
    // What a number can be that JSON has no number for.
    if matches!(text, "NaN" | "Infinity" | "-Infinity")
        && let (Some(ours), Some(theirs)) =
            (Number::read(text.as_bytes()), Number::read(literal.text.as_bytes()))
    {
        return ours.compare(&theirs);
    }
    text.cmp(&literal.text)
}

/// Asks about a value's text; `None` for what has none.
pub(super) fn with_text(json: &[u8], ask: impl FnOnce(&str) -> bool) -> Option<bool> {
    match json.first()? {
        b'n' => None,
        b'"' => Some(ask(&content(json)?)),
        _ => std::str::from_utf8(json).ok().map(ask),
    }
}

/// Everything that a literal equal to this value hashes to.
pub(in crate::server) fn hash_value(json: &[u8], each: &mut EachHash<'_>) {
    match json.first() {
        None | Some(b'n') => {}
        Some(b't') => each(&|hasher| hash_boolean(true, hasher)),
        Some(b'f') => each(&|hasher| hash_boolean(false, hasher)),
        Some(b'-' | b'0'..=b'9') => {
            if let Some(number) = Number::read(json) {
                each(&|hasher| number.hash(hasher));
            }
        }
        Some(b'"') => {
            let Some(text) = content(json) else { return };
            each(&|hasher| hash_text(&text, hasher));
            if let Some(time) = time(&text) {
                each(&|hasher| hash_time(time, hasher));
            }
            if matches!(&*text, "NaN" | "Infinity" | "-Infinity")
                && let Some(number) = Number::read(text.as_bytes())
            {
                each(&|hasher| number.hash(hasher));
            }
        }
        Some(_) => {
            if let Ok(text) = std::str::from_utf8(json) {
                each(&|hasher| hash_text(text, hasher));
            }
        }
    }
}

fn hash_text(text: &str, hasher: &mut dyn Hasher) {
    hasher.write_u8(b's');
    hasher.write(text.as_bytes());
}

fn hash_time(time: i128, hasher: &mut dyn Hasher) {
    hasher.write_u8(b't');
    hasher.write_i128(time);
}

fn hash_boolean(boolean: bool, hasher: &mut dyn Hasher) {
    hasher.write(&[b'b', boolean.into()]);
}

/// The text of a JSON string; allocated only where something in it is escaped.
fn content(json: &[u8]) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    match memchr::memchr(b'\\', inside) {
        None => std::str::from_utf8(inside).ok().map(Cow::Borrowed),
        Some(_) => serde_json::from_slice(json).ok().map(Cow::Owned),
    }
}

/// A number in decimal, in the order that PostgreSQL gives them.
#[derive(Debug, Clone, Copy)]
enum Number<'a> {
    NegativeInfinity,
    Finite(Decimal<'a>),
    Infinity,
    NaN,
}

/// `±0.digits × 10^magnitude`
#[derive(Debug, Clone, Copy)]
struct Decimal<'a> {
    sign: Ordering,
    /// From the first digit that is not zero to the last; the point may stand among them.
    digits: &'a [u8],
    magnitude: i64,
}

impl<'a> Number<'a> {
    fn read(text: &'a [u8]) -> Option<Self> {
        match text {
            b"NaN" => Some(Self::NaN),
            b"Infinity" => Some(Self::Infinity),
            b"-Infinity" => Some(Self::NegativeInfinity),
            text => Decimal::read(text).map(Self::Finite),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Finite(ours), Self::Finite(theirs)) => ours.compare(theirs),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::NegativeInfinity => 0,
            Self::Finite(_) => 1,
            Self::Infinity => 2,
            Self::NaN => 3,
        }
    }

    fn hash(&self, hasher: &mut dyn Hasher) {
        hasher.write(&[b'n', self.rank()]);
        if let Self::Finite(decimal) = self {
            hasher.write_i8(decimal.sign as i8);
            hasher.write_i64(decimal.magnitude);
            for part in decimal.digits.split(|&byte| byte == b'.') {
                hasher.write(part);
            }
        }
    }
}

impl<'a> Decimal<'a> {
    fn read(text: &'a [u8]) -> Option<Self> {
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&text[..at], exponent(&text[at + 1..])?),
            None => (text, 0),
        };
        let point = memchr::memchr(b'.', mantissa).unwrap_or(mantissa.len());
        let fraction = mantissa.get(point + 1..).unwrap_or_default();
        let is_number = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
        if mantissa.len() - fraction.len() < 1
            || !is_number(&mantissa[..point])
            || !is_number(fraction)
            || point + fraction.len() == 0
        {
            return None;
        }
        let is_digit = |byte: &u8| matches!(byte, b'1'..=b'9');
        let Some(first) = mantissa.iter().position(is_digit) else {
            return Some(Self { sign: Ordering::Equal, digits: &[], magnitude: 0 });
        };
        let last = mantissa.iter().rposition(is_digit)?;
        // Digits between the first one and the point; behind the point, zeros before the first.
        let place = match first < point {
            true => i64::try_from(point - first).ok()?,
            false => -i64::try_from(first - point - 1).ok()?,
        };
        let sign = if negative { Ordering::Less } else { Ordering::Greater };
        let digits = &mantissa[first..=last];
        Some(Self { sign, digits, magnitude: place.checked_add(exponent)? })
    }

    fn compare(&self, other: &Self) -> Ordering {
        let of_size = || {
            let [ours, theirs] =
                [self, other].map(|number| number.digits.iter().filter(|&&byte| byte != b'.'));
            self.magnitude.cmp(&other.magnitude).then_with(|| ours.cmp(theirs))
        };
        match self.sign.cmp(&other.sign) {
            Ordering::Equal if self.sign == Ordering::Less => of_size().reverse(),
            Ordering::Equal => of_size(),
            unequal => unequal,
        }
    }
}

fn exponent(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= 12)?;
    text.parse().ok()
}

/// Nanoseconds since 1970-01-01 UTC of a date or a timestamp, with `T` or a space before the time;
/// without an offset it is taken for UTC. The infinities lie behind all others.
fn time(text: &str) -> Option<i128> {
    match text {
        "infinity" => return Some(i128::MAX),
        "-infinity" => return Some(i128::MIN),
        _ => {}
    }
    let (date, rest) = match text.find(['T', ' ']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let mut parts = date.splitn(3, '-');
    let mut part = |least: usize, most: usize| {
        let text = parts.next()?;
        (least..=most).contains(&text.len()).then(|| digits(text))?
    };
    let (year, month, day) = (part(4, 6)?, part(2, 2)?, part(2, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let of_day = rest.map_or(Some(0), time_of_day)?;
    Some(i128::from(days(year, month, day)) * 86_400_000_000_000 + of_day)
}

/// `HH:MM[:SS[.fraction]][Z|±HH[:MM]]` in nanoseconds.
fn time_of_day(text: &str) -> Option<i128> {
    let (clock, offset) = match text.strip_suffix('Z') {
        Some(clock) => (clock, 0),
        None => match text.rfind(['+', '-']) {
            Some(at) => (&text[..at], offset(&text[at..])?),
            None => (text, 0),
        },
    };
    let mut parts = clock.splitn(3, ':');
    let two = |text: &str| (text.len() == 2).then(|| digits(text))?;
    let (hours, minutes) = (two(parts.next()?)?, two(parts.next()?)?);
    let (seconds, fraction) =
        match parts.next().map(|text| text.split_once('.').unwrap_or((text, ""))) {
            Some((seconds, fraction)) => (two(seconds)?, fraction),
            None => (0, ""),
        };
    if hours > 24 || minutes > 59 || seconds > 60 || fraction.len() > 9 {
        return None;
    }
    let nanos = match fraction {
        "" => 0,
        text => digits(text)? * 10_i64.pow(9 - u32::try_from(text.len()).ok()?),
    };
    let seconds = hours * 3600 + minutes * 60 + seconds - offset;
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
}

/// `±HH[[:]MM]` in seconds.
fn offset(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = match text[1..].split_once(':') {
        Some(parts) => parts,
        None if text.len() == 5 => text[1..].split_at_checked(2)?,
        None => (&text[1..], "00"),
    };
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    Some(sign * (digits(hours)? * 3600 + digits(minutes)? * 60))
}

fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Days since 1970-01-01, after Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms".
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}
