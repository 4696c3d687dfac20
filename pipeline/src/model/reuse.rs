//! `reuse`: what a step's result depends on. Ours.

mod blob;

use windlass_protocol::limits::{REUSE_ENV_MAX, REUSE_GLOBS_MAX};

use super::attribute::{self, REUSE};
use super::cache::CacheChoice;
use super::{CommandStep, changed};
use crate::diagnostic::Diagnostic;
use crate::graph::Reuse;
use crate::read::{Reader, shown};
use crate::yaml::{Entry, Kind, Map};

/// All hits.
const MILLION: u32 = 1_000_000;

/// `true` is the same as a mapping without anything.
pub(super) fn read(reader: &mut Reader, entry: &Entry) -> Option<Reuse> {
    let map = match &entry.value.kind {
        Kind::Null | Kind::Bool(false) => return None,
        Kind::Bool(true) => return Some(Reuse::default()),
        Kind::Map(map) => map,
        Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) | Kind::Text(_) | Kind::List(_) => {
            let expected =
                "`true`, or a mapping of `inputs`, `artifacts`, `blobs`, `outputs`, `env`, `secrets` and `verify`";
            reader.wrong_type("reuse", expected, &entry.value);
            return None;
        }
    };
    attribute::check(reader, map, &REUSE);
    let mut reuse = Reuse {
        inputs: paths(reader, map, "inputs", Lie::Inside),
        artifacts: texts(reader, map, "artifacts"),
        blobs: Vec::new(),
        outputs: paths(reader, map, "outputs", Lie::Anywhere),
        env: names(reader, map),
        secrets: map.get("secrets").and_then(|entry| reader.flag(entry)).unwrap_or(false),
        verify_ppm: map.get("verify").and_then(|entry| share(reader, entry)).unwrap_or(0),
    };
    reuse.blobs = blob::read(reader, map, &reuse);
    let listed = reuse.inputs.len() + reuse.artifacts.len() + reuse.outputs.len();
    if listed > REUSE_GLOBS_MAX {
        let message = format!("`reuse` names more than {REUSE_GLOBS_MAX} inputs, artifacts and outputs");
        reader.error("too-many", entry.key_span, message);
    }
    Some(reuse)
}

/// Says which of the step's other attributes keep it from ever being reused.
pub(super) fn check(reader: &mut Reader, map: &Map, step: &CommandStep) {
    let (Some(reuse), Some(at)) = (&step.reuse, map.get("reuse")) else { return };
    let mut never = |what: &str, hint: &str| {
        let diagnostic = Diagnostic::warning("never-reused", at.key_span, format!("the step is never reused: {what}"));
        reader.findings.push(diagnostic.hint(hint));
    };
    if !step.secrets.is_empty() && !reuse.secrets {
        never(
            "it has `secrets`",
            "with `secrets: true` in `reuse` their versions count, and a new version runs it anew",
        );
    }
    if matches!(&step.cache, CacheChoice::Of(cache) if cache.key.is_some()) {
        never("it restores a `cache`, of which nothing is in its key", "leave out one of the two");
    }
}

fn texts(reader: &mut Reader, map: &Map, key: &str) -> Vec<String> {
    let given = map.get(key).map(|entry| reader.texts(key, &entry.value)).unwrap_or_default();
    given.into_iter().filter(|text| !text.trim().is_empty()).collect()
}

/// Where the files of a glob may lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// In the source: nothing else is laid out.
    Inside,
    /// Wherever the step makes them.
    Anywhere,
}

/// Globs, as they match: `./a` and `a` are the same to a person, and a folder's name alone means all that is in it.
fn paths(reader: &mut Reader, map: &Map, key: &str, lie: Lie) -> Vec<String> {
    let Some(entry) = map.get(key) else { return Vec::new() };
    if entry.value.is_null() {
        return Vec::new();
    }
    changed::globs(reader, key, &entry.value);
    let items = entry.value.as_list().unwrap_or(std::slice::from_ref(&entry.value));
    for item in items {
        let Some(text) = item.as_text().filter(|_| !reader.is_awaited(item)) else { continue };
        let outside = text.starts_with(['/', '~']) || text.split('/').any(|part| part == "..");
        if outside && lie == Lie::Inside {
            let message = format!("`{}` lies outside the source: `inputs` are paths within it", shown(text));
            let hint = "what is outside decides the result by the image, or by the fingerprint of the pool's machines";
            reader.findings.push(Diagnostic::error("reuse-path", item.span, message).hint(hint));
        }
    }
    let given = texts(reader, map, key);
    // As in `artifact_paths`; a `;` in the name of an input is part of it.
    let outputs = |text: &'_ str| text.split(';').map(|text| text.trim().to_owned()).collect::<Vec<_>>();
    let given: Vec<String> = match lie {
        Lie::Inside => given,
        Lie::Anywhere => given.iter().flat_map(|text| outputs(text)).filter(|text| !text.is_empty()).collect(),
    };
    given.iter().map(|text| text.strip_prefix("./").unwrap_or(text).to_owned()).collect()
}

/// Names of variables.
fn names(reader: &mut Reader, map: &Map) -> Vec<String> {
    let Some(entry) = map.get("env") else { return Vec::new() };
    let names = texts(reader, map, "env");
    if names.len() > REUSE_ENV_MAX {
        let message = format!("`env` names more than {REUSE_ENV_MAX} variables");
        reader.error("too-many", entry.value.span, message);
    }
    for name in names.iter().filter(|name| name.contains(['=', '\0'])) {
        let message = format!("`{}` is not the name of a variable", shown(name));
        let diagnostic = Diagnostic::error("variable-name", entry.value.span, message);
        reader.findings.push(diagnostic.hint("only names stand here; values are set by the step's `env`"));
    }
    names
}

/// `1%`, in parts of a million.
fn share(reader: &mut Reader, entry: &Entry) -> Option<u32> {
    if entry.value.is_null() {
        return None;
    }
    let text = reader.text("verify", &entry.value)?;
    let share = text.trim().strip_suffix('%').and_then(|digits| parts(digits.trim()));
    let Some(share) = share else {
        reader.wrong_type("verify", "a share of the hits such as `1%` or `0.01%`", &entry.value);
        return None;
    };
    if share > MILLION {
        reader.error("out-of-range", entry.value.span, "`verify` must be from 0% to 100%");
        return None;
    }
    Some(share)
}

/// A percentage with at most four digits behind its point, in parts of a million.
fn parts(text: &str) -> Option<u32> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(rest) || rest.len() > 4 || text.ends_with('.') {
        return None;
    }
    let rest: u32 = format!("{rest:0<4}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(10_000)?.checked_add(rest)
}
