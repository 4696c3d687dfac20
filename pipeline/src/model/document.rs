//! The top level of a document (reference 1.2 and 2).

use windlass_protocol::limits::NAME_MAX_BYTES;

use super::notify::Level;
use super::{Defaults, Pipeline, attribute, cache, checkout, command, notify, secret, step};
use crate::diagnostic::{Diagnostic, Span};
use crate::expand;
use crate::graph::{Checkout, Supersede};
use crate::read::Reader;
use crate::yaml::{Entry, Kind, Map, Node};

/// What is said of a document that is neither a mapping nor a list.
pub(crate) fn unsupported(document: &Node) -> Diagnostic {
    let message = format!("a pipeline is a mapping with `steps`, or a list of steps, not {}", document.kind_name());
    Diagnostic::error("unsupported-document", document.span, message)
}

/// Reads one document, interpolated already, and adds it to what came before.
pub(crate) fn read(reader: &mut Reader, document: &Node, pipeline: &mut Pipeline) {
    match &document.kind {
        Kind::Map(map) => mapping(reader, document, map, pipeline),
        Kind::List(items) => step::read_all(reader, items, None, pipeline),
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_) => {
            reader.findings.push(unsupported(document));
        }
    }
}

fn mapping(reader: &mut Reader, document: &Node, map: &Map, pipeline: &mut Pipeline) {
    attribute::check(reader, map, &attribute::TOP);
    // What of the top level goes to every command step.
    step::note_attributes(reader, &some_of(map, &["secrets", "checkout", "cache"]));
    let env = map.get("env").map(|entry| command::variables(reader, "env", &entry.value)).unwrap_or_default();
    pipeline.env = expand::merge([pipeline.env.as_slice(), &env]);
    let notify = map.get("notify").map(|entry| notify::read(reader, entry, Level::Build));
    pipeline.notify.extend(notify.unwrap_or_default());
    pipeline.supersede = map.get("supersede").and_then(|entry| supersede(reader, entry)).or(pipeline.supersede);
    let defaults = Defaults {
        agents: command::agents(reader, map, &["agents"]),
        image: map.get("image").and_then(|entry| command::image(reader, entry)),
        priority: map.get("priority").and_then(|entry| command::priority(reader, entry)),
        timeout_ms: command::timeout(reader, map),
        secrets: map.get("secrets").map(|entry| secret::read(reader, entry)).unwrap_or_default(),
        checkout: map.get("checkout").map_or_else(Checkout::default, |entry| checkout::read(reader, entry)),
        cache: map.get("cache").map(|entry| cache::read(reader, entry)).unwrap_or_default(),
    };
    let first = pipeline.steps.len();
    match map.get("steps") {
        Some(entry) => steps(reader, entry, pipeline),
        None => {
            reader.findings.push(
                Diagnostic::error("no-steps", Span::first_of(document.span), "the pipeline has no `steps`")
                    .hint("write `steps:` with a list of steps"),
            );
        }
    }
    let elements: usize = pipeline.steps[first..].iter().map(|step| step.elements.len()).sum();
    let each = step::bytes_of(&some_of(map, &["agents", "image", "secrets", "checkout", "cache"]));
    pipeline.bytes = pipeline.bytes.saturating_add(elements.saturating_mul(each));
    if pipeline.is_too_large(reader, document.span) {
        return;
    }
    for step in &mut pipeline.steps[first..] {
        expand::apply(&defaults, each, step);
    }
}

/// These attributes alone, those that are there.
fn some_of(map: &Map, keys: &[&str]) -> Map {
    let mut some = Map::default();
    some.entries_mut().extend(keys.iter().filter_map(|key| map.get(key)).cloned());
    some
}

fn steps(reader: &mut Reader, entry: &Entry, pipeline: &mut Pipeline) {
    let items = match &entry.value.kind {
        Kind::List(items) => items.as_slice(),
        Kind::Null => &[],
        Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_)
        | Kind::Map(_) => return reader.wrong_type("steps", "a list", &entry.value),
    };
    if items.is_empty() {
        reader.warning("no-steps", entry.key_span, "the pipeline has no steps");
    }
    step::read_all(reader, items, None, pipeline);
}

fn supersede(reader: &mut Reader, entry: &Entry) -> Option<Supersede> {
    if let Kind::Null = entry.value.kind {
        return None;
    }
    match reader.name("supersede", &entry.value, NAME_MAX_BYTES)?.as_str() {
        "false" => Some(Supersede::Never),
        "true" | "waiting" => Some(Supersede::Waiting),
        "running" => Some(Supersede::Running),
        _ => {
            reader.wrong_type("supersede", "`false`, `waiting` or `running`", &entry.value);
            None
        }
    }
}
