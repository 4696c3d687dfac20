//! `concurrency`, its group and its method: all or none (reference 9).

use windlass_protocol::limits::CONCURRENCY_GROUP_MAX_CHARS;

use super::gate::word;
use crate::diagnostic::Diagnostic;
use crate::graph::{Concurrency, Method};
use crate::read::Reader;
use crate::yaml::{Entry, Map};

const METHODS: [(&str, Method); 2] = [("ordered", Method::Ordered), ("eager", Method::Eager)];

pub(super) fn read(reader: &mut Reader, map: &Map) -> Option<Concurrency> {
    let given = |key: &str| map.get(key).filter(|entry| !entry.value.is_null());
    let (limit, group, method) = (given("concurrency"), given("concurrency_group"), given("concurrency_method"));
    let value = method.and_then(|entry| word(reader, entry, &METHODS));
    match (limit, group) {
        (Some(limit), Some(group)) => {
            let limit = reader.integer("concurrency", &limit.value, 1, i64::from(u32::MAX));
            let group = name(reader, group);
            Some(Concurrency { group: group?, limit: u32::try_from(limit?).ok()?, method: value.unwrap_or_default() })
        }
        (Some(alone), None) => half(reader, alone, "concurrency_group"),
        (None, Some(alone)) => half(reader, alone, "concurrency"),
        (None, None) => method.and_then(|alone| half(reader, alone, "concurrency` and `concurrency_group")),
    }
}

fn half(reader: &mut Reader, alone: &Entry, missing: &str) -> Option<Concurrency> {
    let message = format!("`{}` needs `{missing}`", alone.key);
    let diagnostic = Diagnostic::error("concurrency-pair", alone.key_span, message);
    reader
        .findings
        .push(diagnostic.hint("a group's name and the number of its jobs that may run at a time go together"));
    None
}

fn name(reader: &mut Reader, entry: &Entry) -> Option<String> {
    let text = reader.text("concurrency_group", &entry.value)?;
    let length = text.chars().count();
    if length == 0 || length > CONCURRENCY_GROUP_MAX_CHARS {
        let message =
            format!("a concurrency group's name has 1 to {CONCURRENCY_GROUP_MAX_CHARS} characters, not {length}");
        reader.error("too-long", entry.value.span, message);
        return None;
    }
    Some(text)
}
