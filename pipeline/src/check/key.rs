//! Keys of steps and groups: their form, and that each is there once (reference 3.3).

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::limits::STEP_KEY_MAX_CHARS;

use crate::diagnostic::{Diagnostic, Severity};
use crate::model::{Key, Named, Pipeline};
use crate::read::{Reader, shown};

/// All keys of a pipeline.
pub(super) type Keys<'a> = BTreeSet<&'a str>;

/// Checks every key.
pub(super) fn check<'a>(reader: &mut Reader, pipeline: &'a Pipeline) -> Keys<'a> {
    let mut first: BTreeMap<&str, &Key> = BTreeMap::new();
    let steps = pipeline.steps.iter().map(|step| (&step.key, step.span));
    let groups = pipeline.groups.iter().map(|group| (&group.key, group.span));
    let mut keys: Vec<&Key> = steps.chain(groups).filter_map(|(key, _)| key.as_ref()).collect();
    keys.sort_by_key(|key| key.named.span);
    for key in keys {
        check_form(reader, &key.named);
        match first.get(key.named.text.as_str()) {
            Some(before) => duplicate(reader, key, before),
            None => {
                first.insert(&key.named.text, key);
            }
        }
    }
    first.into_keys().collect()
}

fn duplicate(reader: &mut Reader, key: &Key, first: &Key) {
    let message = format!("two steps have the key `{}`", shown(&key.named.text));
    let diagnostic = Diagnostic::error("duplicate-step-key", key.named.span, message);
    let diagnostic = diagnostic.hint(format!("the first one is on line {}", first.named.span.line));
    // Upstream's schema lets those pass that are written with the attribute's old names; no build does.
    let passes = reader.open && (key.old_name || first.old_name);
    let severity = if passes { Severity::Warning } else { Severity::Error };
    reader.findings.push(Diagnostic { severity, ..diagnostic });
}

fn check_form(reader: &mut Reader, key: &Named) {
    let length = key.text.chars().count();
    let token = key.text.contains("{{");
    let awaited = token || (reader.open && key.text.contains('$'));
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-:.,".contains(c) || (awaited && "${} ".contains(c));
    let foreign = key.text.chars().find(|c| !fits(*c));
    if key.text.is_empty() {
        reader.error("step-key", key.span, "a key is empty");
    } else if length > STEP_KEY_MAX_CHARS {
        reader.error("step-key", key.span, format!("a key has at most {STEP_KEY_MAX_CHARS} characters, not {length}"));
    } else if let Some(foreign) = foreign {
        let message = format!("`{foreign}` cannot stand in a key");
        let diagnostic = Diagnostic::error("step-key", key.span, message);
        reader.findings.push(diagnostic.hint("letters, digits and `_` `-` `:` `.` `,` can"));
    } else if token {
        let message = "tokens of a matrix are not replaced in a key: all jobs of the step share it as it is written";
        reader.warning("step-key", key.span, message);
    } else if is_uuid(&key.text) {
        reader.error("step-key", key.span, "a key must not look like a UUID: those are the ids of steps");
    }
}

/// 8-4-4-4-12 hexadecimal digits.
pub(super) fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()))
}
