//! `if_changed` as an upload decides it (reference 11.1): of command, trigger and group steps, and gone afterwards.

use crate::decide::{CHANGED_LOOKS_MAX, TOO_MANY_LOOKS, UNCHANGED};
use crate::diagnostic::{Diagnostic, Findings, Severity};
use crate::model::if_changed;
use crate::read::Reader;
use crate::yaml::{Entry, Kind, Map, Node};

const ATTRIBUTE: &str = "if_changed";

/// What is known of the files that have changed.
#[derive(Debug, Clone, Copy)]
pub enum Changed<'a> {
    /// These, by their paths in the repository.
    Files(&'a [String]),
    /// Nothing, or nobody asks: every step runs.
    Unknown,
}

/// Whether a step of a document waits for files to change.
#[must_use]
pub fn has_if_changed(document: &Node) -> bool {
    let in_step = |step: &Node| step.as_map().is_some_and(|map| map.get(ATTRIBUTE).is_some()) || has_if_changed(step);
    let steps = document.as_map().and_then(|map| map.get("steps")).and_then(|entry| entry.value.as_list());
    steps.unwrap_or_default().iter().any(in_step)
}

/// Decides each `if_changed` of a normal form, and takes it away. What is not understood is told, and its step runs.
pub fn apply_if_changed(document: &mut Node, changed: Changed<'_>) -> Vec<Diagnostic> {
    let mut applying = Applying { changed, left: CHANGED_LOOKS_MAX, warnings: Vec::new() };
    applying.steps(document);
    applying.warnings
}

/// A document on its way.
struct Applying<'a> {
    changed: Changed<'a>,
    /// What the matches may still cost.
    left: u64,
    warnings: Vec<Diagnostic>,
}

impl Applying<'_> {
    /// Recursion ends at `PIPELINE_DEPTH_MAX`.
    fn steps(&mut self, node: &mut Node) {
        let Kind::Map(map) = &mut node.kind else { return };
        let list = map.entries_mut().iter_mut().find(|entry| entry.key == "steps");
        let Some(Entry { value: Node { kind: Kind::List(items), .. }, .. }) = list else { return };
        for item in items {
            if let Kind::Map(step) = &mut item.kind {
                self.decide(step);
            }
            self.steps(item);
        }
    }

    fn decide(&mut self, step: &mut Map) {
        let Some(at) = step.iter().position(|entry| entry.key == ATTRIBUTE) else { return };
        let entry = step.entries_mut().remove(at);
        let gate = ["wait", "waiter", "block", "input", "manual"].iter().any(|key| step.get(key).is_some());
        let Changed::Files(files) = self.changed else { return };
        if gate && !crate::normal::is_command(step) {
            return;
        }
        let mut reader = Reader::new(Findings::default(), false);
        let condition = if_changed(&mut reader, &entry);
        let told = reader.findings.settle().into_iter();
        self.warnings.extend(told.map(|found| Diagnostic { severity: Severity::Warning, ..found }));
        let matches = condition.map(|condition| condition.matches(files, &mut self.left));
        if matches == Some(None) {
            self.left = 0;
            self.warnings.push(Diagnostic::warning("if-changed-unknown", entry.key_span, TOO_MANY_LOOKS));
        }
        if matches == Some(Some(false)) {
            let value = Node { span: entry.value.span, kind: Kind::Text(UNCHANGED.to_owned()) };
            match step.entries_mut().iter_mut().find(|entry| entry.key == "skip") {
                Some(skip) => skip.value = value,
                None => step.entries_mut().push(Entry { key: "skip".to_owned(), key_span: entry.key_span, value }),
            }
        }
    }
}
