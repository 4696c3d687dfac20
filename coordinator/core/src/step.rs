//! What jobs change of steps while their build runs (reference 19.5): of all the jobs of a step alike.

use std::sync::Arc;

use windlass_pipeline::graph::{Command, Edge, Graph, Node, NodeKind};
use windlass_pipeline::numbered_label;
use windlass_protocol::{BuildId, JobId, limits};

use crate::error::Rejected;
use crate::row::{BuildEvent, EventRow, StepChange};
use crate::state::Core;

/// A value that an attribute does not take.
fn refused<T>(attribute: &str, why: impl Into<String>) -> Result<T, Rejected> {
    Err(Rejected::Answer { field: attribute.to_owned(), why: why.into() })
}

fn command_of(node: &Node) -> Option<&Command> {
    match &node.kind {
        NodeKind::Command(command) => Some(command),
        NodeKind::Wait { .. } | NodeKind::Block(_) | NodeKind::Input(_) | NodeKind::Trigger(_) => None,
    }
}

impl Core {
    /// Changes an attribute of the step that a job is of; what was changed, for the audit trail.
    pub(crate) fn update_step(&mut self, build: BuildId, job: JobId, change: StepChange) -> Result<String, Rejected> {
        let found = self.jobs.get(&job).filter(|found| found.row.build == build);
        let place = found.ok_or(Rejected::JobNotInMemory(job))?.row.node.place.clone();
        let all = self.builds[&build].jobs.iter();
        let elements: Vec<JobId> = all.filter(|id| self.jobs[*id].row.node.place == place).copied().collect();
        match change {
            StepChange::Label { text, append } => self.relabel(&elements, &text, append),
            StepChange::Priority(priority) => self.reprioritise(&elements, priority),
            StepChange::Notify { notify, append } => {
                let before = if append { self.jobs[&job].row.node.notify.clone() } else { Vec::new() };
                let notify: Vec<_> = before.into_iter().chain(notify).collect();
                if notify.len() > limits::NOTIFICATIONS_MAX {
                    return Err(Rejected::Limit {
                        what: "notifications of a step",
                        limit: limits::NOTIFICATIONS_MAX as u64,
                    });
                }
                let detail = format!("notify: {} entries", notify.len());
                elements.iter().for_each(|id| self.change_node(*id, |node| node.notify.clone_from(&notify)));
                self.recount_subjects(build);
                Ok(detail)
            }
            StepChange::Parallelism(total) => self.raise_parallelism(build, &elements, total),
        }
    }

    fn relabel(&mut self, elements: &[JobId], text: &str, append: bool) -> Result<String, Rejected> {
        let mut labels = Vec::with_capacity(elements.len());
        for id in elements {
            let node = &self.jobs[id].row.node;
            let text = numbered_label(text, command_of(node).and_then(|command| command.parallel));
            let label = if append { format!("{}{text}", node.label) } else { text };
            if label.len() > limits::STEP_LABEL_MAX_BYTES {
                return Err(Rejected::Limit { what: "bytes of a label", limit: limits::STEP_LABEL_MAX_BYTES as u64 });
            }
            labels.push(label);
        }
        for (id, label) in elements.iter().zip(labels) {
            self.change_node(*id, |node| node.label = label);
        }
        Ok("label".to_owned())
    }

    fn reprioritise(&mut self, elements: &[JobId], priority: i64) -> Result<String, Rejected> {
        if elements.iter().any(|id| command_of(&self.jobs[id].row.node).is_none()) {
            return refused("priority", "only command steps have one");
        }
        for id in elements {
            self.change_node(*id, |node| {
                if let NodeKind::Command(command) = &mut node.kind {
                    command.priority = priority;
                }
            });
        }
        Ok(format!("priority: {priority}"))
    }

    /// More jobs of the same kind; whatever waits for the step and has not started waits for them too.
    fn raise_parallelism(&mut self, build: BuildId, elements: &[JobId], total: u32) -> Result<String, Rejected> {
        const ATTRIBUTE: &str = "parallelism";
        let before = u32::try_from(elements.len()).unwrap_or(u32::MAX);
        let Some(first) = elements.first().map(|id| &self.jobs[id].row) else {
            return refused(ATTRIBUTE, "the step has no jobs");
        };
        if command_of(&first.node).is_none() || !first.node.matrix.is_empty() {
            return refused(ATTRIBUTE, "only command steps without a matrix have one");
        }
        if elements.iter().all(|id| self.jobs[id].row.state.is_final()) {
            return refused(ATTRIBUTE, "the step has ended");
        }
        if total < before {
            return refused(ATTRIBUTE, format!("it can be raised only: the step has {before} jobs"));
        }
        let nodes = self.with_more(build, elements, total)?;
        for (index, id) in (0..).zip(elements) {
            self.change_node(*id, |node| renumber(node, index, total));
        }
        let row = &self.builds[&build].row;
        let graph = Graph {
            nodes,
            supersede: row.supersede,
            groups: row.groups.clone(),
            env: row.pipeline_env.clone(),
            notify: row.notify.clone(),
        };
        self.grow(build, graph);
        Ok(format!("parallelism: {total}"))
    }

    /// The build's nodes with a step's elements brought to this number, and the edges to them.
    fn with_more(&self, build: BuildId, elements: &[JobId], total: u32) -> Result<Vec<Node>, Rejected> {
        let home = &self.builds[&build];
        let mut nodes: Vec<Node> = home.jobs.iter().map(|id| Node::clone(&self.jobs[id].row.node)).collect();
        let old: Vec<usize> = elements.iter().filter_map(|id| usize::try_from(self.jobs[id].row.index).ok()).collect();
        let added = (total as usize).saturating_sub(old.len());
        let edge_to_step =
            |node: &Node| node.depends_on.iter().find(|edge| old.contains(&(edge.node as usize))).copied();
        let own = old.first().and_then(|at| nodes.get(*at)).map_or(0, |node| node.depends_on.len());
        let dependents = nodes.iter().filter(|node| edge_to_step(node).is_some()).count();
        let edges = nodes.iter().map(|node| node.depends_on.len()).sum::<usize>() + added * (own + dependents);
        for (what, value, limit) in [
            ("jobs of one build", nodes.len() + added, limits::JOBS_PER_BUILD_MAX),
            ("jobs that have not ended", self.jobs.len() + added, limits::LIVE_JOBS_MAX),
            ("jobs of one upload", added, limits::UPLOAD_JOBS_MAX),
            ("dependencies of one build", edges, limits::EDGES_PER_BUILD_MAX),
        ] {
            if value > limit {
                return Err(Rejected::Limit { what, limit: limit as u64 });
            }
        }
        let from = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        for node in &mut nodes {
            let Some(edge) = edge_to_step(node) else { continue };
            node.depends_on.extend((from..).take(added).map(|node| Edge { node, ..edge }));
        }
        for (index, at) in (0..).zip(&old) {
            nodes.get_mut(*at).into_iter().for_each(|node| renumber(node, index, total));
        }
        let Some(model) = old.first().and_then(|at| nodes.get(*at)).cloned() else { return Ok(nodes) };
        for index in (0..total).skip(old.len()) {
            let mut node = model.clone();
            renumber(&mut node, index, total);
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// Changes a job's step. Its places in line and in its group follow, and its watchers hear of it.
    fn change_node(&mut self, id: JobId, change: impl FnOnce(&mut Node)) {
        let row = &self.jobs[&id].row;
        let (build, state, attempt) = (row.build, row.state, row.attempts.last().copied());
        let mut node = Node::clone(&row.node);
        change(&mut node);
        let waits = self.jobs[&id].queued.is_some();
        if waits {
            self.dequeue(id);
        }
        self.edit_job(id).node = Arc::new(node);
        if waits {
            self.enqueue(id);
        }
        self.wish_again(id);
        if !state.is_final() {
            let event = BuildEvent::JobChanged { job: id, state, attempt };
            self.book.events.push(EventRow { build, at: self.now.wall, event });
        }
    }
}

fn renumber(node: &mut Node, index: u32, total: u32) {
    if let NodeKind::Command(command) = &mut node.kind {
        command.parallel = Some((index, total));
    }
}
