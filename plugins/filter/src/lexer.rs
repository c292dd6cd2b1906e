//! A condition's text as tokens.

/// Where in the text something is, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Counted in characters, from 1.
    pub at: usize,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A keyword, or a column's name, in lower case.
    Word(String),
    /// A column's name that stood in double quotes.
    Quoted(String),
    /// Text that stood in single quotes.
    Text(String),
    /// A decimal number, as it was written.
    Number(String),
    /// An operator, a parenthesis or a comma.
    Symbol(&'static str),
    End,
}

impl Token {
    /// How a message calls it.
    pub fn describe(&self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Quoted(name) => format!("`\"{name}\"`"),
            Self::Text(text) => format!("'{text}'"),
            Self::Number(number) => format!("`{number}`"),
            Self::Symbol(symbol) => format!("`{symbol}`"),
            Self::End => "the end".into(),
        }
    }
}

/// Longer ones first, so that `<=` is not `<`.
const SYMBOLS: [&str; 11] = ["==", "!=", "<>", "<=", ">=", "<", ">", "=", "(", ")", ","];

/// The tokens, each with its place; the last one is [`Token::End`].
pub fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let mut lexer = Lexer { rest: text, at: 1 };
    let mut tokens = Vec::new();
    loop {
        lexer.take_while(char::is_whitespace);
        let at = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        tokens.push((at, token));
        if end {
            return Ok(tokens);
        }
    }
}

#[derive(Clone, Copy)]
struct Lexer<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn token(&mut self) -> Result<Token, SyntaxError> {
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        let second = self.rest[first.len_utf8()..].chars().next();
        match first {
            '\'' => self.quoted('\'').map(Token::Text),
            '"' => self.quoted('"').map(Token::Quoted),
            '-' | '.' if second.is_some_and(|c| c.is_ascii_digit()) => self.number(),
            '0'..='9' => self.number(),
            c if c.is_alphabetic() || c == '_' => {
                let word = self.take_while(|c| c.is_alphanumeric() || c == '_' || c == '$');
                Ok(Token::Word(word.to_lowercase()))
            }
            _ => self.symbol(first),
        }
    }

    fn symbol(&mut self, first: char) -> Result<Token, SyntaxError> {
        if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| self.rest.starts_with(symbol)) {
            self.skip(symbol.len());
            return Ok(Token::Symbol(symbol));
        }
        let hint = match first {
            '&' => "; write `and`",
            '|' => "; write `or`",
            '!' => "; write `not`",
            _ => "",
        };
        Err(self.error(format!("`{first}` means nothing here{hint}")))
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let start = *self;
        self.take_while(|c| c == '-');
        let digits = self.take_while(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
        let whole = &start.rest[..start.rest.len() - self.rest.len()];
        let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if plain && !whole.starts_with("--") && digits.matches('.').count() <= 1 {
            return Ok(Token::Number(whole.to_owned()));
        }
        Err(start.error(format!("`{whole}` is no number; write it as in -1234.56")))
    }

    /// What stands between quotes; a doubled quote stands for itself.
    fn quoted(&mut self, quote: char) -> Result<String, SyntaxError> {
        let open = *self;
        let mut text = String::new();
        self.skip(1);
        loop {
            text.push_str(self.take_while(|c| c != quote));
            if self.rest.is_empty() {
                return Err(open.error(format!("the {quote} that opens here is never closed")));
            }
            self.skip(1);
            if !self.rest.starts_with(quote) {
                return Ok(text);
            }
            text.push(quote);
            self.skip(1);
        }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let taken = &self.rest[..end];
        self.skip(end);
        taken
    }

    fn skip(&mut self, bytes: usize) {
        let (skipped, rest) = self.rest.split_at(bytes);
        self.at += skipped.chars().count();
        self.rest = rest;
    }

    fn error(&self, message: String) -> SyntaxError {
        SyntaxError { at: self.at, message }
    }
}
