//! Block and input steps, and what they ask (reference 5.2, 5.3).

use std::collections::BTreeSet;

use windlass_protocol::limits::{ALLOWED_TEAMS_MAX, FIELDS_MAX, FORMATS_MAX, OPTIONS_MAX};

use super::attribute::{self, OPTION, SELECT_FIELD, TEXT_FIELD};
use crate::diagnostic::{Diagnostic, Span};
use crate::graph::{BlockedState, Choice, Field, FieldKind, Gate, matches};
use crate::read::{Reader, shown};
use crate::suggest::did_you_mean;
use crate::yaml::{Entry, Map, Node};

const STATES: [(&str, BlockedState); 3] =
    [("passed", BlockedState::Passed), ("failed", BlockedState::Failed), ("running", BlockedState::Running)];

pub(super) fn read(reader: &mut Reader, map: &Map) -> Gate {
    let default = Gate::default();
    Gate {
        prompt: text(reader, map, "prompt"),
        submit: text(reader, map, "submit").unwrap_or(default.submit),
        fields: map.get("fields").map(|entry| fields(reader, &entry.value)).unwrap_or_default(),
        blocked_state: map.get("blocked_state").and_then(|entry| state(reader, entry)).unwrap_or_default(),
        allowed_teams: map.get("allowed_teams").map(|entry| teams(reader, entry)).unwrap_or_default(),
    }
}

/// A text that says something.
pub(super) fn text(reader: &mut Reader, map: &Map, key: &str) -> Option<String> {
    let entry = map.get(key)?;
    reader.text(key, &entry.value).filter(|text| !text.is_empty())
}

fn state(reader: &mut Reader, entry: &Entry) -> Option<BlockedState> {
    word(reader, entry, &STATES)
}

/// One of a few words.
pub(super) fn word<T: Copy>(reader: &mut Reader, entry: &Entry, words: &[(&str, T)]) -> Option<T> {
    if entry.value.is_null() || reader.is_awaited(&entry.value) {
        return None;
    }
    let text = reader.text(&entry.key, &entry.value)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let listed: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    let message = format!("`{}` must be one of {}, not `{}`", entry.key, listed.join(", "), shown(&text));
    let hint = did_you_mean(&text, words.iter().map(|(word, _)| *word));
    reader.findings.push(Diagnostic::error("unknown-word", entry.value.span, message).maybe_hint(hint));
    None
}

fn teams(reader: &mut Reader, entry: &Entry) -> Vec<String> {
    let teams = reader.texts("allowed_teams", &entry.value);
    if teams.len() > ALLOWED_TEAMS_MAX {
        let message = format!("`allowed_teams` names {} teams; {ALLOWED_TEAMS_MAX} are the most", teams.len());
        reader.error("too-many", entry.value.span, message);
    }
    teams
}

fn fields(reader: &mut Reader, node: &Node) -> Vec<Field> {
    let items = reader.list("fields", "a list of fields", node);
    if items.len() > FIELDS_MAX {
        reader.error("too-many", node.span, format!("there are {} fields; {FIELDS_MAX} are the most", items.len()));
        return Vec::new();
    }
    let fields: Vec<Field> = items.iter().filter_map(|item| field(reader, item)).collect();
    let formats = fields.iter().filter(|field| field.format().is_some()).count();
    let mut keys = BTreeSet::new();
    for (field, item) in fields.iter().zip(items) {
        check_format(reader, field, item, formats);
        if !keys.insert(field.key.as_str()) {
            let message = format!(
                "two fields have the key `{}`: the later answer takes the earlier one's place",
                shown(&field.key)
            );
            reader.warning("duplicate-field-key", item.span, message);
        }
    }
    fields
}

/// A format that nobody could answer is found now, where there is time, and not when somebody answers.
fn check_format(reader: &mut Reader, field: &Field, item: &Node, formats: usize) {
    let Some(format) = field.format() else { return };
    let entry = item.as_map().and_then(|map| map.get("format"));
    let span = entry.map_or(item.span, |entry| entry.value.span);
    // A `$` may be a variable that is not known yet.
    let awaited = reader.open && format.contains('$');
    let asked = (format.to_owned(), formats);
    if awaited || reader.formats.contains(&asked) {
        return;
    }
    if reader.formats.len() >= FORMATS_MAX {
        return reader.error("too-many", span, format!("there are more than {FORMATS_MAX} different formats"));
    }
    reader.formats.insert(asked);
    if let Err(bad) = matches(format, "", formats) {
        let diagnostic = Diagnostic::error("bad-format", span, format!("`{}` {bad}", shown(format)));
        reader.findings.push(diagnostic.hint("it may not look ahead, behind or back, and not be too large"));
    }
}

fn field(reader: &mut Reader, node: &Node) -> Option<Field> {
    let Some(map) = node.as_map() else {
        reader.wrong_type("fields", "a list of mappings with `text` or `select`", node);
        return None;
    };
    let span = map.iter().next().map_or(node.span, |entry| entry.key_span);
    let (table, word) = match (map.get("text"), map.get("select")) {
        (Some(_), _) => (&TEXT_FIELD, "text"),
        (None, Some(_)) => (&SELECT_FIELD, "select"),
        (None, None) => {
            let hint = map.iter().find_map(|entry| did_you_mean(&entry.key, ["text", "select"]));
            let diagnostic = Diagnostic::error("unknown-field", span, "a field is a `text` or a `select`");
            reader.findings.push(diagnostic.maybe_hint(hint));
            return None;
        }
    };
    attribute::check(reader, map, table);
    let key = key(reader, map, span)?;
    let kind = if word == "text" {
        FieldKind::Text { default: text(reader, map, "default"), format: text(reader, map, "format") }
    } else {
        select(reader, map, span)?
    };
    Some(Field {
        key,
        label: text(reader, map, word),
        hint: text(reader, map, "hint"),
        required: map.get("required").and_then(|entry| reader.flag(entry)).unwrap_or(true),
        kind,
    })
}

fn key(reader: &mut Reader, map: &Map, span: Span) -> Option<String> {
    let Some(entry) = map.get("key").filter(|entry| !entry.value.is_null()) else {
        let diagnostic = Diagnostic::error("missing-key", span, "the field has no `key`");
        reader.findings.push(diagnostic.hint("its answer becomes meta-data under that key"));
        return None;
    };
    let key = reader.name("key", &entry.value, windlass_protocol::limits::NAME_MAX_BYTES)?;
    let awaited = |c: char| reader.open && matches!(c, '$' | '{' | '}');
    let foreign = key.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_/".contains(*c) || awaited(*c)));
    if let Some(foreign) = foreign {
        let message = format!("`{foreign}` cannot stand in a field's key");
        let diagnostic = Diagnostic::error("field-key", entry.value.span, message);
        reader.findings.push(diagnostic.hint("letters, digits and `-` `_` `/` can"));
    }
    Some(key)
}

fn select(reader: &mut Reader, map: &Map, span: Span) -> Option<FieldKind> {
    let items = map.get("options").map(|entry| reader.list("options", "a list of options", &entry.value));
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let span = map.get("options").map_or(span, |entry| entry.key_span);
        reader.error("no-options", span, "a select field has at least one option");
        return None;
    };
    if items.len() > OPTIONS_MAX {
        reader.error("too-many", span, format!("the field has {} options; {OPTIONS_MAX} are the most", items.len()));
        return None;
    }
    let options: Vec<Choice> = items.iter().filter_map(|item| option(reader, item)).collect();
    let multiple = map.get("multiple").and_then(|entry| reader.flag(entry)).unwrap_or(false);
    let default = map.get("default").map(|entry| reader.texts("default", &entry.value)).unwrap_or_default();
    if let Some(entry) = map.get("default") {
        if default.len() > 1 && !multiple {
            reader.error("too-many", entry.value.span, "several values are chosen at first, and only one may be");
        }
        if default.len() > OPTIONS_MAX {
            let message = format!("{} values are chosen at first; {OPTIONS_MAX} are the most", default.len());
            reader.error("too-many", entry.value.span, message);
            return None;
        }
        let known: BTreeSet<&str> = options.iter().map(|option| option.value.as_str()).collect();
        let unknown = default.iter().filter(|value| !known.contains(value.as_str()) && !value.contains('$'));
        for (at, value) in unknown.enumerate() {
            let message = format!("`{}` is not among the options", shown(value));
            // To look for what was meant costs as much as there are options: it is done once.
            let hint = if at == 0 { did_you_mean(value, known.iter().copied()) } else { None };
            reader.findings.push(Diagnostic::warning("unknown-option", entry.value.span, message).maybe_hint(hint));
        }
    }
    Some(FieldKind::Select { options, multiple, default })
}

fn option(reader: &mut Reader, node: &Node) -> Option<Choice> {
    let map = reader.map("options", "a list of mappings with `label` and `value`", node)?;
    attribute::check(reader, map, &OPTION);
    let mut need = |key: &str| {
        let entry = map.get(key).filter(|entry| !entry.value.is_null());
        if entry.is_none() {
            reader.error("missing-attribute", node.span, format!("the option has no `{key}`"));
        }
        entry.and_then(|entry| reader.text(key, &entry.value))
    };
    let (label, value) = (need("label"), need("value"));
    Some(Choice {
        label: label?,
        value: value?,
        hint: text(reader, map, "hint"),
        required: map.get("required").and_then(|entry| reader.flag(entry)).unwrap_or(false),
    })
}
