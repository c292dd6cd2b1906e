//! Names with `*` in them: which tables, which streams.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name in which each `*` stands for any run of characters: `orders.*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Glob(String);

/// A table, or several: `public.orders`, `public.*`, `"My Schema"."a.b"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TablePattern {
    schema: Part,
    table: Part,
}

/// Tables that fit one of several patterns, and none of the exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<TablePattern>")]
pub struct TableChoice {
    patterns: Vec<TablePattern>,
    except: Vec<TablePattern>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    /// Written in quotes: stands for itself, `*` included.
    Literal(String),
    Glob(Glob),
}

/// Text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing there.
    #[error("a name cannot be empty")]
    Empty,
    /// The schema is missing, or there are too many parts.
    #[error("`{0}` is no table: write `schema.table`, as in `public.orders` or `public.*`")]
    NotATable(String),
    /// A quote without its partner.
    #[error("`{0}` has an open quote")]
    OpenQuote(String),
}

impl TableChoice {
    /// The same without these.
    #[must_use]
    pub fn except(self, except: Vec<TablePattern>) -> Self {
        Self { except, ..self }
    }

    /// Whether the table is among them.
    #[must_use]
    pub fn takes(&self, schema: &str, table: &str) -> bool {
        let fits = |pattern: &TablePattern| pattern.matches(schema, table);
        self.patterns.iter().any(fits) && !self.except.iter().any(fits)
    }
}

impl From<Vec<TablePattern>> for TableChoice {
    fn from(patterns: Vec<TablePattern>) -> Self {
        Self { patterns, except: Vec::new() }
    }
}

impl Deref for TableChoice {
    type Target = [TablePattern];

    fn deref(&self) -> &[TablePattern] {
        &self.patterns
    }
}

impl Glob {
    /// Whether the name fits.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        // Greedy with one point to go back to: linear for what people write, and never worse than
        // the product of the two lengths.
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        while n < name.len() {
            if pattern.get(p) == Some(&b'*') {
                back = Some((p + 1, n));
                p += 1;
            } else if pattern.get(p) == Some(&name[n]) {
                p += 1;
                n += 1;
            } else if let Some((star, taken)) = back {
                back = Some((star, taken + 1));
                (p, n) = (star, taken + 1);
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&b| b == b'*')
    }

    /// The name itself, when there is no `*` in it.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TablePattern {
    /// Whether the table fits.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        self.schema.matches(schema) && self.table.matches(table)
    }

    /// Schema and table, when neither has a `*`.
    #[must_use]
    pub fn literal(&self) -> Option<(&str, &str)> {
        Some((self.schema.literal()?, self.table.literal()?))
    }
}

impl Part {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Literal(own) => own == name,
            Self::Glob(glob) => glob.matches(name),
        }
    }

    fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(own) => Some(own),
            Self::Glob(glob) => glob.literal(),
        }
    }

    /// Takes one part off the front: up to a dot outside quotes, or to the end.
    fn take<'a>(text: &'a str, whole: &str) -> Result<(Self, Option<&'a str>), PatternError> {
        let Some(quoted) = text.strip_prefix('"') else {
            let (part, rest) = match text.split_once('.') {
                Some((part, rest)) => (part, Some(rest)),
                None => (text, None),
            };
            return Ok((Self::Glob(part.parse()?), rest));
        };
        let mut name = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            let rest = &quoted[at + c.len_utf8()..];
            match c {
                '"' if rest.starts_with('"') => {
                    name.push('"');
                    chars.next();
                }
                '"' if name.is_empty() => return Err(PatternError::Empty),
                '"' => match rest.strip_prefix('.') {
                    Some(rest) => return Ok((Self::Literal(name), Some(rest))),
                    None if rest.is_empty() => return Ok((Self::Literal(name), None)),
                    None => return Err(PatternError::NotATable(whole.into())),
                },
                c => name.push(c),
            }
        }
        Err(PatternError::OpenQuote(whole.into()))
    }
}

impl FromStr for Glob {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() { Err(PatternError::Empty) } else { Ok(Self(text.into())) }
    }
}

impl FromStr for TablePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (schema, rest) = Part::take(text, text)?;
        let (table, rest) = match rest {
            Some(rest) => Part::take(rest, text)?,
            None => return Err(PatternError::NotATable(text.into())),
        };
        match rest {
            None => Ok(Self { schema, table }),
            Some(_) => Err(PatternError::NotATable(text.into())),
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(name) => write!(f, "\"{}\"", name.replace('"', "\"\"")),
            Self::Glob(glob) => glob.fmt(f),
        }
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0
    }
}

impl From<TablePattern> for String {
    fn from(pattern: TablePattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for Glob {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl TryFrom<String> for TablePattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        let cases = [
            ("orders", "orders", true),
            ("orders", "order", false),
            ("orders.*", "orders.nz", true),
            ("orders.*", "orders", false),
            ("*", "", true),
            ("a*b*c", "aXbbYc", true),
            ("a*b*c", "aXc", false),
            ("a_b", "aXb", false),
        ];
        for (pattern, name, fits) in cases {
            assert_eq!(Glob(pattern.into()).matches(name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_table_is_schema_and_name_with_quotes_where_needed() {
        let fits = |pattern: &str, schema, table| {
            pattern.parse::<TablePattern>().expect(pattern).matches(schema, table)
        };
        assert!(fits("public.*", "public", "Orders"));
        assert!(!fits("public.*", "private", "Orders"));
        assert!(fits(r#""my.schema"."a""b*""#, "my.schema", "a\"b*"));
        assert!(!fits(r#"public."*""#, "public", "orders"));
    }

    #[test]
    fn a_choice_of_tables_has_exceptions() {
        let pattern = |text: &str| text.parse::<TablePattern>().expect(text);
        let choice = TableChoice::from(vec![pattern("public.*")]);
        let choice = choice.except(vec![pattern("public.orders"), pattern("*.secret*")]);
        assert!(choice.takes("public", "users") && !choice.takes("other", "users"));
        assert!(!choice.takes("public", "orders") && !choice.takes("public", "secrets"));
    }

    #[test]
    fn what_is_no_table_says_how_to_write_one() {
        for text in ["", "orders", "a.b.c", "public.", ".orders", "\"a.b", "\"\".a", "\"a\"b.c"] {
            assert!(text.parse::<TablePattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_pattern_prints_as_it_reads() {
        for text in ["public.*", r#""my.schema"."a""b*""#] {
            assert_eq!(text.parse::<TablePattern>().map(|p| p.to_string()), Ok(text.into()));
        }
    }
}
