//! Regular expressions of conditions (reference 15.2 and 15.5).
//!
//! The dialect is read and checked here, and written anew for the engine: what the dialect does not know is refused with
//! its place, and what the engine alone knows cannot slip through. Patterns without look-ahead and back-references run in
//! time linear in text and pattern; the others step back. Either way a match takes its cost from an [`Effort`].

mod class;
mod translate;

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use fancy_regex::{Regex, RegexBuilder};
use windlass_protocol::limits::{REGEX_EFFORT_MAX, REGEX_MAX_BYTES};

use super::error::{Error, ErrorKind};

/// What making a state of a pattern costs, in steps of a match: one may be a class of all letters.
const MAKE_STATE: usize = 1 << 15;

/// What the matches of some conditions may still cost together: states of a pattern times bytes of a text.
#[derive(Debug)]
pub(crate) struct Effort(Cell<usize>);

impl Effort {
    /// For so many matches of the most that one may cost.
    pub(crate) const fn for_matches(count: usize) -> Self {
        Self(Cell::new(REGEX_EFFORT_MAX.saturating_mul(count)))
    }

    /// What is left.
    pub(super) const fn left(&self) -> usize {
        self.0.get()
    }

    /// Takes that much; `false`, and nothing is left, if it is not there.
    pub(super) fn take(&self, cost: usize) -> bool {
        let left = self.0.get().checked_sub(cost);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// A regular expression as it is written, checked.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    source: String,
    flags: String,
    /// For the engine.
    translated: String,
    /// About.
    states: usize,
    /// Ready, if it runs in linear time. The others are made for the text that they meet.
    linear: Option<Regex>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        (&self.source, &self.flags) == (&other.source, &other.flags)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}", self.source, self.flags)
    }
}

impl Pattern {
    /// Reads what stands between the slashes, and the flags after them.
    pub(super) fn parse(
        source: &str,
        flags: &str,
        span: &Range<usize>,
        effort: Option<&Effort>,
    ) -> Result<Self, Error> {
        if let Some(unknown) = flags.chars().find(|flag| *flag != 'i') {
            let message = format!("`{unknown}` is no flag of a regular expression; `i` is the only one");
            return Err(Error::new(ErrorKind::Parse, message, span.clone()));
        }
        let translated = translate::translate(source, flags.contains('i')).map_err(|refused| {
            let at = span.start + 1 + refused.at;
            Error::new(ErrorKind::Parse, refused.message, at..(at + 1).min(span.end))
        })?;
        let cost = translated.states.saturating_mul(MAKE_STATE).min(REGEX_EFFORT_MAX);
        if effort.is_some_and(|effort| !effort.take(cost)) {
            return Err(Error::new(ErrorKind::Parse, "the regular expression takes too long to make", span.clone()));
        }
        // Also for those that are made again: what cannot be made is refused now.
        let made = build(&translated.pattern, 1)
            .map_err(|_| Error::new(ErrorKind::Parse, "the regular expression is too large", span.clone()))?;
        let linear = translated.linear.then_some(made);
        Ok(Self {
            source: source.to_owned(),
            flags: flags.to_owned(),
            translated: translated.pattern,
            states: translated.states,
            linear,
        })
    }

    /// Whether it matches anywhere in the text.
    pub(super) fn is_match(&self, text: &[u8], span: &Range<usize>, effort: &Effort) -> Result<bool, Error> {
        let too_long = || Error::new(ErrorKind::Evaluation, "the match takes too long", span.clone());
        let text = characters(text);
        let length = text.len().max(64);
        let cost = length.saturating_mul(self.states);
        if cost > REGEX_EFFORT_MAX || !effort.take(cost) {
            return Err(too_long());
        }
        let matched = match &self.linear {
            Some(regex) => regex.is_match(text.as_str()),
            None => {
                let steps = (REGEX_EFFORT_MAX / length).min(1_000_000);
                // What steps back is taken to do all of them.
                if !effort.take(REGEX_EFFORT_MAX / 16) {
                    return Err(too_long());
                }
                build(&self.translated, steps).and_then(|regex| regex.is_match(text.as_str()))
            }
        };
        matched.map_err(|_| too_long())
    }
}

fn build(pattern: &str, steps: usize) -> fancy_regex::Result<Regex> {
    RegexBuilder::new(pattern)
        .backtrack_limit(steps)
        .delegate_size_limit(REGEX_MAX_BYTES)
        .delegate_dfa_size_limit(REGEX_MAX_BYTES)
        .max_prog_size(REGEX_MAX_BYTES / 64)
        .build()
}

/// Bytes as characters: each that is none becomes the replacement character.
pub(crate) fn characters(mut bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    loop {
        match std::str::from_utf8(bytes) {
            Ok(rest) => {
                out.push_str(rest);
                return out;
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                out.push_str(&String::from_utf8_lossy(valid));
                out.push('\u{fffd}');
                bytes = &rest[1..];
            }
        }
    }
}
