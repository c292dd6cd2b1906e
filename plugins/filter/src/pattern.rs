//! SQL's `like`: `%` is any run of characters, `_` any one, `\` takes the next as it is.

use std::str::Chars;

/// A pattern, read once.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    parts: Box<[Part]>,
    fold_case: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Run,
    Any,
    One(char),
}

impl Pattern {
    /// `None` when it ends in a lone backslash.
    pub fn new(text: &str, fold_case: bool) -> Option<Self> {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '%' => Part::Run,
                '_' => Part::Any,
                '\\' => Part::One(chars.next()?),
                c => Part::One(c),
            });
        }
        Some(Self { parts: parts.into(), fold_case })
    }

    /// Whether the whole text fits.
    pub fn matches(&self, text: &str) -> bool {
        // A run takes as little as it can; when the rest does not fit, the latest takes one more.
        let (mut at, mut rest) = (0, text.chars());
        let mut latest_run: Option<(usize, Chars)> = None;
        loop {
            let part = self.parts.get(at).copied();
            if let Some(Part::Run) = part {
                at += 1;
                latest_run = Some((at, rest.clone()));
                continue;
            }
            let c = rest.next();
            match (part, c) {
                (None, None) => return true,
                (Some(Part::Any), Some(_)) => at += 1,
                (Some(Part::One(wanted)), Some(c)) if self.same(wanted, c) => at += 1,
                (Some(_), None) => return false,
                _ => {
                    let Some((after_run, from)) = &mut latest_run else { return false };
                    from.next();
                    (at, rest) = (*after_run, from.clone());
                }
            }
        }
    }

    fn same(&self, wanted: char, c: char) -> bool {
        wanted == c || self.fold_case && wanted.to_lowercase().eq(c.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        let pattern = Pattern::new(pattern, false).unwrap();
        for text in matching {
            assert!(pattern.matches(text), "{text} fits {pattern:?}");
        }
        for text in other {
            assert!(!pattern.matches(text), "{text} does not fit {pattern:?}");
        }
    }

    #[test]
    fn patterns_match_whole_texts() {
        check("", &[""], &["a"]);
        check("%", &["", "a", "ab"], &[]);
        check("a%", &["a", "ab", "a%"], &["", "ba", "A"]);
        check("%road", &["road", "the road", "roadroad"], &["roads", "oad"]);
        check("%a%b%", &["ab", "xaxbx", "aab"], &["ba", "a", "b"]);
        check("_b_", &["abc", "äbc"], &["ab", "abcd", "bbb b"]);
        check("100\\%", &["100%"], &["100", "1000"]);
    }

    #[test]
    fn ilike_ignores_case_also_beyond_ascii() {
        let pattern = Pattern::new("ÄR%", true).unwrap();
        assert!(pattern.matches("ärger") && pattern.matches("ÄRGER") && !pattern.matches("arger"));
    }

    #[test]
    fn a_lone_backslash_at_the_end_is_no_pattern() {
        assert_eq!(Pattern::new("a\\", false), None);
    }
}
