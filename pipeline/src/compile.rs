//! From a file's text to a graph, or to everything that is wrong with it.

use windlass_protocol::limits::PIPELINE_EXPANDED_MAX_BYTES;

use crate::check::check as check_steps;
use crate::diagnostic::{self, Diagnostic, Findings, Span};
use crate::graph::Graph;
use crate::interpolate::tree::{Environment, Walk};
use crate::model::{self, Step};
use crate::read::Reader;
use crate::{expand, yaml};

/// What a pipeline is compiled with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'a> {
    /// The build's variables: seen by interpolation, and part of every job's environment, later ones winning.
    pub build_env: &'a [(String, String)],
    /// What else interpolation sees, such as `BUILDKITE_BRANCH`; no part of the jobs' environment.
    pub standard_env: &'a [(String, String)],
    /// The variables are not known yet, as in a check at a desk: what depends on unknown ones is let pass, and a required
    /// one that is not set is a warning.
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
}

impl Compiled {
    /// All diagnostics as text for people. `text` is what was compiled.
    #[must_use]
    pub fn render(&self, text: &str) -> String {
        diagnostic::render(&self.diagnostics, &self.file, text)
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
    let graph = graph(text, inputs, &mut findings);
    let graph = if findings.has_errors() { None } else { graph };
    Compiled { graph, diagnostics: findings.settle(), file: file.to_owned() }
}

fn graph(text: &str, inputs: &Inputs<'_>, findings: &mut Findings) -> Option<Graph> {
    let mut documents = parse(text, findings)?;
    let known = inputs.standard_env.iter().chain(inputs.build_env);
    let mut environment = Environment::new(known, inputs.open);
    let mut room = PIPELINE_EXPANDED_MAX_BYTES;
    let mut reader = Reader { findings: std::mem::take(findings), open: environment.is_open() };
    let mut graph = Graph::default();
    let mut steps: Vec<Step> = Vec::new();
    let mut env: Vec<(String, String)> = Vec::new();
    for document in &mut documents {
        let (environment, room, findings) = (&mut environment, &mut room, &mut reader.findings);
        Walk { source: text, environment, room, findings }.document(document);
        let mut read = model::read(&mut reader, document);
        read.steps.iter_mut().for_each(|step| expand::apply(&read.defaults, step));
        steps.append(&mut read.steps);
        env = expand::merge([env.as_slice(), &read.env]);
        graph.supersede = read.supersede.unwrap_or(graph.supersede);
    }
    let edges = check_steps(&mut reader, &steps);
    let nodes = if reader.findings.has_errors() {
        None
    } else {
        let env = expand::merge([env.as_slice(), inputs.build_env]);
        expand::expand(&mut reader, steps, &edges, &env)
    };
    *findings = reader.findings;
    Some(Graph { nodes: nodes?, ..graph })
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
