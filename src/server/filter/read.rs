//! Filters as they are written.

use super::value::Literal;
use super::{Comparison, Condition, Group, Is, LONGEST_PATTERN, Like, MAX_VALUES, Test, label};
use crate::model::Finding;
use crate::model::finding::did_you_mean;

const OPERATORS: [&str; 9] = ["eq", "neq", "lt", "lte", "gt", "gte", "in", "like", "is"];

/// Reads conditions parted by commas.
pub(super) fn group(text: &str, path: &str) -> Result<Group, Finding> {
    let mut reader = Reader { rest: text, path };
    let mut conditions = Vec::new();
    loop {
        conditions.push(reader.condition()?);
        if reader.rest.is_empty() {
            return Ok(Group { conditions });
        }
        reader.expect(',')?;
    }
}

struct Reader<'a> {
    rest: &'a str,
    path: &'a str,
}

impl<'a> Reader<'a> {
    fn condition(&mut self) -> Result<Condition, Finding> {
        let column = self.column()?;
        self.expect('=')?;
        let mut word = self.operator()?;
        let negated = word == "not";
        if negated {
            word = self.operator()?;
        }
        if word == "not" {
            return Err(self.bad("`not` stands once"));
        }
        Ok(Condition { label: label(&column), negated, test: self.test(word)? })
    }

    fn column(&mut self) -> Result<String, Finding> {
        let column = match self.rest.starts_with('"') {
            true => self.quoted()?,
            false => self.until(&['=', ',']).to_owned(),
        };
        match column.is_empty() {
            true => Err(self.bad("a condition begins with a column's name")),
            false => Ok(column),
        }
    }

    fn operator(&mut self) -> Result<&'a str, Finding> {
        let word = self.until(&['.', ',', '=']);
        if word != "not" && !OPERATORS.contains(&word) {
            let finding = self.bad(format!("`{word}` is no operator"));
            return Err(match did_you_mean(word, OPERATORS.iter().copied()) {
                Some(meant) => finding.suggest(format!("did you mean `{meant}`?")),
                None => finding.suggest(format!("the operators are {}", OPERATORS.join(", "))),
            });
        }
        self.expect('.')?;
        Ok(word)
    }

    fn test(&mut self, word: &str) -> Result<Test, Finding> {
        let comparison = match word {
            "eq" => Comparison::Equal,
            "neq" => Comparison::Unequal,
            "lt" => Comparison::Less,
            "lte" => Comparison::LessOrEqual,
            "gt" => Comparison::Greater,
            "gte" => Comparison::GreaterOrEqual,
            "in" => return self.list().map(Test::In),
            "like" => {
                let pattern = self.value()?;
                if pattern.len() > LONGEST_PATTERN {
                    return Err(self.bad(format!("a pattern has {LONGEST_PATTERN} bytes at most")));
                }
                return Ok(Test::Like(Like::new(&pattern)));
            }
            _ => return self.is().map(Test::Is),
        };
        Ok(Test::Compare(comparison, Literal::new(self.value()?)))
    }

    fn is(&mut self) -> Result<Is, Finding> {
        match self.until(&[',']) {
            "null" => Ok(Is::Null),
            "true" => Ok(Is::True),
            "false" => Ok(Is::False),
            other => Err(self.bad(format!("`is` takes null, true or false, not `{other}`"))),
        }
    }

    /// `(a,b,"c,d")`
    fn list(&mut self) -> Result<Vec<Literal>, Finding> {
        self.expect('(')?;
        let mut literals = Vec::new();
        loop {
            let text = match self.rest.starts_with('"') {
                true => self.quoted()?,
                false => self.until(&[',', ')']).to_owned(),
            };
            literals.push(Literal::new(text));
            if literals.len() > MAX_VALUES {
                return Err(self.bad(format!("`in` takes at most {MAX_VALUES} values")));
            }
            if self.rest.starts_with(')') {
                self.rest = &self.rest[1..];
                return Ok(literals);
            }
            self.expect(',')?;
        }
    }

    fn value(&mut self) -> Result<String, Finding> {
        match self.rest.starts_with('"') {
            true => self.quoted(),
            false => Ok(self.until(&[',']).to_owned()),
        }
    }

    /// Text in quotes, which are known to begin here.
    fn quoted(&mut self) -> Result<String, Finding> {
        let mut text = String::new();
        let mut letters = self.rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => text.extend(letters.next().map(|(_, letter)| letter)),
                letter => text.push(letter),
            }
        }
        Err(self.bad("a quote is open"))
    }

    /// Takes what stands before one of these, or everything.
    fn until(&mut self, ends: &[char]) -> &'a str {
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn expect(&mut self, letter: char) -> Result<(), Finding> {
        match self.rest.strip_prefix(letter) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None if self.rest.is_empty() => {
                Err(self.bad(format!("it ends where `{letter}` comes")))
            }
            None => Err(self.bad(format!("`{letter}` comes before `{}`", excerpt(self.rest)))),
        }
    }

    fn bad(&self, message: impl Into<String>) -> Finding {
        Finding::error("bad-filter", self.path, message)
            .suggest("write COLUMN=OPERATOR.VALUE, as in `country=eq.NZ,amount=gt.5`")
    }
}

fn excerpt(text: &str) -> &str {
    text.char_indices().nth(20).map_or(text, |(end, _)| &text[..end])
}
