//! The top level of a document (reference 1.2 and 2).

use windlass_protocol::limits::NAME_MAX_BYTES;

use super::{Defaults, Document, attribute, command, step};
use crate::diagnostic::Diagnostic;
use crate::graph::Supersede;
use crate::read::Reader;
use crate::yaml::{Entry, Kind, Map, Node};

/// Reads one document, interpolated already.
pub(crate) fn read(reader: &mut Reader, document: &Node) -> Document {
    match &document.kind {
        Kind::Map(map) => mapping(reader, document, map),
        Kind::List(items) => Document { steps: step::read_all(reader, items), ..Document::default() },
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_) => {
            let message =
                format!("a pipeline is a mapping with `steps`, or a list of steps, not {}", document.kind_name());
            reader.error("unsupported-document", document.span, message);
            Document::default()
        }
    }
}

fn mapping(reader: &mut Reader, document: &Node, map: &Map) -> Document {
    attribute::check_top(reader, map);
    if let Some(checkout) = map.get("checkout").filter(|entry| entry.value.as_map().is_none() && !entry.value.is_null())
    {
        reader.wrong_type("checkout", "a mapping", &checkout.value);
    }
    let steps = match map.get("steps") {
        Some(entry) => steps(reader, entry),
        None => {
            let message = "the pipeline has no `steps`";
            reader.findings.push(
                Diagnostic::error("no-steps", crate::diagnostic::Span::first_of(document.span), message)
                    .hint("write `steps:` with a list of steps"),
            );
            Vec::new()
        }
    };
    Document {
        env: map.get("env").map(|entry| command::variables(reader, "env", &entry.value)).unwrap_or_default(),
        defaults: Defaults {
            agents: command::agents(reader, map, &["agents"]),
            image: map.get("image").and_then(|entry| command::image(reader, entry)),
            priority: map.get("priority").and_then(|entry| command::priority(reader, entry)),
            timeout_ms: command::timeout(reader, map),
        },
        supersede: map.get("supersede").and_then(|entry| supersede(reader, entry)),
        steps,
    }
}

fn steps(reader: &mut Reader, entry: &Entry) -> Vec<super::Step> {
    let steps = match &entry.value.kind {
        Kind::List(items) => step::read_all(reader, items),
        Kind::Null => Vec::new(),
        Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_)
        | Kind::Map(_) => {
            reader.wrong_type("steps", "a list", &entry.value);
            return Vec::new();
        }
    };
    if steps.is_empty() && !reader.findings.has_errors() {
        reader.warning("no-steps", entry.key_span, "the pipeline has no steps");
    }
    steps
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
