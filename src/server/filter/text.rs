//! Texts that are like something: SQL's LIKE, and regular expressions.

mod loose;

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use loose::Loose;
use regex::{Regex, RegexBuilder};

/// Bytes that a compiled regular expression may take.
const LARGEST_REGEX: usize = 64 << 10;

/// Bytes of a pattern.
pub(in crate::server) const LONGEST_PATTERN: usize = 1 << 10;

/// SQL's LIKE: `%` stands for any run of characters, `_` for one, and a backslash before either for
/// itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::server) struct Like {
    /// What stands between the `%`.
    segments: Vec<Segment>,
    /// ILIKE: upper and lower case are the same.
    insensitive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    /// Found in linear time, so that a large value costs what it takes to read it.
    Plain(String),
    /// With a `_` in it.
    Loose(Loose),
}

impl Like {
    pub(in crate::server) fn new(pattern: &str) -> Self {
        let mut letters = pattern.chars();
        let mut segments = vec![Vec::new()];
        while let Some(letter) = letters.next() {
            let part = match letter {
                '%' => {
                    segments.push(Vec::new());
                    continue;
                }
                '_' => None,
                '\\' => Some(letters.next().unwrap_or('\\')),
                letter => Some(letter),
            };
            // There is always one.
            segments.last_mut().into_iter().for_each(|segment| segment.push(part));
        }
        let segments = segments.into_iter().map(Segment::of).collect();
        Self { segments, insensitive: false }
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
        let (first, rest) = match self.segments.as_slice() {
            [] => return text.is_empty(),
            [whole] => return whole.at_start(&text) == Some(text.len()),
            [first, rest @ ..] => (first, rest),
        };
        let Some(start) = first.at_start(&text) else { return false };
        let mut text = &text[start..];
        let Some((last, middle)) = rest.split_last() else { return false };
        for segment in middle {
            // The first place leaves the most for what comes behind.
            let Some(end) = segment.find(text) else { return false };
            text = &text[end..];
        }
        last.is_at_end(text)
    }
}

impl Segment {
    fn of(parts: Vec<Option<char>>) -> Self {
        let plain: Option<String> = parts.iter().copied().collect();
        plain.map_or_else(|| Self::Loose(Loose::of(parts)), Self::Plain)
    }

    /// Where it ends, if the text begins with it.
    fn at_start(&self, text: &str) -> Option<usize> {
        match self {
            Self::Plain(plain) => text.starts_with(&**plain).then_some(plain.len()),
            Self::Loose(loose) => loose.at_start(text),
        }
    }

    /// Where it ends, at the first place in the text where it stands.
    fn find(&self, text: &str) -> Option<usize> {
        match self {
            Self::Plain(plain) => text.find(&**plain).map(|at| at + plain.len()),
            Self::Loose(loose) => loose.find(text),
        }
    }

    fn is_at_end(&self, text: &str) -> bool {
        match self {
            Self::Plain(plain) => text.ends_with(&**plain),
            Self::Loose(loose) => {
                let mut places = text.char_indices().rev().skip(loose.parts.len() - 1);
                places.next().is_some_and(|(at, _)| loose.at_start(&text[at..]).is_some())
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
