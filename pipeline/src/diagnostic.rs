//! What is wrong with a pipeline: where, why, and how to mend it.
//!
//! A diagnostic's code is stable and may be matched by programs; its message may be reworded. Values that came out of
//! the environment are never quoted (I6), only names, keys and what stands in the file.

use std::fmt::{self, Write as _};

use serde::Serialize;
use windlass_protocol::limits::PIPELINE_DIAGNOSTICS_MAX;

/// Bytes of a line in which a place is looked for; in longer ones, which no person wrote, the whole value is pointed at.
const SEARCHED_MAX_BYTES: usize = 16 << 10;

/// Findings after which no near names are looked for.
const HINTED_MAX: usize = 50;

/// Characters by which a place is looked for in the source.
const NEEDLE_MAX_CHARS: usize = 80;

/// Characters of a source line that are quoted around the caret.
const QUOTE_MAX_CHARS: usize = 120;

/// A place in a file: lines and columns from 1, columns in characters, the end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Span {
    /// Line of the first character.
    pub line: u32,
    /// Column of the first character.
    pub column: u32,
    /// Line of the character after the last.
    pub end_line: u32,
    /// Column of the character after the last.
    pub end_column: u32,
}

impl Span {
    /// The file's first character.
    pub const START: Self = Self { line: 1, column: 1, end_line: 1, end_column: 1 };

    /// The first character of a longer place.
    #[must_use]
    pub const fn first_of(whole: Self) -> Self {
        Self { end_line: whole.line, end_column: whole.column.saturating_add(1), ..whole }
    }
}

/// Whether a pipeline can run in spite of a diagnostic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot run.
    Error,
    /// It runs, perhaps otherwise than meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong with a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether it stops the pipeline.
    pub severity: Severity,
    /// Stable, kebab-case.
    pub code: &'static str,
    /// One sentence, without a full stop.
    pub message: String,
    /// How to mend it, where we would not only be guessing.
    pub hint: Option<String>,
    /// Where.
    #[serde(flatten)]
    pub span: Span,
}

impl Diagnostic {
    /// An error.
    #[must_use]
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, message: message.into(), hint: None, span }
    }

    /// A warning.
    #[must_use]
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, code, message: message.into(), hint: None, span }
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with advice, if there is any.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// Whether it stops the pipeline.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Text for people: `file:line:col: error: …`, the line with a caret under the place, a hint. Ends with a newline.
    #[must_use]
    pub fn render(&self, file: &str, source: &str) -> String {
        let Span { line, column, .. } = self.span;
        let mut text =
            format!("{file}:{line}:{column}: {}: {} [{}]\n", self.severity, printable(&self.message), self.code);
        if let Some(quoted) = line_of(source, line) {
            self.quote(&mut text, quoted);
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "  hint: {}", printable(hint));
        }
        text
    }

    fn quote(&self, text: &mut String, line: &str) {
        let number = self.span.line.to_string();
        let gutter = " ".repeat(number.len());
        let start = to_usize(self.span.column).saturating_sub(1);
        let length = line.chars().count();
        let end = if self.span.end_line == self.span.line {
            to_usize(self.span.end_column).saturating_sub(1)
        } else {
            length
        };
        let skipped = if start < QUOTE_MAX_CHARS { 0 } else { start - QUOTE_MAX_CHARS / 2 };
        let shown: String = line.chars().skip(skipped).take(QUOTE_MAX_CHARS).collect();
        let before = start - skipped;
        let visible = shown.chars().count();
        let carets = end.saturating_sub(start).clamp(1, visible.saturating_sub(before).max(1));
        let _ = writeln!(text, " {number} | {}", printable(shown.trim_end()));
        let _ = writeln!(text, " {gutter} | {}{}", " ".repeat(before), "^".repeat(carets));
    }
}

/// All of them as text for people, in order.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], file: &str, source: &str) -> String {
    diagnostics.iter().map(|diagnostic| diagnostic.render(file, source)).collect()
}

/// Diagnostics as they are found, in any order; what is said about one pipeline is bounded.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Diagnostic>,
    errors: usize,
    left_off: usize,
}

impl Findings {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.errors += usize::from(diagnostic.is_error());
        if self.list.len() < PIPELINE_DIAGNOSTICS_MAX {
            self.list.push(diagnostic);
        } else {
            self.left_off += 1;
        }
    }

    /// Whether there is still somebody to read a suggestion: looking for near names costs, and hostile files miss many.
    pub(crate) fn wants_hints(&self) -> bool {
        self.list.len() < HINTED_MAX
    }

    /// Whether what is found from now on is only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= PIPELINE_DIAGNOSTICS_MAX
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Sorted by place, without the repetitions that aliases bring about. An error among what was left off stays one.
    pub(crate) fn settle(mut self) -> Vec<Diagnostic> {
        let key = |it: &Diagnostic| (it.span, it.severity, it.code);
        self.list.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message)));
        self.list.dedup();
        if self.left_off > 0 {
            let end = self.list.last().map_or(Span::START, |last| last.span);
            let message = format!("{} more problems were found and are not shown", self.left_off);
            let severity = if self.errors > 0 { Severity::Error } else { Severity::Warning };
            self.list.push(Diagnostic { severity, ..Diagnostic::warning("too-many-problems", end, message) });
        }
        self.list
    }
}

/// Where the beginning of `needle`'s first line stands within a span, if it can be found in the source as it is.
pub(crate) fn locate(source: &str, span: Span, needle: &str) -> Option<Span> {
    let needle: String = needle.lines().next()?.chars().take(NEEDLE_MAX_CHARS).collect();
    let from = to_usize(span.line).checked_sub(1)?;
    let lines = to_usize(span.end_line).saturating_sub(from);
    for (number, line) in (span.line..).zip(source.split('\n').skip(from).take(lines)) {
        if line.len() > SEARCHED_MAX_BYTES {
            return None;
        }
        let skipped = if number == span.line { to_usize(span.column) - 1 } else { 0 };
        let begin = line.char_indices().nth(skipped).map_or(line.len(), |(at, _)| at);
        if let Some(found) = line[begin..].find(&needle) {
            let column = line[..begin + found].chars().count() + 1;
            let width = needle.chars().count();
            let column = u32::try_from(column).ok()?;
            let end_column = column.saturating_add(u32::try_from(width).ok()?);
            return Some(Span { line: number, column, end_line: number, end_column });
        }
    }
    None
}

fn line_of(source: &str, line: u32) -> Option<&str> {
    source.split('\n').nth(to_usize(line).checked_sub(1)?).map(|text| text.trim_end_matches('\r'))
}

/// One column per character, whatever the character is: a terminal must not be steered by a pipeline's text.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() || is_bidi(character) { ' ' } else { character }).collect()
}

const fn is_bidi(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32, column: u32, end_line: u32, end_column: u32) -> Span {
        Span { line, column, end_line, end_column }
    }

    #[test]
    fn a_diagnostic_quotes_its_line_and_points_at_the_place() {
        let source = "steps:\r\n\t- comand: \u{1b}[31mmake\r\n";
        let diagnostic = Diagnostic::error("unknown-step", at(2, 4, 2, 10), "no kind of step has these keys")
            .hint("did you mean `command`?");
        insta::assert_snapshot!(diagnostic.render("p.yml", source), @r"
        p.yml:2:4: error: no kind of step has these keys [unknown-step]
         2 |  - comand:  [31mmake
           |    ^^^^^^
          hint: did you mean `command`?
        ");
    }

    #[test]
    fn a_place_past_the_end_or_far_to_the_right_is_still_rendered() {
        let far = format!("{}x", " ".repeat(5_000));
        let rendered = Diagnostic::warning("w", at(1, 5_001, 3, 1), "far").render("p", &far);
        assert!(rendered.lines().all(|line| line.chars().count() < 200), "{rendered}");
        assert!(rendered.contains('x'));
        assert_eq!(Diagnostic::warning("w", at(99, 1, 99, 1), "gone").render("p", "a"), "p:99:1: warning: gone [w]\n");
        assert!(Diagnostic::warning("w", at(1, 40, 1, 41), "right of the text").render("p", "a").contains('^'));
    }
}
