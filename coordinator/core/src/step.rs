//! What jobs change of steps while their build runs (reference 19.5): of all the jobs of a step alike.

use std::collections::BTreeSet;

use windlass_pipeline::graph::{Command, Edge, Graph, Node, NodeKind};
use windlass_pipeline::numbered_label;
use windlass_protocol::{BuildId, JobId, limits};

use crate::account::of_node;
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
            StepChange::Label { text, append } => self.relabel(build, &elements, &text, append),
            StepChange::Priority(priority) => self.reprioritise(build, &elements, priority),
            StepChange::Notify { notify, append } => {
                let before = if append { self.jobs[&job].row.node.notify.clone() } else { Vec::new() };
                let notify: Vec<_> = before.into_iter().chain(notify).collect();
                if notify.len() > limits::NOTIFY_LIST_MAX {
                    return Err(Rejected::Limit {
                        what: "notifications of a step",
                        limit: limits::NOTIFY_LIST_MAX as u64,
                    });
                }
                self.change_nodes(build, &elements, |_, node| node.notify.clone_from(&notify))?;
                self.recount_subjects(build);
                Ok(format!("notify: {} entries", notify.len()))
            }
            StepChange::Parallelism(total) => self.raise_parallelism(build, &elements, total),
        }
    }

    fn relabel(&mut self, build: BuildId, elements: &[JobId], text: &str, append: bool) -> Result<String, Rejected> {
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
        self.change_nodes(build, elements, |at, node| node.label.clone_from(&labels[at]))?;
        Ok("label".to_owned())
    }

    fn reprioritise(&mut self, build: BuildId, elements: &[JobId], priority: i64) -> Result<String, Rejected> {
        if elements.iter().any(|id| command_of(&self.jobs[id].row.node).is_none()) {
            return refused("priority", "only command steps have one");
        }
        self.change_nodes(build, elements, |_, node| {
            if let NodeKind::Command(command) = &mut node.kind {
                command.priority = priority;
            }
        })?;
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
        self.change_nodes(build, elements, |at, node| {
            renumber(node, u32::try_from(at).unwrap_or(u32::MAX), total);
        })?;
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
        let mut nodes: Vec<Node> = home.jobs.iter().map(|id| self.jobs[id].row.node.outline()).collect();
        let old: Vec<usize> = elements.iter().filter_map(|id| usize::try_from(self.jobs[id].row.index).ok()).collect();
        let added = (total as usize).saturating_sub(old.len());
        let among: BTreeSet<usize> = old.iter().copied().collect();
        let edge_to_step =
            |node: &Node| node.depends_on.iter().find(|edge| among.contains(&(edge.node as usize))).copied();
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
        // Those that there are become a little larger, too.
        let known = || elements.iter().map(|id| &*self.jobs[id].row.node);
        let each = |node: &Node| of_node(&renumbered(node, 0, total));
        let new = known().next().map_or(0, each).saturating_mul(added);
        self.check_room(build, new + known().map(each).sum::<usize>(), known().map(of_node).sum())?;
        let from = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        for node in &mut nodes {
            let Some(edge) = edge_to_step(node) else { continue };
            node.depends_on.extend((from..).take(added).map(|node| Edge { node, ..edge }));
        }
        let Some(model) = elements.first().map(|id| Node::clone(&self.jobs[id].row.node)) else { return Ok(nodes) };
        // Their edges are their step's, which may be among those that have become more.
        let depends_on = old.first().and_then(|at| nodes.get(*at)).map(|node| node.depends_on.clone());
        let model = Node { depends_on: depends_on.unwrap_or_default(), ..model };
        for index in (0..total).skip(old.len()) {
            nodes.push(renumbered(&model, index, total));
        }
        Ok(nodes)
    }

    /// Changes the steps of some jobs, each by its place among them: all, or none where the build may not hold that.
    fn change_nodes(
        &mut self,
        build: BuildId,
        elements: &[JobId],
        change: impl Fn(usize, &mut Node),
    ) -> Result<(), Rejected> {
        let (mut nodes, mut more, mut less) = (Vec::with_capacity(elements.len()), 0, 0);
        for (at, id) in elements.iter().enumerate() {
            let before = &self.jobs[id].row.node;
            let mut node = Node::clone(before);
            change(at, &mut node);
            (more, less) = (more + of_node(&node), less + of_node(before));
            nodes.push(node);
        }
        self.check_room(build, more, less)?;
        for (id, node) in elements.iter().zip(nodes) {
            self.change_node(*id, node);
        }
        Ok(())
    }

    /// Changes a job's step. Its places in line and in its group follow, and its watchers hear of it.
    fn change_node(&mut self, id: JobId, node: Node) {
        let row = &self.jobs[&id].row;
        let (build, state, attempt) = (row.build, row.state, row.attempts.last().copied());
        let waits = self.jobs[&id].queued.is_some();
        if waits {
            self.dequeue(id);
        }
        self.put_node(id, node);
        if waits {
            self.enqueue(id);
        }
        self.wish_again(id);
        // A label is no part of a key, but a place among its step's jobs is.
        self.ask_again(id);
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

fn renumbered(node: &Node, index: u32, total: u32) -> Node {
    let mut node = node.clone();
    renumber(&mut node, index, total);
    node
}
