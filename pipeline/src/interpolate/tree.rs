//! What of a document is interpolated, and in which order (reference 14.2).

use std::collections::{BTreeMap, BTreeSet};

use super::{Error, Variables, expand};
use crate::diagnostic::{Diagnostic, Findings, Span, locate};
use crate::normal::is_command;
use crate::yaml::{Entry, Kind, Map, Node};

/// What `checkout` knows by name, and leaves as it is written (reference 11.7).
const CHECKOUT: [&str; 8] =
    ["skip", "submodules", "lfs", "depth", "flags", "sparse", "ssh_secret", "commit_verification"];

/// What expansions see: the build's variables, then those of the `env` blocks so far.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    values: BTreeMap<String, String>,
    /// More variables may be set when the pipeline runs.
    open: bool,
    /// What is known already wins over an `env` block.
    prefer_known: bool,
}

impl Environment {
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a (String, String)>, open: bool) -> Self {
        Self { values: values.into_iter().cloned().collect(), open, prefer_known: false }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.open
    }

    pub(crate) const fn prefer_known(&mut self, prefer: bool) {
        self.prefer_known = prefer;
    }

    fn set(&mut self, name: &str, value: String) {
        if !(self.prefer_known && self.values.contains_key(name)) {
            self.values.insert(name.to_owned(), value);
        }
    }
}

impl Variables for Environment {
    fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn may_come_later(&self) -> bool {
        self.open
    }
}

/// One walk over one document.
pub(crate) struct Walk<'a> {
    /// The file's text, to point into.
    pub(crate) source: &'a str,
    /// Grows with the document's `env`, and stays for later documents.
    pub(crate) environment: &'a mut Environment,
    /// Bytes that may still come of expansions, over all documents.
    pub(crate) room: &'a mut usize,
    /// What is wrong.
    pub(crate) findings: &'a mut Findings,
}

impl Walk<'_> {
    /// Expands the document in place. Where that fails the text stays as it was, and the failure is a finding.
    pub(crate) fn document(&mut self, document: &mut Node) {
        match &mut document.kind {
            Kind::Map(map) => {
                self.env_block(map);
                self.keys(map, &["env"]);
                for entry in map.entries_mut() {
                    match entry.key.as_str() {
                        "env" => {}
                        "secrets" | "signature" => {}
                        "steps" => self.steps(&mut entry.value),
                        "checkout" => self.checkout(&mut entry.value),
                        _ => self.everything(&mut entry.value),
                    }
                }
            }
            Kind::List(_) => self.steps(document),
            Kind::Null
            | Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Unsigned(_)
            | Kind::Float(_)
            | Kind::Time(_)
            | Kind::Text(_) => {}
        }
    }

    /// Entry by entry in the file's order: later entries and the rest of the document see earlier ones.
    fn env_block(&mut self, map: &mut Map) {
        let Some(env) = map.entries_mut().iter_mut().find(|entry| entry.key == "env") else { return };
        let Kind::Map(variables) = &mut env.value.kind else { return };
        let mut renamed = Renames::default();
        for (index, entry) in variables.entries_mut().iter_mut().enumerate() {
            if renamed.taken.contains_key(&entry.key) {
                // An earlier one has become equal to it, and taken its place.
                continue;
            }
            let before = entry.key.clone();
            self.text(&mut entry.key, entry.key_span);
            renamed.note(index, &before, &entry.key);
            self.everything(&mut entry.value);
            if let Ok(value) = entry.value.natural() {
                self.environment.set(&entry.key, value);
            }
        }
        renamed.settle(variables);
    }

    fn steps(&mut self, steps: &mut Node) {
        let Kind::List(items) = &mut steps.kind else { return self.everything(steps) };
        for item in items {
            let Kind::Map(step) = &mut item.kind else {
                self.everything(item);
                continue;
            };
            // Asked before its keys are expanded: that is when a step gets its kind.
            let excepted = ["secrets", "signature", "checkout"].iter().any(|key| step.get(key).is_some());
            let is_command = excepted && is_command(step);
            self.keys(step, &[]);
            for entry in step.entries_mut() {
                match entry.key.as_str() {
                    "secrets" | "signature" if is_command => {}
                    "checkout" if is_command => self.checkout(&mut entry.value),
                    "steps" => self.steps(&mut entry.value),
                    _ => self.everything(&mut entry.value),
                }
            }
        }
    }

    fn checkout(&mut self, node: &mut Node) {
        let Kind::Map(map) = &mut node.kind else { return };
        self.keys(map, &CHECKOUT);
        for entry in map.entries_mut().iter_mut().filter(|entry| !CHECKOUT.contains(&entry.key.as_str())) {
            self.everything(&mut entry.value);
        }
    }

    /// Every string in there, keys too. Recursion ends at `PIPELINE_DEPTH_MAX`.
    fn everything(&mut self, node: &mut Node) {
        match &mut node.kind {
            Kind::Text(text) => self.text(text, node.span),
            Kind::List(items) => items.iter_mut().for_each(|item| self.everything(item)),
            Kind::Map(map) => {
                self.keys(map, &[]);
                for entry in map.entries_mut() {
                    self.everything(&mut entry.value);
                }
            }
            Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) => {}
        }
    }

    fn keys(&mut self, map: &mut Map, but: &[&str]) {
        let mut renamed = Renames::default();
        for (index, entry) in map.entries_mut().iter_mut().enumerate() {
            if entry.key.contains(['$', '\\']) && !but.contains(&entry.key.as_str()) {
                let before = entry.key.clone();
                self.text(&mut entry.key, entry.key_span);
                renamed.note(index, &before, &entry.key);
            }
        }
        renamed.settle(map);
    }

    fn text(&mut self, text: &mut String, span: Span) {
        if !text.contains(['$', '\\']) {
            return;
        }
        match expand(text, self.environment, *self.room) {
            Ok(expanded) => {
                for (name, at) in expanded.awaited {
                    let message = format!("the variable `{name}` must be set when this runs");
                    self.findings.push(Diagnostic::warning("required-variable", self.place(text, at, span), message));
                }
                *self.room = self.room.saturating_sub(expanded.text.len());
                *text = expanded.text;
            }
            Err(error) => {
                if let Error::TooLarge = error {
                    // Told once for each text, and tried no further.
                    *self.room = 0;
                }
                let finding = self.refusal(text, span, &error);
                self.findings.push(finding);
            }
        }
    }

    fn refusal(&self, text: &str, span: Span, error: &Error) -> Diagnostic {
        match error {
            Error::Required { at, name, .. } => {
                Diagnostic::error("required-variable", self.place(text, *at, span), error.to_string())
                    .hint(format!("set `{name}` for the build, or write a default: `${{{name}:-…}}`"))
            }
            Error::Syntax { at, .. } => {
                Diagnostic::error("interpolation-syntax", self.place(text, *at, span), error.to_string())
                    .hint("write `$$` for a `$` that the shell should see")
            }
            Error::TooLarge => Diagnostic::error("too-large", span, "more text comes of its variables than is allowed"),
        }
    }

    fn place(&self, text: &str, at: usize, span: Span) -> Span {
        if self.findings.is_full() {
            return span;
        }
        let rest = text.get(at..).unwrap_or_default();
        let end = rest.find('}').map_or(rest.len(), |end| end + 1);
        locate(self.source, span, &rest[..end]).unwrap_or(span)
    }
}

/// A key that becomes equal to another one takes its place (reference 14.2, 6).
#[derive(Default)]
struct Renames {
    /// New name and the index of the last entry that took it.
    taken: BTreeMap<String, usize>,
}

impl Renames {
    fn note(&mut self, index: usize, before: &str, after: &str) {
        if before != after {
            self.taken.insert(after.to_owned(), index);
        }
    }

    fn settle(&self, map: &mut Map) {
        if self.taken.is_empty() {
            return;
        }
        let mut index = 0;
        let mut seen = BTreeSet::new();
        map.entries_mut().retain(|entry: &Entry| {
            let mine = self.taken.get(&entry.key).is_none_or(|winner| *winner == index);
            index += 1;
            mine && seen.insert(entry.key.clone())
        });
    }
}
