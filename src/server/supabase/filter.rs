//! `column=op.value`: which rows a client wants to hear of, in PostgREST's words. Several
//! conditions, with commas between them, must all hold.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};

use super::value::{Sort, compare, plain};

/// Values that `in` may list.
const MOST_VALUES: usize = 100;
/// Conditions in one filter.
const MOST_CONDITIONS: usize = 20;

/// Bytes that a compiled regular expression may take.
const LARGEST_REGEX: usize = 64 << 10;

/// All of these must hold; with none of them every row is meant.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter(Vec<Condition>);

#[derive(Debug, Clone)]
struct Condition {
    column: String,
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Eq(String),
    Neq(String),
    Lt(String),
    Lte(String),
    Gt(String),
    Gte(String),
    In(Vec<String>),
    Like(Pattern),
    Match(Regex),
    Is(Is),
    Distinct(String),
}

/// A pattern of LIKE; `insensitive` for ILIKE.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    insensitive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Null,
    True,
    False,
    Unknown,
}

/// A row as a filter looks at it.
pub(super) trait Row {
    /// A column's value as JSON, and the name of its type where that is known; `None` where the
    /// row does not have the column.
    fn column(&self, name: &str) -> Option<(&str, Option<&str>)>;
}

impl Filter {
    /// Reads a filter of the second generation. Blank is none.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let conditions: Vec<Condition> =
            split(text)?.into_iter().map(Condition::read).collect::<Result<_, _>>()?;
        match conditions.len() {
            0..=MOST_CONDITIONS => Ok(Self(conditions)),
            many => Err(format!("{many} conditions are more than {MOST_CONDITIONS}")),
        }
    }

    /// `COL=eq.VAL` of a topic of the first generation, where the value is all the rest, commas
    /// and all.
    pub(super) fn read_topic(text: &str) -> Result<Self, String> {
        match text.split_once("=eq.") {
            Some((column, value)) if !column.is_empty() => {
                let test = Test::Eq(value.into());
                Ok(Self(vec![Condition { column: column.into(), negated: false, test }]))
            }
            _ => Self::read(text),
        }
    }

    /// Whether the row is meant.
    pub(super) fn matches(&self, row: &impl Row) -> bool {
        self.0.iter().all(|condition| condition.holds(row))
    }
}

/// The conditions, cut at commas outside of parentheses and quotes.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut depth, mut quoted, mut escaped) =
        (Vec::new(), 0, 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            ',' if !quoted && depth <= 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return Err(format!("`{text}` has an open quote"));
    }
    parts.push(&text[start..]);
    Ok(parts)
}

impl Condition {
    fn read(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not of the form column=operator.value");
        let (column, test) = text.trim().split_once('=').ok_or_else(form)?;
        let (negated, test) = match test.strip_prefix("not.") {
            Some(test) => (true, test),
            None => (false, test),
        };
        let (operator, value) = test.split_once('.').ok_or_else(form)?;
        if column.is_empty() {
            return Err(form());
        }
        Ok(Self { column: column.into(), negated, test: Test::read(operator, value)? })
    }

    /// NULL passes no test but `is` and `isdistinct`, and neither does a column that is not there.
    fn holds(&self, row: &impl Row) -> bool {
        let Some((json, type_name)) = row.column(&self.column) else { return false };
        let known = json != "null";
        let asks_for_null = matches!(self.test, Test::Is(_) | Test::Distinct(_));
        (known || asks_for_null) && self.test.holds(json, type_name) != self.negated
    }
}

impl Test {
    fn read(operator: &str, value: &str) -> Result<Self, String> {
        let one = || unquoted(value);
        Ok(match operator {
            "eq" => Self::Eq(one()),
            "neq" => Self::Neq(one()),
            "lt" => Self::Lt(one()),
            "lte" => Self::Lte(one()),
            "gt" => Self::Gt(one()),
            "gte" => Self::Gte(one()),
            "in" => Self::In(list(value)?),
            "like" => Self::Like(Pattern { text: one(), insensitive: false }),
            "ilike" => Self::Like(Pattern { text: one(), insensitive: true }),
            "match" => Self::Match(regex(&one(), false)?),
            "imatch" => Self::Match(regex(&one(), true)?),
            "is" => Self::Is(match value.to_ascii_lowercase().as_str() {
                "null" => Is::Null,
                "true" => Is::True,
                "false" => Is::False,
                "unknown" => Is::Unknown,
                other => {
                    return Err(format!("`is` takes null, true, false or unknown, not `{other}`"));
                }
            }),
            "isdistinct" => Self::Distinct(one()),
            other => return Err(format!("`{other}` is not an operator")),
        })
    }

    fn holds(&self, json: &str, type_name: Option<&str>) -> bool {
        let order = |literal: &str| compare(Sort::of(type_name, json), json, literal);
        match self {
            Self::Eq(literal) => order(literal) == Some(Ordering::Equal),
            Self::Neq(literal) => order(literal).is_some_and(Ordering::is_ne),
            Self::Lt(literal) => order(literal).is_some_and(Ordering::is_lt),
            Self::Lte(literal) => order(literal).is_some_and(Ordering::is_le),
            Self::Gt(literal) => order(literal).is_some_and(Ordering::is_gt),
            Self::Gte(literal) => order(literal).is_some_and(Ordering::is_ge),
            Self::In(list) => list.iter().any(|literal| order(literal) == Some(Ordering::Equal)),
            Self::Like(pattern) => pattern.matches(&plain(json)),
            Self::Match(regex) => regex.is_match(&plain(json)),
            Self::Is(Is::Null | Is::Unknown) => json == "null",
            Self::Is(Is::True) => json == "true",
            Self::Is(Is::False) => json == "false",
            Self::Distinct(literal) => json == "null" || order(literal) != Some(Ordering::Equal),
        }
    }
}

impl Pattern {
    /// As LIKE has it: `%` for any run of characters, `_` for one, `\` before what stands for
    /// itself. One point to go back to, so it is never worse than the product of the lengths.
    fn matches(&self, value: &str) -> bool {
        let fold = |text: &str| match self.insensitive {
            true => text.to_lowercase(),
            false => text.to_owned(),
        };
        let (pattern, value) = (fold(&self.text), fold(value));
        let (pattern, value) =
            (pattern.chars().collect::<Vec<_>>(), value.chars().collect::<Vec<_>>());
        let (mut p, mut v) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        while v < value.len() {
            let step = match pattern.get(p) {
                Some('%') => {
                    back = Some((p + 1, v));
                    p += 1;
                    continue;
                }
                Some('_') => Some(1),
                Some('\\') if pattern.get(p + 1) == Some(&value[v]) => Some(2),
                Some(c) if *c == value[v] && *c != '\\' => Some(1),
                _ => None,
            };
            match (step, back) {
                (Some(step), _) => (p, v) = (p + step, v + 1),
                (None, Some((star, taken))) => {
                    back = Some((star, taken + 1));
                    (p, v) = (star, taken + 1);
                }
                (None, None) => return false,
            }
        }
        pattern[p..].iter().all(|c| *c == '%')
    }
}

/// A regular expression that takes no more than linear time, of bounded size.
fn regex(text: &str, insensitive: bool) -> Result<Regex, String> {
    let built = RegexBuilder::new(text)
        .case_insensitive(insensitive)
        .size_limit(LARGEST_REGEX)
        .dfa_size_limit(LARGEST_REGEX)
        .build();
    built.map_err(|error| format!("`{text}` is no regular expression: {error}"))
}

/// A value without the quotes around it.
fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
    inner.map_or_else(|| value.to_owned(), unescaped)
}

fn unescaped(text: &str) -> String {
    let (mut out, mut escaped) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

/// `(a,b,"c,d")`, also with the braces of an array.
fn list(value: &str) -> Result<Vec<String>, String> {
    let parens = value.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
    let braces = || value.strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
    let inner =
        parens.or_else(braces).ok_or_else(|| format!("`in` takes (a,b,…), not `{value}`"))?;
    let values: Vec<String> = split(inner)?.into_iter().map(|v| unquoted(v.trim())).collect();
    match values.len() {
        0..=MOST_VALUES => Ok(values),
        many => Err(format!("`in` takes {MOST_VALUES} values at most, not {many}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `id` 5, `name` "Ann, \"A\"", `done` true, `due` null, `note` of no known type.
    struct Todo;

    impl Row for Todo {
        fn column(&self, name: &str) -> Option<(&str, Option<&str>)> {
            Some(match name {
                "id" => ("5", Some("int8")),
                "name" => (r#""Ann, \"A\"""#, Some("text")),
                "done" => ("true", Some("bool")),
                "due" => ("null", Some("date")),
                "note" => (r#""10% off_""#, None),
                _ => return None,
            })
        }
    }

    #[test]
    fn each_operator_and_their_negation() {
        for (filter, expected) in [
            ("", true),
            ("  ", true),
            ("id=eq.5", true),
            ("id=eq.5.0", true),
            ("id=neq.5", false),
            ("id=lt.6", true),
            ("id=lte.4", false),
            ("id=gt.4.99", true),
            ("id=gte.5", true),
            ("id=in.(1,5)", true),
            ("id=in.(1,2)", false),
            ("id=not.in.(1,2)", true),
            (r#"name=in.("Ann, \"A\"",Bob)"#, true),
            (r#"name=eq."Ann, \"A\"""#, true),
            ("name=like.Ann%", true),
            ("name=like.ann%", false),
            ("name=ilike.ann%", true),
            (r"note=like.10\% off\_", true),
            (r"note=like.__\%%", true),
            ("note=like.%x%", false),
            ("name=match.^A.n", true),
            ("name=match.^a", false),
            ("name=imatch.^a", true),
            ("done=is.true", true),
            ("done=eq.t", true),
            ("due=is.null", true),
            ("due=not.is.null", false),
            ("due=neq.2026-01-01", false),
            ("due=not.eq.2026-01-01", false),
            ("due=isdistinct.2026-01-01", true),
            ("id=isdistinct.5", false),
            ("id=eq.5,done=is.true", true),
            ("id=eq.5,done=is.false", false),
            ("absent=eq.1", false),
            ("absent=not.eq.1", false),
            ("id=eq.five", false),
        ] {
            let read = Filter::read(filter).unwrap();
            assert_eq!(read.matches(&Todo), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_said() {
        for (filter, part) in [
            ("id", "column=operator.value"),
            ("=eq.1", "column=operator.value"),
            ("id=5", "column=operator.value"),
            ("id=is5.1", "is not an operator"),
            ("id=in.1,2", "takes (a,b,…)"),
            ("id=is.maybe", "takes null"),
            ("name=eq.\"a", "open quote"),
            ("name=match.(a", "no regular expression"),
            (r"name=match.(\w{100}){100}", "no regular expression"),
        ] {
            let error = Filter::read(filter).unwrap_err();
            assert!(error.contains(part), "{filter}: {error}");
        }
        let many = format!("id=in.({})", vec!["1"; 101].join(","));
        assert!(Filter::read(&many).unwrap_err().contains("100 values"));
    }

    #[test]
    fn a_topic_s_value_is_all_that_follows() {
        let filter = Filter::read_topic("name=eq.Ann, \"A\"").unwrap();
        assert!(filter.matches(&Todo));
        assert!(Filter::read_topic("id=gt.4").unwrap().matches(&Todo));
    }
}
