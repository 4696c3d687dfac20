//! Shell templates in expressions: `$NAME` and `${…}` in `"…"` or on their own (reference 15.6).
//!
//! A template is parsed once, with the expression. What is wrong with one is an error only when it is evaluated, so it
//! is kept as a piece like any other.

use std::ops::Range;

use windlass_protocol::limits::{CONDITION_DEPTH_MAX, CONDITION_SCAN_MAX_BYTES, CONDITION_TEXT_MAX_BYTES};

use super::error::{Error, ErrorKind};
use super::escape;

/// Part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    Variable(Variable),
    /// An error where it is reached.
    Broken(String),
}

/// `$NAME`, `${NAME}`, `${NAME…}`. Two are equal if they say the same, wherever they stand.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub(super) name: String,
    operator: Operator,
    /// Where it stands in the expression.
    span: Range<usize>,
}

impl PartialEq for Variable {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.operator) == (&other.name, &other.operator)
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Operator {
    Plain,
    /// `$A.b`: the text after the value; the whole is then never null.
    Suffix(Vec<u8>),
    Required {
        or_empty: bool,
    },
    Default {
        or_empty: bool,
        text: Vec<Piece>,
    },
    Alternative {
        or_empty: bool,
        text: Vec<Piece>,
    },
    Substring {
        offset: Vec<Piece>,
        length: Option<Vec<Piece>>,
    },
    Broken(String),
}

/// Looks up the environment.
pub(super) trait Lookup {
    fn value(&self, name: &str) -> Option<&str>;
}

/// Finds templates, within a budget for one expression: nested and broken ones are scanned more than once.
#[derive(Debug)]
pub(super) struct Templates {
    scans_left: usize,
}

impl Default for Templates {
    fn default() -> Self {
        Self { scans_left: CONDITION_SCAN_MAX_BYTES }
    }
}

type Parsed<T> = Result<T, Error>;

impl Templates {
    /// Whether a `"…"` holds an expansion, or a `$$`, which is one too in what it gives.
    pub(super) fn has_template(&mut self, raw: &str, base: usize) -> Parsed<bool> {
        Ok(raw.contains("$$") || self.has_expansion(raw, base)?)
    }

    /// Whether what a `"…"` gives depends on the environment.
    pub(super) fn has_expansion(&mut self, raw: &str, base: usize) -> Parsed<bool> {
        let bytes = raw.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'$' if bytes.get(at + 1) == Some(&b'$') => at += 2,
                b'$' if self.expansion(bytes, at, base)?.is_some() => return Ok(true),
                b'\\' => at += escape::double(&bytes[at..]).map_or(1, |(_, width)| width),
                _ => at += 1,
            }
        }
        Ok(false)
    }

    /// A text with templates; quotes within it are taken off, and nothing is expanded between single ones.
    pub(super) fn text(&mut self, bytes: &[u8], base: usize, depth: usize) -> Parsed<Vec<Piece>> {
        let mut pieces = Pieces::default();
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'\'' => match escape::quoted_end(bytes, at, b'\'') {
                    Some(end) => {
                        pieces.bytes(&escape::single(&bytes[at + 1..end - 1]));
                        at = end;
                    }
                    None => return Ok(pieces.broken("a quote within the template is not closed")),
                },
                b'"' => {
                    // An expansion in there may hold quotes of its own.
                    at += 1;
                    while bytes.get(at).is_some_and(|byte| *byte != b'"') {
                        at = self.one(bytes, at, base, depth, &mut pieces)?;
                    }
                    if at >= bytes.len() {
                        return Ok(pieces.broken("a quote within the template is not closed"));
                    }
                    at += 1;
                }
                _ => at = self.one(bytes, at, base, depth, &mut pieces)?,
            }
        }
        Ok(pieces.done())
    }

    /// One byte, escape or expansion; where the next one begins.
    fn one(&mut self, bytes: &[u8], at: usize, base: usize, depth: usize, pieces: &mut Pieces) -> Parsed<usize> {
        match bytes[at] {
            b'$' if bytes.get(at + 1) == Some(&b'$') => {
                pieces.bytes(b"$");
                Ok(at + 2)
            }
            b'$' => {
                let Some(end) = self.expansion(bytes, at, base)? else {
                    pieces.bytes(b"$");
                    return Ok(at + 1);
                };
                let variable = self.variable(&bytes[at..end], base + at, depth)?;
                pieces.push(Piece::Variable(variable));
                Ok(end)
            }
            b'\\' => match escape::double(&bytes[at..]) {
                Ok((byte, width)) => {
                    pieces.bytes(&[byte]);
                    Ok(at + width)
                }
                Err(message) => {
                    pieces.push(Piece::Broken(message.to_owned()));
                    Ok(bytes.len())
                }
            },
            byte => {
                pieces.bytes(&[byte]);
                Ok(at + 1)
            }
        }
    }

    /// Where the expansion at `start` ends, if one stands there.
    fn expansion(&mut self, bytes: &[u8], start: usize, base: usize) -> Parsed<Option<usize>> {
        match bytes.get(start + 1) {
            Some(byte) if is_name_start(*byte) => {
                let name = bytes[start + 1..].iter().take_while(|byte| is_name_part(**byte) || **byte == b'.').count();
                Ok(Some(start + 1 + name))
            }
            Some(b'{') => self.braces(bytes, start, base),
            _ => Ok(None),
        }
    }

    fn braces(&mut self, bytes: &[u8], start: usize, base: usize) -> Parsed<Option<usize>> {
        let (mut depth, mut at) = (1, start + 2);
        let end = loop {
            match bytes.get(at) {
                None => break None,
                Some(b'\\') => at += 1,
                Some(quote @ (b'"' | b'\'')) => match escape::quoted_end(bytes, at, *quote) {
                    Some(end) => at = end - 1,
                    None => {
                        at = bytes.len();
                        break None;
                    }
                },
                Some(b'$') if bytes.get(at + 1) == Some(&b'{') => {
                    depth += 1;
                    at += 1;
                }
                Some(b'}') => depth -= 1,
                Some(_) => {}
            }
            at += 1;
            if depth == 0 {
                break Some(at);
            }
        };
        match self.scans_left.checked_sub(at.min(bytes.len()) - start) {
            Some(left) => self.scans_left = left,
            None => {
                let span = base + start..base + bytes.len();
                return Err(Error::new(ErrorKind::Parse, "templates are nested or broken too often", span));
            }
        }
        Ok(end)
    }

    /// Reads a whole expansion: `$NAME…` or `${…}`.
    pub(super) fn variable(&mut self, whole: &[u8], base: usize, depth: usize) -> Parsed<Variable> {
        let span = base..base + whole.len();
        if depth >= CONDITION_DEPTH_MAX {
            let message = format!("templates are nested deeper than {CONDITION_DEPTH_MAX}");
            return Err(Error::new(ErrorKind::Parse, message, span));
        }
        let inner = whole.strip_prefix(b"${").and_then(|rest| rest.strip_suffix(b"}"));
        let text = inner.unwrap_or(&whole[1..]);
        let width = text.iter().take_while(|byte| is_name_part(**byte)).count();
        let (name, rest) = text.split_at(width);
        let name = String::from_utf8_lossy(name).into_owned();
        let rest_base = base + if inner.is_some() { 2 } else { 1 } + width;
        let operator = if !name.bytes().next().is_some_and(is_name_start) {
            Operator::Broken("a variable's name begins with a letter or `_`".to_owned())
        } else if rest.is_empty() {
            Operator::Plain
        } else if inner.is_none() {
            Operator::Suffix(rest.to_vec())
        } else {
            self.operator(rest, rest_base, depth)?
        };
        Ok(Variable { name, operator, span })
    }

    fn operator(&mut self, rest: &[u8], base: usize, depth: usize) -> Parsed<Operator> {
        let (or_empty, sign, word) = match rest {
            [b':', sign @ (b'-' | b'+' | b'?'), word @ ..] => (true, *sign, word),
            [b':', range @ ..] => return self.substring(range, base + 1, depth),
            [sign, word @ ..] => (false, *sign, word),
            [] => return Ok(Operator::Plain),
        };
        let word_base = base + rest.len() - word.len();
        Ok(match sign {
            b'-' => Operator::Default { or_empty, text: self.text(word, word_base, depth + 1)? },
            b'+' => Operator::Alternative { or_empty, text: self.text(word, word_base, depth + 1)? },
            b'?' => Operator::Required { or_empty },
            _ => Operator::Broken("after a variable's name come `:-`, `-`, `:+`, `+`, `:?`, `?` or `:`".to_owned()),
        })
    }

    fn substring(&mut self, range: &[u8], base: usize, depth: usize) -> Parsed<Operator> {
        let colons = top_level_colons(range);
        Ok(match colons.as_slice() {
            [] => Operator::Substring { offset: self.text(range, base, depth + 1)?, length: None },
            [colon] => Operator::Substring {
                offset: self.text(&range[..*colon], base, depth + 1)?,
                length: Some(self.text(&range[colon + 1..], base + colon + 1, depth + 1)?),
            },
            [_, ..] => Operator::Broken("a substring has an offset and at most a length".to_owned()),
        })
    }
}

/// Colons that stand neither in quotes nor in templates of their own.
fn top_level_colons(bytes: &[u8]) -> Vec<usize> {
    let (mut colons, mut depth, mut at) = (Vec::new(), 0_usize, 0);
    while at < bytes.len() && colons.len() < 2 {
        match bytes[at] {
            b'\\' => at += 1,
            quote @ (b'"' | b'\'') => at = escape::quoted_end(bytes, at, quote).map_or(at, |end| end - 1),
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                depth += 1;
                at += 1;
            }
            b'}' => depth = depth.saturating_sub(1),
            b':' if depth == 0 => colons.push(at),
            _ => {}
        }
        at += 1;
    }
    colons
}

/// Pieces with neighbouring bytes put together.
#[derive(Default)]
struct Pieces {
    done: Vec<Piece>,
}

impl Pieces {
    fn bytes(&mut self, more: &[u8]) {
        if let Some(Piece::Bytes(bytes)) = self.done.last_mut() {
            bytes.extend_from_slice(more);
        } else if !more.is_empty() {
            self.done.push(Piece::Bytes(more.to_vec()));
        }
    }

    fn push(&mut self, piece: Piece) {
        self.done.push(piece);
    }

    fn broken(mut self, message: &str) -> Vec<Piece> {
        self.done.push(Piece::Broken(message.to_owned()));
        self.done
    }

    fn done(self) -> Vec<Piece> {
        self.done
    }
}

/// What the pieces come to.
pub(super) fn text(pieces: &[Piece], lookup: &dyn Lookup, span: &Range<usize>) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => out.extend_from_slice(bytes),
            Piece::Variable(variable) => out.extend(variable.value(lookup)?.unwrap_or_default()),
            Piece::Broken(message) => return Err(failed(message.clone(), span)),
        }
        if out.len() > CONDITION_TEXT_MAX_BYTES {
            let message = format!("more than {CONDITION_TEXT_MAX_BYTES} bytes come of the templates");
            return Err(failed(message, span));
        }
    }
    Ok(out)
}

impl Variable {
    /// Its value; `None` is null.
    pub(super) fn value(&self, lookup: &dyn Lookup) -> Result<Option<Vec<u8>>, Error> {
        let set = lookup.value(&self.name);
        let value = |or_empty: bool| set.filter(|value| !(or_empty && value.is_empty()));
        let bytes = |text: &str| Some(text.as_bytes().to_vec());
        match &self.operator {
            Operator::Plain => Ok(set.and_then(bytes)),
            Operator::Suffix(suffix) => Ok(Some([set.unwrap_or_default().as_bytes(), suffix].concat())),
            Operator::Required { or_empty } => match value(*or_empty) {
                Some(value) => Ok(bytes(value)),
                None => Err(failed(format!("the variable `{}` is not set", self.name), &self.span)),
            },
            Operator::Default { or_empty, text: word } => match value(*or_empty) {
                Some(value) => Ok(bytes(value)),
                None => text(word, lookup, &self.span).map(Some),
            },
            Operator::Alternative { or_empty, text: word } => match value(*or_empty) {
                Some(_) => text(word, lookup, &self.span).map(Some),
                None => Ok(Some(Vec::new())),
            },
            Operator::Substring { offset, length } => self.substring(set, offset, length.as_deref(), lookup),
            Operator::Broken(message) => Err(failed(message.clone(), &self.span)),
        }
    }

    fn substring(
        &self,
        set: Option<&str>,
        offset: &[Piece],
        length: Option<&[Piece]>,
        lookup: &dyn Lookup,
    ) -> Result<Option<Vec<u8>>, Error> {
        let offset = self.integer(offset, lookup)?;
        let Some(value) = set else { return Ok(None) };
        let whole = i64::try_from(value.chars().count()).unwrap_or(i64::MAX);
        let start = if offset < 0 { whole.saturating_add(offset).max(0) } else { offset };
        if start >= whole {
            return Ok(Some(Vec::new()));
        }
        let end = match length {
            None => whole,
            Some(length) => match self.integer(length, lookup)? {
                back @ ..0 => whole.saturating_add(back),
                length => start.saturating_add(length),
            },
        };
        let count = |number: i64| usize::try_from(number).unwrap_or(0);
        let taken: String = value.chars().skip(count(start)).take(count(end.saturating_sub(start))).collect();
        Ok(Some(taken.into_bytes()))
    }

    fn integer(&self, pieces: &[Piece], lookup: &dyn Lookup) -> Result<i64, Error> {
        let text = text(pieces, lookup, &self.span)?;
        let digits = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
        let fits = digits.strip_prefix('-').unwrap_or(digits).bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| digits.parse().ok())
            .flatten()
            .ok_or_else(|| failed("a substring's offset and length are integers".to_owned(), &self.span))
    }
}

fn failed(message: String, span: &Range<usize>) -> Error {
    Error::new(ErrorKind::Evaluation, message, span.clone())
}

const fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

const fn is_name_part(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit()
}
