//! Checked steps to the graph's nodes: defaults, variables, parallel jobs.
//!
//! A matrix, once served, is expanded here too.

use std::collections::BTreeMap;

use windlass_protocol::limits::{EDGES_PER_BUILD_MAX, ENV_MAX_BYTES, GRAPH_MAX_BYTES, JOBS_PER_BUILD_MAX};

use crate::check::StepEdge;
use crate::diagnostic::Span;
use crate::graph::{Command, Edge, Node, NodeKind};
use crate::model::{CommandStep, Defaults, Step, StepKind};
use crate::read::Reader;

/// Characters of a label that is made from a command.
const LABEL_MAX_CHARS: usize = 100;

/// A queue that no step names.
const DEFAULT_QUEUE: &str = "default";

/// Gives a command step what its document says for all.
pub(crate) fn apply(defaults: &Defaults, step: &mut Step) {
    if let StepKind::Command(command) = &mut step.kind {
        // A step's own agents take the place of the document's as a whole (reference 2).
        command.agents = command.agents.take().or_else(|| defaults.agents.clone());
        command.image = command.image.take().or_else(|| defaults.image.clone());
        command.priority = command.priority.or(defaults.priority);
        command.timeout_ms = command.timeout_ms.or(defaults.timeout_ms);
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

/// Makes the nodes. `env` holds the pipeline's and the build's variables (reference 17.1).
pub(crate) fn expand(
    reader: &mut Reader,
    steps: Vec<Step>,
    edges: &[Vec<StepEdge>],
    env: &[(String, String)],
) -> Option<Vec<Node>> {
    let firsts = layout(reader, &steps, edges, env)?;
    let mut nodes = Vec::new();
    for (step, edges) in steps.into_iter().zip(edges) {
        let depends_on: Vec<Edge> = edges
            .iter()
            .flat_map(|edge| {
                let allow_failure = edge.allow_failure;
                (firsts[edge.step]..firsts[edge.step + 1]).map(move |node| Edge { node, allow_failure })
            })
            .collect();
        element_nodes(step, &depends_on, env, &mut nodes);
    }
    Some(nodes)
}

/// How many jobs a step becomes.
fn count(step: &Step) -> usize {
    match &step.kind {
        StepKind::Command(command) => {
            command.parallelism.map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX))
        }
        StepKind::Wait { .. } | StepKind::Unserved => 1,
    }
}

/// The index of each step's first node, and one more for the end; `None` if there would be too much of something.
fn layout(reader: &mut Reader, steps: &[Step], edges: &[Vec<StepEdge>], env: &[(String, String)]) -> Option<Vec<u32>> {
    let bytes_of = |env: &[(String, String)]| env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let common = bytes_of(env);
    let (mut jobs, mut links, mut bytes) = (0_usize, 0_usize, 0_usize);
    let mut firsts = Vec::with_capacity(steps.len() + 1);
    for (step, edges) in steps.iter().zip(edges) {
        firsts.push(u32::try_from(jobs).ok()?);
        let own = count(step);
        jobs = jobs.saturating_add(own);
        let targets: usize = edges.iter().map(|edge| count(&steps[edge.step])).sum();
        links = links.saturating_add(own.saturating_mul(targets));
        if let StepKind::Command(command) = &step.kind {
            let env_bytes = common + bytes_of(&command.env);
            if env_bytes > ENV_MAX_BYTES {
                let message = format!(
                    "with the pipeline's and the build's variables the step has {env_bytes} bytes of them; {ENV_MAX_BYTES} are the most"
                );
                reader.error("too-long", step.span, message);
                return None;
            }
            bytes = bytes.saturating_add(own.saturating_mul(env_bytes + command.command.len()));
        }
    }
    firsts.push(u32::try_from(jobs).ok()?);
    let too_much = if jobs > JOBS_PER_BUILD_MAX {
        format!("the pipeline has {jobs} jobs; {JOBS_PER_BUILD_MAX} are the most")
    } else if links > EDGES_PER_BUILD_MAX {
        format!(
            "the jobs have {links} dependencies; {EDGES_PER_BUILD_MAX} are the most (a `wait` between them needs fewer)"
        )
    } else if bytes > GRAPH_MAX_BYTES {
        format!("the jobs have {bytes} bytes of commands and variables; {GRAPH_MAX_BYTES} are the most")
    } else {
        return Some(firsts);
    };
    reader.error("too-large", steps.first().map_or(Span::START, |step| step.span), too_much);
    None
}

fn element_nodes(step: Step, depends_on: &[Edge], env: &[(String, String)], nodes: &mut Vec<Node>) {
    let count = count(&step);
    let Step { key, label, allow_dependency_failure, skip, kind, .. } = step;
    let key = key.map(|key| key.text);
    let node = |label: String, kind: NodeKind| Node {
        key: key.clone(),
        label,
        depends_on: depends_on.to_vec(),
        allow_dependency_failure,
        skip: skip.clone(),
        ..Node::new(kind)
    };
    match kind {
        StepKind::Command(command) => {
            let parallel = command.parallelism;
            let label = label.unwrap_or_else(|| label_from(&command.command));
            let command = resolved(*command, env);
            for index in 0..u32::try_from(count).unwrap_or(u32::MAX) {
                let place = parallel.map(|total| (index, total));
                let label = place.map_or_else(|| label.clone(), |(index, total)| numbered(&label, index, total));
                nodes.push(node(label, NodeKind::Command(Box::new(Command { parallel: place, ..command.clone() }))));
            }
        }
        StepKind::Wait { continue_on_failure } => {
            let label = label.unwrap_or_else(|| "wait".to_owned());
            nodes.push(node(label, NodeKind::Wait { continue_on_failure }));
        }
        // Refused with an error: there is no graph then.
        StepKind::Unserved => {}
    }
}

fn resolved(step: CommandStep, env: &[(String, String)]) -> Command {
    let agents = step.agents.unwrap_or_default();
    Command {
        env: merge([env, &step.env]),
        command: step.command,
        queue: agents.queue.unwrap_or_else(|| DEFAULT_QUEUE.to_owned()),
        tags: agents.tags,
        zone: step.zone,
        image: step.image,
        timeout_ms: step.timeout_ms,
        retry: step.retry,
        manual_retry: step.manual_retry,
        soft_fail: step.soft_fail,
        priority: step.priority.unwrap_or(0),
        resources: step.resources,
        exclusive: step.exclusive,
        interruptible: step.interruptible,
        tty: step.tty,
        parallel: None,
        ..Command::default()
    }
}

/// A command's first line that says something.
fn label_from(command: &str) -> String {
    let line = command.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("command");
    line.chars().take(LABEL_MAX_CHARS).collect()
}

/// `%n` from 0, `%N` from 1, `%t` and `%T` the number of jobs; any other `%` stays (reference 8.3).
fn numbered(label: &str, index: u32, total: u32) -> String {
    let mut out = String::with_capacity(label.len());
    let mut characters = label.chars().peekable();
    while let Some(character) = characters.next() {
        let number = match (character, characters.peek()) {
            ('%', Some('n')) => Some(index),
            ('%', Some('N')) => Some(index.saturating_add(1)),
            ('%', Some('t' | 'T')) => Some(total),
            _ => None,
        };
        match number {
            Some(number) => {
                characters.next();
                out.push_str(&number.to_string());
            }
            None => out.push(character),
        }
    }
    out
}
