//! `column=op.value`: which rows a client wants to hear of, in PostgREST's words. Several
//! conditions, with commas between them, must all hold; of those in `or=(…)` one.

use crate::server::filter::{
    Comparison, Condition, Filter, Is, LONGEST_PATTERN, Like, Literal, Pattern, Test,
};

/// Bytes of a filter's text.
const LONGEST: usize = 16 << 10;
/// Values that `in` may list.
const MOST_VALUES: usize = 100;
/// Regular expressions in one filter, or in the filters of a channel. Each takes memory while it is
/// compiled and after, so they are counted before.
pub(super) const MOST_PATTERNS: usize = 16;
/// Conditions in one filter.
const MOST_CONDITIONS: usize = 50;
/// Ways in which a filter may hold, when every `or` in it is written out.
const MOST_GROUPS: usize = 64;
/// `or` and `and` inside each other.
const DEEPEST: usize = 8;

/// Reads a filter of the second generation. Blank is every row.
pub(super) fn read(text: &str) -> Result<Filter, String> {
    if text.trim().is_empty() {
        return Ok(everything());
    }
    if text.len() > LONGEST {
        return Err(format!("a filter has {LONGEST} bytes at most"));
    }
    if patterns(text) > MOST_PATTERNS {
        return Err(format!("a filter has {MOST_PATTERNS} regular expressions at most"));
    }
    let parts = split(text)?.into_iter().map(|part| Node::read(part.trim(), 0));
    let all = Node::All(parts.collect::<Result<_, _>>()?);
    match all.conditions() {
        0..=MOST_CONDITIONS => all.groups(false).map(Filter::of_groups),
        many => Err(format!("{many} conditions are more than {MOST_CONDITIONS}")),
    }
}

/// How many regular expressions there may be in a filter: what looks like one is counted.
pub(super) fn patterns(text: &str) -> usize {
    text.matches("match.").count()
}

/// `COL=eq.VAL` of a topic of the first generation, where the value is all the rest, commas and
/// all.
pub(super) fn read_topic(text: &str) -> Result<Filter, String> {
    match text.split_once("=eq.") {
        Some((column, value)) if !column.is_empty() => {
            let test = Test::Compare(Comparison::Equal, Literal::new(value));
            Ok(Filter::of_groups([vec![Condition::new(column, test)]]))
        }
        _ => read(text),
    }
}

/// Every row.
pub(super) fn everything() -> Filter {
    Filter::of_groups([Vec::new()])
}

/// A part of a filter.
enum Node {
    Is(Condition),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
}

impl Node {
    /// `column=op.value`, `or=(…)`, and inside of parentheses `column.op.value`, `or(…)`.
    fn read(text: &str, depth: usize) -> Result<Self, String> {
        let (negated, rest) = match text.strip_prefix("not.") {
            Some(rest) if logic(rest, depth).is_some() => (true, rest),
            _ => (false, text),
        };
        let node = match logic(rest, depth) {
            Some((word, inner)) => Self::read_list(word, inner, depth + 1)?,
            None => Self::Is(condition(text, if depth == 0 { '=' } else { '.' })?),
        };
        Ok(if negated { Self::Not(Box::new(node)) } else { node })
    }

    fn read_list(word: &str, inner: &str, depth: usize) -> Result<Self, String> {
        if depth > DEEPEST {
            return Err(format!("`or` and `and` may be {DEEPEST} deep at most"));
        }
        let inner = inner.strip_suffix(')').ok_or_else(|| format!("`{word}(` has no end"))?;
        let parts = split(inner)?.into_iter().map(|part| Self::read(part.trim(), depth));
        let parts = parts.collect::<Result<_, _>>()?;
        Ok(if word == "or" { Self::Any(parts) } else { Self::All(parts) })
    }

    fn conditions(&self) -> usize {
        match self {
            Self::Is(_) => 1,
            Self::Not(node) => node.conditions(),
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().map(Self::conditions).sum(),
        }
    }

    /// The ways in which it holds, or its opposite does: in each of them all conditions hold.
    fn groups(&self, negated: bool) -> Result<Vec<Vec<Condition>>, String> {
        match self {
            Self::Is(condition) if negated => Ok(vec![vec![condition.clone().not()]]),
            Self::Is(condition) => Ok(vec![vec![condition.clone()]]),
            Self::Not(node) => node.groups(!negated),
            Self::All(nodes) if !negated => product(nodes, negated),
            Self::Any(nodes) if negated => product(nodes, negated),
            Self::All(nodes) | Self::Any(nodes) => {
                let each = nodes.iter().map(|node| node.groups(negated));
                let each = each.collect::<Result<Vec<_>, _>>()?;
                bounded(each.iter().map(Vec::len).sum())?;
                Ok(each.concat())
            }
        }
    }
}

/// Each way of one with each way of the others.
fn product(nodes: &[Node], negated: bool) -> Result<Vec<Vec<Condition>>, String> {
    nodes.iter().try_fold(vec![Vec::new()], |ways, node| {
        let more = node.groups(negated)?;
        // Before they are made: each is a copy of many conditions.
        bounded(ways.len() * more.len())?;
        let with = |way: &Vec<Condition>| {
            let way = way.clone();
            more.iter().map(move |more| [way.as_slice(), more].concat())
        };
        Ok(ways.iter().flat_map(with).collect())
    })
}

fn bounded(ways: usize) -> Result<(), String> {
    match ways {
        0..=MOST_GROUPS => Ok(()),
        many => Err(format!("this can hold in {many} ways, which is more than {MOST_GROUPS}")),
    }
}

/// The `or` or `and` at the beginning, and what stands behind its parenthesis.
fn logic(text: &str, depth: usize) -> Option<(&str, &str)> {
    ["or", "and"].into_iter().find_map(|word| {
        let rest = text.strip_prefix(word)?;
        let rest = if depth == 0 { rest.strip_prefix('=')? } else { rest };
        Some((word, rest.strip_prefix('(')?))
    })
}

/// The parts between commas outside of parentheses and quotes.
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

/// A column, and what is asked of it behind the separator.
fn condition(text: &str, separator: char) -> Result<Condition, String> {
    let form = || format!("`{text}` is not of the form column{separator}operator.value");
    let (column, test) = match text.strip_prefix('"').and_then(quoted) {
        Some((column, rest)) => (column, rest.strip_prefix(separator).ok_or_else(form)?),
        None => {
            let (column, test) = text.split_once(separator).ok_or_else(form)?;
            (column.to_owned(), test)
        }
    };
    let (negated, test) = match test.strip_prefix("not.") {
        Some(test) => (true, test),
        None => (false, test),
    };
    let (operator, value) = test.split_once('.').ok_or_else(form)?;
    if column.is_empty() {
        return Err(form());
    }
    let condition = Condition::new(&column, read_test(operator, value)?);
    Ok(if negated { condition.not() } else { condition })
}

fn read_test(operator: &str, value: &str) -> Result<Test, String> {
    let one = || unquoted(value);
    let compared = |comparison| Test::Compare(comparison, Literal::new(one()));
    Ok(match operator {
        "eq" => compared(Comparison::Equal),
        "neq" => compared(Comparison::Unequal),
        "lt" => compared(Comparison::Less),
        "lte" => compared(Comparison::LessOrEqual),
        "gt" => compared(Comparison::Greater),
        "gte" => compared(Comparison::GreaterOrEqual),
        "in" => Test::In(list(value)?),
        "like" | "ilike" if value.len() > LONGEST_PATTERN => {
            return Err(format!("a pattern has {LONGEST_PATTERN} bytes at most"));
        }
        "like" => Test::Like(Like::new(&one())),
        "ilike" => Test::Like(Like::insensitive(&one())),
        "match" => Test::Match(Pattern::new(&one(), false)?),
        "imatch" => Test::Match(Pattern::new(&one(), true)?),
        "isdistinct" => Test::Distinct(Literal::new(one())),
        "is" => Test::Is(match &*value.to_ascii_lowercase() {
            "null" | "unknown" => Is::Null,
            "true" => Is::True,
            "false" => Is::False,
            other => {
                return Err(format!("`is` takes null, true, false or unknown, not `{other}`"));
            }
        }),
        other => return Err(format!("`{other}` is not an operator")),
    })
}

/// A value without the quotes around it.
fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(quoted);
    inner.filter(|(_, rest)| rest.is_empty()).map_or_else(|| value.to_owned(), |(text, _)| text)
}

/// What stands before the quote that ends it, and what behind that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut out, mut letters) = (String::with_capacity(text.len()), text.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.extend(letters.next().map(|(_, letter)| letter)),
            letter => out.push(letter),
        }
    }
    None
}

/// `(a,b,"c,d")`, also with the braces of an array.
fn list(value: &str) -> Result<Vec<Literal>, String> {
    let parens = value.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
    let braces = || value.strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
    let inner =
        parens.or_else(braces).ok_or_else(|| format!("`in` takes (a,b,…), not `{value}`"))?;
    let values: Vec<_> =
        split(inner)?.into_iter().map(|v| Literal::new(unquoted(v.trim()))).collect();
    match values.len() {
        0..=MOST_VALUES => Ok(values),
        many => Err(format!("`in` takes {MOST_VALUES} values at most, not {many}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `id` 5, `name` "Ann, \"A\"", `done` true, `due` null, `at` a moment, `note` a text.
    fn todo(label: &[u8]) -> Option<&'static [u8]> {
        let value = match label {
            b"\"id\"" => "5",
            b"\"name\"" => r#""Ann, \"A\"""#,
            b"\"done\"" => "true",
            b"\"due\"" => "null",
            b"\"at\"" => "\"2026-02-01T10:00:00Z\"",
            b"\"note\"" => r#""10% off_""#,
            b"\"a.b\"" => "1",
            _ => return None,
        };
        Some(value.as_bytes())
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
            ("done=eq.yes", true),
            ("at=eq.2026-02-01 12:00:00+02", true),
            ("at=eq.2026-02-01T15:30:00+0530", true),
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
            (r#""a.b"=eq.1"#, true),
        ] {
            assert_eq!(read(filter).unwrap().holds(todo), expected, "{filter}");
        }
    }

    #[test]
    fn one_of_those_in_or_has_to_hold() {
        for (filter, expected) in [
            ("or=(id.eq.1,done.is.true)", true),
            ("or=(id.eq.1,done.is.false)", false),
            ("or=(id.eq.1, id.in.(4,5))", true),
            ("or=(id.eq.1,and(id.gt.4,done.is.true))", true),
            ("or=(id.eq.1,and(id.gt.5,done.is.true))", false),
            ("done=is.true,or=(id.eq.1,id.eq.5)", true),
            ("done=is.false,or=(id.eq.1,id.eq.5)", false),
            ("or=(id.eq.1,id.eq.5),or=(done.is.true,due.is.null)", true),
            ("not.or=(id.eq.1,id.eq.2)", true),
            ("not.or=(id.eq.1,id.eq.5)", false),
            ("not.and=(id.eq.5,done.is.false)", true),
            ("or=(id.eq.1,not.and(id.eq.5,done.is.true))", false),
            // NULL is no answer, and so is its opposite.
            ("not.or=(id.eq.1,due.eq.2026-01-01)", false),
            (r#"or=("a.b".eq.1,id.eq.1)"#, true),
            (r#"or=(name.eq."Ann, \"A\"",id.eq.1)"#, true),
            ("or=(id.not.eq.5,name.like.Ann*)", false),
            ("and=(id.eq.5,done.is.true)", true),
        ] {
            assert_eq!(read(filter).unwrap().holds(todo), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_said() {
        let deep = format!("or={}id.eq.1{}", "(or".repeat(2000), ")".repeat(2000));
        let wide = ["or=(a.eq.1,b.eq.2)"; 7].join(",");
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
            ("or=(id=eq.5,id.eq.6)", "column.operator.value"),
            ("or=(id.eq.5", "has no end"),
            ("or=()", "column.operator.value"),
            (&deep, "deep at most"),
            (&wide, "ways"),
        ] {
            let error = read(filter).unwrap_err();
            assert!(error.contains(part), "{filter}: {error}");
        }
        let many = format!("id=in.({})", vec!["1"; 101].join(","));
        assert!(read(&many).unwrap_err().contains("100 values"));
        let long = format!("id=eq.{}", "1".repeat(LONGEST));
        assert!(read(&long).unwrap_err().contains("bytes at most"));
    }

    #[test]
    fn a_topic_s_value_is_all_that_follows() {
        assert!(read_topic("name=eq.Ann, \"A\"").unwrap().holds(todo));
        assert!(read_topic("id=gt.4").unwrap().holds(todo));
    }
}
