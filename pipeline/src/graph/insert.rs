//! What a job uploads, put into its build's graph (reference 7).

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::limits::{EDGES_PER_BUILD_MAX, JOBS_PER_BUILD_MAX};

use super::{Broken, Dependency, Edge, Graph, LinkGroup, LinkKind, LinkStep, Node, NodeKind, Place, link};
use crate::expand::merge;

/// Why an upload cannot be part of a build. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The uploading node is not there.
    #[error("the job that uploads is not in the build")]
    NoUploader,
    /// The build was made when steps had no places yet.
    #[error("the build was made by an earlier version and cannot grow")]
    NoPlaces,
    /// A step or a group of the build has the key already (reference 3.3).
    #[error("the build has a step with the key `{0}` already")]
    DuplicateKey(String),
    /// Steps would wait for each other.
    #[error("steps would wait for each other: {0}")]
    Cycle(String),
    /// There would be too much of something.
    #[error("{what}: at most {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl Graph {
    /// The graph with an upload right after the step of node `uploader`, of which it is the `uploads`th (from 0), and with all
    /// edges found anew. Nodes and groups are appended, so indexes stay; edges of earlier nodes change where the upload comes
    /// between, and the caller takes over those of nodes that have not started.
    ///
    /// What decides edges is all that is looked at of earlier nodes: [`Node::outline`] is enough.
    ///
    /// # Errors
    /// The build has one of its keys, steps would wait for each other, or there would be too many.
    pub fn with(mut self, uploader: u32, uploads: u32, upload: Self) -> Result<Self, InsertError> {
        let place = self.nodes.get(to_usize(uploader)).map(|node| node.place.clone()).ok_or(InsertError::NoUploader)?;
        if place.path.is_empty() {
            return Err(InsertError::NoPlaces);
        }
        let joined = self.joined(&place, &upload);
        self.check_keys(&upload, joined)?;
        let first = self.nodes.len();
        if first + upload.nodes.len() > JOBS_PER_BUILD_MAX {
            return Err(InsertError::Limit { what: "jobs of one build", limit: JOBS_PER_BUILD_MAX });
        }
        self.append(uploader, uploads, &place, upload, joined);
        self.relink()?;
        Ok(self)
    }

    /// The group of the upload whose steps join the uploader's own: the first step, of the same label (reference 5.5).
    fn joined(&self, place: &Place, upload: &Self) -> Option<usize> {
        let own = self.groups.get(to_usize(place.group?))?.label.as_deref()?;
        upload.groups.iter().position(|group| group.place.path == [0] && group.label.as_deref() == Some(own))
    }

    fn check_keys(&self, upload: &Self, joined: Option<usize>) -> Result<(), InsertError> {
        let keys = |graph: &Self, but: Option<usize>| -> BTreeSet<String> {
            let steps = graph.nodes.iter().filter_map(|node| node.key.clone());
            let groups = graph.groups.iter().enumerate().filter(|(index, _)| Some(*index) != but);
            steps.chain(groups.filter_map(|(_, group)| group.key.clone())).collect()
        };
        let known = keys(self, None);
        match keys(upload, joined).into_iter().find(|key| known.contains(key)) {
            Some(key) => Err(InsertError::DuplicateKey(key)),
            None => Ok(()),
        }
    }

    fn append(&mut self, uploader: u32, uploads: u32, place: &Place, upload: Self, joined: Option<usize>) {
        let outer = place.group.and_then(|group| self.groups.get(to_usize(group))).map(|group| group.place.clone());
        let below = |place: &Place, path: &[u32]| place.uploaded(uploads, path.first().copied().unwrap_or(0));
        let mut numbers = Vec::with_capacity(upload.groups.len());
        for (index, mut group) in upload.groups.into_iter().enumerate() {
            if joined == Some(index) {
                numbers.push(None);
                continue;
            }
            numbers.push(u32::try_from(self.groups.len()).ok());
            // Groups are not in groups: one that a group's step uploads stands right after that group.
            group.place = below(outer.as_ref().unwrap_or(place), &group.place.path);
            group.uploaded_by = Some(uploader);
            self.groups.push(group);
        }
        for mut node in upload.nodes {
            let number = node.place.group.and_then(|group| numbers.get(to_usize(group)).copied());
            match number {
                Some(Some(group)) => node.place.group = Some(group),
                Some(None) => {
                    // A step of the group that joins: all of them stand where that group does.
                    let inner = std::mem::take(&mut node.place.path);
                    node.place = below(place, &[0]);
                    node.place.path.extend(inner);
                    node.uploaded_by = Some(uploader);
                }
                None => {
                    node.place = below(place, &node.place.path);
                    node.uploaded_by = Some(uploader);
                }
            }
            self.nodes.push(node);
        }
        self.env = merge([self.env.as_slice(), &upload.env]);
        self.notify.extend(upload.notify);
    }

    /// Finds all edges anew.
    fn relink(&mut self) -> Result<(), InsertError> {
        let (steps, of_node) = self.steps();
        let linked = {
            let links: Vec<LinkStep<'_>> =
                steps.iter().map(|nodes| link_step(&self.nodes[nodes[0]], &of_node)).collect();
            let groups: Vec<LinkGroup<'_>> = self
                .groups
                .iter()
                .map(|group| LinkGroup {
                    place: &group.place,
                    uploaded_by: group.uploaded_by.and_then(|node| of_node.get(to_usize(node)).copied()),
                    key: group.key.as_deref(),
                    declared: group.declared.as_deref(),
                    allow_dependency_failure: group.allow_dependency_failure,
                })
                .collect();
            link(&links, &groups)
        };
        let links: usize = (0..steps.len())
            .map(|step| {
                let targets: usize = linked.edges[step].iter().map(|edge| steps[edge.step].len()).sum();
                steps[step].len().saturating_mul(targets)
            })
            .fold(0, usize::saturating_add);
        if linked.too_many || links > EDGES_PER_BUILD_MAX {
            return Err(InsertError::Limit { what: "dependencies of one build", limit: EDGES_PER_BUILD_MAX });
        }
        for (step, nodes) in steps.iter().enumerate() {
            let mut edges = Vec::new();
            for edge in &linked.edges[step] {
                let targets = steps[edge.step].iter().filter_map(|node| u32::try_from(*node).ok());
                edges.extend(targets.map(|node| Edge { node, allow_failure: edge.allow_failure }));
            }
            for node in nodes {
                let node = &mut self.nodes[*node];
                node.depends_on.clone_from(&edges);
                node.unresolved.clone_from(&linked.unresolved[step]);
                node.broken = node.broken.filter(|broken| *broken != Broken::Merged);
                node.broken = node.broken.or(linked.merged[step].then_some(Broken::Merged));
            }
        }
        self.find_cycle()
    }

    /// The nodes of each step, and each node's step: the elements of one step share its place.
    fn steps(&self) -> (Vec<Vec<usize>>, Vec<usize>) {
        let mut steps: Vec<Vec<usize>> = Vec::new();
        let mut at: BTreeMap<&Place, usize> = BTreeMap::new();
        let mut of_node = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.iter().enumerate() {
            let step = *at.entry(&node.place).or_insert(steps.len());
            if step == steps.len() {
                steps.push(Vec::new());
            }
            steps[step].push(index);
            of_node.push(step);
        }
        (steps, of_node)
    }

    /// Takes what waits for nothing, until nothing is left; what is left then waits for itself.
    fn find_cycle(&self) -> Result<(), InsertError> {
        let mut waits: Vec<usize> = self.nodes.iter().map(|node| node.depends_on.len()).collect();
        let mut dependents = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for edge in &node.depends_on {
                dependents[to_usize(edge.node)].push(index);
            }
        }
        let mut open: Vec<usize> = (0..waits.len()).filter(|index| waits[*index] == 0).collect();
        while let Some(index) = open.pop() {
            for dependent in std::mem::take(&mut dependents[index]) {
                waits[dependent] -= 1;
                if waits[dependent] == 0 {
                    open.push(dependent);
                }
            }
        }
        match self.nodes.iter().zip(&waits).find(|(_, waits)| **waits > 0) {
            Some((node, _)) => Err(InsertError::Cycle(node.key.clone().unwrap_or_else(|| node.label.clone()))),
            None => Ok(()),
        }
    }
}

fn link_step<'a>(node: &'a Node, of_node: &[usize]) -> LinkStep<'a> {
    let declared: Option<&[Dependency]> = node.declared.as_deref();
    LinkStep {
        place: &node.place,
        uploaded_by: node.uploaded_by.and_then(|uploader| of_node.get(to_usize(uploader)).copied()),
        kind: match &node.kind {
            NodeKind::Wait { continue_on_failure } => LinkKind::Wait { continue_on_failure: *continue_on_failure },
            NodeKind::Block(_) => LinkKind::Block,
            NodeKind::Command(_) | NodeKind::Input(_) | NodeKind::Trigger(_) => LinkKind::Other,
        },
        key: node.key.as_deref(),
        declared,
        conditional: node.conditional,
        removed: node.broken.is_some_and(|broken| broken != Broken::Merged),
    }
}

fn to_usize(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
