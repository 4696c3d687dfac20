//! `depends_on` in all its forms (reference 6.2).

use std::collections::BTreeMap;

use super::{Dependency, Named, attribute};
use crate::read::Reader;
use crate::yaml::{Entry, Kind, Map, Node};

/// Even empty it takes the place of the implicit ones.
pub(super) fn read(reader: &mut Reader, entry: &Entry) -> Option<Vec<Dependency>> {
    match &entry.value.kind {
        Kind::Null => Some(Vec::new()),
        Kind::Text(text) if text.is_empty() => Some(Vec::new()),
        Kind::List(items) => Some(distinct(items.iter().filter_map(|item| one(reader, item)))),
        Kind::Text(_) | Kind::Int(_) | Kind::Bool(_) | Kind::Float(_) => {
            Some(one(reader, &entry.value).into_iter().collect())
        }
        Kind::Map(map) if map.get("step").is_some() => Some(one(reader, &entry.value).into_iter().collect()),
        Kind::Map(_) | Kind::Unsigned(_) | Kind::Time(_) => {
            reader.wrong_type("depends_on", "a step's key, or a list of them", &entry.value);
            None
        }
    }
}

/// Each step once; its failure is forgiven only if every mention says so.
fn distinct(mentions: impl Iterator<Item = Dependency>) -> Vec<Dependency> {
    let mut list: Vec<Dependency> = Vec::new();
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for mention in mentions {
        match at.get(&mention.step.text) {
            Some(&index) => list[index].allow_failure &= mention.allow_failure,
            None => {
                at.insert(mention.step.text.clone(), list.len());
                list.push(mention);
            }
        }
    }
    list
}

fn one(reader: &mut Reader, node: &Node) -> Option<Dependency> {
    if let Kind::Map(map) = &node.kind {
        return detailed(reader, node, map);
    }
    let text = named(reader, node)?;
    Some(Dependency { step: text, allow_failure: false })
}

fn detailed(reader: &mut Reader, node: &Node, map: &Map) -> Option<Dependency> {
    attribute::check(reader, map, &attribute::DEPENDENCY);
    let Some(step) = map.get("step") else {
        reader.error("wrong-type", node.span, "a dependency names its `step`");
        return None;
    };
    let allow_failure = map.get("allow_failure").and_then(|entry| reader.flag(entry)).unwrap_or(false);
    Some(Dependency { step: named(reader, &step.value)?, allow_failure })
}

fn named(reader: &mut Reader, node: &Node) -> Option<Named> {
    let text = reader.text("depends_on", node)?;
    if text.is_empty() {
        reader.error("empty-value", node.span, "a dependency is empty");
        return None;
    }
    Some(Named { text, span: node.span })
}
