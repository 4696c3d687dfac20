//! `if` and `branches`: whether a step is part of the build (reference 11.2, 15.1).

use super::{Condition, Named};
use crate::condition::{self, EntryPoint, Error};
use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::read::Reader;
use crate::yaml::{Entry, Map, Node};

/// A step's or a group's `if`, checked whole. Blank is as absent.
pub(super) fn of_step(reader: &mut Reader, map: &Map) -> Option<Condition> {
    let entry = map.get("if")?;
    let text = reader.text("if", &entry.value)?;
    if text.trim().is_empty() {
        return None;
    }
    let parsed = check(reader, &entry.value, &text, EntryPoint::BuildCondition);
    Some(Condition { parsed, source: Named { text, span: entry.value.span }, at: entry.value.clone() })
}

/// What conditions of notifications can name, and nobody knows yet: all of it needs the results of earlier builds.
const NOT_KNOWN: [&str; 4] =
    ["build.fixed", "pipeline.next_finished_build_exists", "pipeline.started_failing", "pipeline.started_passing"];

/// The `if` of an entry of `notify`: an error counts as false there, which nobody means.
pub(super) fn of_notification(reader: &mut Reader, entry: &Entry, point: EntryPoint) -> Option<String> {
    let text = reader.text("if", &entry.value)?;
    if text.trim().is_empty() {
        return None;
    }
    let parsed = check(reader, &entry.value, &text, point);
    let unknown = parsed.iter().flat_map(condition::Condition::names).find(|name| NOT_KNOWN.contains(name));
    if let Some(name) = unknown {
        let message = format!("`{name}` is not known to Windlass yet: it is null, so that the `if` may never hold");
        reader.warning("variable-not-known", entry.value.span, message);
    }
    Some(text)
}

fn check(reader: &mut Reader, at: &Node, text: &str, point: EntryPoint) -> Option<condition::Condition> {
    match condition::validate(text, point) {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            let step = matches!(point, EntryPoint::BuildCondition | EntryPoint::BuildConditionWithStep);
            // What an unknown variable will be may make it right.
            let severity = if step && !reader.is_awaited(at) { Severity::Error } else { Severity::Warning };
            let diagnostic = told("condition", at, text, &error);
            reader.findings.push(Diagnostic { severity, ..diagnostic });
            None
        }
    }
}

/// An error of an expression at its place in the file.
pub(crate) fn told(code: &'static str, at: &Node, text: &str, error: &Error) -> Diagnostic {
    let message = format!("the `if` cannot be decided: {error}");
    Diagnostic::error(code, part(at.span, text, error.span.start, error.span.end), message)
        .maybe_hint(error.hint.clone())
}

/// Bytes of a text as a place in the file, where the text stands there as it is.
fn part(whole: Span, text: &str, start: usize, end: usize) -> Span {
    let columns = |upto: usize| {
        let upto = (0..=upto.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        u32::try_from(text[..upto].chars().count()).unwrap_or(u32::MAX)
    };
    let width = whole.end_column.saturating_sub(whole.column);
    let quotes = width.wrapping_sub(columns(text.len()));
    if whole.line != whole.end_line || text.contains('\n') || !matches!(quotes, 0 | 2) {
        return whole;
    }
    let from = whole.column + quotes / 2;
    let (begin, end) = (columns(start), columns(end.max(start + 1)));
    if begin >= columns(text.len()) {
        return whole;
    }
    Span { column: from + begin, end_column: from + end.max(begin + 1), ..whole }
}

/// Patterns of branches; none is all.
pub(super) fn branches(reader: &mut Reader, map: &Map) -> Option<Vec<String>> {
    let entry = map.get("branches")?;
    let patterns = match entry.value.as_text() {
        Some(text) => text.split_whitespace().map(str::to_owned).collect(),
        None => reader.texts("branches", &entry.value),
    };
    if patterns.is_empty() {
        return None;
    }
    if let Some(other) = map.get("if").filter(|other| !other.value.is_null()) {
        let diagnostic = Diagnostic::warning(
            "branches-and-if",
            entry.key_span,
            "`branches` and `if` stand together: both must hold",
        );
        let line = other.key_span.line;
        reader.findings.push(diagnostic.hint(format!("write `build.branch` into the `if` on line {line} instead")));
    }
    Some(patterns)
}
