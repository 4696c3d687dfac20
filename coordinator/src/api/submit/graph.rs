//! From a pipeline's text to the graph that a build runs, and the choice of some of its steps.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use windlass_coordinator_core::row::Registered;
use windlass_pipeline::Compiled;
use windlass_pipeline::graph::{Edge, Graph};
use windlass_protocol::BuildId;

use super::Steps;
use super::source::Found;
use crate::api::problem::{Kind, Problem};
use crate::facts::{Facts, beneath};

/// Takes a while for large pipelines.
pub(super) fn compile(found: &Found, creator: &str, id: BuildId, number: Option<u64>) -> Result<Graph, Problem> {
    let Found { draft, definition } = found;
    let pipeline = draft.registered.as_ref();
    let registered = pipeline.map(Registered::from);
    let facts = Facts {
        id,
        number,
        pipeline: &draft.pipeline,
        registered: registered.as_ref(),
        beneath: beneath(pipeline),
        branch: &draft.branch,
        commit: &draft.commit,
        tag: draft.tag.as_deref(),
        message: &draft.message,
        source: draft.source,
        triggered_from: None,
        creator,
        origin: &draft.origin,
        env: &draft.env,
        changed: draft.changed.as_deref(),
    };
    let compiled = facts.compile(&definition.text, &definition.file).map_err(|error| Problem::internal(&error))?;
    let mut graph = graph_of(compiled)?;
    if let Some(steps) = &draft.steps {
        graph = narrow(graph, steps)?;
    }
    Ok(graph)
}

/// The graph of a pipeline that can run, or all that is wrong with it.
pub(crate) fn graph_of(compiled: Compiled) -> Result<Graph, Problem> {
    let Some(graph) = compiled.graph else {
        let errors = compiled.diagnostics.iter().filter_map(|found| serde_json::to_value(found).ok()).collect();
        let detail = format!("{} cannot run; errors[] says why", compiled.file);
        return Err(Problem::new(Kind::PipelineInvalid, detail).with_errors(errors));
    };
    Ok(graph)
}

/// Keeps some steps, with what they depend on or without. Edges to steps that are left out are left out.
fn narrow(graph: Graph, steps: &Steps) -> Result<Graph, Problem> {
    let mut kept = vec![false; graph.nodes.len()];
    let (mut by_key, mut by_label) = (BTreeMap::<_, Vec<usize>>::new(), BTreeMap::<_, Vec<usize>>::new());
    for (index, node) in graph.nodes.iter().enumerate() {
        by_label.entry(node.label.as_str()).or_default().push(index);
        if let Some(key) = &node.key {
            by_key.entry(key.as_str()).or_default().push(index);
        }
    }
    let mut open: Vec<usize> = Vec::new();
    for key in steps.keys.iter().map(String::as_str).collect::<BTreeSet<_>>() {
        let named = by_key.get(key).or_else(|| by_label.get(key));
        open.extend(named.ok_or_else(|| unknown_step(&graph, key))?);
    }
    while let Some(index) = open.pop() {
        if !std::mem::replace(&mut kept[index], true) && steps.with_dependencies {
            open.extend(graph.nodes[index].depends_on.iter().filter_map(|edge| usize::try_from(edge.node).ok()));
        }
    }
    let mut places = Vec::with_capacity(kept.len());
    let mut next = 0_u32;
    for kept in &kept {
        places.push(kept.then_some(next));
        next += u32::from(*kept);
    }
    let place = |edge: &Edge| {
        let node = *places.get(usize::try_from(edge.node).ok()?)?;
        Some(Edge { node: node?, allow_failure: edge.allow_failure })
    };
    let mut nodes = graph.nodes;
    let mut kept = kept.into_iter();
    nodes.retain(|_| kept.next().unwrap_or(false));
    for node in &mut nodes {
        node.depends_on = node.depends_on.iter().filter_map(place).collect();
    }
    Ok(Graph { nodes, ..graph })
}

fn unknown_step(graph: &Graph, key: &str) -> Problem {
    let known: Vec<_> = graph.nodes.iter().filter_map(|node| node.key.as_deref()).take(20).collect();
    let message = format!("the pipeline has no step `{key}`");
    let hint = if known.is_empty() { None } else { Some(format!("its steps are {}", known.join(", "))) };
    let error = json!({ "severity": "error", "code": "unknown-step-key", "message": message, "hint": hint });
    Problem::new(Kind::PipelineInvalid, message).with_errors(vec![error])
}
