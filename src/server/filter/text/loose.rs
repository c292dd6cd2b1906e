//! A part of a LIKE with `_` in it, found in one walk over the text, whatever stands there: a
//! machine with a bit for each place of the pattern (Baeza-Yates and Gonnet's shift-and).

use super::LONGEST_PATTERN;

/// Bits of a word.
const BITS: usize = 64;
/// Words for the longest pattern that a client may send. A text costs so many steps for each of its
/// characters at the most.
const WORDS: usize = LONGEST_PATTERN / BITS;

/// Characters one after the other, some of which may be any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Loose {
    /// `None` is any character. There is at least one.
    pub(super) parts: Vec<Option<char>>,
    /// The places of any character, a bit for each.
    any: Vec<u64>,
    /// Each character and a word that has places of it, in order: so as many as places at most.
    own: Vec<(char, usize, u64)>,
}

impl Loose {
    pub(super) fn of(parts: Vec<Option<char>>) -> Self {
        let mut any = vec![0; parts.len().div_ceil(BITS)];
        let mut own: Vec<(char, usize, u64)> = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            let (word, bit) = (place / BITS, 1 << (place % BITS));
            match part {
                None => any[word] |= bit,
                Some(letter) => own.push((*letter, word, bit)),
            }
        }
        own.sort_unstable();
        own.dedup_by(|next, kept| {
            let same = (next.0, next.1) == (kept.0, kept.1);
            kept.2 |= if same { next.2 } else { 0 };
            same
        });
        own.shrink_to_fit();
        Self { parts, any, own }
    }

    /// Where it ends, if the text begins with it.
    pub(super) fn at_start(&self, text: &str) -> Option<usize> {
        let mut letters = text.chars();
        for part in &self.parts {
            let letter = letters.next()?;
            if part.is_some_and(|own| own != letter) {
                return None;
            }
        }
        Some(text.len() - letters.as_str().len())
    }

    /// Where it ends, at the first place in the text where it stands.
    pub(super) fn find(&self, text: &str) -> Option<usize> {
        let (mut few, mut many) = ([0; WORDS], Vec::new());
        let words = self.any.len();
        // Only the config's own patterns can be longer than a client's.
        let begun = if words <= WORDS {
            &mut few[..words]
        } else {
            many.resize(words, 0);
            &mut many[..]
        };
        let last = self.parts.len() - 1;
        for (at, letter) in text.char_indices() {
            self.step(begun, letter);
            if begun[last / BITS] >> (last % BITS) & 1 == 1 {
                return Some(at + letter.len_utf8());
            }
        }
        None
    }

    /// Takes one character more. Bit `n` says that the last `n + 1` fit the first of the pattern.
    fn step(&self, begun: &mut [u64], letter: char) {
        let first = self.own.partition_point(|(own, ..)| *own < letter);
        let mut own = self.own[first..].iter().take_while(|(own, ..)| *own == letter).peekable();
        // At every character it may begin.
        let mut carried = 1;
        for (word, (begun, any)) in begun.iter_mut().zip(&self.any).enumerate() {
            let fits = own.next_if(|(_, of, _)| *of == word).map_or(0, |(.., bits)| *bits);
            let moved = *begun << 1 | carried;
            carried = *begun >> (BITS - 1);
            *begun = moved & (any | fits);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    fn slowly(loose: &Loose, text: &str) -> Option<usize> {
        let mut places = text.char_indices().map(|(at, _)| at);
        places.find_map(|at| loose.at_start(&text[at..]).map(|end| at + end))
    }

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_every_place_finds(
            parts in vec(of(prop_oneof![Just('a'), Just('b'), Just('ü')]), 1..6),
            repeated in 1..60_usize,
            text in "[abü]{0,400}",
        ) {
            let loose = Loose::of(parts.repeat(repeated));
            prop_assert_eq!(loose.find(&text), slowly(&loose, &text));
            let written: String = loose.parts.iter().map(|part| part.unwrap_or('x')).collect();
            let within = text.clone() + &written + &text;
            prop_assert_eq!(loose.find(&within), slowly(&loose, &within));
            prop_assert!(loose.find(&within).is_some());
        }
    }

    #[test]
    fn a_pattern_that_nearly_fits_everywhere_keeps_no_more_than_its_places() {
        let near = Loose::of([vec![Some('a'); 1000], vec![None, Some('b')]].concat());
        // A look at every place would take four thousand million steps.
        let text = "a".repeat(4 << 20);
        assert_eq!(near.find(&text), None);
        assert_eq!(near.find(&(text.clone() + "cb")), Some(text.len() + 2));
        assert_eq!((near.any.len(), near.own.len()), (16, 17));
        let all: Vec<Option<char>> = ('\u{100}'..).take(512).map(Some).collect();
        assert_eq!(Loose::of(all).own.len(), 512);
    }
}
