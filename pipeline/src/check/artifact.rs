//! Artifacts that are fetched and that nothing makes: told, since scripts may do what a pipeline does not show.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Diagnostic, Span};
use crate::glob::Glob;
use crate::model::{CommandStep, Pipeline, StepKind};
use crate::read::{Reader, shown};

/// The plugin that uploads and downloads.
const PLUGIN: &str = "artifacts-buildkite-plugin";

/// Flags of `artifact download` that have no value.
const BARE_FLAGS: [&str; 3] = ["--include-retried-jobs", "--no-http2", "--debug"];

/// Comparisons of paths with globs; beyond it nothing is told, as it is only a warning.
const COMPARISONS_MAX: usize = 1_000_000;

/// What all steps upload, as far as it shows.
#[derive(Default)]
struct Uploads {
    globs: BTreeSet<String>,
    /// Something uploads files of which the pipeline does not say which.
    others: bool,
}

/// Tells downloads that no step's uploads can satisfy.
pub(super) fn check(reader: &mut Reader, pipeline: &Pipeline) {
    let commands = || {
        pipeline.steps.iter().flat_map(|step| {
            step.elements.iter().filter_map(move |element| match &element.kind {
                StepKind::Command(command) => Some((step.span, command.as_ref())),
                StepKind::Wait { .. } | StepKind::Block(_) | StepKind::Input(_) | StepKind::Trigger(_) => None,
            })
        })
    };
    let mut uploads = Uploads::default();
    for (_, command) in commands() {
        if command.command.contains("pipeline upload") {
            // What comes with it is not known here.
            return;
        }
        uploads.add(command);
    }
    let mut fetched: BTreeMap<String, Span> = BTreeMap::new();
    for (span, command) in commands() {
        for wanted in downloads(command) {
            fetched.entry(wanted).or_insert(span);
        }
    }
    if fetched.len().saturating_mul(uploads.globs.len()) > COMPARISONS_MAX {
        return;
    }
    let known = uploads.known();
    for (wanted, span) in fetched {
        uploads.satisfy(reader, span, &wanted, known.as_deref());
    }
}

impl Uploads {
    fn add(&mut self, command: &CommandStep) {
        self.globs.extend(command.artifact_paths.iter().cloned());
        self.others |= command.command.contains("artifact upload");
        for plugin in command.plugins.iter().filter(|plugin| plugin.source.contains(PLUGIN)) {
            self.others |= plugin.config.get("upload").is_some();
        }
    }

    /// The globs without variables; `None` if there are others.
    fn known(&self) -> Option<Vec<Glob>> {
        if self.globs.iter().any(|glob| glob.contains('$')) {
            return None;
        }
        Some(self.globs.iter().filter_map(|glob| Glob::parse(glob.trim_start_matches("./")).ok()).collect())
    }

    fn satisfy(&self, reader: &mut Reader, span: Span, wanted: &str, known: Option<&[Glob]>) {
        if self.others {
            return;
        }
        if self.globs.is_empty() {
            let message = format!("the step downloads `{}`, and no step uploads an artifact", shown(wanted));
            let diagnostic = Diagnostic::warning("artifact-not-uploaded", span, message);
            reader.findings.push(diagnostic.hint("name the files in `artifact_paths` of the step that makes them"));
            return;
        }
        let unsure = |text: &str| text.contains(['$', '`', '*', '?', '[', '{']) || text.contains("{{");
        let path = wanted.trim_start_matches("./");
        let named = known.is_none_or(|globs| globs.iter().any(|glob| glob.matches(path)));
        if !unsure(wanted) && !named {
            let message = format!("the step downloads `{}`, which no step's `artifact_paths` name", shown(wanted));
            reader.warning("artifact-not-uploaded", span, message);
        }
    }
}

/// What a step fetches of its own build.
fn downloads(command: &CommandStep) -> Vec<String> {
    let mut wanted: Vec<String> = command.command.lines().filter_map(of_line).collect();
    for plugin in command.plugins.iter().filter(|plugin| plugin.source.contains(PLUGIN)) {
        if plugin.config.get("build").is_some() {
            continue;
        }
        wanted.extend(plugin.config.get("download").into_iter().flat_map(of_setting));
    }
    wanted
}

/// `download: path`, or a list of paths and of mappings with `from`.
fn of_setting(setting: &serde_json::Value) -> Vec<String> {
    match setting {
        serde_json::Value::String(path) => vec![path.clone()],
        serde_json::Value::Array(items) => items.iter().flat_map(of_setting).collect(),
        serde_json::Value::Object(map) => map.get("from").into_iter().flat_map(of_setting).collect(),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => Vec::new(),
    }
}

/// The first argument of `buildkite-agent artifact download`, unless it asks another build.
fn of_line(line: &str) -> Option<String> {
    let at = ["buildkite-agent artifact download ", "windlass artifact download "]
        .iter()
        .find_map(|call| line.find(call).map(|at| at + call.len()))?;
    if line.trim_start().starts_with('#') {
        return None;
    }
    let mut words = line[at..].split_whitespace();
    let mut first = None;
    while let Some(word) = words.next() {
        if ["&&", "||", ";", "|"].contains(&word) {
            break;
        }
        if word == "--build" || word.starts_with("--build=") {
            return None;
        }
        if word.starts_with('-') {
            if !word.contains('=') && !BARE_FLAGS.contains(&word) {
                words.next();
            }
        } else if first.is_none() {
            first = Some(word.trim_matches(['"', '\'']).to_owned());
        }
    }
    first
}
