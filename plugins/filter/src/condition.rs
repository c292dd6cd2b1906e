//! A condition bound to a table's columns, and its truth for a row.

use std::cmp::Ordering;

use walmill_plugin::{Cell, Row};

use crate::decimal;
use crate::parser::Accept;
use crate::pattern::Pattern;

/// A condition whose columns are indexes into the row.
#[derive(Debug)]
pub enum Condition {
    And(Box<[Condition]>),
    Or(Box<[Condition]>),
    Not(Box<Condition>),
    Compare { column: usize, accept: Accept, value: Value },
    In { column: usize, values: Box<[Value]> },
    Like { column: usize, pattern: Pattern },
    IsNull { column: usize },
}

/// What a column's cells are compared with, in the form that they have.
#[derive(Debug)]
pub enum Value {
    Column(usize),
    Bool(bool),
    /// Also what a timestamp, a date or a time is compared with.
    Int(i64),
    Decimal(Box<str>),
    Float(f64),
    Text(Box<str>),
    Uuid([u8; 16]),
}

/// What a condition may turn out to be: true, false, or SQL's null. A value that PostgreSQL did
/// not send leaves several of them possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth(u8);

impl Truth {
    const TRUE: Self = Self(0b001);
    const FALSE: Self = Self(0b010);
    const NULL: Self = Self(0b100);
    const ANY: Self = Self(0b111);

    /// Whether it is certainly true, certainly not (false and null alike), or open.
    pub fn decided(self) -> Option<bool> {
        match self {
            Self::TRUE => Some(true),
            Self(bits) if bits & Self::TRUE.0 == 0 => Some(false),
            _ => None,
        }
    }

    fn of(truth: bool) -> Self {
        if truth { Self::TRUE } else { Self::FALSE }
    }

    fn not(self) -> Self {
        Self(self.0 & Self::NULL.0 | (self.0 & 0b01) << 1 | (self.0 & 0b10) >> 1)
    }

    /// SQL's `and` of every pair of possibilities: false wins, then null.
    fn and(self, other: Self) -> Self {
        let (both, either) = (self.0 & other.0, self.0 | other.0);
        let neither_false = |a: Self, b: Self| a.0 & Self::NULL.0 != 0 && b.0 & 0b101 != 0;
        let null = neither_false(self, other) || neither_false(other, self);
        Self(both & Self::TRUE.0 | either & Self::FALSE.0 | if null { Self::NULL.0 } else { 0 })
    }

    /// As `not (not a and not b)`.
    fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }
}

impl Condition {
    /// Its truth for a row.
    pub fn truth(&self, row: &Row) -> Truth {
        match self {
            Self::And(parts) => all(parts, |part| part.truth(row)),
            // Or is the and of the opposites, and stops at the first part that is true.
            Self::Or(parts) => all(parts, |part| part.truth(row).not()).not(),
            Self::Not(part) => part.truth(row).not(),
            Self::IsNull { column } => match row.cell(*column) {
                Cell::Null => Truth::TRUE,
                Cell::Absent | Cell::Other(_) => Truth(0b011),
                // An unchanged value is a large one, so it is not null.
                _ => Truth::FALSE,
            },
            Self::Compare { column, accept, value } => {
                compare(row.cell(*column), value, row, |ordering| accept.takes(ordering))
            }
            Self::In { column, values } => {
                let cell = row.cell(*column);
                let one_of =
                    |found: Truth, value| found.or(compare(cell, value, row, Ordering::is_eq));
                values.iter().fold(Truth::FALSE, one_of)
            }
            Self::Like { column, pattern } => match row.cell(*column) {
                Cell::Text(text) => Truth::of(pattern.matches(text)),
                Cell::Null => Truth::NULL,
                _ => Truth::ANY,
            },
        }
    }
}

fn all(parts: &[Condition], truth: impl Fn(&Condition) -> Truth) -> Truth {
    let mut all = Truth::TRUE;
    for part in parts {
        all = all.and(truth(part));
        if all == Truth::FALSE {
            break;
        }
    }
    all
}

#[inline]
fn compare(left: Cell, right: &Value, row: &Row, accept: impl Fn(Ordering) -> bool) -> Truth {
    let ordering = match (left, right) {
        (Cell::Null, _) => return Truth::NULL,
        (Cell::Bool(left), Value::Bool(right)) => left.cmp(right),
        (
            Cell::Int(left) | Cell::Timestamp(left) | Cell::Date(left) | Cell::Time(left),
            Value::Int(right),
        ) => left.cmp(right),
        (Cell::Int(left), Value::Decimal(right)) => decimal::compare(&left.to_string(), right),
        (Cell::Numeric(left), Value::Decimal(right)) => decimal::compare(left, right),
        (Cell::Float(left), Value::Float(right)) => compare_floats(left, *right),
        (Cell::Text(left), Value::Text(right)) => left.cmp(right),
        (Cell::Uuid(left), Value::Uuid(right)) => left.cmp(right),
        (left, Value::Column(right)) => match compare_cells(left, row.cell(*right)) {
            Some(ordering) => ordering,
            None if row.cell(*right) == Cell::Null => return Truth::NULL,
            None => return Truth::ANY,
        },
        _ => return Truth::ANY,
    };
    Truth::of(accept(ordering))
}

/// Two columns of kinds that [`bind`](crate::bind) found comparable.
fn compare_cells(left: Cell, right: Cell) -> Option<Ordering> {
    Some(match (left, right) {
        (Cell::Bool(left), Cell::Bool(right)) => left.cmp(&right),
        (Cell::Int(left), Cell::Int(right))
        | (Cell::Timestamp(left), Cell::Timestamp(right))
        | (Cell::Date(left), Cell::Date(right))
        | (Cell::Time(left), Cell::Time(right)) => left.cmp(&right),
        (Cell::Int(left), Cell::Numeric(right)) => decimal::compare(&left.to_string(), right),
        (Cell::Numeric(left), Cell::Int(right)) => decimal::compare(left, &right.to_string()),
        (Cell::Numeric(left), Cell::Numeric(right)) => decimal::compare(left, right),
        (Cell::Float(left), Cell::Float(right)) => compare_floats(left, right),
        (Cell::Text(left), Cell::Text(right)) => left.cmp(right),
        (Cell::Uuid(left), Cell::Uuid(right)) => left.cmp(right),
        _ => return None,
    })
}

/// As PostgreSQL orders them: NaN equals itself and is greater than the rest, -0 equals 0.
fn compare_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINGLE: [Truth; 3] = [Truth::TRUE, Truth::FALSE, Truth::NULL];

    fn possibilities(set: Truth) -> impl Iterator<Item = Truth> {
        SINGLE.into_iter().filter(move |one| set.0 & one.0 != 0)
    }

    fn sql_and(left: Truth, right: Truth) -> Truth {
        match (left, right) {
            (Truth::FALSE, _) | (_, Truth::FALSE) => Truth::FALSE,
            (Truth::NULL, _) | (_, Truth::NULL) => Truth::NULL,
            _ => Truth::TRUE,
        }
    }

    #[test]
    fn and_or_and_not_are_those_of_sql_for_every_set_of_possibilities() {
        for (left, right) in (1..8).flat_map(|l| (1..8).map(move |r| (Truth(l), Truth(r)))) {
            let (mut and, mut or) = (0, 0);
            for (l, r) in
                possibilities(left).flat_map(|l| possibilities(right).map(move |r| (l, r)))
            {
                and |= sql_and(l, r).0;
                or |= sql_and(l.not(), r.not()).not().0;
            }
            assert_eq!(
                (left.and(right), left.or(right)),
                (Truth(and), Truth(or)),
                "{left:?} {right:?}"
            );
        }
    }

    #[test]
    fn only_what_is_possible_is_open() {
        let decided = |bits| Truth(bits).decided();
        assert_eq!(
            [0b001, 0b010, 0b100, 0b110].map(decided),
            [Some(true), Some(false), Some(false), Some(false)]
        );
        assert_eq!([0b011, 0b101, 0b111].map(decided), [None, None, None]);
    }

    #[test]
    fn floats_are_in_the_order_of_postgresql() {
        assert_eq!(compare_floats(f64::NAN, f64::INFINITY), Ordering::Greater);
        assert_eq!(compare_floats(1.0, f64::NAN), Ordering::Less);
        assert_eq!(compare_floats(f64::NAN, f64::NAN), Ordering::Equal);
        assert_eq!(compare_floats(-0.0, 0.0), Ordering::Equal);
    }
}
