//! Variables in text: `$NAME`, `${NAME}` and their operators, exactly as reference 14.1 has them.
//!
//! A value is never expanded again. What is expanded where, and in which order, is in [`tree`].

pub(crate) mod tree;

use std::borrow::Cow;
use std::ops::Range;

/// How deep expansions may stand within each other's defaults.
const NESTING_MAX: usize = 32;

/// Pieces of one text, nested ones included; each costs memory until the text is expanded.
const PIECES_MAX: usize = 100_000;

/// Where values come from.
pub(crate) trait Variables {
    /// The value; `None` if it is not set.
    fn value(&self, name: &str) -> Option<&str>;

    /// Whether a name without a value may have one later, as in a check without an environment: then its expansion
    /// stays as it is written.
    fn may_come_later(&self) -> bool {
        false
    }
}

/// Why a text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `${NAME?…}` without a value.
    #[error("${name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the pipeline says about it.
        message: String,
        /// Byte in the text where the expansion begins.
        at: usize,
    },
    /// What stands there is no expansion.
    #[error("{message}")]
    Syntax {
        /// What is wrong.
        message: String,
        /// Byte in the text where the expansion begins.
        at: usize,
    },
    /// The result is larger than it may be.
    #[error("the result is too large")]
    TooLarge,
}

/// What came of a text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Expanded {
    /// The text.
    pub(crate) text: String,
    /// Required variables without a value, which may come later: name and byte where the expansion begins.
    pub(crate) awaited: Vec<(String, usize)>,
}

/// Expands a text; at most `room` bytes may come of it.
pub(crate) fn expand(text: &str, variables: &dyn Variables, room: usize) -> Result<Expanded, Error> {
    let pieces = Parser { text, at: 0, pieces: 0 }.pieces(0)?;
    let mut evaluation = Evaluation { source: text, variables, room, awaited: Vec::new() };
    let text = readable(evaluation.text(&pieces)?);
    Ok(Expanded { text, awaited: evaluation.awaited })
}

/// The names that a text refers to, in order; those that are escaped have a `$` before them.
///
/// # Errors
/// It has an expansion that is none.
pub fn identifiers(text: &str) -> Result<Vec<String>, Error> {
    let pieces = Parser { text, at: 0, pieces: 0 }.pieces(0)?;
    let mut names = Vec::new();
    name_all(&pieces, &mut names);
    Ok(names)
}

/// Recursion ends at `NESTING_MAX`.
fn name_all(pieces: &[Piece<'_>], names: &mut Vec<String>) {
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Variable { name, operator, .. } => {
                names.push((*name).to_owned());
                match operator {
                    Operator::DefaultIfEmpty(inner) | Operator::DefaultIfUnset(inner) | Operator::Required(inner) => {
                        name_all(inner, names);
                    }
                    Operator::Plain | Operator::Substring { .. } => {}
                }
            }
            Piece::Escaped => {
                if let Some(Piece::Text(text)) = pieces.get(index + 1) {
                    let mut parser = Parser { text, at: 0, pieces: 0 };
                    let name = parser.name();
                    if !name.is_empty() {
                        names.push(format!("${name}"));
                    }
                }
            }
            Piece::Text(_) => {}
        }
    }
}

/// Part of a text.
enum Piece<'a> {
    Text(&'a str),
    /// A `$` that was escaped.
    Escaped,
    Variable {
        name: &'a str,
        operator: Operator<'a>,
        start: usize,
        end: usize,
    },
}

/// What a variable's expansion does with its value.
enum Operator<'a> {
    Plain,
    DefaultIfEmpty(Vec<Piece<'a>>),
    DefaultIfUnset(Vec<Piece<'a>>),
    Required(Vec<Piece<'a>>),
    Substring { offset: i64, length: Option<i64> },
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    pieces: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    /// Text and expansions: to the end, or within braces up to (not with) the first `}`.
    fn pieces(&mut self, depth: usize) -> Result<Vec<Piece<'a>>, Error> {
        let mut pieces = Vec::new();
        loop {
            let rest = self.rest();
            let stop = rest.find(['$', '\\', '}']).unwrap_or(rest.len());
            if stop > 0 {
                pieces.push(Piece::Text(&rest[..stop]));
                self.at += stop;
            }
            let start = self.at;
            self.pieces += 1;
            if self.pieces > PIECES_MAX {
                return Err(Error::TooLarge);
            }
            if self.rest().is_empty() || (depth > 0 && self.rest().starts_with('}')) {
                return Ok(pieces);
            }
            if self.skip("\\\\") {
                pieces.push(Piece::Text("\\\\"));
            } else if self.skip("\\$") || self.skip("$$") {
                pieces.push(Piece::Escaped);
            } else if self.skip("${") {
                let (name, operator) = self.braces(start, depth)?;
                pieces.push(Piece::Variable { name, operator, start, end: self.at });
            } else if self.skip("$") {
                let name = self.name();
                pieces.push(match name {
                    "" => Piece::Text("$"),
                    name => Piece::Variable { name, operator: Operator::Plain, start, end: self.at },
                });
            } else {
                // A lone backslash, or a brace outside of braces.
                self.at += 1;
                pieces.push(Piece::Text(&self.text[start..self.at]));
            }
        }
    }

    /// A letter, then letters, digits and `_`; empty if none stands here.
    fn name(&mut self) -> &'a str {
        let rest = self.rest();
        if !rest.starts_with(char::is_alphabetic) {
            return "";
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn braces(&mut self, start: usize, depth: usize) -> Result<(&'a str, Operator<'a>), Error> {
        if depth >= NESTING_MAX {
            let message = format!("expansions are nested deeper than {NESTING_MAX}");
            return Err(Error::Syntax { message, at: start });
        }
        let name = self.name();
        if name.is_empty() {
            let message = match self.rest().chars().next() {
                Some(found) => format!("a variable's name begins with a letter, not with `{found}`"),
                None => "a variable's name is missing after `${`".to_owned(),
            };
            return Err(Error::Syntax { message, at: start });
        }
        let operator = self.operator(start, depth)?;
        if self.skip("}") {
            return Ok((name, operator));
        }
        Err(Error::Syntax { message: format!("the `}}` after `${{{name}` is missing"), at: start })
    }

    fn operator(&mut self, start: usize, depth: usize) -> Result<Operator<'a>, Error> {
        if self.rest().starts_with('}') {
            return Ok(Operator::Plain);
        }
        if self.skip(":-") {
            return Ok(Operator::DefaultIfEmpty(self.pieces(depth + 1)?));
        }
        if self.skip("-") {
            return Ok(Operator::DefaultIfUnset(self.pieces(depth + 1)?));
        }
        if self.skip("?") {
            return Ok(Operator::Required(self.pieces(depth + 1)?));
        }
        if self.skip(":") {
            let offset = self.number("an offset", start)?;
            let length = if self.skip(":") { Some(self.number("a length", start)?) } else { None };
            return Ok(Operator::Substring { offset, length });
        }
        let message = match self.rest().chars().next() {
            Some(found) => format!("`{found}` is no operator; there are `:-`, `-`, `?` and `:`"),
            None => "the closing `}` is missing".to_owned(),
        };
        Err(Error::Syntax { message, at: start })
    }

    fn number(&mut self, what: &str, start: usize) -> Result<i64, Error> {
        let rest = self.rest();
        let end = rest.find([':', '}']).unwrap_or(rest.len());
        self.at += end;
        let written = rest[..end].trim();
        written.parse().map_err(|_| {
            let written: String = written.chars().take(32).collect();
            let message = format!("`:` takes {what} here, and `{written}` is no integer");
            Error::Syntax { message, at: start }
        })
    }
}

struct Evaluation<'a> {
    source: &'a str,
    variables: &'a dyn Variables,
    room: usize,
    awaited: Vec<(String, usize)>,
}

impl<'a> Evaluation<'a> {
    fn text(&mut self, pieces: &[Piece<'_>]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        for piece in pieces {
            let value = match piece {
                Piece::Text(text) => Cow::Borrowed(text.as_bytes()),
                Piece::Escaped => Cow::Borrowed(b"$".as_slice()),
                Piece::Variable { name, operator, start, end } => self.variable(name, operator, *start..*end)?,
            };
            if out.len() + value.len() > self.room {
                return Err(Error::TooLarge);
            }
            out.extend_from_slice(&value);
        }
        Ok(out)
    }

    fn variable(&mut self, name: &str, operator: &Operator<'_>, place: Range<usize>) -> Result<Cow<'a, [u8]>, Error> {
        let variables = self.variables;
        match (variables.value(name), operator) {
            (None, operator) if variables.may_come_later() => self.later(name, operator, place),
            (value, Operator::Plain) => Ok(Cow::Borrowed(value.unwrap_or_default().as_bytes())),
            (Some(value), Operator::DefaultIfEmpty(_)) if !value.is_empty() => Ok(Cow::Borrowed(value.as_bytes())),
            (Some(value), Operator::DefaultIfUnset(_) | Operator::Required(_)) => Ok(Cow::Borrowed(value.as_bytes())),
            (_, Operator::DefaultIfEmpty(default)) | (None, Operator::DefaultIfUnset(default)) => {
                Ok(Cow::Owned(self.text(default)?))
            }
            (value, Operator::Substring { offset, length }) => {
                Ok(Cow::Borrowed(substring(value.unwrap_or_default(), *offset, *length)))
            }
            (None, Operator::Required(message)) => {
                let message = readable(self.text(message)?);
                let message = if message.is_empty() { "not set".to_owned() } else { message };
                Err(Error::Required { name: name.to_owned(), message, at: place.start })
            }
        }
    }

    /// A default tells what the value will be like; without one the expansion stays as it is written.
    fn later(&mut self, name: &str, operator: &Operator<'_>, place: Range<usize>) -> Result<Cow<'a, [u8]>, Error> {
        match operator {
            Operator::DefaultIfEmpty(default) | Operator::DefaultIfUnset(default) if !default.is_empty() => {
                return Ok(Cow::Owned(self.text(default)?));
            }
            Operator::Required(_) => self.awaited.push((name.to_owned(), place.start)),
            Operator::Plain
            | Operator::DefaultIfEmpty(_)
            | Operator::DefaultIfUnset(_)
            | Operator::Substring { .. } => {}
        }
        Ok(Cow::Borrowed(self.source.as_bytes().get(place).unwrap_or_default()))
    }
}

/// Counted in bytes. Two parts of one character make it whole again where they meet.
fn substring(value: &str, offset: i64, length: Option<i64>) -> &[u8] {
    let whole = i64::try_from(value.len()).unwrap_or(i64::MAX);
    let start = if offset < 0 { whole.saturating_add(offset).max(0) } else { offset.min(whole) };
    let end = match length {
        None => whole,
        Some(length) if length < 0 => whole.saturating_add(length).max(start),
        Some(length) => start.saturating_add(length).min(whole),
    };
    let index = |at: i64| usize::try_from(at).unwrap_or(0);
    value.as_bytes().get(index(start)..index(end)).unwrap_or_default()
}

/// Text stays text: each byte that is part of no character becomes the replacement character.
fn readable(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| crate::condition::characters(error.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;

    struct Values(BTreeMap<String, String>, bool);

    impl Variables for Values {
        fn value(&self, name: &str) -> Option<&str> {
            self.0.get(name).map(String::as_str)
        }

        fn may_come_later(&self) -> bool {
            self.1
        }
    }

    fn values(pairs: &[(&str, &str)], open: bool) -> Values {
        Values(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(), open)
    }

    fn text(input: &str, values: &Values) -> Result<String, Error> {
        expand(input, values, 1 << 20).map(|expanded| expanded.text)
    }

    #[test]
    fn the_grammar_is_the_references() {
        let values = values(&[("A", "alpha"), ("EMPTY", ""), ("UNI", "héllo")], false);
        for (input, expected) in [
            ("$A ${A} $A.b $A_b|", "alpha alpha alpha.b |"),
            ("$$A \\$A \\\\$A $$$A $1 $", "$A $A \\\\alpha $alpha $1 $"),
            ("${NOPE:-x$A} ${EMPTY:-y} ${EMPTY-z}|", "xalpha y |"),
            ("${A:1:3} ${A: -2} ${A:0:-1} ${A:99} ${A: 1 : 2 }", "lph ha alph  lp"),
            ("$(echo $A) ${NOPE:-a}b}", "$(echo alpha) ab}"),
            ("${A:-${NOPE?never asked}}", "alpha"),
            ("${UNI:0:2}", "h\u{fffd}"),
            ("${UNI:0:2}${UNI:2}", "héllo"),
        ] {
            assert_eq!(text(input, &values).as_deref(), Ok(expected), "{input}");
        }
        for input in ["${A", "${A:x}", "${A+b}", "${A:?m}", "${}", "${_A}", "${NOPE?}", "${NOPE:-x"] {
            assert!(text(input, &values).is_err(), "{input}");
        }
    }

    #[test]
    fn what_may_come_later_stays_as_it_is_written() {
        let values = values(&[("A", "alpha")], true);
        let expanded = expand("$A $B ${C:-$A} ${D?must} ${E:1:2} $$F", &values, 1_000).unwrap();
        assert_eq!(expanded.text, "alpha $B alpha ${D?must} ${E:1:2} $F");
        assert_eq!(expanded.awaited, [("D".to_owned(), 15)]);
    }

    #[test]
    fn a_result_beyond_its_room_is_refused() {
        let values = values(&[("A", "0123456789")], false);
        assert!(expand("$A$A", &values, 20).is_ok());
        assert_eq!(expand("$A$A$A", &values, 20), Err(Error::TooLarge));
        assert_eq!(expand(&"$".repeat(2 * PIECES_MAX + 10), &values, 1 << 30), Err(Error::TooLarge));
        assert!(matches!(text(&"${N:-".repeat(1_000), &values), Err(Error::Syntax { .. })));
    }

    #[test]
    fn every_case_of_the_reference_corpus_holds() {
        let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
        let root = std::env::var_os("WINDLASS_CORPUS").map_or(default, PathBuf::from);
        let Ok(file) = std::fs::read_to_string(root.join("buildkite/interpolation_cases.json")) else {
            println!("skipped: the reference corpus is absent (set WINDLASS_CORPUS)");
            return;
        };
        let cases: serde_json::Value = serde_json::from_str(&file).unwrap();
        for case in cases.as_array().unwrap() {
            let env = case["env"].as_object().unwrap();
            let env = env.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
            let outcome = text(case["input"].as_str().unwrap(), &Values(env, false));
            match (case["output"].as_str(), case["error"].as_str()) {
                (Some(output), _) => assert_eq!(outcome.as_deref(), Ok(output), "{case}"),
                (None, Some(error)) if error.starts_with('$') => {
                    assert_eq!(outcome.unwrap_err().to_string(), error, "{case}");
                }
                (None, _) => assert!(outcome.is_err(), "{case}"),
            }
        }
        println!("{} cases of interpolation hold", cases.as_array().unwrap().len());
    }

    proptest! {
        #[test]
        fn text_without_dollars_and_backslashes_is_untouched(input in "[^$\\\\]{0,80}") {
            prop_assert_eq!(text(&input, &values(&[], false)), Ok(input));
        }

        #[test]
        fn doubled_dollars_come_out_single(input in "[a-z$]{0,40}") {
            let doubled = input.replace('$', "$$");
            prop_assert_eq!(text(&doubled, &values(&[], false)), Ok(input));
        }
    }
}
