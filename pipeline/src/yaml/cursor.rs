//! Where quoted scalars really end.

use saphyr_parser::{ScalarStyle, Span as Place};

use super::compose::span;
use crate::diagnostic::Span;

/// A place in the text that only moves on, so that all look-ups together cost one walk.
#[derive(Default)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
    index: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { rest: text, index: 0 }
    }

    /// A scalar's place. The scanner lets quoted ones end with the white space and the comment after them.
    pub(super) fn scalar_span(&mut self, place: Place, style: ScalarStyle) -> Span {
        let whole = span(place);
        let quote = match style {
            ScalarStyle::SingleQuoted => '\'',
            ScalarStyle::DoubleQuoted => '"',
            ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => return whole,
        };
        while self.index < place.start.index() {
            let mut characters = self.rest.chars();
            if characters.next().is_none() {
                return whole;
            }
            self.rest = characters.as_str();
            self.index += 1;
        }
        match quoted_width(self.rest, quote).and_then(|width| u32::try_from(width).ok()) {
            Some(width) => Span { end_line: whole.line, end_column: whole.column.saturating_add(width), ..whole },
            None => whole,
        }
    }
}

/// Characters from a quote to the one that closes it; `None` if that is on another line.
fn quoted_width(text: &str, quote: char) -> Option<usize> {
    let mut characters = text.chars().enumerate().peekable();
    characters.next().filter(|(_, first)| *first == quote)?;
    while let Some((at, character)) = characters.next() {
        let doubled = quote == '\'' && characters.peek().is_some_and(|(_, next)| *next == quote);
        if matches!(character, '\n' | '\r') {
            return None;
        }
        if (character == '\\' && quote == '"') || (character == quote && doubled) {
            characters.next();
        } else if character == quote {
            return Some(at + 1);
        }
    }
    None
}
