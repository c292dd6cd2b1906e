//! Which rows a reader wants: conditions on columns, as readers write them.
//!
//! `country=eq.NZ,amount=gt.5` is one group, in which all conditions must hold. A filter is one or
//! several groups, of which one must hold. A condition is `COLUMN=OPERATOR.VALUE`, with `not.`
//! before the operator for its opposite. A value that has a comma, a quote or a parenthesis in it
//! is written in double quotes, where a backslash stands before a quote and a backslash.
//!
//! Whether a condition holds is decided as in SQL: what is not known (NULL, a column that the event
//! does not have, a number compared with a word) neither holds nor does its opposite.

mod read;
mod text;
mod value;

use std::cmp::Ordering;

use crate::model::Finding;
pub(super) use text::{Like, Pattern};
pub use value::Literal;
pub(super) use value::hash_value;

/// Groups of one filter at most.
const MAX_GROUPS: usize = 16;
/// Conditions of one filter at most, of all groups together.
const MAX_CONDITIONS: usize = 64;
/// Values of one `in` at most.
const MAX_VALUES: usize = 1000;
/// Bytes of a filter's text at most.
const MAX_TEXT: usize = 16 << 10;

/// Rows that a reader wants: those for which at least one group holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    groups: Vec<Group>,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group {
    conditions: Vec<Condition>,
}

/// What must be true of one column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Condition {
    /// The column's name as it stands in the event's JSON, with its quotes.
    label: Box<[u8]>,
    negated: bool,
    test: Test,
}

/// How a value is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Test {
    Compare(Comparison, Literal),
    /// It is one of these.
    In(Vec<Literal>),
    Like(Like),
    Match(Pattern),
    Is(Is),
    /// As unequal, but NULL is a value like any other.
    Distinct(Literal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Is {
    Null,
    True,
    False,
}

impl Filter {
    /// Reads a filter's groups; `path` is where they came from.
    ///
    /// # Errors
    /// What cannot be understood, and how it is written.
    pub fn read<'a>(
        groups: impl IntoIterator<Item = &'a str>,
        path: &str,
    ) -> Result<Self, Finding> {
        let mut left = MAX_TEXT;
        let mut filter = Self { groups: Vec::new() };
        for text in groups {
            left = left.checked_sub(text.len()).ok_or_else(|| too_large(path))?;
            filter.groups.push(read::group(text, path)?);
        }
        let conditions: usize = filter.groups.iter().map(|group| group.conditions.len()).sum();
        match filter.groups.len() {
            0 => Err(Finding::error("bad-filter", path, "a filter has at least one group")),
            1..=MAX_GROUPS if conditions <= MAX_CONDITIONS => Ok(filter),
            _ => Err(too_large(path)),
        }
    }

    /// Rows whose columns each have one of the values; every row, where there are none.
    #[must_use]
    pub fn of_keys<'a>(keys: impl IntoIterator<Item = (&'a str, Vec<String>)>) -> Self {
        let condition = |(column, values): (&str, Vec<String>)| Condition {
            label: label(column),
            negated: false,
            test: Test::In(values.into_iter().map(Literal::new).collect()),
        };
        let conditions = keys.into_iter().map(condition).collect();
        Self { groups: vec![Group { conditions }] }
    }

    /// Rows for which every condition of at least one of these groups holds.
    pub(super) fn of_groups(groups: impl IntoIterator<Item = Vec<Condition>>) -> Self {
        let groups = groups.into_iter().map(|conditions| Group { conditions });
        Self { groups: groups.collect() }
    }

    /// Changes of these kinds (`insert`, …) in a table; `None` for those of all.
    pub(super) fn of_changes(schema: Option<&str>, table: Option<&str>, op: Option<&str>) -> Self {
        let about = [(table, TABLE), (schema, SCHEMA), (op, OP)];
        let condition = |(wanted, label): (Option<&str>, &[u8])| {
            let test = Test::Compare(Comparison::Equal, Literal::new(wanted?));
            Some(Condition { label: label.into(), negated: false, test })
        };
        Self::of_groups([about.into_iter().filter_map(condition).collect()])
    }

    /// Whether every row is meant.
    pub(super) fn is_everything(&self) -> bool {
        self.groups.iter().any(|group| group.conditions.is_empty())
    }

    /// Whether a row is meant, whose values are looked up by the columns' labels.
    pub(super) fn holds<'a>(&self, value: impl Fn(&[u8]) -> Option<&'a [u8]>) -> bool {
        let holds = |condition: &Condition| condition.holds(value(&condition.label));
        self.groups.iter().any(|group| group.conditions.iter().all(holds))
    }

    /// What fits one of them at least.
    pub(super) fn or(mut self, other: Self) -> Self {
        self.groups.extend(other.groups);
        self
    }

    /// What fits both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let both = |ours: &Group, theirs: &Group| Group {
            conditions: [ours, theirs].iter().flat_map(|g| g.conditions.clone()).collect(),
        };
        let ours = self.groups.iter();
        let groups =
            ours.flat_map(|ours| other.groups.iter().map(move |theirs| both(ours, theirs)));
        Self { groups: groups.collect() }
    }

    /// Its groups, of which one must hold.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The columns that it is about, as they stand in JSON.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.iter().flat_map(|group| &group.conditions).map(Condition::label)
    }
}

impl Group {
    /// Its conditions, all of which must hold.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// The condition that is best looked up: the one with the fewest values that it can be true of.
    #[must_use]
    pub fn key(&self) -> Option<(usize, &[Literal])> {
        let keys = self.conditions.iter().enumerate();
        keys.filter_map(|(at, condition)| Some((at, condition.values()?)))
            .min_by_key(|(_, values)| values.len())
    }
}

/// What a change is about, in the place of a column: no column's label is without quotes.
pub(super) const TABLE: &[u8] = b"table";
/// The same for its schema.
pub(super) const SCHEMA: &[u8] = b"schema";
/// The same for what was done.
pub(super) const OP: &[u8] = b"op";

impl Condition {
    pub(super) fn new(column: &str, test: Test) -> Self {
        Self { label: label(column), negated: false, test }
    }

    /// Its opposite.
    pub(super) fn not(self) -> Self {
        Self { negated: !self.negated, ..self }
    }

    /// The column's name as it stands in the event's JSON, with its quotes.
    #[must_use]
    pub fn label(&self) -> &[u8] {
        &self.label
    }

    /// The only values that it can be true of, if they are few enough to be listed.
    #[must_use]
    pub fn values(&self) -> Option<&[Literal]> {
        match &self.test {
            _ if self.negated => None,
            Test::Compare(Comparison::Equal, literal) => Some(std::slice::from_ref(literal)),
            Test::In(literals) => Some(literals),
            _ => None,
        }
    }

    /// Whether it holds for a value as it stands in the event's JSON; `None`: not there.
    #[must_use]
    pub fn holds(&self, value: Option<&[u8]>) -> bool {
        value.and_then(|json| self.test.ask(json)) == Some(!self.negated)
    }
}

impl Test {
    /// The answer, if there is one.
    fn ask(&self, json: &[u8]) -> Option<bool> {
        match self {
            Self::Compare(comparison, literal) => {
                value::compare(json, literal).map(|ordering| comparison.fits(ordering))
            }
            Self::In(literals) => one_of(json, literals),
            Self::Like(like) => value::with_text(json, |text| like.fits(text)),
            Self::Match(pattern) => value::with_text(json, |text| pattern.fits(text)),
            Self::Is(Is::Null) => Some(json == b"null"),
            Self::Is(Is::True) => Some(json == b"true"),
            Self::Is(Is::False) => Some(json == b"false"),
            Self::Distinct(literal) => Some(value::compare(json, literal) != Some(Ordering::Equal)),
        }
    }
}

fn one_of(json: &[u8], literals: &[Literal]) -> Option<bool> {
    let mut known = None;
    for literal in literals {
        match value::compare(json, literal) {
            Some(Ordering::Equal) => return Some(true),
            Some(_) => known = Some(false),
            None => {}
        }
    }
    known
}

impl Comparison {
    fn fits(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Unequal => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// A column's name as it stands in JSON.
pub(super) fn label(column: &str) -> Box<[u8]> {
    serde_json::to_vec(column).unwrap_or_default().into()
}

fn too_large(path: &str) -> Finding {
    let message = format!(
        "a filter has at most {MAX_GROUPS} groups, {MAX_CONDITIONS} conditions and {MAX_TEXT} bytes"
    );
    Finding::error("bad-filter", path, message)
}

#[cfg(test)]
mod tests;
