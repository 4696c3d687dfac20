//! Expressions as tokens, byte by byte (reference 15.2).

use std::ops::Range;

use super::error::{Error, ErrorKind};
use super::escape;

/// What a token is. Literals keep their source, so that an expression can be printed as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Identifier(&'a str),
    Integer(&'a str),
    /// `"…"`: what stands between the quotes.
    Double(&'a str),
    /// `'…'`: what stands between the quotes.
    Single(&'a str),
    Regex {
        source: &'a str,
        flags: &'a str,
    },
    /// `$NAME…` or `${…}`, whole.
    Shell(&'a str),
    Equal,
    NotEqual,
    Match,
    NoMatch,
    And,
    Or,
    Not,
    Question,
    Colon,
    Comma,
    OpenParenthesis,
    CloseParenthesis,
    OpenBracket,
    CloseBracket,
    End,
}

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) token: Token<'a>,
    pub(super) span: Range<usize>,
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn skip_blank(&mut self) {
        loop {
            while matches!(self.byte(0), Some(b' ' | b'\t' | b'\n' | b'\r')) {
                self.at += 1;
            }
            if !self.text[self.at..].starts_with("//") {
                return;
            }
            self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at);
        }
    }

    pub(super) fn next(&mut self) -> Result<Place<'a>, Error> {
        self.skip_blank();
        let start = self.at;
        let token = match self.byte(0) {
            None => Token::End,
            Some(b'"') => self.string(b'"')?,
            Some(b'\'') => self.string(b'\'')?,
            Some(b'/') => self.regex()?,
            Some(b'$') => self.shell()?,
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => self.identifier()?,
            Some(byte) if byte.is_ascii_digit() => Token::Integer(self.run(|byte| byte.is_ascii_digit())),
            Some(_) => self.sign()?,
        };
        Ok(Place { token, span: start..self.at })
    }

    /// Bytes from here on that fit, all of them ASCII.
    fn run(&mut self, fits: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.byte(0).is_some_and(&fits) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn sign(&mut self) -> Result<Token<'a>, Error> {
        const PAIRS: [(&str, Token<'static>); 6] = [
            ("==", Token::Equal),
            ("=~", Token::Match),
            ("!=", Token::NotEqual),
            ("!~", Token::NoMatch),
            ("&&", Token::And),
            ("||", Token::Or),
        ];
        let rest = &self.text[self.at..];
        if let Some((_, token)) = PAIRS.iter().find(|(sign, _)| rest.starts_with(sign)) {
            self.at += 2;
            return Ok(token.clone());
        }
        let character = rest.chars().next().unwrap_or('\0');
        let token = match character {
            '!' => Token::Not,
            '?' => Token::Question,
            ':' => Token::Colon,
            ',' => Token::Comma,
            '(' => Token::OpenParenthesis,
            ')' => Token::CloseParenthesis,
            '[' => Token::OpenBracket,
            ']' => Token::CloseBracket,
            _ => {
                let hint = match character {
                    '=' => Some("equality is `==`, a match `=~`"),
                    '&' => Some("and is `&&`"),
                    '|' => Some("or is `||`"),
                    _ => None,
                };
                let error = self.error(character.len_utf8(), format!("`{}` means nothing here", visible(character)));
                return Err(Error { hint: hint.map(str::to_owned), ..error });
            }
        };
        self.at += 1;
        Ok(token)
    }

    fn identifier(&mut self) -> Result<Token<'a>, Error> {
        let start = self.at;
        let name = self.run(is_name_or_dot);
        if name.ends_with('.') || name.contains("..") {
            let message = format!("`{name}` is no name: a dot stands between two parts");
            return Err(Error::new(ErrorKind::Parse, message, start..self.at));
        }
        Ok(Token::Identifier(name))
    }

    fn string(&mut self, quote: u8) -> Result<Token<'a>, Error> {
        let start = self.at + 1;
        let mut at = start;
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(at) {
                None | Some(0) => return Err(self.error(bytes.len() - self.at, "the string has no end")),
                Some(byte) if *byte == quote => break,
                Some(b'\\') if quote == b'"' => {
                    let (_, width) = escape::double(&bytes[at..])
                        .map_err(|message| Error::new(ErrorKind::Parse, message, at..at + 1))?;
                    at += width;
                }
                Some(b'\\') => {
                    // A backslash and the character after it, which may have more than one byte; both stay as they are.
                    at += 2;
                }
                Some(_) => at += 1,
            }
        }
        let raw = &self.text[start..at];
        self.at = at + 1;
        Ok(if quote == b'"' { Token::Double(raw) } else { Token::Single(raw) })
    }

    fn regex(&mut self) -> Result<Token<'a>, Error> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut at = start;
        loop {
            match bytes.get(at) {
                None | Some(0) => return Err(self.error(bytes.len() - self.at, "the regular expression has no end")),
                Some(b'/') => break,
                Some(b'\\') => at += 2,
                Some(_) => at += 1,
            }
        }
        self.at = at + 1;
        let flags = self.run(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        Ok(Token::Regex { source: &self.text[start..at], flags })
    }

    fn shell(&mut self) -> Result<Token<'a>, Error> {
        let start = self.at;
        match self.byte(1) {
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => {
                self.at += 1;
                self.run(is_name_or_dot);
            }
            Some(b'{') => self.at += self.braces()?,
            _ => return Err(self.error(1, "a `$` is followed by a name or by `{`")),
        }
        Ok(Token::Shell(&self.text[start..self.at]))
    }

    /// Bytes from `${` to the brace that closes it; quoted and escaped ones do not count.
    fn braces(&self) -> Result<usize, Error> {
        let bytes = &self.text.as_bytes()[self.at..];
        let unclosed = || self.error(bytes.len(), "the `${` is not closed");
        let (mut depth, mut at) = (1, 2);
        loop {
            match bytes.get(at) {
                None | Some(0) => return Err(unclosed()),
                Some(b'\\') => at += 1,
                Some(quote @ (b'"' | b'\'')) => {
                    at = escape::quoted_end(bytes, at, *quote).ok_or_else(unclosed)? - 1;
                }
                Some(b'{') => depth += 1,
                Some(b'}') => depth -= 1,
                Some(_) => {}
            }
            at += 1;
            if depth == 0 {
                return Ok(at);
            }
        }
    }

    fn error(&self, width: usize, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Parse, message, self.at..self.at + width)
    }
}

const fn is_name_or_dot(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.'
}

fn visible(character: char) -> String {
    if character.is_control() { character.escape_default().to_string() } else { character.to_string() }
}
