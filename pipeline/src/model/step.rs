//! Which kind a step is (reference 3), and what steps of every kind have.

use windlass_protocol::limits::{NAME_MAX_BYTES, SKIP_REASON_MAX_CHARS};

use super::{Named, Step, StepKind, attribute, command, depends};
use crate::diagnostic::{Diagnostic, Span};
use crate::read::{Reader, shown};
use crate::suggest::did_you_mean;
use crate::yaml::{Entry, Kind, Map, Node};

/// What a step's keys, or its `type`, say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inferred {
    Command,
    Wait,
    /// Known and not served yet, by the word that is written.
    Unserved(&'static str),
}

/// Words that make a step's kind, in the order in which they are looked for.
const KINDS: [(&str, Inferred); 11] = [
    ("command", Inferred::Command),
    ("commands", Inferred::Command),
    ("plugins", Inferred::Command),
    ("wait", Inferred::Wait),
    ("waiter", Inferred::Wait),
    ("block", Inferred::Unserved("block")),
    ("input", Inferred::Unserved("input")),
    ("manual", Inferred::Unserved("block")),
    ("trigger", Inferred::Unserved("trigger")),
    ("group", Inferred::Unserved("group")),
    ("script", Inferred::Command),
];

/// Reads all steps of a list, those within groups too.
pub(super) fn read_all(reader: &mut Reader, items: &[Node]) -> Vec<Step> {
    let mut steps = Vec::new();
    for item in items {
        read(reader, item, &mut steps);
    }
    steps
}

fn read(reader: &mut Reader, node: &Node, steps: &mut Vec<Step>) {
    match &node.kind {
        Kind::Text(word) => steps.extend(scalar(reader, node, word)),
        Kind::Map(map) => mapping(reader, node, map, steps),
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::List(_) => {
            let message =
                format!("a step is a mapping or one of the words `wait`, `block`, `input`, not {}", node.kind_name());
            reader.error("wrong-type", node.span, message);
        }
    }
}

fn scalar(reader: &mut Reader, node: &Node, word: &str) -> Option<Step> {
    match word {
        "wait" | "waiter" => Some(bare(node.span, StepKind::Wait { continue_on_failure: false })),
        "block" | "manual" | "input" => {
            not_served(reader, node.span, if word == "input" { "input" } else { "block" });
            Some(bare(node.span, StepKind::Unserved))
        }
        _ => {
            let message = format!("`{}` is not a step", shown(word));
            let hint = did_you_mean(word, ["wait", "waiter", "block", "input", "manual"])
                .unwrap_or_else(|| "write `command: …` to run something".to_owned());
            reader.findings.push(Diagnostic::error("unknown-step", node.span, message).hint(hint));
            None
        }
    }
}

fn bare(span: Span, kind: StepKind) -> Step {
    Step { span, key: None, label: None, depends_on: None, allow_dependency_failure: false, skip: None, kind }
}

fn mapping(reader: &mut Reader, node: &Node, outer: &Map, steps: &mut Vec<Step>) {
    let nested = nested(outer);
    let map = nested.map_or(outer, |(_, inner)| inner);
    let span = map.iter().next().map_or(Span::first_of(node.span), |entry| entry.key_span);
    let kind = match nested {
        Some((kind, _)) => Some(kind),
        None => infer(reader, span, map),
    };
    let Some(kind) = kind else { return };
    let kind = match kind {
        Inferred::Command => {
            attribute::check_step(reader, "a command step", map, attribute::COMMAND);
            only_command(reader, map);
            StepKind::Command(Box::new(command::read(reader, span, map)))
        }
        Inferred::Wait => {
            attribute::check_step(reader, "a wait step", map, attribute::WAIT);
            let continues = map.get("continue_on_failure").and_then(|entry| reader.flag(entry));
            StepKind::Wait { continue_on_failure: continues.unwrap_or(false) }
        }
        Inferred::Unserved(word) => {
            not_served(reader, span, word);
            StepKind::Unserved
        }
    };
    let label = match kind {
        StepKind::Wait { .. } => ["label", "name", "wait", "waiter"].as_slice(),
        StepKind::Command(_) | StepKind::Unserved => &["label", "name"],
    };
    steps.push(Step {
        span,
        key: key(reader, map),
        label: first(reader, map, label).and_then(|entry| label_of(reader, entry)),
        depends_on: map.get("depends_on").and_then(|entry| depends::read(reader, entry)),
        allow_dependency_failure: map
            .get("allow_dependency_failure")
            .and_then(|entry| reader.flag(entry))
            .unwrap_or(false),
        skip: map.get("skip").and_then(|entry| skip(reader, entry)),
        kind,
    });
    if let Some(Entry { value: Node { kind: Kind::List(children), .. }, .. }) = map.get("steps") {
        // A group's children: refused with it, and yet read, so that all that is wrong is told at once.
        for child in children.iter().filter(|child| child.as_map().is_none_or(|map| map.get("group").is_none())) {
            read(reader, child, steps);
        }
    }
}

/// A command wins over a gate in the same step (reference 3.2), but who wrote the gate wanted to be asked.
fn only_command(reader: &mut Reader, map: &Map) {
    for (word, kind) in KINDS {
        if let (Inferred::Unserved(_) | Inferred::Wait, Some(entry)) = (kind, map.get(word)) {
            let message = format!("a step is one thing: this one has a command and `{word}`");
            reader.findings.push(Diagnostic::error("two-kinds", entry.key_span, message).hint("make two steps of it"));
        }
    }
}

/// `{K: mapping}` and nothing else: the inner mapping is the step, of the kind that `K` says.
fn nested(map: &Map) -> Option<(Inferred, &Map)> {
    let entry = map.iter().next().filter(|_| map.len() == 1)?;
    let inner = entry.value.as_map()?;
    let (word, kind) = KINDS.iter().find(|(word, _)| *word == entry.key)?;
    (!matches!(*word, "plugins" | "group")).then_some((*kind, inner))
}

fn infer(reader: &mut Reader, span: Span, map: &Map) -> Option<Inferred> {
    if let Some(entry) = map.get("type") {
        return by_type(reader, entry);
    }
    if let Some((_, kind)) = KINDS.iter().find(|(word, _)| map.get(word).is_some()) {
        return Some(*kind);
    }
    if map.iter().any(|entry| attribute::COMMAND.contains(&entry.key.as_str()) || entry.key == "if_changed") {
        return Some(Inferred::Command);
    }
    let hint = map
        .iter()
        .find_map(|entry| did_you_mean(&entry.key, KINDS.iter().map(|(word, _)| *word)))
        .unwrap_or_else(|| "a step has one of `command`, `wait`, `block`, `input`, `trigger`, `group`".to_owned());
    let message = "no kind of step has these keys";
    reader.findings.push(Diagnostic::error("unknown-step", span, message).hint(hint));
    None
}

fn by_type(reader: &mut Reader, entry: &Entry) -> Option<Inferred> {
    let Some(word) = entry.value.as_text() else {
        reader.wrong_type("type", "text", &entry.value);
        return None;
    };
    let kind = KINDS.iter().find(|(name, _)| *name == word && word != "plugins").map(|(_, kind)| *kind);
    if kind.is_none() {
        let hint = did_you_mean(word, KINDS.iter().map(|(word, _)| *word));
        let message = format!("`{}` is not a kind of step", shown(word));
        reader.findings.push(Diagnostic::error("unknown-step", entry.value.span, message).maybe_hint(hint));
    }
    kind
}

fn not_served(reader: &mut Reader, span: Span, word: &str) {
    let message = format!("steps of kind `{word}` are not served yet");
    reader
        .findings
        .push(Diagnostic::error("not-served", span, message).hint("nothing runs: running past it could do harm"));
}

/// The first of several names of one attribute; a second one is told.
pub(super) fn first<'a>(reader: &mut Reader, map: &'a Map, names: &[&str]) -> Option<&'a Entry> {
    let mut given = names.iter().filter_map(|name| map.get(name));
    let winner = given.next()?;
    for loser in given.filter(|entry| !entry.value.is_null()) {
        let message = format!("`{}` is ignored, since `{}` is given", loser.key, winner.key);
        reader.warning("second-name", loser.key_span, message);
    }
    Some(winner)
}

fn key(reader: &mut Reader, map: &Map) -> Option<Named> {
    let entry = first(reader, map, &["key", "id", "identifier"])?;
    if entry.value.is_null() {
        return None;
    }
    let text = reader.text(&entry.key, &entry.value)?;
    Some(Named { text, span: entry.value.span })
}

fn label_of(reader: &mut Reader, entry: &Entry) -> Option<String> {
    // `wait: {…}` beside other keys is not the nested form; what is wrong is said where the attributes are checked.
    let text = reader.text(&entry.key, &entry.value)?;
    Some(text).filter(|text| !text.is_empty())
}

/// Only `false`, nothing and the empty text mean no (reference 4).
fn skip(reader: &mut Reader, entry: &Entry) -> Option<String> {
    match &entry.value.kind {
        Kind::Null | Kind::Bool(false) => None,
        Kind::Bool(true) => Some("skipped by the pipeline".to_owned()),
        Kind::Text(reason) if reason.is_empty() => None,
        Kind::Text(reason) => {
            let length = reason.chars().count();
            if length > SKIP_REASON_MAX_CHARS {
                let message = format!("a reason to skip has at most {SKIP_REASON_MAX_CHARS} characters, not {length}");
                reader.error("too-long", entry.value.span, message);
            }
            Some(reason.clone())
        }
        Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) | Kind::List(_) | Kind::Map(_) => {
            reader.wrong_type("skip", "`true`, `false` or a reason", &entry.value);
            None
        }
    }
}

/// A queue's, zone's or tag's name.
pub(super) fn name(reader: &mut Reader, what: &str, node: &Node) -> Option<String> {
    reader.name(what, node, NAME_MAX_BYTES)
}
