//! A document with its matrices and parallel jobs written out, for people and programs that want to see them.

use super::label::numbered;
use super::matrix;
use crate::diagnostic::{Diagnostic, Findings};
use crate::model::{StepWord, infer_quietly};
use crate::read::Reader;
use crate::yaml::{Entry, Kind, Map, Node};

/// Replaces each step that makes several jobs by a step for each of them, in place. The steps of one matrix have all their
/// tokens replaced and no `matrix`; parallel ones have their variables and no `parallelism`. They still share their key.
/// What is wrong is returned, and left as it was.
pub fn expand_document(document: &mut Node) -> Vec<Diagnostic> {
    let mut reader = Reader::new(Findings::default(), true);
    match &mut document.kind {
        Kind::List(_) => steps(&mut reader, document),
        Kind::Map(map) => nested_steps(&mut reader, map),
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_) => {}
    }
    reader.findings.settle()
}

fn nested_steps(reader: &mut Reader, map: &mut Map) {
    if let Some(entry) = map.entries_mut().iter_mut().find(|entry| entry.key == "steps") {
        steps(reader, &mut entry.value);
    }
}

fn steps(reader: &mut Reader, node: &mut Node) {
    let Kind::List(items) = &mut node.kind else { return };
    for mut item in std::mem::take(items) {
        let span = item.span;
        let Kind::Map(map) = &mut item.kind else {
            items.push(item);
            continue;
        };
        match infer_quietly(map) {
            Some(StepWord::Group) => nested_steps(reader, map),
            Some(StepWord::Command) => {
                let jobs = command(reader, map).into_iter();
                items.extend(jobs.map(|map| Node { span, kind: Kind::Map(map) }));
                continue;
            }
            Some(StepWord::Trigger) => {
                let jobs = parallel(reader, map).into_iter();
                items.extend(jobs.map(|map| Node { span, kind: Kind::Map(map) }));
                continue;
            }
            Some(StepWord::Wait | StepWord::Block | StepWord::Input) | None => {}
        }
        items.push(item);
    }
}

fn command(reader: &mut Reader, map: &Map) -> Vec<Map> {
    let Some(entry) = map.get("matrix").filter(|entry| !entry.value.is_null()) else { return parallel(reader, map) };
    match matrix::read(reader, entry) {
        Some(combinations) => combinations.iter().map(|combination| matrix::apply(reader, map, combination)).collect(),
        None => vec![map.clone()],
    }
}

fn parallel(reader: &mut Reader, map: &Map) -> Vec<Map> {
    let entry = map.get("parallelism").filter(|entry| !entry.value.is_null());
    let Some(total) = entry.and_then(|entry| crate::model::parallelism(reader, entry)) else {
        return vec![map.clone()];
    };
    let step = (0..total).map(|index| one(map, index, total));
    step.collect()
}

fn map_of(entries: [Entry; 2]) -> Map {
    let mut map = Map::default();
    map.entries_mut().extend(entries);
    map
}

fn one(map: &Map, index: u32, total: u32) -> Map {
    let mut job = map.clone();
    job.entries_mut().retain(|entry| entry.key != "parallelism");
    for entry in job.entries_mut() {
        if let ("label" | "name", Kind::Text(text)) = (entry.key.as_str(), &mut entry.value.kind) {
            *text = numbered(text, Some((index, total)));
        }
    }
    let span = map.get("parallelism").map_or(crate::diagnostic::Span::START, |entry| entry.value.span);
    let variable = |key: &str, value: u32| Entry {
        key: key.to_owned(),
        key_span: span,
        value: Node { span, kind: Kind::Text(value.to_string()) },
    };
    let added = [variable("BUILDKITE_PARALLEL_JOB", index), variable("BUILDKITE_PARALLEL_JOB_COUNT", total)];
    match job.entries_mut().iter_mut().find(|entry| entry.key == "env") {
        Some(Entry { value: Node { kind: Kind::Map(env), .. }, .. }) => env.entries_mut().extend(added),
        Some(entry) if entry.value.is_null() => entry.value.kind = Kind::Map(map_of(added)),
        Some(_) => {}
        None => {
            let value = Node { span, kind: Kind::Map(map_of(added)) };
            job.entries_mut().push(Entry { key: "env".to_owned(), key_span: span, value });
        }
    }
    job
}
