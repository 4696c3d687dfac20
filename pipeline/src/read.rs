//! Values of a document as Rust values; what does not fit is a finding.

use crate::diagnostic::{Diagnostic, Findings, Span};
use crate::suggest::did_you_mean;
use crate::yaml::{Entry, Kind, Node, NotText};

/// Reads values and keeps what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// What was found so far.
    pub(crate) findings: Findings,
    /// Texts may still hold variables that nobody knows yet: such a text fits everywhere.
    pub(crate) open: bool,
}

impl Reader {
    pub(crate) fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.findings.push(Diagnostic::error(code, span, message));
    }

    pub(crate) fn warning(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.findings.push(Diagnostic::warning(code, span, message));
    }

    /// `expected` begins with its article: "a boolean".
    pub(crate) fn wrong_type(&mut self, what: &str, expected: &str, node: &Node) {
        if self.is_awaited(node) {
            return;
        }
        let message = format!("`{what}` must be {expected}, but {} stands here", node.kind_name());
        let hint = matches!(node.kind, Kind::Time(_)).then(|| "put it in quotes to make it text".to_owned());
        self.findings.push(Diagnostic::error("wrong-type", node.span, message).maybe_hint(hint));
    }

    /// Whether the value will be known only when the pipeline runs.
    pub(crate) fn is_awaited(&self, node: &Node) -> bool {
        self.open && node.as_text().is_some_and(|text| text.contains('$'))
    }

    /// A scalar in its natural form.
    pub(crate) fn text(&mut self, what: &str, node: &Node) -> Option<String> {
        match node.natural() {
            Ok(text) => Some(text),
            Err(NotText::Composite | NotText::Date) => {
                self.wrong_type(what, "text", node);
                None
            }
            Err(NotText::TooLarge) => {
                self.findings.push(
                    Diagnostic::error(
                        "wrong-type",
                        node.span,
                        format!("`{what}` is an integer that 63 bits cannot hold"),
                    )
                    .hint("put it in quotes to make it text"),
                );
                None
            }
        }
    }

    /// A text that is not empty, at most so long.
    pub(crate) fn name(&mut self, what: &str, node: &Node, max_bytes: usize) -> Option<String> {
        let text = self.text(what, node)?;
        if text.is_empty() {
            self.error("empty-value", node.span, format!("`{what}` is empty"));
            return None;
        }
        if text.len() > max_bytes {
            self.error("too-long", node.span, format!("`{what}` has {} bytes; {max_bytes} are the most", text.len()));
            return None;
        }
        Some(text)
    }

    /// `true`, `false`, or either in quotes (reference 1.4). Null is `false`.
    pub(crate) fn flag(&mut self, entry: &Entry) -> Option<bool> {
        match &entry.value.kind {
            Kind::Bool(value) => Some(*value),
            Kind::Null => Some(false),
            Kind::Text(text) if text == "true" => Some(true),
            Kind::Text(text) if text == "false" => Some(false),
            Kind::Text(_)
            | Kind::Int(_)
            | Kind::Unsigned(_)
            | Kind::Float(_)
            | Kind::Time(_)
            | Kind::List(_)
            | Kind::Map(_) => {
                self.wrong_type(&entry.key, "`true` or `false`", &entry.value);
                None
            }
        }
    }

    /// An integer, or one in quotes, within bounds.
    pub(crate) fn integer(&mut self, what: &str, node: &Node, least: i64, most: i64) -> Option<i64> {
        let value = match &node.kind {
            Kind::Int(value) => Some(*value),
            Kind::Text(text) => text.trim().parse().ok(),
            Kind::Null
            | Kind::Bool(_)
            | Kind::Unsigned(_)
            | Kind::Float(_)
            | Kind::Time(_)
            | Kind::List(_)
            | Kind::Map(_) => None,
        };
        let Some(value) = value else {
            self.wrong_type(what, "an integer", node);
            return None;
        };
        if value < least || value > most {
            let range = if most == i64::MAX { format!("at least {least}") } else { format!("from {least} to {most}") };
            self.error("out-of-range", node.span, format!("`{what}` must be {range}"));
            return None;
        }
        Some(value)
    }

    /// Says of each entry that none of `known` names it.
    pub(crate) fn unknown_keys<'a>(&mut self, of: &str, entries: impl IntoIterator<Item = &'a Entry>, known: &[&str]) {
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let hint = did_you_mean(&entry.key, known.iter().copied());
                let message = format!("`{}` is not known in {of}; it is ignored", shown(&entry.key));
                self.findings.push(Diagnostic::warning("unknown-key", entry.key_span, message).maybe_hint(hint));
            }
        }
    }
}

/// A name in a message, cut where nobody reads on.
pub(crate) fn shown(name: &str) -> String {
    const SHOWN_MAX_CHARS: usize = 80;
    if name.chars().count() <= SHOWN_MAX_CHARS {
        return name.to_owned();
    }
    name.chars().take(SHOWN_MAX_CHARS).chain(['…']).collect()
}
