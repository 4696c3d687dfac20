//! The dialect, read by recursion and written for the engine.
//!
//! Everything literal is written as a number, so that no character means something to the engine by chance.

use std::fmt::Write as _;

use windlass_protocol::limits::{CONDITION_DEPTH_MAX, REGEX_REPEATS_MAX};

use super::class;

/// A pattern for the engine.
pub(super) struct Translated {
    pub(super) pattern: String,
    /// It has neither look-ahead nor back-references.
    pub(super) linear: bool,
    /// States of its automaton, about: what one byte of text may cost.
    pub(super) states: usize,
}

/// Why a text is no pattern of the dialect, and the byte at which that shows.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) message: String,
    pub(super) at: usize,
}

pub(super) fn translate(source: &str, ignore_case: bool) -> Result<Translated, Refused> {
    let mut reader = Reader {
        source,
        at: 0,
        out: String::new(),
        options: Options::default(),
        groups: groups(source),
        depth: 0,
        linear: true,
    };
    if ignore_case {
        reader.out.push_str("(?i)");
    }
    let extent = reader.alternatives()?;
    match reader.peek() {
        None => Ok(Translated { pattern: reader.out, linear: reader.linear, states: extent.states }),
        Some(_) => Err(reader.refused("a `)` closes nothing")),
    }
}

/// How many groups capture, as back-references need to know before they are read.
fn groups(source: &str) -> u32 {
    let bytes = source.as_bytes();
    let (mut groups, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'[' => at = class::end(source, at).unwrap_or(bytes.len()) - 1,
            b'(' if bytes.get(at + 1..at + 3) == Some(b"?#") => {
                at = source[at..].find(')').map_or(bytes.len(), |end| at + end);
            }
            b'(' if bytes.get(at + 1) != Some(&b'?') => groups += 1,
            _ => {}
        }
        at += 1;
    }
    groups
}

/// What `(?imsx)` switches and this reader must know; case is the engine's.
#[derive(Debug, Clone, Copy, Default)]
struct Options {
    lines: bool,
    extended: bool,
}

pub(super) struct Reader<'a> {
    pub(super) source: &'a str,
    pub(super) at: usize,
    pub(super) out: String,
    options: Options,
    groups: u32,
    depth: usize,
    linear: bool,
}

/// How large a part of a pattern is.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// How often something in it repeats by number, repetitions within it multiplied.
    repeats: u32,
    /// States of its automaton, about.
    states: usize,
}

impl Extent {
    const ONE: Self = Self { repeats: 1, states: 1 };

    /// Of two parts that stand side by side.
    const fn and(self, other: Self) -> Self {
        let repeats = if self.repeats < other.repeats { other.repeats } else { self.repeats };
        Self { repeats, states: self.states.saturating_add(other.states) }
    }
}

/// What stood before a quantifier.
enum Atom {
    /// Something of this extent.
    Whole(Extent),
    /// Comments, options: nothing that can be repeated.
    Nothing,
}

impl Reader<'_> {
    pub(super) fn refused(&self, message: impl Into<String>) -> Refused {
        Refused { message: message.into(), at: self.at.min(self.source.len()) }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.source[self.at..].chars().next()
    }

    pub(super) fn take(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    pub(super) fn accept(&mut self, prefix: &str) -> bool {
        let found = self.source[self.at..].starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    pub(super) fn literal(&mut self, character: char) {
        if character.is_alphanumeric() {
            self.out.push(character);
        } else {
            let _ = write!(self.out, "\\x{{{:X}}}", u32::from(character));
        }
    }

    pub(super) fn deeper(&mut self) -> Result<(), Refused> {
        self.depth += 1;
        if self.depth > CONDITION_DEPTH_MAX {
            return Err(self.refused(format!("groups are nested deeper than {CONDITION_DEPTH_MAX}")));
        }
        Ok(())
    }

    pub(super) const fn higher(&mut self) {
        self.depth -= 1;
    }

    fn alternatives(&mut self) -> Result<Extent, Refused> {
        let mut whole = self.sequence()?;
        while self.accept("|") {
            self.out.push('|');
            whole = whole.and(self.sequence()?);
        }
        Ok(whole)
    }

    fn sequence(&mut self) -> Result<Extent, Refused> {
        let mut whole = Extent::ONE;
        // An option in the middle holds for the rest of its group.
        loop {
            self.skip_extended();
            if matches!(self.peek(), None | Some('|' | ')')) {
                return Ok(whole);
            }
            let from = self.out.len();
            match self.atom()? {
                Atom::Whole(extent) => whole = whole.and(self.quantifier(extent, from)?),
                Atom::Nothing => {}
            }
        }
    }

    fn skip_extended(&mut self) {
        while self.options.extended {
            match self.peek() {
                Some(c) if c.is_whitespace() => self.at += c.len_utf8(),
                Some('#') => self.at += self.source[self.at..].find('\n').unwrap_or(self.source.len() - self.at),
                _ => return,
            }
        }
    }

    fn atom(&mut self) -> Result<Atom, Refused> {
        let begin = self.at;
        let Some(character) = self.take() else { return Ok(Atom::Nothing) };
        match character {
            '(' => return self.group(begin),
            '[' => class::read(self)?,
            '\\' => self.escape()?,
            '.' => self.out.push('.'),
            '^' => self.out.push_str(if self.options.lines { "^" } else { "\\A" }),
            '$' => self.out.push_str(if self.options.lines { "$" } else { "\\z" }),
            '*' | '+' | '?' => {
                self.at = begin;
                return Err(self.refused(format!("`{character}` has nothing before it to repeat")));
            }
            '{' if self.counts(begin).is_some() => {
                self.at = begin;
                return Err(self.refused("a repetition has nothing before it to repeat"));
            }
            other => self.literal(other),
        }
        Ok(Atom::Whole(Extent::ONE))
    }

    /// `{n}`, `{n,}`, `{n,m}` at a place, and the byte after it; anything else there is text.
    fn counts(&self, at: usize) -> Option<(&str, &str, usize)> {
        let rest = self.source[at..].strip_prefix('{')?;
        let (inner, _) = rest.split_once('}')?;
        let (least, most) = inner.split_once(',').unwrap_or((inner, inner));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        (!least.is_empty() && digits(least) && digits(most)).then_some((least, most, at + inner.len() + 2))
    }

    fn quantifier(&mut self, inner: Extent, from: usize) -> Result<Extent, Refused> {
        self.skip_extended();
        let begin = self.at;
        let (sign, times) = match self.peek() {
            Some(sign @ ('*' | '+' | '?')) => {
                self.at += 1;
                (sign.to_string(), 1)
            }
            Some('{') => match self.counts(begin) {
                Some((least, most, end)) => {
                    let counted = self.counted(least, most)?;
                    self.at = end;
                    counted
                }
                None => return Ok(inner),
            },
            _ => return Ok(inner),
        };
        let repeats = inner.repeats.checked_mul(times).filter(|repeats| *repeats <= REGEX_REPEATS_MAX);
        let Some(repeats) = repeats else {
            self.at = begin;
            return Err(self.refused(format!("what repeats more than {REGEX_REPEATS_MAX} times is not counted")));
        };
        if self.peek() == Some('+') {
            return Err(self.refused("possessive quantifiers are not known"));
        }
        let lazy = self.accept("?");
        if matches!(self.peek(), Some('*' | '+' | '?')) || self.counts(self.at).is_some() {
            return Err(self.refused("a quantifier has another one before it"));
        }
        // In a group of its own: an assertion, too, may stand before a quantifier.
        self.out.insert_str(from, "(?:");
        let _ = write!(self.out, "){sign}{}", if lazy { "?" } else { "" });
        Ok(Extent { repeats, states: inner.states.saturating_mul(usize::try_from(times).unwrap_or(usize::MAX)) })
    }

    fn counted(&self, least: &str, most: &str) -> Result<(String, u32), Refused> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number <= REGEX_REPEATS_MAX);
        let too_many = || self.refused(format!("what repeats more than {REGEX_REPEATS_MAX} times is not counted"));
        let least = number(least).ok_or_else(too_many)?;
        if most.is_empty() {
            return Ok((format!("{{{least},}}"), least.max(1)));
        }
        let most = number(most).ok_or_else(too_many)?;
        if most < least {
            return Err(self.refused(format!("a repetition of {least} to {most} times is upside down")));
        }
        Ok((format!("{{{least},{most}}}"), most.max(1)))
    }

    fn group(&mut self, begin: usize) -> Result<Atom, Refused> {
        const UNKNOWN: [(&str, &str); 7] = [
            ("?<=", "look-behind is not known"),
            ("?<!", "look-behind is not known"),
            ("?>", "atomic groups are not known"),
            ("?<", "named groups are not known"),
            ("?P<", "named groups are not known"),
            ("?'", "named groups are not known"),
            ("?(", "conditionals are not known"),
        ];
        let rest = &self.source[self.at..];
        if let Some((_, message)) = UNKNOWN.iter().find(|(prefix, _)| rest.starts_with(prefix)) {
            self.at = begin;
            return Err(self.refused(*message));
        }
        if self.accept("?#") {
            return match self.source[self.at..].find(')') {
                Some(end) => {
                    self.at += end + 1;
                    Ok(Atom::Nothing)
                }
                None => Err(self.refused("the comment has no end")),
            };
        }
        let options = self.options;
        if self.accept("?=") || self.accept("?!") {
            self.out.push_str(&self.source[self.at - 3..self.at]);
            self.linear = false;
        } else if self.accept("?") {
            self.switches()?;
            if self.accept(")") {
                // From here to the end of the group around it.
                self.out.push(')');
                return Ok(Atom::Nothing);
            }
            if !self.accept(":") {
                return Err(self.refused("there is no group of this kind"));
            }
            self.out.push(':');
        } else {
            self.out.push('(');
        }
        self.deeper()?;
        let extent = self.alternatives()?;
        self.higher();
        self.options = options;
        if !self.accept(")") {
            self.at = begin;
            return Err(self.refused("the `(` is not closed"));
        }
        self.out.push(')');
        Ok(Atom::Whole(extent))
    }

    /// `imsx-imsx` after `(?`; writes `(?` and those that the engine must know.
    fn switches(&mut self) -> Result<(), Refused> {
        self.out.push_str("(?");
        let mut on = true;
        let (mut set, mut unset) = (String::new(), String::new());
        loop {
            match self.peek() {
                Some('-') => on = false,
                Some('+') => on = true,
                Some('m') => self.options.lines = on,
                Some('x') => self.options.extended = on,
                Some('i' | 's') => {}
                _ => break,
            }
            if let Some(flag @ ('i' | 'm' | 's')) = self.take() {
                set.retain(|known| known != flag);
                unset.retain(|known| known != flag);
                if on { &mut set } else { &mut unset }.push(flag);
            }
        }
        self.out.push_str(&set);
        if !unset.is_empty() {
            let _ = write!(self.out, "-{unset}");
        }
        if set.is_empty() && unset.is_empty() && self.peek() == Some(')') {
            // The engine wants something to switch.
            self.out.push_str("-U");
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Refused> {
        let begin = self.at - 1;
        let Some(character) = self.peek() else { return Err(self.refused("nothing follows the backslash")) };
        match character {
            'w' | 'W' | 's' | 'S' | 'd' | 'D' | 'b' | 'B' | 'A' | 'z' => {
                self.at += 1;
                self.out.push('\\');
                self.out.push(character);
            }
            'G' => {
                self.at += 1;
                self.out.push_str("\\A");
            }
            'Z' => {
                self.at += 1;
                self.out.push_str("(?:\\x{A}?\\z)");
            }
            'p' | 'P' => {
                let property = class::property(self)?;
                self.out.push_str(&property);
            }
            'k' => self.named_reference(begin)?,
            '1'..='9' => self.reference(begin)?,
            _ => {
                let character = class::character(self)?;
                self.literal(character);
            }
        }
        Ok(())
    }

    fn reference(&mut self, begin: usize) -> Result<(), Refused> {
        let rest = &self.source[self.at..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u32 = rest[..digits].parse().unwrap_or(u32::MAX);
        if number > self.groups {
            if number <= 9 {
                self.at = begin;
                return Err(self.refused(format!("there is no group {number} to refer to")));
            }
            let character = class::character(self)?;
            self.literal(character);
            return Ok(());
        }
        self.at += digits;
        self.refer(number);
        Ok(())
    }

    fn named_reference(&mut self, begin: usize) -> Result<(), Refused> {
        let rest = &self.source[self.at + 1..];
        let inner = [('<', '>'), ('\'', '\'')]
            .into_iter()
            .find_map(|(open, close)| rest.strip_prefix(open)?.split_once(close).map(|(inner, _)| inner));
        match inner.and_then(|inner| Some((inner.len(), inner.parse::<u32>().ok()?))) {
            Some((width, number)) if (1..=self.groups).contains(&number) => {
                self.at += width + 3;
                self.refer(number);
                Ok(())
            }
            _ => {
                self.at = begin;
                Err(self.refused("there is no group of this name to refer to"))
            }
        }
    }

    fn refer(&mut self, group: u32) {
        let _ = write!(self.out, "(?:\\{group})");
        self.linear = false;
    }
}
