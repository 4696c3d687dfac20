//! `if_changed`: steps that run only for some files (reference 11.1).

use super::attribute::{self, IF_CHANGED};
use crate::diagnostic::{Diagnostic, Span};
use crate::glob::Glob;
use crate::read::{Reader, shown};
use crate::yaml::{Entry, Kind, Node};

/// Globs of which a changed file must match one, and none of the others.
#[derive(Debug, Clone)]
pub(crate) struct IfChanged {
    /// Where the attribute stands.
    pub(crate) span: Span,
    include: Vec<Glob>,
    exclude: Vec<Glob>,
}

impl IfChanged {
    /// Whether a step runs for these files, by as many looks as are left; `None` where they do not suffice.
    pub(crate) fn matches(&self, changed: &[String], left: &mut u64) -> Option<bool> {
        for path in changed {
            if any(&self.include, path, left)? && !any(&self.exclude, path, left)? {
                return Some(true);
            }
        }
        Some(false)
    }
}

fn any(globs: &[Glob], path: &str, left: &mut u64) -> Option<bool> {
    for glob in globs {
        if glob.matches_within(path, left)? {
            return Some(true);
        }
    }
    Some(false)
}

/// `None`: no condition, or one that upstream's agent would not understand either; the step runs.
pub(crate) fn read(reader: &mut Reader, entry: &Entry) -> Option<IfChanged> {
    match &entry.value.kind {
        Kind::Null => None,
        Kind::Text(_) | Kind::List(_) => {
            let include = globs(reader, "if_changed", &entry.value)?;
            Some(IfChanged { span: entry.key_span, include, exclude: Vec::new() })
        }
        Kind::Map(map) => {
            attribute::check(reader, map, &IF_CHANGED);
            let Some(include) = map.get("include").filter(|include| !include.value.is_null()) else {
                reader.error("missing-attribute", entry.key_span, "`if_changed` names no files to `include`");
                return None;
            };
            let include = globs(reader, "include", &include.value);
            let exclude = match map.get("exclude") {
                Some(exclude) => globs(reader, "exclude", &exclude.value),
                None => Some(Vec::new()),
            };
            Some(IfChanged { span: entry.key_span, include: include?, exclude: exclude? })
        }
        Kind::Bool(_) | Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) => {
            reader.wrong_type("if_changed", "a glob, a list of them, or a mapping with `include`", &entry.value);
            None
        }
    }
}

/// A bad one is told, and makes the whole `None`.
pub(super) fn globs(reader: &mut Reader, what: &str, node: &Node) -> Option<Vec<Glob>> {
    let items = node.as_list().unwrap_or(std::slice::from_ref(node));
    let mut globs = Some(Vec::new());
    for item in items {
        let Some(text) = reader.text(what, item) else {
            globs = None;
            continue;
        };
        match Glob::parse(&text) {
            Ok(glob) => globs.as_mut().map(|globs| globs.push(glob)).unwrap_or_default(),
            Err(_) if reader.is_awaited(item) => globs = None,
            Err(error) => {
                let message = format!("`{}` is not a glob: {error}", shown(&text));
                reader.findings.push(Diagnostic::error("glob", item.span, message));
                globs = None;
            }
        }
    }
    globs
}
