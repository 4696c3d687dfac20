//! A core from its rows: after a start, a failed commit or a takeover (I11).

use std::cell::OnceCell;
use std::collections::{BTreeMap, VecDeque};

use windlass_pipeline::condition::Conditions;
use windlass_protocol::{BuildId, IdSource, Now};

use crate::account::Account;
use crate::agent::new_agent;
use crate::concurrency::Groups;
use crate::deps::verdict;
use crate::logbook::Logbook;
use crate::outbox::Outbox;
use crate::patience::Patience;
use crate::pin::Pins;
use crate::policy::Policy;
use crate::queue::Queue;
use crate::reuse::Reuses;
use crate::row::{AttemptRow, BuildRow, JobRow, JobState, Rows};
use crate::schedule::Schedules;
use crate::state::{Build, Core, Job, Lease, Phase, Slot, Tally};
use crate::stock::Stocks;
use crate::subject;
use crate::timer::Timers;

impl Core {
    /// A core that goes on from these rows. Every leased attempt has one whole lease of its pool before its agent is
    /// called lost (F12).
    #[must_use]
    pub fn load(now: Now, rows: Rows, ids: IdSource, policy: Policy) -> Self {
        let mut core = Self {
            ids,
            policy,
            now,
            meta: rows.meta,
            numbers: rows.pipeline_numbers,
            pipelines: rows.pipelines,
            builds: BTreeMap::new(),
            jobs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            leases: BTreeMap::new(),
            pools: rows.pools,
            agents: BTreeMap::new(),
            tokens: rows.tokens,
            secrets: rows.secrets,
            caches: rows.caches,
            reuse: Reuses::new(rows.reuse, rows.reuse_gone),
            pins: Pins::default(),
            idempotency: rows.idempotency,
            keys: BTreeMap::new(),
            branches: BTreeMap::new(),
            zones: BTreeMap::new(),
            stocks: Stocks::default(),
            open: BTreeMap::new(),
            freed: std::collections::BTreeSet::new(),
            queue: Queue::default(),
            groups: Groups::default(),
            schedules: Schedules::default(),
            orders: BTreeMap::new(),
            lineages: rows.lineages,
            families: BTreeMap::new(),
            holds: BTreeMap::new(),
            outbox: Outbox::default(),
            timers: Timers::default(),
            book: Logbook::default(),
            ripple: BTreeMap::new(),
            effects: VecDeque::new(),
        };
        for (id, row) in rows.agents {
            core.keys.insert(row.key, id);
            core.queue.hold_tags(&[], &row.tags);
            core.agents.insert(id, new_agent(row, now.mono));
            core.watch_drain(id);
            core.watch_return(id);
        }
        rows.schedules.into_values().for_each(|row| core.restore_schedule(row));
        core.restore_pins(rows.pins, rows.pinned_results);
        for (_, hold) in rows.holds {
            core.restore_hold(hold);
        }
        let mut waiting: Vec<_> = rows.notifications.into_values().collect();
        waiting.sort_by_key(|row| (row.order, row.id));
        for row in waiting {
            core.restore_notification(row);
        }
        let mut jobs: BTreeMap<BuildId, Vec<JobRow>> = BTreeMap::new();
        for (_, row) in rows.jobs {
            jobs.entry(row.build).or_default().push(row);
        }
        let mut attempts: BTreeMap<BuildId, Vec<AttemptRow>> = BTreeMap::new();
        for (_, row) in rows.attempts {
            attempts.entry(row.build).or_default().push(row);
        }
        for (id, build) in rows.builds {
            let (jobs, attempts) = (jobs.remove(&id).unwrap_or_default(), attempts.remove(&id).unwrap_or_default());
            core.insert_build(build, jobs, attempts);
        }
        core.conclude();
        core
    }

    /// Takes a build's rows into memory: counts, queues, leases and deadlines follow from them. Writes nothing.
    pub(crate) fn insert_build(&mut self, row: BuildRow, mut jobs: Vec<JobRow>, attempts: Vec<AttemptRow>) {
        jobs.sort_by_key(|job| job.index);
        let id = row.id;
        let dependents = dependents_of(jobs.iter());
        let turn = attempts.iter().map(|attempt| attempt.epoch.0).max().unwrap_or(0);
        if !row.branch.is_empty() {
            self.branches.entry((row.pipeline.clone(), row.branch.clone())).or_default().insert(id);
        }
        if let Some(from) = &row.triggered_from {
            self.families.entry(from.root).or_default().insert(id);
        }
        let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
        let mut tally = Tally::default();
        let subjects = subject::sums(jobs.iter(), &row.groups);
        let conditions = Conditions::default();
        let account = Account::of(&row, jobs.iter());
        let counts: Vec<_> = jobs.iter().map(|job| count_dependencies(job, |node| jobs.get(node))).collect();
        self.attempts.extend(attempts.into_iter().map(|attempt| (attempt.id, attempt)));
        for (job, (waits, bad)) in jobs.into_iter().zip(counts) {
            tally.add(&job);
            self.jobs.insert(
                job.id,
                Box::new(Job {
                    cleared: is_begun(&job),
                    row: job,
                    waits,
                    bad,
                    queued: None,
                    fence: None,
                    inputs: OnceCell::new(),
                    patience: Patience::Unasked,
                }),
            );
        }
        self.builds
            .insert(id, Build { row, jobs: ids.clone(), dependents, tally, subjects, conditions, turn, account });
        self.arm_expiry(id);
        for job in ids {
            self.restore_seat(job);
            self.restore_key(job);
            match self.jobs[&job].row.state {
                JobState::Scheduled => self.enqueue(job),
                JobState::Assigned | JobState::Canceling | JobState::TimingOut => self.restore_lease(job),
                JobState::Running => self.restore_order(job),
                _ => {}
            }
        }
    }

    /// The shell of a former core may have been asked; it is asked again.
    fn restore_order(&mut self, job: windlass_protocol::JobId) {
        let last = self.jobs[&job].row.triggered.last();
        if let Some(build) = last.filter(|last| last.number.is_none()).map(|last| last.build) {
            self.order(build, crate::order::Orderer::Job(job));
        }
    }

    fn restore_lease(&mut self, job: windlass_protocol::JobId) {
        let Some(attempt) = self.jobs[&job].row.attempts.last().and_then(|id| self.attempts.get(id)) else { return };
        let (id, epoch, agent) = (attempt.id, attempt.epoch, attempt.agent);
        let lease = Lease {
            agent,
            job,
            epoch,
            phase: Phase::Unknown,
            started_at: None,
            granted_at: self.now.mono,
            stopping: false,
            timer: None,
        };
        self.leases.insert(id, lease);
        let resources = self.request_of(job);
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.slots.insert(id, Slot { epoch, job, resources, ghost: None, done: false });
        }
        self.sum_up(agent);
        self.watch_silence(agent);
        self.arm(id);
    }

    /// Forgets a build that has ended, with all that belongs to it.
    pub(crate) fn forget_build(&mut self, id: BuildId) {
        let Some(build) = self.builds.remove(&id) else { return };
        self.timers.clear(crate::timer::Timer::Expiry(id));
        if let Some(from) = build.row.triggered_from
            && let Some(family) = self.families.get_mut(&from.root)
        {
            family.remove(&id);
            if family.is_empty() {
                self.families.remove(&from.root);
            }
        }
        let branch = (build.row.pipeline, build.row.branch);
        if let Some(builds) = self.branches.get_mut(&branch) {
            builds.remove(&id);
            if builds.is_empty() {
                self.branches.remove(&branch);
            }
        }
        for job in build.jobs {
            if let Some(job) = self.jobs.remove(&job) {
                for attempt in job.row.attempts {
                    self.attempts.remove(&attempt);
                }
            }
        }
    }
}

/// Whether a job's rows say that its dependencies once allowed it to run.
const fn is_begun(job: &JobRow) -> bool {
    matches!(
        job.state,
        JobState::Limited | JobState::Scheduled | JobState::Assigned | JobState::Canceling | JobState::TimingOut
    )
}

/// For each job of a build, by index, the jobs that have an edge to it, with the edge's place among theirs.
pub(crate) fn dependents_of<'a>(jobs: impl ExactSizeIterator<Item = &'a JobRow>) -> Vec<Vec<(u32, u32)>> {
    let mut dependents = vec![Vec::new(); jobs.len()];
    for job in jobs {
        for (place, edge) in (0_u32..).zip(&job.node.depends_on) {
            if let Some(list) = usize::try_from(edge.node).ok().and_then(|node| dependents.get_mut(node)) {
                list.push((job.index, place));
            }
        }
    }
    dependents
}

/// How many of a job's dependencies are not over, and how many failed and are not forgiven; from scratch.
pub(crate) fn count_dependencies<'a>(job: &JobRow, find: impl Fn(usize) -> Option<&'a JobRow>) -> (u32, u32) {
    // A key that no step has is one more thing to wait for: an upload may bring it.
    let (mut waits, mut bad) = (u32::from(!job.node.unresolved.is_empty()), 0);
    for edge in &job.node.depends_on {
        let Some(dependency) = usize::try_from(edge.node).ok().and_then(&find) else { continue };
        let (wait, fail) =
            verdict(crate::deps::standing(dependency), edge.allow_failure || job.node.allow_dependency_failure);
        waits += u32::from(wait);
        bad += u32::from(fail);
    }
    (waits, bad)
}
