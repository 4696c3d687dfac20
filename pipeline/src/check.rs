//! What only all steps together show: keys, dependencies, cycles (reference 3.3, 6).

mod cycle;

use std::collections::BTreeMap;

use windlass_protocol::limits::STEP_KEY_MAX_CHARS;

use crate::diagnostic::Diagnostic;
use crate::model::{Named, Step, StepKind};
use crate::read::{Reader, shown};
use crate::suggest::did_you_mean;

/// A dependency between steps, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepEdge {
    pub(crate) step: usize,
    pub(crate) allow_failure: bool,
}

/// Checks keys and dependencies, and gives each step's, the implicit ones written out.
pub(crate) fn check(reader: &mut Reader, steps: &[Step]) -> Vec<Vec<StepEdge>> {
    let keys = keys(reader, steps);
    let edges = edges(reader, steps, &keys);
    cycle::check(reader, steps, &edges);
    edges
}

fn keys<'a>(reader: &mut Reader, steps: &'a [Step]) -> BTreeMap<&'a str, usize> {
    let mut keys: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        let Some(key) = &step.key else { continue };
        check_key(reader, key);
        match keys.get(key.text.as_str()).and_then(|first| steps[*first].key.as_ref()) {
            Some(first) => reader.findings.push(
                Diagnostic::error(
                    "duplicate-step-key",
                    key.span,
                    format!("two steps have the key `{}`", shown(&key.text)),
                )
                .hint(format!("the first one is on line {}", first.span.line)),
            ),
            None => {
                keys.insert(&key.text, index);
            }
        }
    }
    keys
}

/// Reference 3.3.
fn check_key(reader: &mut Reader, key: &Named) {
    let length = key.text.chars().count();
    let awaited = |c: char| reader.open && matches!(c, '$' | '{' | '}');
    let foreign = key.text.chars().find(|c| !(c.is_ascii_alphanumeric() || "_-:.,".contains(*c) || awaited(*c)));
    if key.text.is_empty() {
        reader.error("step-key", key.span, "a key is empty");
    } else if length > STEP_KEY_MAX_CHARS {
        reader.error("step-key", key.span, format!("a key has at most {STEP_KEY_MAX_CHARS} characters, not {length}"));
    } else if let Some(foreign) = foreign {
        let message = format!("`{foreign}` cannot stand in a key");
        reader
            .findings
            .push(Diagnostic::error("step-key", key.span, message).hint("letters, digits and `_` `-` `:` `.` `,` can"));
    } else if is_uuid(&key.text) {
        reader.error("step-key", key.span, "a key must not look like a UUID: those are the ids of steps");
    }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn edges(reader: &mut Reader, steps: &[Step], keys: &BTreeMap<&str, usize>) -> Vec<Vec<StepEdge>> {
    let mut all = Vec::with_capacity(steps.len());
    let mut barrier: Option<usize> = None;
    let mut segment_start = 0;
    for (index, step) in steps.iter().enumerate() {
        let forgives = matches!(step.kind, StepKind::Wait { continue_on_failure: true });
        let is_barrier = matches!(step.kind, StepKind::Wait { .. });
        let edges = match &step.depends_on {
            Some(_) => explicit(reader, steps, keys, step, forgives),
            None if is_barrier => {
                // The previous barrier's failure is final: it is never forgiven (reference 6.3).
                let previous = barrier.map(|step| StepEdge { step, allow_failure: false });
                let since = (segment_start..index).map(|step| StepEdge { step, allow_failure: forgives });
                previous.into_iter().chain(since).collect()
            }
            None => barrier.map(|step| StepEdge { step, allow_failure: false }).into_iter().collect(),
        };
        all.push(edges);
        if is_barrier {
            barrier = Some(index);
            segment_start = index + 1;
        }
    }
    all
}

fn explicit(
    reader: &mut Reader,
    steps: &[Step],
    keys: &BTreeMap<&str, usize>,
    step: &Step,
    forgives: bool,
) -> Vec<StepEdge> {
    let mut edges: Vec<StepEdge> = Vec::new();
    let mut at: BTreeMap<usize, usize> = BTreeMap::new();
    for dependency in step.depends_on.iter().flatten() {
        let name = &dependency.step;
        let Some(&target) = keys.get(name.text.as_str()) else {
            if !(reader.open && name.text.contains('$')) {
                unknown(reader, keys, step, name);
            }
            continue;
        };
        let to_barrier = matches!(steps[target].kind, StepKind::Wait { .. });
        let allow_failure = dependency.allow_failure || (forgives && !to_barrier);
        match at.get(&target) {
            // Named twice: it is allowed to fail only if both say so.
            Some(&index) => edges[index].allow_failure &= allow_failure,
            None => {
                at.insert(target, edges.len());
                edges.push(StepEdge { step: target, allow_failure });
            }
        }
    }
    edges
}

fn unknown(reader: &mut Reader, keys: &BTreeMap<&str, usize>, step: &Step, name: &Named) {
    let own = step.key.as_ref().map_or("", |key| key.text.as_str());
    let others = keys.keys().copied().filter(|key| *key != own);
    let hint = if reader.findings.wants_hints() { did_you_mean(&name.text, others) } else { None };
    let who = match &step.key {
        Some(key) => format!("step `{}`", shown(&key.text)),
        None => "the step".to_owned(),
    };
    let message = format!("{who} depends on `{}`, which is not in this pipeline", shown(&name.text));
    reader.findings.push(Diagnostic::error("unknown-dependency", name.span, message).maybe_hint(hint));
}
