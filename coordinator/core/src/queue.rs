//! Jobs that are ready for an agent, grouped by what they need so that dispatch never scans them.
//!
//! Jobs with equal needs stand in one *line*. Within a line, higher priority comes first; within a priority, builds
//! take turns: the one that was served longest ago (by the last epoch granted to it) is next; within a build, jobs
//! stand in the document's order. A build that is served moves back in every line, lazily: its place is corrected when
//! it comes to a line's head, which is right because a turn only ever rises. What an agent with room looks at is the
//! [`posting`]s.

mod posting;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::job::Resources;
use windlass_protocol::{BuildId, JobId, Trust, WallMs};

pub(crate) use self::posting::Opens;
use self::posting::{Label, Posting};

/// What a job needs of an agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) queue: String,
    pub(crate) trust: Trust,
    pub(crate) zone: Option<String>,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) resources: Resources,
    pub(crate) image: bool,
}

/// A line's number while it has jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShapeId(usize);

/// A job's place among the heads of lines: the least is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) priority: Reverse<i64>,
    pub(crate) turn: u64,
    pub(crate) build: BuildId,
    pub(crate) index: u32,
    pub(crate) job: JobId,
}

/// All that finds a queued job in its line again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) priority: i64,
    pub(crate) build: BuildId,
    pub(crate) index: u32,
    pub(crate) job: JobId,
    pub(crate) since: WallMs,
}

type GroupKey = (Reverse<i64>, u64, BuildId);

#[derive(Debug)]
struct Line {
    shape: Shape,
    /// Where its first jobs are filed.
    label: Label,
    groups: BTreeMap<GroupKey, BTreeSet<(u32, JobId)>>,
    /// The turn under which a build's group stands; may be behind the build's own.
    turns: BTreeMap<(i64, BuildId), u64>,
    /// How many jobs are waiting since when.
    since: BTreeMap<WallMs, u32>,
    jobs: usize,
}

/// All lines.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    lines: Vec<Option<Line>>,
    vacant: Vec<usize>,
    by_shape: BTreeMap<Shape, ShapeId>,
    by_queue: BTreeMap<String, BTreeSet<ShapeId>>,
    /// Of each queue, what agents with room look at.
    postings: BTreeMap<String, BTreeMap<Label, Posting>>,
    /// How many agents have a tag: what is filed by tags is filed by the rarest.
    held: BTreeMap<(String, String), usize>,
    /// Each queued build's turn, with the number of its queued jobs.
    builds: BTreeMap<BuildId, (u64, usize)>,
    /// Lines whose head has not been offered to the agents that are free.
    fresh: BTreeSet<ShapeId>,
    jobs: usize,
}

impl Queue {
    /// Adds a job of a build that was last served at `turn`.
    pub(crate) fn push(&mut self, shape: Shape, turn: u64, ticket: Ticket) -> ShapeId {
        let id = self.line_of(shape);
        let turn = {
            let entry = self.builds.entry(ticket.build).or_insert((turn, 0));
            entry.1 += 1;
            entry.0
        };
        if let Some(line) = self.line_mut(id) {
            let stands = *line.turns.entry((ticket.priority, ticket.build)).or_insert(turn);
            let key = (Reverse(ticket.priority), stands, ticket.build);
            let group = line.groups.entry(key).or_default();
            let before = group.first().copied();
            group.insert((ticket.index, ticket.job));
            let after = group.first().copied();
            *line.since.entry(ticket.since).or_insert(0) += 1;
            line.jobs += 1;
            self.post(id, ticket, before, after);
        }
        self.jobs += 1;
        self.fresh.insert(id);
        id
    }

    /// Takes a job out.
    pub(crate) fn remove(&mut self, id: ShapeId, ticket: Ticket) {
        let Some(line) = self.line_mut(id) else { return };
        let Some(turn) = line.turns.get(&(ticket.priority, ticket.build)).copied() else { return };
        let key = (Reverse(ticket.priority), turn, ticket.build);
        let Some(group) = line.groups.get_mut(&key) else { return };
        let before = group.first().copied();
        if !group.remove(&(ticket.index, ticket.job)) {
            return;
        }
        let after = group.first().copied();
        if group.is_empty() {
            line.groups.remove(&key);
            line.turns.remove(&(ticket.priority, ticket.build));
        }
        if let Some(count) = line.since.get_mut(&ticket.since) {
            *count -= 1;
            if *count == 0 {
                line.since.remove(&ticket.since);
            }
        }
        line.jobs -= 1;
        let empty = line.jobs == 0;
        self.jobs -= 1;
        self.post(id, ticket, before, after);
        if let Some(entry) = self.builds.get_mut(&ticket.build) {
            entry.1 -= 1;
            if entry.1 == 0 {
                self.builds.remove(&ticket.build);
            }
        }
        if empty {
            self.close(id);
        }
    }

    /// Moves a build back: it was served by this epoch.
    pub(crate) fn served(&mut self, build: BuildId, epoch: u64) {
        if let Some(entry) = self.builds.get_mut(&build) {
            entry.0 = epoch;
        }
    }

    /// The job that is next in a line.
    pub(crate) fn head(&mut self, id: ShapeId) -> Option<Place> {
        let line = self.lines.get_mut(id.0)?.as_mut()?;
        loop {
            let (&key, group) = line.groups.first_key_value()?;
            let (priority, turn, build) = key;
            let now = self.builds.get(&build).map_or(turn, |(turn, _)| *turn);
            if now == turn {
                let &(index, job) = group.first()?;
                return Some(Place { priority, turn, build, index, job });
            }
            let group = line.groups.remove(&key)?;
            line.groups.insert((priority, now, build), group);
            line.turns.insert((priority.0, build), now);
        }
    }

    /// Files what is first of a build in a line.
    fn post(&mut self, id: ShapeId, ticket: Ticket, before: Option<(u32, JobId)>, after: Option<(u32, JobId)>) {
        let Some(line) = self.lines.get(id.0).and_then(Option::as_ref).filter(|_| before != after) else { return };
        let turn = self.builds.get(&ticket.build).map_or(0, |(turn, _)| *turn);
        let of = |first: Option<(u32, JobId)>| first.map(|(index, job)| (index, job, id));
        let filed = self.postings.entry(line.shape.queue.clone()).or_default();
        let posting = filed.entry(line.label.clone()).or_default();
        posting.replace((ticket.priority, ticket.build), turn, of(before), of(after));
        if posting.is_empty() {
            filed.remove(&line.label);
            if filed.is_empty() {
                self.postings.remove(&line.shape.queue);
            }
        }
    }

    /// Brings the order of what is filed for a queue under these labels up to date.
    pub(crate) fn settle(&mut self, queue: &str, opens: &Opens<'_>) {
        let builds = &self.builds;
        let Some(filed) = self.postings.get_mut(queue) else { return };
        let turn_of = |build: BuildId| builds.get(&build).map_or(0, |(turn, _)| *turn);
        match opens.labels(filed.len()) {
            None => filed.iter_mut().filter(|(label, _)| opens.may(label)).for_each(|(_, it)| it.settle(turn_of)),
            Some(labels) => {
                for label in labels {
                    if let Some(posting) = filed.get_mut(&label) {
                        posting.settle(turn_of);
                    }
                }
            }
        }
    }

    /// Of the jobs of a queue that are filed under these labels and can be taken, the one that is next: of each build and line the
    /// first one is asked about.
    pub(crate) fn best(&self, queue: &str, opens: &Opens<'_>, takes: impl Fn(JobId, ShapeId) -> bool) -> Option<Place> {
        let filed = self.postings.get(queue)?;
        let turn_of = |build: BuildId| self.builds.get(&build).map_or(0, |(turn, _)| *turn);
        let best = |posting: &Posting| posting.best(turn_of, &takes);
        match opens.labels(filed.len()) {
            None => filed.iter().filter(|(label, _)| opens.may(label)).filter_map(|(_, posting)| best(posting)).min(),
            Some(labels) => labels.iter().filter_map(|label| best(filed.get(label)?)).min(),
        }
    }

    /// The tags of agents have changed. What is filed already stays where it is: by which of its tags matters for speed alone.
    pub(crate) fn hold_tags(&mut self, before: &[(String, String)], after: &[(String, String)]) {
        for tag in before {
            if let Some(count) = self.held.get_mut(tag) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(tag);
                }
            }
        }
        for tag in after {
            *self.held.entry(tag.clone()).or_insert(0) += 1;
        }
    }

    /// What the jobs of a line need.
    pub(crate) fn shape(&self, id: ShapeId) -> Option<&Shape> {
        self.lines.get(id.0)?.as_ref().map(|line| &line.shape)
    }

    /// The heads of the lines that wait for the free agents to be asked, in their order.
    pub(crate) fn fresh(&mut self) -> BTreeSet<(Place, ShapeId)> {
        let ids: Vec<_> = self.fresh.iter().copied().collect();
        ids.into_iter().filter_map(|id| Some((self.head(id)?, id))).collect()
    }

    /// No free agent can take this line's head.
    pub(crate) fn tried(&mut self, id: ShapeId) {
        self.fresh.remove(&id);
    }

    /// Asks the free agents again about one line.
    pub(crate) fn try_again(&mut self, id: ShapeId) {
        if self.shape(id).is_some() {
            self.fresh.insert(id);
        }
    }

    /// Asks the free agents again about every line.
    pub(crate) fn try_all(&mut self) {
        self.fresh.extend(self.by_shape.values().copied());
    }

    /// Since when the oldest job of a line waits.
    pub(crate) fn oldest(&self, id: ShapeId) -> Option<WallMs> {
        self.lines.get(id.0)?.as_ref()?.since.first_key_value().map(|(at, _)| *at)
    }

    /// Each queue's length and the time since when its oldest job waits.
    pub(crate) fn depths(&self) -> BTreeMap<String, (usize, Option<WallMs>)> {
        let mut depths: BTreeMap<String, (usize, Option<WallMs>)> = BTreeMap::new();
        for (queue, lines) in &self.by_queue {
            let entry = depths.entry(queue.clone()).or_default();
            for line in lines.iter().filter_map(|id| self.lines.get(id.0)?.as_ref()) {
                entry.0 += line.jobs;
                let oldest = line.since.first_key_value().map(|(at, _)| *at);
                entry.1 = entry.1.into_iter().chain(oldest).min();
            }
        }
        depths
    }

    /// Every line that has jobs.
    pub(crate) fn lines(&self) -> Vec<ShapeId> {
        self.by_shape.values().copied().collect()
    }

    /// How many jobs are queued.
    pub(crate) const fn len(&self) -> usize {
        self.jobs
    }

    /// Whether this very job stands in this line.
    pub(crate) fn holds(&self, id: ShapeId, ticket: Ticket) -> bool {
        let Some(line) = self.lines.get(id.0).and_then(Option::as_ref) else { return false };
        let Some(turn) = line.turns.get(&(ticket.priority, ticket.build)) else { return false };
        line.groups
            .get(&(Reverse(ticket.priority), *turn, ticket.build))
            .is_some_and(|group| group.contains(&(ticket.index, ticket.job)))
    }

    /// Whether everything that is first in a line is filed, and nothing else is; and whether the tags of agents are counted.
    pub(crate) fn check(&self, tags: &BTreeMap<(String, String), usize>) -> Result<(), String> {
        let mut firsts = 0;
        let lines = self.lines.iter().enumerate().filter_map(|(id, line)| Some((ShapeId(id), line.as_ref()?)));
        for (id, line) in lines {
            let filed = self.postings.get(&line.shape.queue).and_then(|filed| filed.get(&line.label));
            let filed: BTreeSet<_> =
                filed.into_iter().flat_map(Posting::firsts).filter(|first| first.2 == id).collect();
            let first = |group: &BTreeSet<(u32, JobId)>| group.first().map(|&(index, job)| (index, job, id));
            if filed != line.groups.values().filter_map(first).collect() {
                return Err(format!("line {id:?} is filed as {filed:?}"));
            }
            firsts += filed.len();
        }
        let all: usize =
            self.postings.values().flat_map(BTreeMap::values).map(|posting| posting.firsts().count()).sum();
        if all != firsts || self.held != *tags {
            return Err(format!("{all} jobs are filed for {firsts}, by {:?} for {tags:?}", self.held));
        }
        Ok(())
    }

    fn line_mut(&mut self, id: ShapeId) -> Option<&mut Line> {
        self.lines.get_mut(id.0)?.as_mut()
    }

    fn line_of(&mut self, shape: Shape) -> ShapeId {
        if let Some(id) = self.by_shape.get(&shape) {
            return *id;
        }
        let id = ShapeId(self.vacant.pop().unwrap_or(self.lines.len()));
        let label = Label::of(&shape, |tag| match tag.1.as_str() {
            // Any value: as many as have the name, more or less.
            "*" => {
                let named =
                    self.held.range((tag.0.clone(), String::new())..).take_while(|((name, _), _)| *name == tag.0);
                named.map(|(_, count)| count).sum()
            }
            _ => self.held.get(tag).copied().unwrap_or(0),
        });
        let line = Line {
            shape: shape.clone(),
            label,
            groups: BTreeMap::new(),
            turns: BTreeMap::new(),
            since: BTreeMap::new(),
            jobs: 0,
        };
        match self.lines.get_mut(id.0) {
            Some(place) => *place = Some(line),
            None => self.lines.push(Some(line)),
        }
        self.by_queue.entry(shape.queue.clone()).or_default().insert(id);
        self.by_shape.insert(shape, id);
        id
    }

    fn close(&mut self, id: ShapeId) {
        let Some(line) = self.lines.get_mut(id.0).and_then(Option::take) else { return };
        self.by_shape.remove(&line.shape);
        if let Some(lines) = self.by_queue.get_mut(&line.shape.queue) {
            lines.remove(&id);
            if lines.is_empty() {
                self.by_queue.remove(&line.shape.queue);
            }
        }
        self.fresh.remove(&id);
        self.vacant.push(id.0);
    }
}
