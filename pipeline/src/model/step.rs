//! Which kind a step is (reference 3), and what steps of every kind have.

use windlass_protocol::limits::{GRAPH_MAX_BYTES, NAME_MAX_BYTES, SKIP_REASON_MAX_CHARS};

use super::attribute::{self, BLOCK, COMMAND, INPUT, TRIGGER, Table, WAIT};
use super::notify::Level;
use super::{
    Element, Key, Named, Pipeline, Step, StepKind, changed, command, condition, depends, gate, group, notify, trigger,
};
use crate::diagnostic::{Diagnostic, Span};
use crate::expand::matrix;
use crate::graph::{Feature, Place};
use crate::read::{Reader, shown};
use crate::suggest::did_you_mean;
use crate::yaml::{Entry, Kind as Value, Map, Node};

/// What a step's keys, or its `type`, say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Command,
    Wait,
    Block,
    Input,
    Trigger,
    Group,
}

/// Keys that make a step's kind, in the order in which they are looked for.
const KINDS: [(&str, Kind); 10] = [
    ("command", Kind::Command),
    ("commands", Kind::Command),
    ("plugins", Kind::Command),
    ("wait", Kind::Wait),
    ("waiter", Kind::Wait),
    ("block", Kind::Block),
    ("input", Kind::Input),
    ("manual", Kind::Block),
    ("trigger", Kind::Trigger),
    ("group", Kind::Group),
];

/// Words that `type` may be.
const TYPES: [(&str, Kind); 10] = [
    ("command", Kind::Command),
    ("commands", Kind::Command),
    ("script", Kind::Command),
    ("wait", Kind::Wait),
    ("waiter", Kind::Wait),
    ("block", Kind::Block),
    ("input", Kind::Input),
    ("manual", Kind::Block),
    ("trigger", Kind::Trigger),
    ("group", Kind::Group),
];

/// Keys that may hold the whole step.
const NESTED: [&str; 8] = ["command", "commands", "script", "wait", "waiter", "block", "input", "trigger"];

/// Words that are a step.
const WORDS: [(&str, Kind); 5] = [
    ("wait", Kind::Wait),
    ("waiter", Kind::Wait),
    ("block", Kind::Block),
    ("input", Kind::Input),
    ("manual", Kind::Block),
];

/// Attributes of which a coordinator must know what they mean.
const FEATURES: [(&str, Feature); 14] = [
    ("if", Feature::If),
    ("branches", Feature::Branches),
    ("matrix", Feature::Matrix),
    ("concurrency", Feature::Concurrency),
    ("plugins", Feature::Plugins),
    ("secrets", Feature::Secrets),
    ("checkout", Feature::Checkout),
    ("artifact_paths", Feature::ArtifactPaths),
    ("artifacts", Feature::ArtifactPaths),
    ("cancel_on_build_failing", Feature::CancelOnBuildFailing),
    ("cache", Feature::Cache),
    ("reuse", Feature::Reuse),
    ("concurrency_group", Feature::Concurrency),
    ("concurrency_method", Feature::Concurrency),
];

/// Reads the steps of the top level, or those of a group.
pub(super) fn read_all(reader: &mut Reader, items: &[Node], group: Option<u32>, pipeline: &mut Pipeline) {
    for (index, item) in (0..).zip(items) {
        if pipeline.is_too_large(reader, item.span) {
            return;
        }
        let position = if group.is_some() { index } else { pipeline.positions };
        read(reader, item, &Place::of(group, position), pipeline);
        if group.is_none() {
            pipeline.positions += 1;
        }
    }
}

fn read(reader: &mut Reader, node: &Node, place: &Place, pipeline: &mut Pipeline) {
    match &node.kind {
        Value::Text(word) => {
            if let Some(step) = scalar(reader, node, word, place) {
                pipeline.add(step);
            }
        }
        Value::Map(map) => mapping(reader, node, map, place, pipeline),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Unsigned(_)
        | Value::Float(_)
        | Value::Time(_)
        | Value::List(_) => {
            let message =
                format!("a step is a mapping or one of the words `wait`, `block`, `input`, not {}", node.kind_name());
            reader.error("wrong-type", node.span, message);
        }
    }
}

fn scalar(reader: &mut Reader, node: &Node, word: &str, place: &Place) -> Option<Step> {
    let Some((_, kind)) = WORDS.iter().find(|(known, _)| *known == word) else {
        if !reader.is_awaited(node) {
            let message = format!("`{}` is not a step", shown(word));
            let near = did_you_mean(word, WORDS.iter().map(|(word, _)| *word));
            unknown(reader, node.span, message, near, "write `command: …` to run something");
        }
        return None;
    };
    note_kind(reader, *kind, node.span);
    let step = match kind {
        Kind::Block => StepKind::Block(Box::default()),
        Kind::Input => StepKind::Input(Box::default()),
        Kind::Wait | Kind::Command | Kind::Trigger | Kind::Group => StepKind::Wait { continue_on_failure: false },
    };
    let element = Element { label: None, skip: None, notify: Vec::new(), matrix: Vec::new(), bytes: 0, kind: step };
    Some(Step {
        span: node.span,
        place: place.clone(),
        key: None,
        depends_on: None,
        allow_dependency_failure: false,
        condition: None,
        branches: None,
        if_changed: None,
        elements: vec![element],
        kind: *kind,
    })
}

/// Something that is no step. Upstream passes it on with a warning; one that nearly is a step is a mistake for certain.
fn unknown(reader: &mut Reader, span: Span, message: String, near: Option<String>, otherwise: &str) {
    let diagnostic = Diagnostic::error("unknown-step", span, message);
    match near {
        Some(near) => reader.findings.push(diagnostic.hint(near)),
        None => reader.unrunnable(diagnostic.hint(otherwise)),
    }
}

fn note_kind(reader: &mut Reader, kind: Kind, span: Span) {
    let feature = match kind {
        Kind::Command | Kind::Wait => return,
        Kind::Block => Feature::Block,
        Kind::Input => Feature::Input,
        Kind::Trigger => Feature::Trigger,
        Kind::Group => Feature::Group,
    };
    reader.uses(feature, span);
}

/// Notes which attributes a coordinator must serve.
pub(super) fn note_attributes(reader: &mut Reader, map: &Map) {
    for entry in map.iter().filter(|entry| !says_nothing(&entry.value)) {
        if let Some((_, feature)) = FEATURES.iter().find(|(key, _)| *key == entry.key) {
            let keyed = entry.value.as_map().is_some_and(|cache| cache.get("key").is_some());
            let feature = if *feature == Feature::Cache && !keyed { Feature::CacheVolume } else { *feature };
            reader.uses(feature, entry.key_span);
        }
    }
}

fn says_nothing(node: &Node) -> bool {
    match &node.kind {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Text(text) => text.trim().is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Int(_) | Value::Unsigned(_) | Value::Float(_) | Value::Time(_) => false,
    }
}

fn mapping(reader: &mut Reader, node: &Node, outer: &Map, place: &Place, pipeline: &mut Pipeline) {
    let nested = nested(outer);
    let map = nested.map_or(outer, |(_, inner)| inner);
    let span = map.iter().next().map_or(Span::first_of(node.span), |entry| entry.key_span);
    let kind = match nested {
        Some((kind, _)) => Some(kind),
        None => infer(reader, span, map),
    };
    let Some(kind) = kind else { return };
    if let (Some(_), Kind::Command, Some(entry)) = (nested, kind, outer.iter().next()) {
        let message = format!("the whole step stands under `{}`", shown(&entry.key));
        let diagnostic = Diagnostic::warning("nested-step", entry.key_span, message);
        reader.findings.push(diagnostic.hint("write its attributes beside each other"));
    }
    note_kind(reader, kind, span);
    let table = match kind {
        Kind::Command => &COMMAND,
        Kind::Wait => &WAIT,
        Kind::Block => &BLOCK,
        Kind::Input => &INPUT,
        Kind::Trigger => &TRIGGER,
        Kind::Group => return group::read(reader, span, map, place, pipeline),
    };
    check_keys(reader, map, table, kind);
    note_attributes(reader, map);
    let depends_on = map.get("depends_on").and_then(|entry| depends::read(reader, entry));
    pipeline.mentions += depends_on.as_ref().map_or(0, Vec::len);
    pipeline.add(Step {
        span,
        place: place.clone(),
        key: key(reader, map),
        depends_on,
        allow_dependency_failure: flag(reader, map, "allow_dependency_failure"),
        condition: condition::of_step(reader, map),
        branches: condition::branches(reader, map),
        if_changed: map.get("if_changed").and_then(|entry| changed::read(reader, entry)),
        elements: elements(reader, span, map, kind),
        kind,
    });
}

pub(super) fn flag(reader: &mut Reader, map: &Map, key: &str) -> bool {
    map.get(key).and_then(|entry| reader.flag(entry)).unwrap_or(false)
}

/// A step with a matrix is read once for each combination.
fn elements(reader: &mut Reader, span: Span, map: &Map, kind: Kind) -> Vec<Element> {
    let matrix = map.get("matrix").filter(|entry| kind == Kind::Command && !entry.value.is_null());
    let Some(matrix) = matrix else {
        return vec![element(reader, span, map, kind, Vec::new())];
    };
    if let Some(other) = map.get("parallelism").filter(|other| !other.value.is_null()) {
        let message = "a step has a `matrix` or `parallelism`, not both";
        let diagnostic = Diagnostic::error("matrix-and-parallelism", other.key_span, message);
        reader.findings.push(diagnostic.hint("make the parallel jobs a dimension of the matrix"));
    }
    let Some(combinations) = matrix::read(reader, matrix) else { return Vec::new() };
    if bytes_of(map).saturating_mul(combinations.len()) > GRAPH_MAX_BYTES {
        let message = format!("the jobs of the matrix have over {GRAPH_MAX_BYTES} bytes together");
        reader.error("too-large", matrix.key_span, message);
        return Vec::new();
    }
    let mut elements = Vec::with_capacity(combinations.len());
    for combination in combinations {
        let map = matrix::apply(reader, map, &combination);
        elements.push(element(reader, span, &map, kind, combination.choice));
    }
    elements
}

fn element(reader: &mut Reader, span: Span, map: &Map, kind: Kind, matrix: Vec<(String, String)>) -> Element {
    let names = match kind {
        Kind::Command | Kind::Trigger | Kind::Group => ["label", "name"].as_slice(),
        Kind::Wait => &["label", "name", "wait", "waiter"],
        Kind::Block => &["label", "name", "block", "manual"],
        Kind::Input => &["label", "name", "input"],
    };
    Element {
        label: label(reader, map, names),
        skip: map.get("skip").and_then(|entry| skip(reader, entry)),
        notify: map.get("notify").map(|entry| notify::read(reader, entry, Level::Step)).unwrap_or_default(),
        matrix,
        bytes: bytes_of(map),
        kind: match kind {
            Kind::Command => StepKind::Command(Box::new(command::read(reader, span, map))),
            Kind::Block => StepKind::Block(Box::new(gate::read(reader, map))),
            Kind::Input => StepKind::Input(Box::new(gate::read(reader, map))),
            Kind::Trigger => StepKind::Trigger(Box::new(trigger::read(reader, span, map))),
            Kind::Wait | Kind::Group => {
                StepKind::Wait { continue_on_failure: flag(reader, map, "continue_on_failure") }
            }
        },
    }
}

/// What a value costs beside its text wherever it is kept.
const VALUE_BYTES: usize = 16;

/// Bytes that a mapping costs each job that keeps it: its text, and something for each value. Recursion ends at
/// `PIPELINE_DEPTH_MAX`.
pub(super) fn bytes_of(map: &Map) -> usize {
    map.iter().map(|entry| entry.key.len() + bytes_of_value(&entry.value)).sum()
}

fn bytes_of_value(node: &Node) -> usize {
    match &node.kind {
        Value::Text(text) | Value::Time(text) => VALUE_BYTES + text.len(),
        Value::Map(map) => VALUE_BYTES + bytes_of(map),
        Value::List(items) => VALUE_BYTES + items.iter().map(bytes_of_value).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Unsigned(_) | Value::Float(_) => VALUE_BYTES,
    }
}

/// Unknown keys; and words that would make the step another kind, had it not been one already (reference 3.2).
fn check_keys(reader: &mut Reader, map: &Map, table: &Table, kind: Kind) {
    let is_other = |key: &str| KINDS.iter().any(|(word, other)| *word == key && *other != kind);
    attribute::check_but(reader, map, table, is_other);
    for entry in map {
        let other = KINDS.iter().find(|(word, other)| *word == entry.key && *other != kind);
        if let Some((word, _)) = other.filter(|(word, _)| !table.names().any(|name| name == *word)) {
            let message = format!("a step is one thing: this is {}, and its `{word}` is ignored", table.of);
            let diagnostic = Diagnostic::warning("two-kinds", entry.key_span, message);
            reader.findings.push(diagnostic.hint("make two steps of it"));
        }
    }
}

/// `{K: mapping}` and nothing else: the inner mapping is the step, of the kind that `K` says.
fn nested(map: &Map) -> Option<(Kind, &Map)> {
    let entry = map.iter().next().filter(|_| map.len() == 1)?;
    let inner = entry.value.as_map()?;
    NESTED.contains(&entry.key.as_str()).then_some(())?;
    TYPES.iter().find(|(word, _)| *word == entry.key).map(|(_, kind)| (*kind, inner))
}

/// A step's kind and the mapping that holds its attributes, if it is a step; nothing is told.
pub(crate) fn infer_quietly(map: &Map) -> Option<Kind> {
    let inner = nested(map);
    let kind = inner.map(|(kind, _)| kind);
    let by_type = map.get("type").map(|entry| TYPES.iter().find(|(word, _)| entry.value.as_text() == Some(word)));
    let by_type = by_type.map(|found| found.map(|(_, kind)| *kind));
    kind.or_else(|| by_type.unwrap_or_else(|| by_key(map)))
}

fn by_key(map: &Map) -> Option<Kind> {
    if let Some((_, kind)) = KINDS.iter().find(|(word, _)| map.get(word).is_some()) {
        return Some(*kind);
    }
    map.iter().any(|entry| COMMAND.names().any(|name| name == entry.key)).then_some(Kind::Command)
}

fn infer(reader: &mut Reader, span: Span, map: &Map) -> Option<Kind> {
    if let Some(entry) = map.get("type") {
        return by_type(reader, entry);
    }
    let kind = by_key(map);
    if kind.is_none() {
        let words = || KINDS.iter().map(|(word, _)| *word);
        let near = map.iter().find_map(|entry| did_you_mean(&entry.key, words()));
        let message = "no kind of step has these keys".to_owned();
        unknown(
            reader,
            span,
            message,
            near,
            "a step has one of `command`, `wait`, `block`, `input`, `trigger`, `group`",
        );
    }
    kind
}

fn by_type(reader: &mut Reader, entry: &Entry) -> Option<Kind> {
    let Some(word) = entry.value.as_text() else {
        reader.wrong_type("type", "text", &entry.value);
        return None;
    };
    let kind = TYPES.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
    if kind.is_none() && !reader.is_awaited(&entry.value) {
        let near = did_you_mean(word, TYPES.iter().map(|(word, _)| *word));
        let message = format!("`{}` is not a kind of step", shown(word));
        unknown(
            reader,
            entry.value.span,
            message,
            near,
            "`type` is `command`, `wait`, `block`, `input`, `trigger` or `group`",
        );
    }
    kind
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

pub(super) fn key(reader: &mut Reader, map: &Map) -> Option<Key> {
    let entry = first(reader, map, &["key", "id", "identifier"])?;
    if entry.value.is_null() {
        return None;
    }
    let text = reader.decode(|reader| reader.text(&entry.key, &entry.value))?;
    Some(Key { named: Named { text, span: entry.value.span }, old_name: entry.key != "key" })
}

/// The first of several names under which a text stands.
pub(super) fn label(reader: &mut Reader, map: &Map, names: &[&str]) -> Option<String> {
    first(reader, map, names);
    let entry = names.iter().filter_map(|name| map.get(name)).find(|entry| !entry.value.is_null())?;
    let text = reader.decode(|reader| reader.text(&entry.key, &entry.value))?;
    Some(text).filter(|text| !text.is_empty())
}

/// Only `false`, nothing and the empty text mean no (reference 4).
pub(super) fn skip(reader: &mut Reader, entry: &Entry) -> Option<String> {
    match &entry.value.kind {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some("skipped by the pipeline".to_owned()),
        Value::Text(reason) if reason.is_empty() => None,
        Value::Text(reason) => {
            let length = reason.chars().count();
            if length > SKIP_REASON_MAX_CHARS {
                let message = format!("a reason to skip has at most {SKIP_REASON_MAX_CHARS} characters, not {length}");
                reader.error("too-long", entry.value.span, message);
            }
            Some(reason.clone())
        }
        Value::Int(_) | Value::Unsigned(_) | Value::Float(_) | Value::Time(_) | Value::List(_) | Value::Map(_) => {
            reader.wrong_type("skip", "`true`, `false` or a reason", &entry.value);
            None
        }
    }
}

/// A queue's, zone's or tag's name.
pub(super) fn name(reader: &mut Reader, what: &str, node: &Node) -> Option<String> {
    reader.name(what, node, NAME_MAX_BYTES)
}
