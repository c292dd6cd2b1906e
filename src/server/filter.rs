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
mod value;

use std::cmp::Ordering;

use crate::model::Finding;
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
enum Test {
    Compare(Comparison, Literal),
    /// It is one of these.
    In(Vec<Literal>),
    Like(Like),
    Is(Is),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// SQL's LIKE: `%` stands for any run of characters, `_` for one, and a backslash before either for
/// itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Like(Vec<Part>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Run,
    One,
    Letter(char),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Is {
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

impl Condition {
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
            Self::Is(Is::Null) => Some(json == b"null"),
            Self::Is(Is::True) => Some(json == b"true"),
            Self::Is(Is::False) => Some(json == b"false"),
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

impl Like {
    fn new(pattern: &str) -> Self {
        let mut letters = pattern.chars();
        let mut parts = Vec::new();
        while let Some(letter) = letters.next() {
            parts.push(match letter {
                '%' => Part::Run,
                '_' => Part::One,
                '\\' => Part::Letter(letters.next().unwrap_or('\\')),
                letter => Part::Letter(letter),
            });
        }
        Self(parts)
    }

    fn fits(&self, text: &str) -> bool {
        // Greedy with one point to go back to: never worse than the product of the two lengths.
        let mut at = 0;
        let mut rest = text.chars();
        let mut back = None;
        loop {
            let here = rest.clone();
            let letter = rest.next();
            match (self.0.get(at), letter) {
                (Some(Part::Run), _) => {
                    at += 1;
                    back = Some((at, here.clone()));
                    rest = here;
                }
                (Some(Part::One), Some(_)) => at += 1,
                (Some(Part::Letter(own)), Some(letter)) if *own == letter => at += 1,
                (None, None) => return true,
                (_, None) => return false,
                (_, Some(_)) => {
                    let Some((behind, from)) = &mut back else { return false };
                    from.next();
                    (at, rest) = (*behind, from.clone());
                }
            }
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
