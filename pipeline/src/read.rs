//! Values of a document as Rust values; what does not fit is a finding.

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, Findings, Severity, Span};
use crate::graph::Feature;
use crate::yaml::{Entry, Kind, Map, Node, NotText};

/// Reads values and keeps what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// What was found so far.
    pub(crate) findings: Findings,
    /// Texts may still hold variables that nobody knows yet: such a text fits everywhere.
    pub(crate) open: bool,
    /// What is read is decoded by upstream's agent: if it does not fit, the whole step is passed on as it is, with a warning.
    decoding: bool,
    /// Formats of fields that were met, and with how many they share their gate's room: each is tried once.
    pub(crate) formats: BTreeSet<(String, usize)>,
    /// Parts of the language that were met, and where.
    pub(crate) uses: Vec<(Feature, Span)>,
}

impl Reader {
    pub(crate) fn new(findings: Findings, open: bool) -> Self {
        Self { findings, open, decoding: false, formats: BTreeSet::new(), uses: Vec::new() }
    }

    /// Notes that the pipeline needs a part of the language served.
    pub(crate) fn uses(&mut self, feature: Feature, span: Span) {
        self.uses.push((feature, span));
    }

    /// Reads what upstream's agent decodes itself (reference 1.4, 3.2).
    pub(crate) fn decode<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.decoding, true);
        let value = read(self);
        self.decoding = outer;
        value
    }

    pub(crate) const fn is_decoding(&self) -> bool {
        self.decoding
    }

    /// Something that makes a step an unknown one: it may be passed on, as a check of a file does, and it cannot run.
    pub(crate) fn unrunnable(&mut self, diagnostic: Diagnostic) {
        let severity = if self.open { Severity::Warning } else { Severity::Error };
        self.findings.push(Diagnostic { severity, ..diagnostic });
    }

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
        let diagnostic = Diagnostic::error("wrong-type", node.span, message).maybe_hint(hint);
        if self.decoding {
            self.unrunnable(diagnostic);
        } else {
            self.findings.push(diagnostic);
        }
    }

    /// The mapping that must stand here; `None` where nothing does, or something else, which is told.
    pub(crate) fn mapping<'a>(&mut self, what: &str, expected: &str, node: &'a Node) -> Option<&'a Map> {
        match &node.kind {
            Kind::Map(map) => Some(map),
            Kind::Null => None,
            Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Unsigned(_)
            | Kind::Float(_)
            | Kind::Time(_)
            | Kind::Text(_)
            | Kind::List(_) => {
                self.wrong_type(what, expected, node);
                None
            }
        }
    }

    /// Whether the value will be known only when the pipeline runs.
    pub(crate) fn is_awaited(&self, node: &Node) -> bool {
        self.open && node.as_text().is_some_and(|text| text.contains('$'))
    }

    /// A text, or several. Nothing is none.
    pub(crate) fn texts(&mut self, what: &str, node: &Node) -> Vec<String> {
        match &node.kind {
            Kind::Null => Vec::new(),
            Kind::List(items) => items.iter().filter_map(|item| self.text(what, item)).collect(),
            Kind::Map(_) => {
                self.wrong_type(what, "text, or a list of texts", node);
                Vec::new()
            }
            Kind::Bool(_) | Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) | Kind::Text(_) => {
                self.text(what, node).into_iter().collect()
            }
        }
    }

    /// A mapping; anything else but nothing is told.
    pub(crate) fn map<'a>(&mut self, what: &str, expected: &str, node: &'a Node) -> Option<&'a Map> {
        if node.as_map().is_none() && !node.is_null() {
            self.wrong_type(what, expected, node);
        }
        node.as_map()
    }

    /// A list; anything else but nothing is told.
    pub(crate) fn list<'a>(&mut self, what: &str, expected: &str, node: &'a Node) -> &'a [Node] {
        if node.as_list().is_none() && !node.is_null() {
            self.wrong_type(what, expected, node);
        }
        node.as_list().unwrap_or_default()
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
                let message = format!("`{what}` is an integer that 63 bits cannot hold");
                let diagnostic = Diagnostic::error("wrong-type", node.span, message);
                let diagnostic = diagnostic.hint("put it in quotes to make it text");
                if self.decoding {
                    self.unrunnable(diagnostic);
                } else {
                    self.findings.push(diagnostic);
                }
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
}

/// A name in a message, cut where nobody reads on.
pub(crate) fn shown(name: &str) -> String {
    const SHOWN_MAX_CHARS: usize = 80;
    if name.chars().count() <= SHOWN_MAX_CHARS {
        return name.to_owned();
    }
    name.chars().take(SHOWN_MAX_CHARS).chain(['…']).collect()
}
