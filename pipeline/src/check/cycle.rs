//! Steps that wait for each other in a circle: they would never run.

use crate::diagnostic::Diagnostic;
use crate::graph::StepEdge;
use crate::model::{Dependency, Pipeline, Step, StepWord};
use crate::read::{Reader, shown};

/// Steps of a circle that are named in a message.
const NAMED_MAX: usize = 8;

/// Circles that are told; the rest is found when these are mended.
const CIRCLES_MAX: usize = 20;

/// Where a walk has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    OnPath,
    Done,
}

/// Depth first, without recursion: a chain may be as long as a build. Each circle is told where a step names the next.
pub(super) fn check(reader: &mut Reader, pipeline: &Pipeline, edges: &[Vec<StepEdge>]) {
    let steps = &pipeline.steps;
    let mut marks = vec![Mark::New; steps.len()];
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut told = 0;
    for root in 0..steps.len() {
        if marks[root] != Mark::New {
            continue;
        }
        marks[root] = Mark::OnPath;
        path.push((root, 0));
        while let Some((step, next)) = path.last_mut() {
            let Some(edge) = edges[*step].get(*next) else {
                marks[*step] = Mark::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match marks[edge.step] {
                Mark::Done => {}
                Mark::New => {
                    marks[edge.step] = Mark::OnPath;
                    path.push((edge.step, 0));
                }
                Mark::OnPath => {
                    let from = path.iter().position(|(step, _)| *step == edge.step).unwrap_or(0);
                    let circle: Vec<usize> = path[from..].iter().map(|(step, _)| *step).collect();
                    report(reader, pipeline, &circle);
                    told += 1;
                    if told >= CIRCLES_MAX {
                        return;
                    }
                }
            }
        }
    }
}

fn report(reader: &mut Reader, pipeline: &Pipeline, circle: &[usize]) {
    let steps = &pipeline.steps;
    let next = |at: usize| &steps[circle[(at + 1) % circle.len()]];
    let named = (0..circle.len()).find_map(|at| names(pipeline, &steps[circle[at]], next(at)));
    let span = named.map_or(steps[circle[0]].span, |dependency| dependency.step.span);
    let mut told: Vec<String> = circle.iter().take(NAMED_MAX).map(|step| describe(&steps[*step])).collect();
    if circle.len() > NAMED_MAX {
        told.push(format!("{} more", circle.len() - NAMED_MAX));
    }
    told.push(describe(&steps[circle[0]]));
    let message = match circle {
        [only] => format!("{} depends on itself", describe(&steps[*only])),
        _ => format!("steps wait for each other: {}", told.join(" → ")),
    };
    reader.findings.push(Diagnostic::error("dependency-cycle", span, message));
}

/// Where `step`, or its group, names `target`, or its group.
fn names<'a>(pipeline: &'a Pipeline, step: &'a Step, target: &Step) -> Option<&'a Dependency> {
    let group = |step: &Step| step.place.group.and_then(|group| pipeline.groups.get(usize::try_from(group).ok()?));
    let outer = group(step).and_then(|group| group.depends_on.as_ref());
    let keys = [target.key.as_ref(), group(target).and_then(|group| group.key.as_ref())];
    let mut all = step.depends_on.iter().chain(outer).flatten();
    all.find(|dependency| keys.iter().flatten().any(|key| key.named.text == dependency.step.text))
}

fn describe(step: &Step) -> String {
    match (&step.key, step.kind) {
        (Some(key), _) => format!("`{}`", shown(&key.named.text)),
        (None, StepWord::Wait) => format!("the wait on line {}", step.span.line),
        (None, StepWord::Block) => format!("the block on line {}", step.span.line),
        (None, StepWord::Command | StepWord::Input | StepWord::Trigger | StepWord::Group) => {
            format!("the step on line {}", step.span.line)
        }
    }
}
