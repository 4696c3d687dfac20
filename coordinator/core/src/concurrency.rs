//! Concurrency groups: at most so many jobs of one name at a time, over all builds of one trust class (reference 9).
//!
//! A job enters its group when its dependencies allow it, in the order of what made it: its build, or the job that
//! uploaded it. It holds its slot from the moment that it may be given to an agent until it has ended, over its retries;
//! where processes of it may outlive its right, until those have surely ended (I3). All of it follows from rows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use windlass_pipeline::graph::{Command, Concurrency, Method, NodeKind};
use windlass_protocol::{AttemptId, BuildId, JobId, Trust, WallMs};

use crate::row::{HoldRow, JobRow, JobState};
use crate::state::Core;
use crate::timer::Timer;

/// A group: builds of different trust never wait for each other.
pub(crate) type GroupKey = (Trust, String);

/// Who was first: when what made it was made, then the build, then the place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    since: WallMs,
    build: BuildId,
    index: u32,
    job: JobId,
}

/// What a waiting job asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    limit: u32,
    method: Method,
    priority: i64,
}

/// One group, while anybody is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// Who holds a slot, with its own limit.
    holding: BTreeMap<JobId, u32>,
    /// Who waits for one, in turn.
    waiting: BTreeMap<Turn, Wish>,
    /// Of those, the eager ones: by priority, then turn.
    eager: BTreeSet<(Reverse<i64>, Turn)>,
    /// How many wait with each limit: nobody is looked at once the largest is reached.
    limits: BTreeMap<u32, usize>,
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: BTreeMap<GroupKey, Group>,
    /// Those in which a slot may have become free, or somebody entered.
    touched: BTreeSet<GroupKey>,
    /// Who entered since slots were last given.
    entered: Vec<JobId>,
}

/// Where a state puts a job in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    Out,
    Waiting,
    Holding,
}

const fn seat(state: JobState) -> Seat {
    match state {
        JobState::Limiting | JobState::Limited => Seat::Waiting,
        JobState::Scheduled
        | JobState::Assigned
        | JobState::Accepted
        | JobState::Running
        | JobState::Canceling
        | JobState::TimingOut => Seat::Holding,
        JobState::Pending
        | JobState::Waiting
        | JobState::WaitingFailed
        | JobState::Blocked
        | JobState::BlockedFailed
        | JobState::Unblocked
        | JobState::UnblockedFailed
        | JobState::Passed
        | JobState::Failed
        | JobState::Canceled
        | JobState::TimedOut
        | JobState::Skipped
        | JobState::Broken
        | JobState::Expired => Seat::Out,
    }
}

/// Whether two runs of a step must never overlap: its processes end with its right, and nobody adopts it.
pub(crate) const fn runs_alone(command: &Command) -> bool {
    command.exclusive || command.concurrency.is_some()
}

const fn concurrency_of(kind: &NodeKind) -> Option<(&Command, &Concurrency)> {
    match kind {
        NodeKind::Command(command) => match &command.concurrency {
            Some(concurrency) => Some((command, concurrency)),
            None => None,
        },
        NodeKind::Wait { .. } | NodeKind::Block(_) | NodeKind::Input(_) | NodeKind::Trigger(_) => None,
    }
}

impl Group {
    fn enter(&mut self, turn: Turn, wish: Wish) {
        self.waiting.insert(turn, wish);
        if wish.method == Method::Eager {
            self.eager.insert((Reverse(wish.priority), turn));
        }
        *self.limits.entry(wish.limit).or_insert(0) += 1;
    }

    fn leave(&mut self, turn: &Turn) {
        let Some(wish) = self.waiting.remove(turn) else { return };
        self.eager.remove(&(Reverse(wish.priority), *turn));
        if let Some(count) = self.limits.get_mut(&wish.limit) {
            *count -= 1;
            if *count == 0 {
                self.limits.remove(&wish.limit);
            }
        }
    }

    /// The next one that may have a slot now (reference 9.2).
    fn next(&self) -> Option<JobId> {
        let held = u32::try_from(self.holding.len()).unwrap_or(u32::MAX);
        let most = *self.limits.last_key_value()?.0;
        let ahead = held..most;
        let ordered = ahead.zip(&self.waiting).find(|(ahead, (_, wish))| match wish.method {
            Method::Ordered => *ahead < wish.limit,
            Method::Eager => false,
        });
        if let Some((_, (turn, _))) = ordered {
            return Some(turn.job);
        }
        if held >= most {
            return None;
        }
        let may = |turn: &Turn| self.waiting.get(turn).is_some_and(|wish| held < wish.limit);
        self.eager.iter().find(|(_, turn)| may(turn)).map(|(_, turn)| turn.job)
    }

    fn is_empty(&self) -> bool {
        self.holding.is_empty() && self.waiting.is_empty()
    }
}

impl Core {
    /// The group of a job's step.
    pub(crate) fn group_of(&self, row: &JobRow) -> Option<GroupKey> {
        let (_, concurrency) = concurrency_of(&row.node.kind)?;
        let trust = self.builds.get(&row.build)?.row.namespace.trust();
        Some((trust, concurrency.group.clone()))
    }

    fn turn_of(&self, row: &JobRow) -> Turn {
        let build = self.builds.get(&row.build);
        let uploader = row.node.uploaded_by.and_then(|index| build?.jobs.get(usize::try_from(index).ok()?));
        let uploaded = uploader.and_then(|id| self.jobs.get(id)).map(|job| job.row.created_at);
        let since = uploaded.or(build.map(|build| build.row.created_at)).unwrap_or(row.created_at);
        Turn { since, build: row.build, index: row.index, job: row.id }
    }

    /// What a waiting job asks of its group has changed.
    pub(crate) fn wish_again(&mut self, id: JobId) {
        let Some(row) = self.jobs.get(&id).map(|job| &job.row) else { return };
        let Some((command, concurrency)) = concurrency_of(&row.node.kind) else { return };
        if seat(row.state) != Seat::Waiting {
            return;
        }
        let wish = Wish { limit: concurrency.limit, method: concurrency.method, priority: command.priority };
        let (Some(key), turn) = (self.group_of(row), self.turn_of(row)) else { return };
        let group = self.groups.groups.entry(key.clone()).or_default();
        group.leave(&turn);
        group.enter(turn, wish);
        self.groups.touched.insert(key);
    }

    /// A job's state has changed: it takes its seat in its group, changes it, or leaves.
    pub(crate) fn reseat(&mut self, id: JobId, from: JobState, to: JobState) {
        let (from, to) = (seat(from), seat(to));
        if from == to {
            return;
        }
        let Some(job) = self.jobs.get(&id) else { return };
        let Some((command, concurrency)) = concurrency_of(&job.row.node.kind) else { return };
        let wish = Wish { limit: concurrency.limit, method: concurrency.method, priority: command.priority };
        let Some(key) = self.group_of(&job.row) else { return };
        let turn = self.turn_of(&job.row);
        let fenced = job.fence.is_some_and(|fence| fence > self.now.mono);
        let group = self.groups.groups.entry(key.clone()).or_default();
        match from {
            Seat::Waiting => group.leave(&turn),
            Seat::Holding if fenced && to == Seat::Out && !self.policy.bugs.slot_before_fence => {
                self.hold(id, &key, wish.limit);
                return;
            }
            Seat::Holding => drop(group.holding.remove(&id)),
            Seat::Out => {}
        }
        match to {
            Seat::Waiting => {
                group.enter(turn, wish);
                self.groups.entered.push(id);
            }
            Seat::Holding => drop(group.holding.insert(id, wish.limit)),
            Seat::Out => {}
        }
        self.groups.touched.insert(key);
    }

    /// Gives free slots to those whose turn it is; who entered and gets none waits.
    pub(crate) fn give_slots(&mut self) {
        for id in std::mem::take(&mut self.groups.entered) {
            let waits = self.jobs.get(&id).is_some_and(|job| job.row.state == JobState::Limiting);
            if waits && self.holds.contains_key(&id) {
                // What ran of it before still has its slot: it goes on with that one.
                self.forget_hold(id);
                self.set_state(id, JobState::Scheduled);
            } else if waits {
                self.set_state(id, JobState::Limited);
            }
        }
        while let Some(key) = self.groups.touched.pop_first() {
            while let Some(next) = self.groups.groups.get(&key).and_then(Group::next) {
                self.set_state(next, JobState::Scheduled);
            }
            if self.groups.groups.get(&key).is_some_and(Group::is_empty) {
                self.groups.groups.remove(&key);
            }
            self.groups.touched.remove(&key);
        }
    }

    /// Whether slots are to be given.
    pub(crate) fn slots_are_due(&self) -> bool {
        !self.groups.touched.is_empty() || !self.groups.entered.is_empty()
    }

    /// A job has ended and what ran of it may still run: its slot stays taken until its fence.
    fn hold(&mut self, id: JobId, (trust, group): &GroupKey, limit: u32) {
        let Some(job) = self.jobs.get(&id) else { return };
        let (Some(fence), Some(attempt)) = (job.fence, job.row.attempts.last().copied()) else { return };
        let until = self.now.wall.plus_ms(fence.since_ms(self.now.mono));
        let row = HoldRow { job: id, attempt, trust: *trust, group: group.clone(), limit, until };
        self.timers.set(Timer::Hold(id), fence);
        self.holds.insert(id, row);
        self.book.holds.insert(id);
    }

    /// A stored hold goes on.
    pub(crate) fn restore_hold(&mut self, row: HoldRow) {
        let due = self.mono_of(row.until);
        self.timers.set(Timer::Hold(row.job), due);
        let group = self.groups.groups.entry((row.trust, row.group.clone())).or_default();
        group.holding.insert(row.job, row.limit);
        self.holds.insert(row.job, row);
    }

    /// A loaded job takes its seat.
    pub(crate) fn restore_seat(&mut self, id: JobId) {
        let Some(state) = self.jobs.get(&id).map(|job| job.row.state) else { return };
        self.reseat(id, JobState::Pending, state);
    }

    /// Nothing of an ended job runs any more: its slot is free.
    pub(crate) fn end_hold(&mut self, id: JobId) {
        let Some(row) = self.forget_hold(id) else { return };
        let key = (row.trust, row.group);
        if let Some(group) = self.groups.groups.get_mut(&key) {
            group.holding.remove(&id);
        }
        self.groups.touched.insert(key);
    }

    /// What ran of an ended job should have ended: an agent that says that it has not is believed.
    pub(crate) fn on_hold_due(&mut self, id: JobId) {
        let haunted = self
            .agents
            .iter()
            .find(|(_, agent)| agent.slots.values().any(|slot| slot.ghost.is_some() && slot.job == id));
        let grace_ms = self.grace_ms(id);
        let held = haunted.map(|(id, agent)| agent.heard_at.plus_ms(self.lease_ms(*id)).plus_ms(grace_ms));
        let end = held.filter(|end| *end > self.now.mono);
        let Some(end) = end else { return self.end_hold(id) };
        let until = self.now.wall.plus_ms(end.since_ms(self.now.mono));
        if let Some(hold) = self.holds.get_mut(&id) {
            hold.until = until;
            self.book.holds.insert(id);
            self.timers.set(Timer::Hold(id), end);
        }
    }

    /// As [`Core::end_hold`], if it was this attempt that was waited for.
    pub(crate) fn end_hold_of(&mut self, id: JobId, attempt: AttemptId) {
        if self.holds.get(&id).is_some_and(|hold| hold.attempt == attempt) {
            self.end_hold(id);
        }
    }

    fn forget_hold(&mut self, id: JobId) -> Option<HoldRow> {
        let row = self.holds.remove(&id)?;
        self.timers.clear(Timer::Hold(id));
        self.book.holds.insert(id);
        Some(row)
    }

    /// How many hold slots of a job's group, and how many wait before it.
    pub(crate) fn line_up(&self, row: &JobRow) -> Option<(usize, usize)> {
        let group = self.groups.groups.get(&self.group_of(row)?)?;
        Some((group.holding.len(), group.waiting.range(..self.turn_of(row)).count()))
    }

    /// Whether the groups are what the rows say, nobody holds too much, and nobody waits who need not.
    pub(crate) fn check_groups(&self) -> Result<(), (&'static str, String)> {
        let mut expected: BTreeMap<GroupKey, Group> = BTreeMap::new();
        for (id, job) in &self.jobs {
            let Some((command, concurrency)) = concurrency_of(&job.row.node.kind) else { continue };
            let Some(key) = self.group_of(&job.row) else { continue };
            let wish = Wish { limit: concurrency.limit, method: concurrency.method, priority: command.priority };
            match seat(job.row.state) {
                Seat::Out => {}
                Seat::Waiting => expected.entry(key).or_default().enter(self.turn_of(&job.row), wish),
                Seat::Holding => drop(expected.entry(key).or_default().holding.insert(*id, wish.limit)),
            }
        }
        for hold in self.holds.values() {
            let group = expected.entry((hold.trust, hold.group.clone())).or_default();
            if group.holding.insert(hold.job, hold.limit).is_some() {
                return Err(("I3", format!("{} holds its slot twice", hold.job)));
            }
            if !self.timers.has(Timer::Hold(hold.job)) {
                return Err(("I10", format!("{} holds a slot for ever", hold.job)));
            }
        }
        if expected != self.groups.groups {
            return Err(("I11", format!("groups are {:?}, the rows say {expected:?}", self.groups.groups)));
        }
        for ((_, name), group) in &self.groups.groups {
            let most = group.holding.values().max().copied().unwrap_or(0);
            if group.holding.len() > usize::try_from(most).unwrap_or(usize::MAX) {
                return Err(("I3", format!("group `{name}`: {} hold slots, at most {most} may", group.holding.len())));
            }
            if let Some(next) = group.next() {
                return Err(("I10", format!("group `{name}`: {next} waits and need not")));
            }
        }
        Ok(())
    }
}
