//! What must hold after every input, checked from scratch. Simulation calls it after each event; it costs as much as
//! the whole state is large.

use std::collections::BTreeMap;

use windlass_pipeline::graph::NodeKind;
use windlass_protocol::{AgentId, AttemptId, Instant64, JobId, limits};

use crate::account::Account;
use crate::build::is_hard_failure;
use crate::concurrency::runs_alone;
use crate::load::count_dependencies;
use crate::order::Orderer;
use crate::place::{has_tags, pool_serves, shape_of};
use crate::row::{AttemptState, JobState};
use crate::standing::StepTally;
use crate::state::{Agent, Build, Core, Job, Lease, Phase, Silence, Tally};
use crate::subject;
use crate::timer::Timer;
use crate::zone::Bearing;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Broken {
    /// Its number in ARCHITECTURE.md, such as `I3`.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

fn broken<T>(invariant: &'static str, detail: String) -> Result<T, Broken> {
    Err(Broken { invariant, detail })
}

macro_rules! hold {
    ($condition:expr, $invariant:literal, $($detail:tt)*) => {
        if !$condition {
            return broken($invariant, format!($($detail)*));
        }
    };
}

impl Core {
    /// Whether all structural invariants hold.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), Broken> {
        if let Err((invariant, detail)) = self.check_reuse() {
            return broken(invariant, detail);
        }
        for (id, lease) in &self.leases {
            self.check_lease(*id, lease)?;
        }
        for (id, job) in &self.jobs {
            self.check_job(*id, job)?;
        }
        for build in self.builds.values() {
            self.check_build(build)?;
            self.check_account(build)?;
        }
        for (id, agent) in &self.agents {
            self.check_agent(*id, agent)?;
        }
        if let Err((invariant, detail)) = self.check_pins() {
            return broken(invariant, detail);
        }
        self.check_holders()?;
        self.check_orders()?;
        if let Err((invariant, detail)) = self.check_groups() {
            return broken(invariant, detail);
        }
        if let Err((invariant, detail)) = self.outbox.check() {
            return broken(invariant, detail);
        }
        let queued = self.jobs.values().filter(|job| job.queued.is_some()).count();
        hold!(queued == self.queue.len(), "I11", "{queued} jobs are queued, the queue counts {}", self.queue.len());
        let mut tags = BTreeMap::new();
        for tag in self.agents.values().flat_map(|agent| &agent.row.tags) {
            *tags.entry(tag.clone()).or_insert(0) += 1;
        }
        if let Err(detail) = self.queue.check(&tags) {
            return broken("I11", detail);
        }
        hold!(self.jobs.len() <= limits::LIVE_JOBS_MAX, "I9", "{} jobs in memory", self.jobs.len());
        hold!(self.builds.len() <= limits::LIVE_BUILDS_MAX, "I9", "{} builds in memory", self.builds.len());
        Ok(())
    }

    /// A live lease: its row, its agent, its place, its deadline.
    fn check_lease(&self, id: AttemptId, lease: &Lease) -> Result<(), Broken> {
        let Some(row) = self.attempts.get(&id) else { return broken("I2", format!("a lease of unknown {id}")) };
        let Some(job) = self.jobs.get(&lease.job) else { return broken("I2", format!("{id} has no job")) };
        hold!(row.epoch == lease.epoch, "I2", "{id} is leased by {:?}, its row says {:?}", lease.epoch, row.epoch);
        hold!(row.agent == lease.agent, "I2", "{id} is leased to {}, its row says {}", lease.agent, row.agent);
        hold!(row.state == AttemptState::Assigned, "I2", "{id} is leased and {:?}", row.state);
        hold!(lease.epoch.0 <= self.meta.last_epoch, "I2", "{id}: epoch {:?} was never granted", lease.epoch);
        hold!(job.row.attempts.last() == Some(&id), "I2", "{id} is leased and not its job's last attempt");
        hold!(
            matches!(job.row.state, JobState::Assigned | JobState::Canceling | JobState::TimingOut),
            "I2",
            "{id} is leased and its job is {:?}",
            job.row.state
        );
        if let Some(fence) = job.fence {
            hold!(lease.granted_at >= fence, "I3", "{} was leased again before what ran of it had ended", lease.job);
        }
        let agent = self.agents.get(&lease.agent);
        let watched = agent.is_some_and(|agent| agent.slots.get(&id).is_some_and(|slot| slot.ghost.is_none()));
        hold!(watched, "I2", "{id} is leased to {}, which has no slot for it", lease.agent);
        let silence = self.timers.has(Timer::Silence(lease.agent));
        let deadline = match lease.phase {
            Phase::Unknown => silence || lease.timer.is_some(),
            _ => lease.timer.is_some_and(|timer| self.timers.has(timer)),
        };
        hold!(deadline, "I10", "{id} is leased in {:?} and has no deadline", lease.phase);
        let waits = matches!(lease.phase, Phase::Finishing(_));
        let watched = silence || waits || (lease.timer.is_some() && !self.is_awaited(lease.agent));
        hold!(watched, "I10", "{id} is leased to {}, whose silence nobody watches", lease.agent);
        self.check_place(id, lease, job)
    }

    /// A leased job runs where it may, and its dependencies allowed it.
    fn check_place(&self, id: AttemptId, lease: &Lease, job: &Job) -> Result<(), Broken> {
        let NodeKind::Command(command) = &job.row.node.kind else {
            return broken("I7", format!("{id} is leased and is no command"));
        };
        let Some(build) = self.builds.get(&job.row.build) else { return broken("I7", format!("{id} has no build")) };
        let Some(agent) = self.agents.get(&lease.agent) else { return broken("I7", format!("{id} has no agent")) };
        let shape = shape_of(command, build.row.namespace.trust());
        let serves = self.pools.get(&agent.row.pool).is_some_and(|pool| pool_serves(pool, &shape));
        hold!(serves, "I7", "{id} is leased to pool `{}`, which does not serve it", agent.row.pool);
        // Tags may change with a hello; the lease stays.
        let tagged = has_tags(agent, &shape.tags) || lease.phase != Phase::Offered;
        hold!(tagged, "I7", "{id} is offered to an agent without its tags");
        hold!(job.cleared, "I7", "{id} is leased, and what {} depends on was not over", lease.job);
        Ok(())
    }

    /// A job's state agrees with its queue, its lease and its dependencies, and something will end it.
    fn check_job(&self, id: JobId, job: &Job) -> Result<(), Broken> {
        let Some(build) = self.builds.get(&job.row.build) else { return broken("I11", format!("{id} has no build")) };
        let lease = job.row.attempts.last().and_then(|attempt| self.leases.get(attempt));
        let find = |node: usize| build.jobs.get(node).and_then(|id| self.jobs.get(id)).map(|job| &job.row);
        let (waits, bad) = count_dependencies(&job.row, find);
        hold!(
            (waits, bad) == (job.waits, job.bad),
            "I11",
            "{id} counts {:?} dependencies, it has {:?}",
            (job.waits, job.bad),
            (waits, bad)
        );
        let held = self.timers.has(Timer::NotBefore(id));
        let expires = self.timers.has(Timer::Expiry(job.row.build));
        match job.row.state {
            JobState::Scheduled => {
                hold!(!build.row.cancel_requested, "I8", "{id} is ready in a canceled build");
                let waits = self.hold_of(id).is_some();
                let queues = [job.queued.is_some(), held, waits && !held].into_iter().filter(|it| *it).count();
                hold!(queues == 1, "I10", "{id} is ready and not in exactly one queue");
                hold!(lease.is_none(), "I2", "{id} is ready and leased");
                hold!(expires, "I10", "{id} is ready and never expires");
                if let Some((line, ticket)) = job.queued {
                    hold!(self.queue.holds(line, ticket), "I11", "{id} is not in its line");
                }
            }
            JobState::Waiting => {
                hold!(!build.row.cancel_requested, "I8", "{id} waits in a canceled build");
                hold!(waits > 0, "I10", "{id} waits for nothing");
                hold!(expires, "I10", "{id} waits and never expires");
            }
            JobState::Blocked => {
                hold!(!build.row.cancel_requested, "I8", "{id} waits for a person in a canceled build");
                hold!((waits, bad) == (0, 0), "I7", "{id} can be opened, and what it depends on is not over");
                hold!(expires, "I10", "{id} waits for a person and never expires");
            }
            JobState::Limited => {
                hold!(!build.row.cancel_requested, "I8", "{id} waits for a slot in a canceled build");
                hold!((waits, bad) == (0, 0), "I7", "{id} is in its group, and what it depends on is not over");
                hold!(expires, "I10", "{id} waits for a slot and never expires");
            }
            JobState::Assigned | JobState::Canceling | JobState::TimingOut => {
                hold!(lease.is_some(), "I10", "{id} is {:?} and nobody has it", job.row.state);
                let ending = job.row.state != JobState::Assigned;
                hold!(!build.row.cancel_requested || ending, "I8", "{id} goes on in a canceled build");
            }
            JobState::Running => self.check_trigger(id, job)?,
            JobState::Pending | JobState::Accepted | JobState::Limiting => {
                return broken("I11", format!("{id} is stored as {:?}", job.row.state));
            }
            state => hold!(state.is_final(), "I10", "{id} is {state:?}"),
        }
        if job.row.state.is_final() {
            hold!(lease.is_none(), "I2", "{id} has ended and is leased");
            let live = job.row.attempts.iter().find(|attempt| !self.attempts[attempt].state.is_final());
            hold!(live.is_none(), "I2", "{id} has ended and an attempt of it has not");
        }
        let queued = job.queued.is_some() || held;
        hold!(!queued || job.row.state == JobState::Scheduled, "I8", "{id} is {:?} and queued", job.row.state);
        hold!(job.row.attempts.len() <= limits::ATTEMPTS_PER_JOB_MAX, "I9", "{id} has too many attempts");
        Ok(())
    }

    /// A trigger job that goes on has ordered its build, or waits for one that has not ended.
    fn check_trigger(&self, id: JobId, job: &Job) -> Result<(), Broken> {
        let Some(trigger) = self.trigger(id) else { return broken("I11", format!("{id} is stored as running")) };
        let canceled = self.builds[&job.row.build].row.cancel_requested;
        hold!(!canceled, "I8", "{id} goes on in a canceled build");
        let Some(last) = job.row.triggered.last() else { return broken("I10", format!("{id} triggers nothing")) };
        if last.number.is_none() {
            let ordered = self.orders.get(&last.build) == Some(&Orderer::Job(id));
            hold!(ordered && self.timers.has(Timer::Order(last.build)), "I10", "{id} waits for no order");
            hold!(!self.builds.contains_key(&last.build), "I3", "{id} has its build and orders it");
        } else {
            hold!(!trigger.r#async, "I10", "{id} waits for a build that it need not wait for");
            hold!(self.builds.contains_key(&last.build), "I10", "{id} waits for a build that has ended");
        }
        Ok(())
    }

    /// What a build is said to hold is what its rows hold, and no more than it may.
    fn check_account(&self, build: &Build) -> Result<(), Broken> {
        let rows = build.jobs.iter().filter_map(|id| self.jobs.get(id)).map(|job| &job.row);
        let (id, account) = (build.row.id, Account::of(&build.row, rows));
        hold!(account == build.account, "I9", "build {id} holds {account:?}, it says {:?}", build.account);
        hold!(account.total() <= self.policy.build_max_bytes, "I9", "build {id} holds {} bytes", account.total());
        Ok(())
    }

    /// Every order has somebody who waits for it; every triggered build is counted.
    fn check_orders(&self) -> Result<(), Broken> {
        for (build, by) in &self.orders {
            let waits = match by {
                Orderer::Job(job) => self.jobs.get(job).is_some_and(|job| {
                    let last = job.row.triggered.last();
                    job.row.state == JobState::Running && last.is_some_and(|last| last.build == *build)
                }),
                Orderer::Schedule(id) => self
                    .schedules
                    .rows
                    .get(id)
                    .is_some_and(|row| row.firing.as_ref().is_some_and(|firing| firing.build == *build)),
            };
            hold!(waits, "I10", "build {build} is ordered and nobody waits for it");
        }
        for (id, row) in &self.schedules.rows {
            let ordered = row.firing.as_ref().is_some_and(|firing| self.orders.contains_key(&firing.build));
            let awaited = row.next_at.is_some_and(|next| self.schedules.due.contains(&(next, *id)));
            let asleep = row.firing.is_none() && row.next_at.is_none();
            hold!(ordered != awaited || asleep, "I10", "schedule {id} neither waits for its time nor for its build");
            hold!(!awaited || self.timers.has(Timer::Schedules), "I10", "nobody looks after schedule {id}");
        }
        for (root, family) in &self.families {
            hold!(self.lineages.contains_key(root), "I9", "builds below {root} are not counted");
            hold!(!family.is_empty(), "I11", "{root} has an empty family");
        }
        for root in self.lineages.keys() {
            let known = self.families.contains_key(root) || self.builds.contains_key(root);
            hold!(known, "I9", "builds below {root} are counted and all have ended");
        }
        Ok(())
    }

    /// A build's counts and state agree with its jobs.
    fn check_build(&self, build: &Build) -> Result<(), Broken> {
        let mut tally = Tally::default();
        for job in &build.jobs {
            tally.add(&self.jobs[job].row);
        }
        let id = build.row.id;
        hold!(tally == build.tally, "I11", "build {id} counts {:?}, it has {tally:?}", build.tally);
        let heard = build.subjects.iter().filter(|(_, heard)| heard.tally != StepTally::default());
        let sums = subject::sums(build.jobs.iter().map(|job| &self.jobs[job].row), &build.row.groups);
        hold!(heard.eq(&sums), "I11", "build {id} counts {:?}, it has {sums:?}", build.subjects);
        hold!(build.row.state == tally.state(&build.row), "I11", "build {id} is {:?}", build.row.state);
        let blocked = self.blocked_state(id);
        hold!(build.row.blocked == blocked, "I11", "build {id} is shown as {:?}, not {blocked:?}", build.row.blocked);
        let endless = tally.is_stuck() && (tally.blocked == 0 || tally.hard > 0) && !build.row.cancel_requested;
        hold!(!endless, "I10", "build {id} waits, and nothing of it can run");
        hold!(!build.row.state.is_final(), "I9", "build {id} has ended and is in memory");
        let failing = build.jobs.iter().any(|job| is_hard_failure(&self.jobs[job].row));
        hold!(failing == (tally.hard > 0), "I11", "build {id} counts {} failures", tally.hard);
        let expires = self.timers.has(Timer::Expiry(id)) || build.row.cancel_requested;
        hold!(expires, "I10", "build {id} never ends");
        Ok(())
    }

    /// What an agent's slots take is what it is said to have used, and nobody is given more than there is.
    fn check_agent(&self, id: AgentId, agent: &Agent) -> Result<(), Broken> {
        let cpu: u64 = agent.slots.values().filter(|slot| !slot.done).map(|slot| slot.resources.cpu_millis).sum();
        hold!(cpu == agent.used.cpu_millis, "I11", "{id} is said to use {} of {cpu}", agent.used.cpu_millis);
        for (attempt, slot) in &agent.slots {
            let live = self.leases.get(attempt).is_some_and(|lease| lease.agent == id);
            hold!(live || slot.ghost.is_some(), "I2", "{id} has a slot for {attempt}, which it does not hold");
        }
        let pool = self.pools.get(&agent.row.pool);
        let listed = self.open.get(&agent.row.pool);
        let listed = listed.is_some_and(|open| open.iter().any(|(_, open)| *open == id));
        hold!(listed == agent.open_at.is_some(), "I11", "{id} is not where it stands among the open agents");
        hold!(agent.open_at.is_none() || agent.is_eligible(pool), "I7", "{id} is open and takes nothing");
        let zone = pool.and_then(|pool| self.zones.get(&pool.zone));
        let place = zone.map_or((false, false), |zone| (zone.present.contains(&id), zone.silent.contains(&id)));
        let bearing = agent.bearing();
        hold!(bearing == agent.bearing, "I11", "{id} is {bearing:?} and its zone takes it for {:?}", agent.bearing);
        let stands = (bearing != Bearing::Absent, bearing == Bearing::Silent);
        hold!(place == stands, "I11", "{id} is {bearing:?} and its zone has it as {place:?}");
        let (silence, absence) = (self.timers.has(Timer::Silence(id)), self.timers.has(Timer::Absence(id)));
        let watched = match agent.silence {
            Silence::Heard | Silence::Suspect => silence,
            Silence::Never if agent.slots.is_empty() => silence || absence,
            Silence::Never => silence,
            Silence::Lost | Silence::Left => absence,
        };
        hold!(watched, "I10", "{id} is {:?} and no deadline ends that", agent.silence);
        hold!(agent.shown == Some(agent.state(pool)), "I11", "{id} is shown as {:?}", agent.shown);
        Ok(())
    }

    /// No attempt is held by right on two agents, and no exclusive job has two attempts that may run.
    fn check_holders(&self) -> Result<(), Broken> {
        let mut holders: BTreeMap<AttemptId, AgentId> = BTreeMap::new();
        let mut ghosts: BTreeMap<JobId, Vec<(Instant64, AttemptId)>> = BTreeMap::new();
        for (id, agent) in &self.agents {
            for (attempt, slot) in &agent.slots {
                if let Some(since) = slot.ghost {
                    ghosts.entry(slot.job).or_default().push((since, *attempt));
                } else if let Some(other) = holders.insert(*attempt, *id) {
                    return broken("I2", format!("{attempt} is held by {other} and by {id}"));
                }
            }
        }
        for (id, lease) in &self.leases {
            let exclusive = self.command(lease.job).is_some_and(runs_alone);
            let fenced = self.jobs[&lease.job].fence.is_some_and(|fence| lease.granted_at >= fence);
            if !exclusive || fenced {
                continue;
            }
            // One that was heard of only after the grant could not have held it back.
            let known = |(since, ghost): &&(Instant64, AttemptId)| ghost != id && *since < lease.granted_at;
            if let Some((_, ghost)) = ghosts.get(&lease.job).and_then(|ghosts| ghosts.iter().find(known)) {
                return broken("I3", format!("{id} is leased while {ghost} of the same exclusive job may run"));
            }
        }
        Ok(())
    }
}
