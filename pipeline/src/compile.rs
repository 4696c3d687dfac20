//! From a file's text to a graph, or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::limits::PIPELINE_EXPANDED_MAX_BYTES;

use crate::check::check as check_steps;
use crate::condition::Context;
use crate::decide::decide;
use crate::diagnostic::{self, Diagnostic, Findings, Span};
use crate::graph::{Feature, Graph, Group};
use crate::interpolate::tree::{Environment, Walk};
use crate::model::{self, Pipeline, StepKind};
use crate::read::Reader;
use crate::{expand, yaml};

/// What a pipeline is compiled with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'a> {
    /// The build's variables: seen by interpolation, and part of every job's environment, later ones winning.
    pub build_env: &'a [(String, String)],
    /// What else interpolation sees, such as `BUILDKITE_BRANCH`, by which `branches` are decided too; no part of the jobs'
    /// environment.
    pub standard_env: &'a [(String, String)],
    /// What conditions ask about. Without it a pipeline with an `if` does not compile, unless it is only checked.
    pub context: Option<&'a Context>,
    /// Files that have changed, by which `if_changed` is decided; where that is not known, every step runs.
    pub changed: Option<&'a [String]>,
    /// What the coordinator serves that is to run the pipeline: whatever else it needs is told. `None`: it does not matter.
    pub served: Option<&'a [Feature]>,
    /// Variables are in the text already, as where a job's agent has put them in: a `$` is one.
    pub interpolated: bool,
    /// The variables are not known yet, as in a check at a desk: what depends on unknown ones is let pass, a required
    /// one that is not set is a warning, and conditions are checked and not decided.
    pub open: bool,
}

/// What came of a pipeline.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Present if there is no error.
    pub graph: Option<Graph>,
    /// Errors and warnings in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The file's name as it was given.
    pub file: String,
    /// Each queue that a step goes to, and where one does first.
    pub queues: BTreeMap<String, Span>,
}

impl Compiled {
    /// All diagnostics as text for people. `text` is what was compiled.
    #[must_use]
    pub fn render(&self, text: &str) -> String {
        diagnostic::render(&self.diagnostics, &self.file, text)
    }

    /// Adds an error for each queue that is not among those that are served. One whose name holds a variable is let pass.
    pub fn check_queues(&mut self, served: &BTreeSet<String>) {
        for (queue, span) in &self.queues {
            if served.contains(queue) || queue.contains('$') {
                continue;
            }
            let message = format!("no pool serves the queue `{}`", crate::read::shown(queue));
            let hint = crate::suggest::did_you_mean(queue, served.iter().map(String::as_str));
            self.diagnostics.push(Diagnostic::error("no-such-queue", *span, message).maybe_hint(hint));
            self.graph = None;
        }
        self.diagnostics.sort_by_key(|found| found.span);
    }
}

/// Compiles a pipeline that is to run with these variables of its build.
#[must_use]
pub fn compile(text: &str, file: &str, env: &[(String, String)]) -> Compiled {
    compile_with(text, file, &Inputs { build_env: env, ..Inputs::default() })
}

/// Checks a pipeline whose build is not known: `compile` with open inputs.
#[must_use]
pub fn check(text: &str, file: &str) -> Compiled {
    compile_with(text, file, &Inputs { open: true, ..Inputs::default() })
}

/// Compiles a pipeline: all diagnostics at once, and the graph if none is an error.
#[must_use]
pub fn compile_with(text: &str, file: &str, inputs: &Inputs<'_>) -> Compiled {
    let mut findings = Findings::default();
    let mut queues = BTreeMap::new();
    let graph = graph(text, inputs, &mut findings, &mut queues);
    let graph = if findings.has_errors() { None } else { graph };
    Compiled { graph, diagnostics: findings.settle(), file: file.to_owned(), queues }
}

fn graph(
    text: &str,
    inputs: &Inputs<'_>,
    findings: &mut Findings,
    queues: &mut BTreeMap<String, Span>,
) -> Option<Graph> {
    let mut documents = parse(text, findings)?;
    let known = inputs.standard_env.iter().chain(inputs.build_env);
    let mut environment = Environment::new(known, inputs.open);
    let mut room = PIPELINE_EXPANDED_MAX_BYTES;
    let mut reader = Reader::new(std::mem::take(findings), environment.is_open());
    let mut pipeline = Pipeline::default();
    for document in &mut documents {
        let (environment, room, findings) = (&mut environment, &mut room, &mut reader.findings);
        if !inputs.interpolated {
            Walk { source: text, environment, room, findings }.document(document);
        }
        model::read(&mut reader, document, &mut pipeline);
    }
    if pipeline.is_too_large(&mut reader, Span::START) {
        // What is found out of steps together takes time with the square of them.
        *findings = reader.findings;
        return None;
    }
    let fates = decide(&mut reader, &pipeline, inputs);
    let linked = check_steps(&mut reader, &pipeline, &fates, inputs.served);
    *queues = queues_of(&pipeline);
    let uses = std::mem::take(&mut reader.uses);
    if let Some(served) = inputs.served {
        uses.into_iter().for_each(|(feature, span)| tell_unserved(&mut reader, served, feature, span));
    }
    let below = expand::merge([pipeline.env.as_slice(), inputs.build_env]);
    let groups = pipeline.groups.into_iter().map(group).collect();
    let nodes = if reader.findings.has_errors() {
        None
    } else {
        expand::expand(&mut reader, pipeline.steps, fates, linked, &below)
    };
    *findings = reader.findings;
    Some(Graph {
        nodes: nodes?,
        supersede: pipeline.supersede.unwrap_or_default(),
        groups,
        env: pipeline.env,
        notify: pipeline.notify,
    })
}

fn group(group: model::Group) -> Group {
    Group {
        key: group.key.map(|key| key.named.text),
        label: group.label,
        place: group.place,
        uploaded_by: None,
        declared: group.depends_on.map(|all| all.iter().map(model::Dependency::to_graph).collect()),
        allow_dependency_failure: group.allow_dependency_failure,
        notify: group.notify,
    }
}

fn queues_of(pipeline: &Pipeline) -> BTreeMap<String, Span> {
    let mut queues = BTreeMap::new();
    for step in &pipeline.steps {
        for element in &step.elements {
            let StepKind::Command(command) = &element.kind else { continue };
            let (queue, span) = match command.agents.as_ref().and_then(|agents| agents.queue.as_ref()) {
                Some(queue) => (queue.text.clone(), queue.span),
                None => (expand::DEFAULT_QUEUE.to_owned(), step.span),
            };
            queues.entry(queue).or_insert(span);
        }
    }
    queues
}

/// What a coordinator cannot do is never skipped over, unless the step does its own work without.
fn tell_unserved(reader: &mut Reader, served: &[Feature], feature: Feature, span: Span) {
    if served.contains(&feature) {
        return;
    }
    let (message, hint) = match feature {
        Feature::Block | Feature::Input | Feature::Trigger | Feature::Group => {
            (format!("steps of kind `{feature}` are not served yet"), "nothing runs: running past it could do harm")
        }
        // Told where keys are looked for, with the name that may be meant.
        Feature::UnresolvedDependency => return,
        Feature::CacheVolume => {
            let told = Diagnostic::warning("not-served", span, "a `cache` without `key` is not served: ignored");
            let hint = "it is a volume of Buildkite's hosted agents; with a `key` it is kept for every agent";
            return reader.findings.push(told.hint(hint));
        }
        _ if feature.is_harmless() => {
            return reader.warning("not-served", span, format!("`{feature}` is not served yet: ignored"));
        }
        _ => (
            format!("`{feature}` is not served yet"),
            "the step would run otherwise than it says; take the attribute out to run it regardless",
        ),
    };
    reader.findings.push(Diagnostic::error("not-served", span, message).hint(hint));
}

fn parse(text: &str, findings: &mut Findings) -> Option<Vec<yaml::Node>> {
    let parsed = yaml::parse(text);
    parsed.warnings.into_iter().for_each(|warning| findings.push(warning));
    if let Some(error) = parsed.error {
        findings.push(error);
        return None;
    }
    if parsed.documents.is_empty() {
        findings.push(
            Diagnostic::error("no-document", Span::START, "the file is empty")
                .hint("write `steps:` with a list of steps"),
        );
        return None;
    }
    Some(parsed.documents)
}
