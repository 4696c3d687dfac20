//! Groups of steps (reference 5.5).

use super::attribute::{self, GROUP};
use super::notify::Level;
use super::step::{flag, key, label, note_attributes, read_all, skip};
use super::{Group, Pipeline, changed, condition, depends, notify};
use crate::diagnostic::{Diagnostic, Span};
use crate::graph::Place;
use crate::read::Reader;
use crate::yaml::Map;

pub(super) fn read(reader: &mut Reader, span: Span, map: &Map, place: &Place, pipeline: &mut Pipeline) {
    if place.group.is_some() {
        let diagnostic = Diagnostic::error("nested-group", span, "a group cannot be in a group");
        return reader.findings.push(diagnostic.hint("put it beside the outer one"));
    }
    attribute::check(reader, map, &GROUP);
    note_attributes(reader, map);
    let children = match map.get("steps") {
        Some(entry) => {
            let items = reader.list("steps", "a list", &entry.value);
            if items.is_empty() {
                reader.error("empty-group", entry.key_span, "a group has at least one step");
            }
            items
        }
        None => {
            reader.error("empty-group", span, "the group has no `steps`");
            &[]
        }
    };
    let index = u32::try_from(pipeline.groups.len()).unwrap_or(u32::MAX);
    let depends_on = map.get("depends_on").and_then(|entry| depends::read(reader, entry));
    pipeline.mentions += depends_on.as_ref().map_or(0, Vec::len);
    pipeline.groups.push(Group {
        span,
        place: place.clone(),
        key: key(reader, map),
        label: label(reader, map, &["group", "label", "name"]),
        depends_on,
        allow_dependency_failure: flag(reader, map, "allow_dependency_failure"),
        condition: condition::of_step(reader, map),
        if_changed: map.get("if_changed").and_then(|entry| changed::read(reader, entry)),
        skip: map.get("skip").and_then(|entry| skip(reader, entry)),
        notify: map.get("notify").map(|entry| notify::read(reader, entry, Level::Group)).unwrap_or_default(),
    });
    read_all(reader, children, Some(index), pipeline);
}
