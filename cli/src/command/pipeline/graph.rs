//! `windlass pipeline graph`: what waits for what, as text or as a drawing's source.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use windlass_pipeline::graph::{Graph, Node, NodeKind};

use crate::command::run::read_pipeline;
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// Conditions are not decided: every step is shown.
#[derive(Debug, Args)]
pub(crate) struct GraphArguments {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print a Mermaid flowchart.
    #[arg(long)]
    mermaid: bool,
}

pub(super) fn graph(arguments: &GraphArguments, ui: &Ui) -> Result<Code, Failure> {
    let text = read_pipeline(&arguments.file)?;
    let shown = arguments.file.display().to_string();
    let compiled = windlass_pipeline::check(&text, &shown);
    ui.tell(&compiled.render(&text));
    let Some(graph) = compiled.graph else {
        return Err(Failure::usage(format!("{shown} has no graph: mend what is wrong first")));
    };
    let steps = Steps::of(&graph);
    ui.raw(if arguments.mermaid { steps.mermaid() } else { steps.text() }.as_bytes());
    Ok(Code::Done)
}

/// The steps of a graph: nodes that share a place are the jobs of one.
struct Steps<'a> {
    graph: &'a Graph,
    steps: Vec<Step<'a>>,
    of_node: Vec<usize>,
}

struct Step<'a> {
    first: &'a Node,
    jobs: usize,
}

impl<'a> Steps<'a> {
    fn of(graph: &'a Graph) -> Self {
        let mut at = BTreeMap::new();
        let (mut steps, mut of_node): (Vec<Step<'a>>, Vec<usize>) = (Vec::new(), Vec::new());
        for node in &graph.nodes {
            let step = *at.entry(&node.place).or_insert(steps.len());
            match steps.get_mut(step) {
                Some(known) => known.jobs += 1,
                None => steps.push(Step { first: node, jobs: 1 }),
            }
            of_node.push(step);
        }
        Self { graph, steps, of_node }
    }

    /// The steps that a step waits for, by number, and whether it forgives their failure.
    fn before(&self, step: &Step<'_>) -> BTreeMap<usize, bool> {
        let edges = step.first.depends_on.iter();
        let steps = edges.filter_map(|edge| {
            let node = usize::try_from(edge.node).ok()?;
            Some((*self.of_node.get(node)?, edge.allow_failure || step.first.allow_dependency_failure))
        });
        steps.collect()
    }

    /// One line a step: `2 test (4 jobs) <- 0 1?`; `?` is a step that may fail.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut group = None;
        for (number, step) in self.steps.iter().enumerate() {
            if step.first.place.group != group {
                group = step.first.place.group;
                if let Some(name) = self.group(step.first) {
                    let _ = writeln!(text, "{name}:");
                }
            }
            let indent = if group.is_some() { "  " } else { "" };
            let waits: Vec<String> = self
                .before(step)
                .into_iter()
                .map(|(before, allowed)| format!("{before}{}", if allowed { "?" } else { "" }))
                .chain(step.first.unresolved.iter().map(|missing| format!("`{}`", plain(&missing.key))))
                .collect();
            let arrow = if waits.is_empty() { String::new() } else { format!(" <- {}", waits.join(" ")) };
            let _ = writeln!(text, "{indent}{number} {}{arrow}", self.title(step));
        }
        text
    }

    fn group(&self, node: &Node) -> Option<String> {
        let group = self.graph.group_of(node)?;
        Some(plain(group.label.as_deref().or(group.key.as_deref()).unwrap_or("group")))
    }

    fn title(&self, step: &Step<'_>) -> String {
        let kind = match &step.first.kind {
            NodeKind::Command(_) | NodeKind::Wait { .. } => "",
            NodeKind::Block(_) => "block: ",
            NodeKind::Input(_) => "input: ",
            NodeKind::Trigger(_) => "trigger: ",
        };
        let name = match (&step.first.key, step.jobs) {
            (Some(key), 2..) => key,
            _ => &step.first.label,
        };
        let jobs = if step.jobs > 1 { format!(" ({} jobs)", step.jobs) } else { String::new() };
        format!("{kind}{}{jobs}", plain(name))
    }

    fn mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_owned();
        let mut group = None;
        for (number, step) in self.steps.iter().enumerate() {
            if step.first.place.group != group {
                if group.is_some() {
                    text.push_str("  end\n");
                }
                group = step.first.place.group;
                if let (Some(index), Some(name)) = (group, self.group(step.first)) {
                    let _ = writeln!(text, "  subgraph g{index}[\"{}\"]", escaped(&name));
                }
            }
            let title = escaped(&self.title(step));
            let (open, close) = match &step.first.kind {
                NodeKind::Command(_) => ("[", "]"),
                NodeKind::Wait { .. } => ("([", "])"),
                NodeKind::Block(_) | NodeKind::Input(_) => ("{{", "}}"),
                NodeKind::Trigger(_) => ("[[", "]]"),
            };
            let indent = if group.is_some() { "    " } else { "  " };
            let _ = writeln!(text, "{indent}s{number}{open}\"{title}\"{close}");
        }
        if group.is_some() {
            text.push_str("  end\n");
        }
        for (number, step) in self.steps.iter().enumerate() {
            for (before, allowed) in self.before(step) {
                let arrow = if allowed { "-.->" } else { "-->" };
                let _ = writeln!(text, "  s{before} {arrow} s{number}");
            }
        }
        text
    }
}

/// One line, whatever a label holds: a terminal must not be steered by a pipeline's text.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// Text within quotes of Mermaid's.
fn escaped(text: &str) -> String {
    text.replace('#', "#35;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;")
}

#[cfg(test)]
mod tests {
    use super::Steps;

    const TEXT: &str = "
- {command: make, label: 'Build \"it\" #1', key: build}
- {command: test, key: test, matrix: [a, b]}
- {wait: ~, continue_on_failure: true}
- group: Ship
  steps:
    - block: Release?
    - {trigger: deploy, async: true, depends_on: [{step: test, allow_failure: true}, later]}
- {input: Notes}
";

    #[test]
    fn steps_are_shown_with_what_they_wait_for() {
        let graph = windlass_pipeline::check(TEXT, "p.yml").graph.unwrap();
        insta::assert_snapshot!(Steps::of(&graph).text(), @r#"
        0 Build "it" #1
        1 test (2 jobs)
        2 wait <- 0? 1?
        Ship:
          3 block: Release? <- 2
          4 trigger: deploy <- 1? 2 `later`
        5 input: Notes <- 2
        "#);
    }

    #[test]
    fn a_flowchart_has_groups_and_forgiving_edges() {
        let graph = windlass_pipeline::check(TEXT, "p.yml").graph.unwrap();
        insta::assert_snapshot!(Steps::of(&graph).mermaid(), @r#"
        flowchart TD
          s0["Build #quot;it#quot; #35;1"]
          s1["test (2 jobs)"]
          s2(["wait"])
          subgraph g0["Ship"]
            s3{{"block: Release?"}}
            s4[["trigger: deploy"]]
          end
          s5{{"input: Notes"}}
          s0 -.-> s2
          s1 -.-> s2
          s2 --> s3
          s1 -.-> s4
          s2 --> s4
          s2 --> s5
        "#);
    }
}
