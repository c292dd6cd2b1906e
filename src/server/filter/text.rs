//! Texts that are like something: SQL's LIKE, and regular expressions.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use regex::{Regex, RegexBuilder};

/// Bytes that a compiled regular expression may take.
const LARGEST_REGEX: usize = 64 << 10;

/// SQL's LIKE: `%` stands for any run of characters, `_` for one, and a backslash before either for
/// itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::server) struct Like {
    parts: Vec<Part>,
    /// ILIKE: upper and lower case are the same.
    insensitive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Run,
    One,
    Letter(char),
}

impl Like {
    pub(in crate::server) fn new(pattern: &str) -> Self {
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
        Self { parts, insensitive: false }
    }

    /// ILIKE.
    pub(in crate::server) fn insensitive(pattern: &str) -> Self {
        Self { insensitive: true, ..Self::new(&pattern.to_lowercase()) }
    }

    pub(super) fn fits(&self, text: &str) -> bool {
        let text = match self.insensitive {
            true => Cow::Owned(text.to_lowercase()),
            false => Cow::Borrowed(text),
        };
        // Greedy with one point to go back to: never worse than the product of the two lengths.
        let mut at = 0;
        let mut rest = text.chars();
        let mut back = None;
        loop {
            let here = rest.clone();
            let letter = rest.next();
            match (self.parts.get(at), letter) {
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

/// A regular expression that takes no more than linear time, of bounded size.
#[derive(Debug, Clone)]
pub(in crate::server) struct Pattern {
    text: String,
    insensitive: bool,
    regex: Regex,
}

impl Pattern {
    /// Reads one; what is wrong with it, if it is none.
    pub(in crate::server) fn new(text: &str, insensitive: bool) -> Result<Self, String> {
        let built = RegexBuilder::new(text)
            .case_insensitive(insensitive)
            .size_limit(LARGEST_REGEX)
            .dfa_size_limit(LARGEST_REGEX)
            .build();
        match built {
            Ok(regex) => Ok(Self { text: text.to_owned(), insensitive, regex }),
            Err(error) => Err(format!("`{text}` is no regular expression: {error}")),
        }
    }

    pub(super) fn fits(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// What makes it the same as another.
    fn identity(&self) -> (&str, bool) {
        (&self.text, self.insensitive)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}
