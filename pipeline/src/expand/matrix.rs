//! A matrix: its combinations, and a step as one of them has it (reference 8.1, 8.2).

use std::collections::BTreeMap;

use windlass_protocol::limits::{
    MATRIX_ADJUSTMENTS_MAX, MATRIX_DIMENSIONS_MAX, MATRIX_JOBS_MAX, MATRIX_VALUE_MAX_BYTES, MATRIX_VALUES_MAX,
};

use super::token;
use crate::diagnostic::{Diagnostic, Span};
use crate::model::attribute::{self, ADJUSTMENT, MATRIX};
use crate::read::{Reader, shown};
use crate::suggest::did_you_mean;
use crate::yaml::{Entry, Kind, Map, Node};

/// Attributes whose text stays as it is written.
const UNTOUCHED: [&str; 10] =
    ["key", "id", "identifier", "depends_on", "concurrency_group", "if", "branches", "matrix", "signature", "type"];

/// The values of one job.
#[derive(Debug, Clone)]
pub(crate) struct Combination {
    /// Dimension and value in the matrix's order; an anonymous dimension has the empty name.
    pub(crate) choice: Vec<(String, String)>,
    /// Takes the place of the step's.
    skip: Option<Node>,
    /// Takes the place of the step's.
    soft_fail: Option<Node>,
}

/// A dimension and its values.
type Dimension = (String, Vec<String>);

/// All combinations, adjusted; `None` if there is no telling.
pub(crate) fn read(reader: &mut Reader, entry: &Entry) -> Option<Vec<Combination>> {
    let (dimensions, adjustments) = match &entry.value.kind {
        Kind::List(_) => (vec![anonymous(reader, &entry.value)?], None),
        Kind::Map(map) => {
            attribute::check(reader, map, &MATRIX);
            let Some(setup) = map.get("setup").filter(|setup| !setup.value.is_null()) else {
                reader.error("matrix-setup", entry.key_span, "the matrix has no `setup`");
                return None;
            };
            (dimensions(reader, setup)?, map.get("adjustments"))
        }
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_) => {
            reader.decode(|reader| {
                reader.wrong_type("matrix", "a list of values, or a mapping with `setup`", &entry.value);
            });
            return None;
        }
    };
    let mut combinations = product(reader, entry.key_span, &dimensions)?;
    if let Some(adjustments) = adjustments {
        adjust(reader, adjustments, &dimensions, &mut combinations)?;
    }
    if combinations.len() > MATRIX_JOBS_MAX {
        let message = format!("the matrix has {} jobs; {MATRIX_JOBS_MAX} are the most", combinations.len());
        reader.error("matrix-size", entry.key_span, message);
        return None;
    }
    if combinations.is_empty() {
        reader.warning("empty-matrix", entry.key_span, "the matrix has no combination: the step makes no job");
    }
    Some(combinations)
}

fn dimensions(reader: &mut Reader, setup: &Entry) -> Option<Vec<Dimension>> {
    let Kind::Map(map) = &setup.value.kind else { return Some(vec![anonymous(reader, &setup.value)?]) };
    if map.len() > MATRIX_DIMENSIONS_MAX {
        let message = format!("the matrix has {} dimensions; {MATRIX_DIMENSIONS_MAX} are the most", map.len());
        reader.error("matrix-size", setup.key_span, message);
        return None;
    }
    let mut dimensions = Vec::with_capacity(map.len());
    for entry in map {
        let awaited = reader.open && entry.key.contains('$');
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !awaited && (entry.key.is_empty() || !entry.key.chars().all(fits)) {
            let message = format!("`{}` is not the name of a dimension", shown(&entry.key));
            let diagnostic = Diagnostic::error("matrix-dimension", entry.key_span, message);
            reader.findings.push(diagnostic.hint("letters, digits and `_` can stand in it"));
        }
        within(reader, &entry.key, entry.key_span);
        dimensions.push((entry.key.clone(), values(reader, &entry.value)?));
    }
    Some(dimensions)
}

fn anonymous(reader: &mut Reader, node: &Node) -> Option<Dimension> {
    Some((String::new(), values(reader, node)?))
}

fn values(reader: &mut Reader, node: &Node) -> Option<Vec<String>> {
    let Some(items) = node.as_list() else {
        reader.decode(|reader| reader.wrong_type("matrix", "a list of values", node));
        return None;
    };
    if items.len() > MATRIX_VALUES_MAX {
        let message = format!("a dimension has {} values; {MATRIX_VALUES_MAX} are the most", items.len());
        reader.error("matrix-size", node.span, message);
        return None;
    }
    items.iter().map(|item| value(reader, item)).collect()
}

fn value(reader: &mut Reader, node: &Node) -> Option<String> {
    let text = reader.decode(|reader| reader.text("matrix", node))?;
    within(reader, &text, node.span);
    Some(text)
}

fn within(reader: &mut Reader, text: &str, span: Span) {
    if text.len() > MATRIX_VALUE_MAX_BYTES {
        let message = format!("a value of a matrix has {} bytes; {MATRIX_VALUE_MAX_BYTES} are the most", text.len());
        reader.error("matrix-size", span, message);
    }
}

/// In the order of the dimensions, the last varying fastest.
fn product(reader: &mut Reader, span: Span, dimensions: &[Dimension]) -> Option<Vec<Combination>> {
    if dimensions.is_empty() {
        return Some(Vec::new());
    }
    let jobs = dimensions.iter().fold(1_usize, |jobs, (_, values)| jobs.saturating_mul(values.len()));
    if jobs > MATRIX_JOBS_MAX {
        reader.error("matrix-size", span, format!("the matrix has {jobs} jobs; {MATRIX_JOBS_MAX} are the most"));
        return None;
    }
    let mut choices: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for (name, values) in dimensions {
        choices = choices
            .iter()
            .flat_map(|choice| {
                values.iter().map(move |value| {
                    let mut choice = choice.clone();
                    choice.push((name.clone(), value.clone()));
                    choice
                })
            })
            .collect();
    }
    Some(choices.into_iter().map(|choice| Combination { choice, skip: None, soft_fail: None }).collect())
}

/// Changes combinations, and adds those that are none yet at the end.
fn adjust(
    reader: &mut Reader,
    entry: &Entry,
    dimensions: &[Dimension],
    combinations: &mut Vec<Combination>,
) -> Option<()> {
    let items = reader.list("adjustments", "a list of mappings with `with`", &entry.value);
    if items.len() > MATRIX_ADJUSTMENTS_MAX {
        let message = format!("the matrix has {} adjustments; {MATRIX_ADJUSTMENTS_MAX} are the most", items.len());
        reader.error("matrix-size", entry.key_span, message);
        return None;
    }
    for item in items {
        let Some(map) = reader.map("adjustments", "a list of mappings with `with`", item) else { continue };
        attribute::check(reader, map, &ADJUSTMENT);
        let Some(choice) = with(reader, item, map, dimensions) else { continue };
        let at = combinations.iter().position(|combination| combination.choice == choice).unwrap_or_else(|| {
            combinations.push(Combination { choice, skip: None, soft_fail: None });
            combinations.len() - 1
        });
        // Any text says skip here, even the empty one; and whoever says skip last is not undone by who says nothing.
        let skip = map.get("skip").map(|entry| &entry.value);
        match skip.map(|node| &node.kind) {
            None | Some(Kind::Null | Kind::Bool(false)) => {}
            Some(Kind::Text(text)) if text.is_empty() => {
                combinations[at].skip = Some(Node { span: item.span, kind: Kind::Bool(true) });
            }
            Some(_) => combinations[at].skip = skip.cloned(),
        }
        if let Some(soft_fail) = map.get("soft_fail").filter(|entry| !entry.value.is_null()) {
            combinations[at].soft_fail = Some(soft_fail.value.clone());
        }
    }
    Some(())
}

/// The combination that an adjustment is about, with every dimension in the matrix's order.
fn with(reader: &mut Reader, item: &Node, map: &Map, dimensions: &[Dimension]) -> Option<Vec<(String, String)>> {
    let Some(entry) = map.get("with").filter(|entry| !entry.value.is_null()) else {
        reader.error("matrix-adjustment", item.span, "the adjustment does not say `with` which values");
        return None;
    };
    let named = !matches!(dimensions, [(name, _)] if name.is_empty());
    match &entry.value.kind {
        Kind::Map(values) if named => named_choice(reader, entry, values, dimensions),
        Kind::Map(_) => mismatch(reader, entry, "the matrix has one dimension without a name: `with` is its value"),
        _ if named => mismatch(reader, entry, "the matrix has named dimensions: `with` gives each of them a value"),
        Kind::List(items) => match items.as_slice() {
            [only] => Some(vec![(String::new(), value(reader, only)?)]),
            _ => mismatch(reader, entry, "the matrix has one dimension: `with` is one value"),
        },
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_) => Some(vec![(String::new(), value(reader, &entry.value)?)]),
    }
}

fn mismatch<T>(reader: &mut Reader, entry: &Entry, message: &str) -> Option<T> {
    reader.error("matrix-adjustment", entry.value.span, message);
    None
}

fn named_choice(
    reader: &mut Reader,
    entry: &Entry,
    values: &Map,
    dimensions: &[Dimension],
) -> Option<Vec<(String, String)>> {
    let mut sound = true;
    for given in values.iter().filter(|given| !dimensions.iter().any(|(name, _)| *name == given.key)) {
        let hint = did_you_mean(&given.key, dimensions.iter().map(|(name, _)| name.as_str()));
        let message = format!("the matrix has no dimension `{}`", shown(&given.key));
        reader.findings.push(Diagnostic::error("matrix-adjustment", given.key_span, message).maybe_hint(hint));
        sound = false;
    }
    let mut choice = Vec::with_capacity(dimensions.len());
    for (name, _) in dimensions {
        let Some(given) = values.get(name) else {
            let message = format!("the adjustment gives no value to the dimension `{}`", shown(name));
            reader.error("matrix-adjustment", entry.key_span, message);
            sound = false;
            continue;
        };
        choice.push((name.clone(), value(reader, &given.value)?));
    }
    sound.then_some(choice)
}

/// The step as one job has it: tokens replaced, the matrix itself left out.
pub(crate) fn apply(reader: &mut Reader, step: &Map, combination: &Combination) -> Map {
    let mut map = Map::default();
    for entry in step.iter().filter(|entry| entry.key != "matrix") {
        let mut entry = entry.clone();
        if entry.key == "env"
            && let Kind::Map(variables) = &mut entry.value.kind
        {
            for variable in variables.entries_mut() {
                replace(reader, &mut variable.value, &combination.choice);
            }
        } else if !UNTOUCHED.contains(&entry.key.as_str()) {
            replace(reader, &mut entry.value, &combination.choice);
        }
        map.entries_mut().push(entry);
    }
    put(&mut map, "skip", combination.skip.as_ref());
    put(&mut map, "soft_fail", combination.soft_fail.as_ref());
    map
}

fn put(map: &mut Map, key: &str, value: Option<&Node>) {
    let Some(value) = value else { return };
    let entries = map.entries_mut();
    match entries.iter_mut().find(|entry| entry.key == key) {
        Some(entry) => entry.value = value.clone(),
        None => entries.push(Entry { key: key.to_owned(), key_span: value.span, value: value.clone() }),
    }
}

/// Every text in there, keys too. Recursion ends at `PIPELINE_DEPTH_MAX`.
fn replace(reader: &mut Reader, node: &mut Node, choice: &[(String, String)]) {
    let span = node.span;
    match &mut node.kind {
        Kind::Text(text) => replace_text(reader, text, span, choice),
        Kind::List(items) => items.iter_mut().for_each(|item| replace(reader, item, choice)),
        Kind::Map(map) => {
            for entry in map.entries_mut() {
                replace_text(reader, &mut entry.key, entry.key_span, choice);
                replace(reader, &mut entry.value, choice);
            }
            unique(map);
        }
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) => {}
    }
}

/// Keys that became the same: the last one wins, at the first one's position (reference 1.3).
fn unique(map: &mut Map) {
    let entries = std::mem::take(map.entries_mut());
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries {
        let list = map.entries_mut();
        match at.get(&entry.key) {
            Some(&known) => list[known].value = entry.value,
            None => {
                at.insert(entry.key.clone(), list.len());
                list.push(entry);
            }
        }
    }
}

fn replace_text(reader: &mut Reader, text: &mut String, span: Span, choice: &[(String, String)]) {
    match token::replace(text, choice) {
        Ok(None) => {}
        Ok(Some(replaced)) => *text = replaced,
        Err(bad) => {
            let names = choice.iter().map(|(name, _)| name.as_str()).filter(|name| !name.is_empty());
            let message = match choice {
                [(name, _)] if name.is_empty() => {
                    format!(
                        "`{}` names a dimension, and the matrix has one without a name: write `{{{{matrix}}}}`",
                        shown(&bad)
                    )
                }
                _ => format!("`{}` is not a dimension of the matrix", shown(&bad)),
            };
            let hint = token::dimension(&bad).and_then(|written| did_you_mean(written, names));
            reader.findings.push(Diagnostic::error("matrix-token", span, message).maybe_hint(hint));
        }
    }
}
