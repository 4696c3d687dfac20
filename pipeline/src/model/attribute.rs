//! Which attributes there are, and what is said about those that are not served, not known or misspelt.

use crate::diagnostic::Diagnostic;
use crate::read::{Reader, shown};
use crate::suggest::nearest;
use crate::yaml::{Entry, Kind, Map, Node};

/// Served on command steps.
pub(super) const COMMAND: &[&str] = &[
    "agent_query_rules",
    "agents",
    "allow_dependency_failure",
    "command",
    "commands",
    "depends_on",
    "env",
    "exclusive",
    "id",
    "identifier",
    "image",
    "interruptible",
    "key",
    "label",
    "name",
    "parallelism",
    "priority",
    "resources",
    "retry",
    "script",
    "signature",
    "skip",
    "soft_fail",
    "timeout",
    "timeout_in_minutes",
    "tty",
    "type",
    "zone",
];

/// Served on wait steps.
pub(super) const WAIT: &[&str] = &[
    "allow_dependency_failure",
    "continue_on_failure",
    "depends_on",
    "id",
    "identifier",
    "key",
    "label",
    "name",
    "type",
    "wait",
    "waiter",
];

/// Served at the top level.
pub(super) const TOP: &[&str] =
    &["agents", "env", "image", "priority", "steps", "supersede", "timeout", "timeout_in_minutes"];

/// Words that make a step another kind: what is wrong with them beside a command is said elsewhere.
const KINDS: &[&str] = &["block", "group", "input", "manual", "trigger", "wait", "waiter"];

/// Known, not served yet, and dangerous to ignore: the step would run where or when it should not.
const REFUSED: &[&str] = &[
    "branches",
    "concurrency",
    "concurrency_group",
    "concurrency_method",
    "if",
    "if_changed",
    "matrix",
    "plugins",
    "secrets",
];

/// Known, not served yet; the step does its work without.
const IGNORED: &[&str] =
    &["artifact_paths", "artifacts", "cache", "cancel_on_build_failing", "checkout", "notify", "reuse"];

/// What Buildkite does not have: no other system's file has these names by chance, so a near miss is a mistake.
const OURS: &[&str] = &["exclusive", "interruptible", "resources", "reuse", "supersede", "tty", "zone"];

/// Says what there is to say about every attribute of a step that is not in `served`.
pub(super) fn check_step(reader: &mut Reader, of: &str, map: &Map, served: &[&str]) {
    for entry in map {
        let key = entry.key.as_str();
        if served.contains(&key) || KINDS.contains(&key) || unserved(reader, entry) {
            continue;
        }
        let known = served.iter().chain(REFUSED).chain(IGNORED).copied();
        unknown(reader, of, entry, known, true);
    }
}

/// The same for the top level, where any other key may hold anchors (reference 2).
pub(super) fn check_top(reader: &mut Reader, map: &Map) {
    for entry in map {
        let key = entry.key.as_str();
        let step_only = ["branches", "if", "if_changed", "matrix", "plugins"].contains(&key);
        if TOP.contains(&key) || step_only || unserved(reader, entry) {
            continue;
        }
        let known = TOP.iter().copied().chain(["cache", "checkout", "notify", "secrets"]);
        unknown(reader, "a pipeline", entry, known, false);
    }
}

fn unserved(reader: &mut Reader, entry: &Entry) -> bool {
    let key = entry.key.as_str();
    let (refused, ignored) = (REFUSED.contains(&key), IGNORED.contains(&key));
    if (refused || ignored) && !says_nothing(&entry.value) {
        if refused {
            reader.findings.push(
                Diagnostic::error("not-served", entry.key_span, format!("`{key}` is not served yet"))
                    .hint("the step would run otherwise than it says; take the attribute out to run it regardless"),
            );
        } else {
            reader.warning("not-served", entry.key_span, format!("`{key}` is not served yet: ignored"));
        }
    }
    refused || ignored
}

fn says_nothing(node: &Node) -> bool {
    match &node.kind {
        Kind::Null => true,
        Kind::Bool(value) => !value,
        Kind::Text(text) => text.is_empty(),
        Kind::List(items) => items.is_empty(),
        Kind::Map(map) => map.is_empty(),
        Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) => false,
    }
}

fn unknown<'a>(reader: &mut Reader, of: &str, entry: &Entry, known: impl Iterator<Item = &'a str>, strict: bool) {
    let looked_at = if reader.findings.wants_hints() { usize::MAX } else { 0 };
    // Ours are always looked for: a near miss of them is an error, not only advice.
    let near = nearest(&entry.key, known.take(looked_at).chain(OURS.iter().copied()));
    let key = shown(&entry.key);
    let hint = near.map(|name| format!("did you mean `{name}`?"));
    if near.is_some_and(|name| OURS.contains(&name)) {
        let message = format!("`{key}` is not an attribute of {of}");
        reader.findings.push(Diagnostic::error("unknown-key", entry.key_span, message).maybe_hint(hint));
    } else if strict || near.is_some() {
        let message = format!("`{key}` is not an attribute of {of}; it is ignored");
        reader.findings.push(Diagnostic::warning("unknown-key", entry.key_span, message).maybe_hint(hint));
    }
}
