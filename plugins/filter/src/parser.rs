//! A condition's grammar:
//!
//! ```text
//! condition  = and { "or" and }
//! and        = not { "and" not }
//! not        = "not" not | "(" condition ")" | test
//! test       = value ( "==" | "=" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) value
//!            | value [ "not" ] "in" "(" literal { "," literal } ")"
//!            | value [ "not" ] ( "like" | "ilike" ) text
//!            | value [ "not" ] "between" value "and" value
//!            | value "is" [ "not" ] "null"
//!            | column
//! ```

use std::cmp::Ordering;

use crate::lexer::{SyntaxError, Token, tokens};

/// A condition, columns by name.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    Compare(Operand, Accept, Operand),
    In(Operand, Vec<Literal>),
    Like {
        value: Operand,
        pattern: String,
        fold_case: bool,
    },
    IsNull(Operand),
    /// A boolean column.
    True(String),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    Column(String),
    Literal(Literal),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Text(String),
    Number(String),
    Bool(bool),
}

/// The outcomes of a comparison that an operator takes for true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept(u8);

impl Accept {
    pub const EQUAL: Self = Self(0b010);
    pub const UNEQUAL: Self = Self(0b101);
    const LESS: Self = Self(0b001);
    const LESS_OR_EQUAL: Self = Self(0b011);
    const GREATER: Self = Self(0b100);
    const GREATER_OR_EQUAL: Self = Self(0b110);

    fn of(symbol: &str) -> Option<Self> {
        Some(match symbol {
            "==" | "=" => Self::EQUAL,
            "!=" | "<>" => Self::UNEQUAL,
            "<" => Self::LESS,
            "<=" => Self::LESS_OR_EQUAL,
            ">" => Self::GREATER,
            ">=" => Self::GREATER_OR_EQUAL,
            _ => return None,
        })
    }

    #[inline]
    pub fn takes(self, ordering: Ordering) -> bool {
        self.0 >> (ordering as i8 + 1) & 1 == 1
    }

    /// The same with the sides exchanged.
    pub fn flipped(self) -> Self {
        Self(self.0 >> 2 | self.0 & 0b010 | self.0 << 2 & 0b100)
    }

    /// Whether it asks only for equality, which every type has.
    pub fn is_equality(self) -> bool {
        self == Self::EQUAL || self == Self::UNEQUAL
    }
}

/// What a column cannot be called without quotes.
const KEYWORDS: [&str; 11] =
    ["and", "or", "not", "in", "like", "ilike", "between", "is", "null", "true", "false"];

/// Parentheses and `not`s within each other; the stack of a plugin is small.
const MAX_DEPTH: usize = 64;

pub fn parse(text: &str) -> Result<Expr, SyntaxError> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let expr = parser.or()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.expected("`and`, `or` or the end")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn or(&mut self) -> Result<Expr, SyntaxError> {
        let mut parts = vec![self.and()?];
        while self.take_word("or") {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, SyntaxError> {
        let mut parts = vec![self.not()?];
        while self.take_word("and") {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expr::And))
    }

    fn not(&mut self) -> Result<Expr, SyntaxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} levels of parentheses")));
        }
        let expr = if self.take_word("not") {
            Expr::Not(Box::new(self.not()?))
        } else if self.take_symbol("(") {
            let inner = self.or()?;
            self.require_symbol(")")?;
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn test(&mut self) -> Result<Expr, SyntaxError> {
        let value = self.operand()?;
        if let Token::Symbol(symbol) = *self.peek()
            && let Some(accept) = Accept::of(symbol)
        {
            self.next += 1;
            return Ok(Expr::Compare(value, accept, self.operand()?));
        }
        if self.take_word("is") {
            let negated = self.take_word("not");
            self.require_word("null")?;
            return Ok(negate_if(negated, Expr::IsNull(value)));
        }
        let negated = self.take_word("not");
        match self.word_test(&value)? {
            Some(test) => Ok(negate_if(negated, test)),
            None if negated => Err(self.expected("`in`, `like`, `ilike` or `between`")),
            None => match value {
                Operand::Column(name) => Ok(Expr::True(name)),
                Operand::Literal(_) => Err(self.expected("a comparison")),
            },
        }
    }

    /// The tests that can have a `not` before them.
    fn word_test(&mut self, value: &Operand) -> Result<Option<Expr>, SyntaxError> {
        let value = || value.clone();
        if self.take_word("in") {
            return Ok(Some(Expr::In(value(), self.list()?)));
        }
        if self.take_word("between") {
            let low = Expr::Compare(value(), Accept::GREATER_OR_EQUAL, self.operand()?);
            self.require_word("and")?;
            let high = Expr::Compare(value(), Accept::LESS_OR_EQUAL, self.operand()?);
            return Ok(Some(Expr::And(vec![low, high])));
        }
        let fold_case = self.is_word("ilike");
        if !fold_case && !self.is_word("like") {
            return Ok(None);
        }
        self.next += 1;
        match self.literal()? {
            Literal::Text(pattern) => Ok(Some(Expr::Like { value: value(), pattern, fold_case })),
            _ => Err(self.error_before("a pattern in single quotes, as in '%road'".into())),
        }
    }

    fn list(&mut self) -> Result<Vec<Literal>, SyntaxError> {
        self.require_symbol("(")?;
        let mut list = vec![self.literal()?];
        while self.take_symbol(",") {
            list.push(self.literal()?);
        }
        self.require_symbol(")")?;
        Ok(list)
    }

    fn operand(&mut self) -> Result<Operand, SyntaxError> {
        let column = match self.peek() {
            Token::Quoted(name) => Some(name.clone()),
            Token::Word(word) if !KEYWORDS.contains(&&**word) => Some(word.clone()),
            _ => None,
        };
        match column {
            Some(name) => {
                self.next += 1;
                Ok(Operand::Column(name))
            }
            None => self.literal().map(Operand::Literal),
        }
    }

    fn literal(&mut self) -> Result<Literal, SyntaxError> {
        let literal = match self.peek() {
            Token::Text(text) => Literal::Text(text.clone()),
            Token::Number(number) => Literal::Number(number.clone()),
            Token::Word(word) if word == "true" || word == "false" => Literal::Bool(word == "true"),
            Token::Word(word) if word == "null" => {
                return Err(self.error("nothing compares with null; write `is null`".into()));
            }
            Token::Word(word) if !KEYWORDS.contains(&&**word) => {
                return Err(
                    self.error(format!("expected a value; is `{word}` a text? write '{word}'"))
                );
            }
            _ => return Err(self.expected("a value")),
        };
        self.next += 1;
        Ok(literal)
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn is_word(&self, wanted: &str) -> bool {
        matches!(self.peek(), Token::Word(word) if word == wanted)
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let found = self.is_word(wanted);
        self.next += usize::from(found);
        found
    }

    fn require_word(&mut self, wanted: &str) -> Result<(), SyntaxError> {
        if self.take_word(wanted) { Ok(()) } else { Err(self.expected(&format!("`{wanted}`"))) }
    }

    fn take_symbol(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(symbol) if *symbol == wanted);
        self.next += usize::from(found);
        found
    }

    fn require_symbol(&mut self, wanted: &str) -> Result<(), SyntaxError> {
        if self.take_symbol(wanted) { Ok(()) } else { Err(self.expected(&format!("`{wanted}`"))) }
    }

    fn expected(&self, what: &str) -> SyntaxError {
        self.error(format!("expected {what}, found {}", self.peek().describe()))
    }

    fn error(&self, message: String) -> SyntaxError {
        SyntaxError { at: self.tokens[self.next].0, message }
    }

    fn error_before(&self, wanted: String) -> SyntaxError {
        let (at, token) = &self.tokens[self.next - 1];
        SyntaxError { at: *at, message: format!("expected {wanted}, found {}", token.describe()) }
    }
}

fn one_or(mut parts: Vec<Expr>, several: fn(Vec<Expr>) -> Expr) -> Expr {
    if parts.len() == 1 { parts.remove(0) } else { several(parts) }
}

fn negate_if(negated: bool, expr: Expr) -> Expr {
    if negated { Expr::Not(Box::new(expr)) } else { expr }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, at: usize, message: &str) {
        assert_eq!(parse(text), Err(SyntaxError { at, message: message.into() }), "{text}");
    }

    #[test]
    fn and_binds_stronger_than_or_and_not_strongest() {
        let parsed = parse("not a or b and c").unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| Expr::True(name.into()));
        assert_eq!(parsed, Expr::Or(vec![Expr::Not(Box::new(a)), Expr::And(vec![b, c])]));
    }

    #[test]
    fn words_are_lower_case_and_quoted_names_as_they_are() {
        assert_eq!(parse("Active AND NOT \"Gone\"\"\""), parse("active and not (\"Gone\"\"\")"));
        assert_eq!(parse("\"And\""), Ok(Expr::True("And".into())));
    }

    #[test]
    fn both_spellings_of_equal_and_unequal_are_the_same() {
        assert_eq!(parse("a = 1 and b <> 'it''s'"), parse("a == 1 and b != 'it''s'"));
    }

    #[test]
    fn errors_name_the_place_and_what_would_be_right() {
        check("country ==", 11, "expected a value, found the end");
        check("country == NZ and", 18, "expected a value, found the end");
        check("status in (paid)", 12, "expected a value; is `paid` a text? write 'paid'");
        check("a == null", 6, "nothing compares with null; write `is null`");
        check("a == 1 && b == 2", 8, "`&` means nothing here; write `and`");
        check("a == 'x", 6, "the ' that opens here is never closed");
        check("(a == 1", 8, "expected `)`, found the end");
        check("a == 1 b == 2", 8, "expected `and`, `or` or the end, found `b`");
        check("a == 1e3", 6, "`1e3` is no number; write it as in -1234.56");
        check("a like 3", 8, "expected a pattern in single quotes, as in '%road', found `3`");
        check("a not", 6, "expected `in`, `like`, `ilike` or `between`, found the end");
        check("", 1, "expected a value, found the end");
    }

    #[test]
    fn a_thousand_parentheses_are_too_many() {
        let deep = format!("{}a{}", "(".repeat(1000), ")".repeat(1000));
        check(&deep, 65, "more than 64 levels of parentheses");
    }
}
