//! Checked steps to the graph's nodes: defaults, matrix, parallel jobs.

mod document;
mod label;
pub(crate) mod matrix;
mod token;

use std::collections::BTreeMap;

use windlass_protocol::limits::{EDGES_PER_BUILD_MAX, ENV_MAX_BYTES, GRAPH_MAX_BYTES, JOBS_PER_BUILD_MAX};

use crate::decide::Fate;
use crate::diagnostic::Span;
use crate::graph::{Broken, Command, Edge, Linked, Node, NodeKind, Trigger};
use crate::model::{Agents, CommandStep, Defaults, Element, Step, StepKind, TriggerStep, checkout, secret};
use crate::read::Reader;

pub use document::expand_document;
pub use label::numbered as numbered_label;
use label::{from_command, numbered};

/// A queue that no step names.
pub(crate) const DEFAULT_QUEUE: &str = "default";

/// Gives a command step what its document says for all, which costs each job so many bytes.
pub(crate) fn apply(defaults: &Defaults, bytes: usize, step: &mut Step) {
    for element in &mut step.elements {
        let StepKind::Command(command) = &mut element.kind else { continue };
        element.bytes += bytes;
        // A step's own agents take the place of the document's as a whole (reference 2).
        command.agents = command.agents.take().or_else(|| defaults.agents.clone());
        command.image = command.image.take().or_else(|| defaults.image.clone());
        command.priority = command.priority.or(defaults.priority);
        command.timeout_ms = command.timeout_ms.or(defaults.timeout_ms);
        command.secrets = secret::merge([std::mem::take(&mut command.secrets), defaults.secrets.clone()]);
        command.checkout = checkout::merge(std::mem::take(&mut command.checkout), &defaults.checkout);
        command.cache.or(&defaults.cache);
    }
}

/// Later ones win, at the first one's position.
pub(crate) fn merge<'a>(layers: impl IntoIterator<Item = &'a [(String, String)]>) -> Vec<(String, String)> {
    let mut merged: Vec<(String, String)> = Vec::new();
    let mut at: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, value) in layers.into_iter().flatten() {
        match at.get(name.as_str()) {
            Some(&index) => merged[index].1.clone_from(value),
            None => {
                at.insert(name, merged.len());
                merged.push((name.clone(), value.clone()));
            }
        }
    }
    merged
}

/// Makes the nodes. `below` holds the variables of the pipeline and of the build, which lie beneath each step's.
pub(crate) fn expand(
    reader: &mut Reader,
    steps: Vec<Step>,
    fates: Vec<Fate>,
    mut linked: Linked,
    below: &[(String, String)],
) -> Option<Vec<Node>> {
    let firsts = layout(reader, &steps, &linked, below)?;
    let mut nodes = Vec::new();
    for (index, (step, fate)) in steps.into_iter().zip(fates).enumerate() {
        let depends_on: Vec<Edge> = linked.edges[index]
            .iter()
            .flat_map(|edge| {
                let allow_failure = edge.allow_failure;
                (firsts[edge.step]..firsts[edge.step + 1]).map(move |node| Edge { node, allow_failure })
            })
            .collect();
        let merged = linked.merged[index].then_some(Broken::Merged);
        let pattern = Node {
            key: step.key.map(|key| key.named.text),
            depends_on,
            allow_dependency_failure: step.allow_dependency_failure,
            broken: fate.broken.or(merged),
            place: step.place,
            declared: step.depends_on.map(|all| all.iter().map(crate::model::Dependency::to_graph).collect()),
            unresolved: std::mem::take(&mut linked.unresolved[index]),
            conditional: step.condition.is_some() || step.branches.is_some(),
            ..Node::new(NodeKind::Wait { continue_on_failure: false })
        };
        for element in step.elements {
            element_nodes(element, &pattern, fate.skip.as_ref(), fate.overrides, &mut nodes);
        }
    }
    Some(nodes)
}

/// The index of each step's first node, and one more for the end; `None` if there would be too much of something.
fn layout(reader: &mut Reader, steps: &[Step], linked: &Linked, below: &[(String, String)]) -> Option<Vec<u32>> {
    let bytes_of = |env: &[(String, String)]| env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let common = bytes_of(below);
    let (mut jobs, mut links, mut bytes) = (0_usize, 0_usize, 0_usize);
    let mut firsts = Vec::with_capacity(steps.len() + 1);
    let counts: Vec<usize> = steps.iter().map(Step::jobs).collect();
    for (index, step) in steps.iter().enumerate() {
        firsts.push(u32::try_from(jobs).ok()?);
        jobs = jobs.saturating_add(counts[index]);
        let targets = linked.edges[index].iter().map(|edge| counts[edge.step]).fold(0, usize::saturating_add);
        links = links.saturating_add(counts[index].saturating_mul(targets));
        for element in &step.elements {
            bytes = bytes.saturating_add(element.jobs().saturating_mul(element.bytes));
            let StepKind::Command(command) = &element.kind else { continue };
            let env_bytes = common + bytes_of(&command.env);
            if env_bytes > ENV_MAX_BYTES {
                let message = format!(
                    "with the pipeline's and the build's variables the step has {env_bytes} bytes of them; {ENV_MAX_BYTES} are the most"
                );
                reader.error("too-long", step.span, message);
                return None;
            }
        }
    }
    firsts.push(u32::try_from(jobs).ok()?);
    let too_much = if jobs > JOBS_PER_BUILD_MAX {
        format!("the pipeline has {jobs} jobs; {JOBS_PER_BUILD_MAX} are the most")
    } else if links > EDGES_PER_BUILD_MAX || linked.too_many {
        let links = if linked.too_many { format!("over {EDGES_PER_BUILD_MAX}") } else { links.to_string() };
        format!(
            "the jobs have {links} dependencies; {EDGES_PER_BUILD_MAX} are the most (a `wait` between them needs fewer)"
        )
    } else if bytes > GRAPH_MAX_BYTES {
        format!("the jobs have {bytes} bytes of commands, variables and settings; {GRAPH_MAX_BYTES} are the most")
    } else {
        return Some(firsts);
    };
    reader.error("too-large", steps.first().map_or(Span::START, |step| step.span), too_much);
    None
}

fn element_nodes(element: Element, pattern: &Node, fate: Option<&String>, overrides: bool, nodes: &mut Vec<Node>) {
    let total = element.parallel();
    let own = element.skip.filter(|_| !(overrides && fate.is_some()));
    let label = element.label;
    let pattern =
        Node { skip: own.or_else(|| fate.cloned()), notify: element.notify, matrix: element.matrix, ..pattern.clone() };
    let node = |label: String, kind: NodeKind| Node { label, kind, ..pattern.clone() };
    let places = (0..total.unwrap_or(1)).map(|index| total.map(|total| (index, total)));
    match element.kind {
        StepKind::Command(command) => {
            let label = label.unwrap_or_else(|| from_command(&command.command));
            let command = resolved(*command);
            for parallel in places {
                let kind = NodeKind::Command(Box::new(Command { parallel, ..command.clone() }));
                nodes.push(node(numbered(&label, parallel), kind));
            }
        }
        StepKind::Trigger(step) => {
            let label = label.unwrap_or_else(|| step.pipeline.clone());
            let trigger = triggered(*step, &label);
            for parallel in places {
                let kind = NodeKind::Trigger(Box::new(Trigger { parallel, ..trigger.clone() }));
                nodes.push(node(numbered(&label, parallel), kind));
            }
        }
        StepKind::Wait { continue_on_failure } => {
            nodes.push(node(label.unwrap_or_else(|| "wait".to_owned()), NodeKind::Wait { continue_on_failure }));
        }
        StepKind::Block(gate) => {
            nodes.push(node(label.unwrap_or_else(|| "block".to_owned()), NodeKind::Block(gate)));
        }
        StepKind::Input(gate) => {
            nodes.push(node(label.unwrap_or_else(|| "input".to_owned()), NodeKind::Input(gate)));
        }
    }
}

fn triggered(step: TriggerStep, label: &str) -> Trigger {
    Trigger {
        pipeline: step.pipeline,
        branch: step.branch,
        commit: step.commit.unwrap_or_else(|| "HEAD".to_owned()),
        message: step.message.unwrap_or_else(|| label.to_owned()),
        env: step.env,
        meta_data: step.meta_data,
        r#async: step.r#async,
        soft_fail: step.soft_fail,
        parallel: None,
    }
}

fn resolved(step: CommandStep) -> Command {
    let Agents { queue, tags } = step.agents.unwrap_or_default();
    Command {
        command: step.command,
        env: step.env,
        queue: queue.map_or_else(|| DEFAULT_QUEUE.to_owned(), |queue| queue.text),
        tags,
        zone: step.zone,
        image: step.image,
        timeout_ms: step.timeout_ms,
        retry: step.retry,
        manual_retry: step.manual_retry,
        soft_fail: step.soft_fail,
        priority: step.priority.unwrap_or(0),
        concurrency: step.concurrency,
        cancel_on_build_failing: step.cancel_on_build_failing,
        artifact_paths: step.artifact_paths,
        plugins: step.plugins,
        secrets: step.secrets,
        checkout: step.checkout,
        cache: step.cache.into_cache(),
        reuse: step.reuse,
        resources: step.resources,
        exclusive: step.exclusive,
        interruptible: step.interruptible,
        grace_ms: step.grace_ms,
        tty: step.tty,
        parallel: None,
    }
}
