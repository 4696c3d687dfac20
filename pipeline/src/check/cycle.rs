//! Steps that wait for each other in a circle: they would never run.

use super::StepEdge;
use crate::diagnostic::Diagnostic;
use crate::model::{Step, StepKind};
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
pub(super) fn check(reader: &mut Reader, steps: &[Step], edges: &[Vec<StepEdge>]) {
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
                    report(reader, steps, &circle);
                    told += 1;
                    if told >= CIRCLES_MAX {
                        return;
                    }
                }
            }
        }
    }
}

fn report(reader: &mut Reader, steps: &[Step], circle: &[usize]) {
    let next = |at: usize| &steps[circle[(at + 1) % circle.len()]];
    let named = (0..circle.len()).find_map(|at| {
        let wanted = next(at).key.as_ref()?;
        steps[circle[at]].depends_on.iter().flatten().find(|dependency| dependency.step.text == wanted.text)
    });
    let span = named.map_or(steps[circle[0]].span, |dependency| dependency.step.span);
    let mut names: Vec<String> = circle.iter().take(NAMED_MAX).map(|step| describe(&steps[*step])).collect();
    if circle.len() > NAMED_MAX {
        names.push(format!("{} more", circle.len() - NAMED_MAX));
    }
    names.push(describe(&steps[circle[0]]));
    let message = match circle {
        [only] => format!("{} depends on itself", describe(&steps[*only])),
        _ => format!("steps wait for each other: {}", names.join(" → ")),
    };
    reader.findings.push(Diagnostic::error("dependency-cycle", span, message));
}

fn describe(step: &Step) -> String {
    match (&step.key, &step.kind) {
        (Some(key), _) => format!("`{}`", shown(&key.text)),
        (None, StepKind::Wait { .. }) => format!("the wait on line {}", step.span.line),
        (None, StepKind::Command(_) | StepKind::Unserved) => format!("the step on line {}", step.span.line),
    }
}
