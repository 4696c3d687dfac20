//! What waits for what: declared dependencies, and the implicit ones of reference 6.1, over steps (not their elements).
//!
//! The same walk serves a pipeline's text and a build that an upload has grown: it looks at places, not at texts.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::limits::{EDGES_PER_BUILD_MAX, LINK_VISITS_MAX};

use super::{Dependency, Place};

/// A dependency between steps, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepEdge {
    pub(crate) step: usize,
    pub(crate) allow_failure: bool,
}

/// What a step is to its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkKind {
    Wait { continue_on_failure: bool },
    Block,
    Other,
}

/// What decides a step's edges.
#[derive(Debug, Clone)]
pub(crate) struct LinkStep<'a> {
    pub(crate) place: &'a Place,
    /// The step that uploaded it.
    pub(crate) uploaded_by: Option<usize>,
    pub(crate) kind: LinkKind,
    pub(crate) key: Option<&'a str>,
    pub(crate) declared: Option<&'a [Dependency]>,
    /// Has `if` or `branches` of its own.
    pub(crate) conditional: bool,
    /// Taken away by one of them.
    pub(crate) removed: bool,
}

/// What decides what a group adds to its steps' edges.
#[derive(Debug, Clone)]
pub(crate) struct LinkGroup<'a> {
    pub(crate) place: &'a Place,
    pub(crate) uploaded_by: Option<usize>,
    pub(crate) key: Option<&'a str>,
    pub(crate) declared: Option<&'a [Dependency]>,
    pub(crate) allow_dependency_failure: bool,
}

/// What came of it, for each step.
#[derive(Debug, Default)]
pub(crate) struct Linked {
    pub(crate) edges: Vec<Vec<StepEdge>>,
    /// Keys that no step and no group has.
    pub(crate) unresolved: Vec<Vec<Dependency>>,
    /// Waits that a block beside them acts for.
    pub(crate) merged: Vec<bool>,
    /// There are more edges than a build may have, or they take longer to find than it may; the rest is left out.
    pub(crate) too_many: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Step(usize),
    Group(usize),
}

/// An item that is waited for, and whether its failure is forgiven.
type Wanted = (Item, bool);

/// What the places alone make an item wait for.
#[derive(Debug, Clone, Copy)]
struct Implicit {
    /// The last barrier before it, whose failure is never forgiven (reference 6.3).
    barrier: Option<Item>,
    /// Whoever uploaded it.
    uploader: Option<usize>,
    /// For a barrier: which segment is before it, how much of that, and whether its failures are forgiven.
    before: Option<(usize, usize, bool)>,
}

struct Linker<'a> {
    steps: &'a [LinkStep<'a>],
    groups: &'a [LinkGroup<'a>],
    keys: BTreeMap<&'a str, Item>,
    members: Vec<Vec<usize>>,
    /// What each step uploaded.
    uploads: BTreeMap<usize, Vec<Item>>,
    merged: Vec<bool>,
    /// What the places alone make each step, and each group, wait for.
    implicit: BTreeMap<Item, Implicit>,
    /// What stands between two barriers that act.
    segments: Vec<Vec<Item>>,
    /// What may still be visited.
    visits: Cell<usize>,
}

/// Finds all edges.
pub(crate) fn link(steps: &[LinkStep<'_>], groups: &[LinkGroup<'_>]) -> Linked {
    let mut linker = Linker {
        steps,
        groups,
        keys: BTreeMap::new(),
        members: vec![Vec::new(); groups.len()],
        uploads: BTreeMap::new(),
        merged: vec![false; steps.len()],
        implicit: BTreeMap::new(),
        segments: Vec::new(),
        visits: Cell::new(LINK_VISITS_MAX),
    };
    let scopes = linker.survey();
    scopes.iter().for_each(|scope| linker.merge(scope));
    scopes.iter().for_each(|scope| linker.walk(scope));
    let mut linked = Linked::default();
    let mut total = 0;
    for (step, given) in steps.iter().enumerate() {
        let (edges, unresolved) = if given.removed || linker.merged[step] || linked.too_many {
            (Vec::new(), Vec::new())
        } else {
            linker.edges_of(step, EDGES_PER_BUILD_MAX - total)
        };
        total += edges.len();
        linked.too_many |= total >= EDGES_PER_BUILD_MAX || linker.visits.get() == 0;
        linked.edges.push(edges);
        linked.unresolved.push(unresolved);
    }
    linked.merged = linker.merged;
    linked
}

impl<'a> Linker<'a> {
    /// Who is where: the items of each scope in the order of their places.
    fn survey(&mut self) -> Vec<Vec<Item>> {
        let mut scopes: BTreeMap<Option<u32>, Vec<Item>> = BTreeMap::new();
        for (index, step) in self.steps.iter().enumerate() {
            let item = Item::Step(index);
            scopes.entry(step.place.group).or_default().push(item);
            if let Some(members) = step.place.group.and_then(|group| self.members.get_mut(to_usize(group))) {
                members.push(index);
            }
            self.note(item, step.key, step.uploaded_by);
        }
        for (index, group) in self.groups.iter().enumerate() {
            let item = Item::Group(index);
            scopes.entry(None).or_default().push(item);
            self.note(item, group.key, group.uploaded_by);
        }
        for scope in scopes.values_mut() {
            scope.sort_by_key(|item| match item {
                Item::Step(step) => &self.steps[*step].place.path,
                Item::Group(group) => &self.groups[*group].place.path,
            });
        }
        scopes.into_values().collect()
    }

    fn note(&mut self, item: Item, key: Option<&'a str>, uploaded_by: Option<usize>) {
        if let Some(key) = key {
            self.keys.entry(key).or_insert(item);
        }
        if let Some(uploader) = uploaded_by {
            self.uploads.entry(uploader).or_default().push(item);
        }
    }

    fn is_barrier(&self, step: usize) -> bool {
        matches!(self.steps[step].kind, LinkKind::Wait { .. } | LinkKind::Block)
    }

    /// A wait next to a block is merged away, unless it has a condition that it survived (reference 5.1, 6.1). What was taken
    /// away stands between nobody.
    fn merge(&mut self, scope: &[Item]) {
        let mut run: Vec<usize> = Vec::new();
        for item in scope {
            match item {
                Item::Step(step) if self.steps[*step].removed => {}
                Item::Step(step) if self.is_barrier(*step) => run.push(*step),
                Item::Step(_) | Item::Group(_) => self.merge_run(&mut run),
            }
        }
        self.merge_run(&mut run);
    }

    fn merge_run(&mut self, run: &mut Vec<usize>) {
        if run.iter().any(|step| self.steps[*step].kind == LinkKind::Block) {
            for step in run.iter().copied() {
                self.merged[step] = self.steps[step].kind != LinkKind::Block && !self.steps[step].conditional;
            }
        }
        run.clear();
    }

    fn walk(&mut self, scope: &[Item]) {
        let mut barrier: Option<Item> = None;
        let mut segment = self.begin_segment();
        for item in scope.iter().copied() {
            let uploader = match item {
                Item::Step(step) => self.steps[step].uploaded_by,
                Item::Group(group) => self.groups[group].uploaded_by,
            };
            let (barring, acting) = match item {
                Item::Step(step) => {
                    let acting = !self.steps[step].removed && !self.merged[step];
                    (self.is_barrier(step), acting)
                }
                Item::Group(_) => (false, true),
            };
            let before = barring.then(|| (segment, self.segments[segment].len(), self.forgives(item)));
            self.implicit.insert(item, Implicit { barrier, uploader, before });
            match (barring, acting) {
                (true, true) => {
                    barrier = Some(item);
                    segment = self.begin_segment();
                }
                (true, false) => {}
                (false, _) => self.segments[segment].push(item),
            }
        }
    }

    fn begin_segment(&mut self) -> usize {
        self.segments.push(Vec::new());
        self.segments.len() - 1
    }

    /// What the places alone make an item wait for, in order.
    fn implied(&self, item: Item) -> Vec<Wanted> {
        let Some(implicit) = self.implicit.get(&item) else { return Vec::new() };
        let mut wanted: Vec<Wanted> = implicit.barrier.map(|barrier| (barrier, false)).into_iter().collect();
        wanted.extend(implicit.uploader.map(|step| (Item::Step(step), false)));
        if let Some((segment, length, forgives)) = implicit.before {
            wanted.extend(self.segments[segment][..length].iter().map(|item| (*item, forgives)));
        }
        wanted
    }

    /// Takes visits; none are left if there are not as many.
    fn visit(&self, count: usize) -> bool {
        let left = self.visits.get().saturating_sub(count);
        self.visits.set(left);
        left > 0
    }

    fn forgives(&self, item: Item) -> bool {
        matches!(item, Item::Step(step) if self.steps[step].kind == LinkKind::Wait { continue_on_failure: true })
    }

    /// What a step or a group itself waits for, and the keys that nobody has.
    fn wanted(&self, item: Item) -> (Vec<Wanted>, Vec<Dependency>) {
        let declared = match item {
            Item::Step(step) => self.steps[step].declared,
            Item::Group(group) => self.groups[group].declared,
        };
        let Some(declared) = declared else {
            let implied = self.implied(item);
            self.visit(implied.len());
            return (implied, Vec::new());
        };
        let (mut wanted, mut unresolved) = (Vec::new(), Vec::new());
        self.visit(declared.len());
        for dependency in declared {
            match self.keys.get(dependency.key.as_str()) {
                Some(&target) => {
                    let to_barrier = matches!(target, Item::Step(step) if self.is_barrier(step));
                    let forgiven = dependency.allow_failure || (self.forgives(item) && !to_barrier);
                    wanted.push((target, forgiven));
                }
                None => unresolved.push(dependency.clone()),
            }
        }
        (wanted, unresolved)
    }

    /// A step's own wants and those of its group.
    fn all_wanted(&self, step: usize) -> (Vec<Wanted>, Vec<Dependency>) {
        let (mut wanted, mut unresolved) = self.wanted(Item::Step(step));
        let Some(group) = self.steps[step].place.group.map(to_usize).filter(|group| *group < self.groups.len()) else {
            return (wanted, unresolved);
        };
        let allowed = self.groups[group].allow_dependency_failure;
        let (outer, missing) = self.wanted(Item::Group(group));
        wanted.extend(outer.into_iter().map(|(item, allow)| (item, allow || allowed)));
        let missing = missing.into_iter();
        unresolved.extend(missing.map(|it| Dependency { allow_failure: it.allow_failure || allowed, ..it }));
        (wanted, unresolved)
    }

    fn edges_of(&self, step: usize, room: usize) -> (Vec<StepEdge>, Vec<Dependency>) {
        let (mut open, unresolved) = self.all_wanted(step);
        open.reverse();
        let mut edges = Edges { list: Vec::new(), at: BTreeMap::new() };
        let mut through: BTreeSet<usize> = BTreeSet::new();
        let mut targets = Vec::new();
        while let Some((item, allow_failure)) = open.pop() {
            targets.clear();
            self.reach(item, step, room, &mut targets);
            for target in targets.iter().copied() {
                if !self.merged[target] {
                    edges.add(StepEdge { step: target, allow_failure });
                } else if through.insert(target) {
                    // Who waits for a wait that a block acts for waits for what it would have waited for.
                    open.extend(
                        self.all_wanted(target).0.into_iter().map(|(item, allow)| (item, allow || allow_failure)),
                    );
                }
            }
            if edges.list.len() >= room || self.visits.get() == 0 {
                break;
            }
        }
        (edges.list, unresolved)
    }

    /// The steps that an item stands for: a group's all, and whatever they uploaded, recursively. Who was uploaded by a
    /// step does not wait for itself and what came with it.
    fn reach(&self, item: Item, dependent: usize, room: usize, targets: &mut Vec<usize>) {
        let mut seen: BTreeSet<Item> = BTreeSet::new();
        let mut open = vec![item];
        while let Some(item) = open.pop() {
            if !self.visit(1) {
                return;
            }
            if !seen.insert(item) || targets.len() > room {
                continue;
            }
            match item {
                Item::Step(step) => {
                    targets.push(step);
                    if !self.is_uploaded_by(dependent, step) {
                        open.extend(self.uploads.get(&step).into_iter().flatten().rev());
                    }
                }
                Item::Group(group) => {
                    let members = self.members.get(group).into_iter().flatten();
                    open.extend(members.rev().map(|step| Item::Step(*step)));
                }
            }
        }
    }

    /// Whether `step`, or who uploaded it, or who uploaded that one, was uploaded by `uploader`.
    fn is_uploaded_by(&self, step: usize, uploader: usize) -> bool {
        let mut at = step;
        for _ in 0..self.steps.len() {
            self.visit(1);
            let group = self.steps[at].place.group.and_then(|group| self.groups.get(to_usize(group)));
            match self.steps[at].uploaded_by.or_else(|| group.and_then(|group| group.uploaded_by)) {
                Some(by) if by == uploader => return true,
                Some(by) if by != at => at = by,
                Some(_) | None => return false,
            }
        }
        false
    }
}

/// Edges, each target once: allowed to fail only if every mention says so.
struct Edges {
    list: Vec<StepEdge>,
    at: BTreeMap<usize, usize>,
}

impl Edges {
    fn add(&mut self, edge: StepEdge) {
        match self.at.get(&edge.step) {
            Some(&index) => self.list[index].allow_failure &= edge.allow_failure,
            None => {
                self.at.insert(edge.step, self.list.len());
                self.list.push(edge);
            }
        }
    }
}

fn to_usize(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
