//! Why a job waits, or how it ended, in words that tell what to do.

use std::fmt;

use windlass_protocol::{Cause, CauseKind, JobId, WallMs};

use crate::deps::{Standing, standing, verdict};
use crate::effect::AgentState;
use crate::patience::Patience;
use crate::place::{fits, has_tags, pool_serves, share};
use crate::reuse::Hold;
use crate::row::{JobReuse, JobRow, JobState, Role};
use crate::state::{Core, Job};

/// Why a job does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It runs, or has ended.
    NotWaiting(JobState),
    /// Steps that it depends on are not done; their labels.
    Dependencies(Vec<String>),
    /// It waits for keys that no step has yet.
    Unknown(Vec<String>),
    /// It waits for a person.
    Blocked,
    /// It waits for what the build runs that it is to make: of this pipeline.
    Ordered(String),
    /// It waits for the end of the build that it made: pipeline and number.
    Triggered(String, u64),
    /// It waits for its concurrency group.
    Limited {
        /// The group.
        group: String,
        /// Jobs that hold slots.
        holding: usize,
        /// Jobs that wait before it.
        ahead: usize,
    },
    /// It waits for its key: whether its result is here already is not known yet.
    Keying,
    /// The same step runs with the same key, and it waits for that one's result.
    Follows {
        /// Whose build.
        number: u64,
        /// The step's label there.
        step: String,
    },
    /// It is held back until then: what ran of it before may still be ending.
    Fenced(WallMs),
    /// No pool serves its queue, zone and trust.
    NoPool {
        /// The queue.
        queue: String,
        /// The zone, if it asks for one.
        zone: Option<String>,
        /// The trust of its build.
        trust: windlass_protocol::Trust,
    },
    /// Pools serve it, and none of their agents can take it now: how many, for which reason.
    NoAgent(Vec<(Obstacle, usize)>),
    /// An agent that has its large inputs is busy, and it waits for that one as long as this costs less than to bring them.
    Warmer {
        /// For so long at most, in milliseconds.
        ms: u64,
        /// Agents that have them.
        agents: usize,
        /// Bytes that another one would bring.
        bytes: u64,
    },
    /// An agent could take it now.
    Soon,
}

/// Why an agent does not take a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// It is not online.
    Agent(AgentState),
    /// Its disk is full.
    DiskFull,
    /// It lacks a tag.
    Tags,
    /// It runs no images.
    Images,
    /// It is too small, even when idle.
    TooSmall,
    /// It is busy.
    Busy,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(AgentState::Joining) => f.write_str("not connected yet"),
            Self::Agent(AgentState::Online) => f.write_str("paused for a moment after refusing an offer"),
            Self::Agent(AgentState::Suspect) => f.write_str("silent"),
            Self::Agent(AgentState::Lost) => f.write_str("lost"),
            Self::Agent(AgentState::Draining) => f.write_str("draining"),
            Self::Agent(AgentState::Paused) => f.write_str("paused"),
            Self::Agent(AgentState::Quarantined) => f.write_str("quarantined"),
            Self::Agent(AgentState::Gone) => f.write_str("gone"),
            Self::DiskFull => f.write_str("out of disk space"),
            Self::Tags => f.write_str("without its tags"),
            Self::Images => f.write_str("unable to run images"),
            Self::TooSmall => f.write_str("too small"),
            Self::Busy => f.write_str("busy"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWaiting(_) => f.write_str("it does not wait"),
            Self::Dependencies(steps) => write!(f, "it waits for {}", steps.join(", ")),
            Self::Unknown(keys) => {
                write!(f, "it waits for a step with the key {}, which no step has yet", keys.join(", "))
            }
            Self::Blocked => f.write_str("it waits for somebody: `windlass build unblock` opens it"),
            Self::Ordered(pipeline) => write!(f, "it waits for the definition of `{pipeline}`, whose build it makes"),
            Self::Triggered(pipeline, number) => write!(f, "it waits for build #{number} of `{pipeline}`"),
            Self::Limited { group, holding, ahead } => {
                write!(f, "concurrency group `{group}` is full: {holding} of its jobs run, {ahead} wait before it")
            }
            Self::Keying => f.write_str("its inputs are looked at, for a result that is here already"),
            Self::Follows { number, step } => {
                write!(f, "{step} of build #{number} runs with the same inputs, and it waits for that result")
            }
            Self::Fenced(_) => f.write_str("what ran of it before may still be ending"),
            Self::NoPool { queue, zone: None, trust } => {
                write!(f, "no pool serves queue `{queue}` for {trust} builds")
            }
            Self::NoPool { queue, zone: Some(zone), trust } => {
                write!(f, "no pool in zone `{zone}` serves queue `{queue}` for {trust} builds")
            }
            Self::NoAgent(obstacles) if obstacles.is_empty() => f.write_str("its pools have no agents"),
            Self::NoAgent(obstacles) => {
                f.write_str("of the agents that serve its queue")?;
                for (place, (obstacle, count)) in obstacles.iter().enumerate() {
                    let comma = if place == 0 { "" } else { "," };
                    write!(f, "{comma} {count} {} {obstacle}", if *count == 1 { "is" } else { "are" })?;
                }
                Ok(())
            }
            Self::Warmer { ms, agents, bytes } => {
                let have = if *agents == 1 { "agent that has" } else { "agents that have" };
                let (mib, seconds) = (bytes >> 20, ms.div_ceil(1_000));
                write!(f, "it waits at most {seconds} s for the {agents} {have} the {mib} MiB that it needs")
            }
            Self::Soon => f.write_str("an agent can take it now"),
        }
    }
}

/// How a job that does not wait stands: how it ended, or that it runs. `jobs` are those of its build, in order.
#[must_use]
pub fn settled(job: &JobRow, jobs: &[JobRow]) -> String {
    if let Some(Role::Reused(from)) = job.reuse.as_ref().and_then(JobReuse::keyed).map(|keyed| &keyed.role) {
        return format!("nothing ran: its result is that of {} of build #{}", from.step, from.number);
    }
    let mut text = match job.state {
        JobState::Passed => "it passed".to_owned(),
        JobState::Failed | JobState::TimedOut | JobState::Expired | JobState::Canceled => return ended_badly(job),
        JobState::WaitingFailed | JobState::BlockedFailed => return never_ran(job, jobs),
        JobState::Unblocked | JobState::UnblockedFailed => match &job.unblocked {
            Some(opened) => format!("{} opened it", opened.by.name),
            None => "it was opened".to_owned(),
        },
        JobState::Skipped => "it is not to be run".to_owned(),
        JobState::Broken => "its conditions exclude it from this build".to_owned(),
        JobState::Canceling => "it is being canceled".to_owned(),
        JobState::TimingOut => "its time is over, and its end is awaited".to_owned(),
        JobState::Assigned | JobState::Accepted => "an agent prepares it".to_owned(),
        JobState::Running => "it runs".to_owned(),
        JobState::Pending
        | JobState::Waiting
        | JobState::Blocked
        | JobState::Limiting
        | JobState::Limited
        | JobState::Scheduled => "it waits".to_owned(),
    };
    if let Some(cause) = &job.cause {
        text.push_str(&format!(": {}", cause.detail));
    }
    text
}

/// A job that failed, was canceled or took too long: by what, and after how many tries.
fn ended_badly(job: &JobRow) -> String {
    let mut text = match (job.state, job.exit_status, job.signal) {
        (JobState::Canceled, ..) => "it was canceled".to_owned(),
        (JobState::TimedOut, ..) => "its time was over".to_owned(),
        (JobState::Expired, ..) => "no agent took it in time".to_owned(),
        (_, _, Some(signal)) => format!("signal {signal} ended it"),
        (_, Some(status), None) => format!("it failed with exit status {status}"),
        (_, None, None) => "it failed".to_owned(),
    };
    match &job.cause {
        // The state says as much.
        Some(Cause { kind: CauseKind::Canceled | CauseKind::Timeout | CauseKind::Expired, detail, .. }) => {
            text.push_str(&format!(" ({detail})"));
        }
        Some(cause) => text.push_str(&format!(" ({cause})")),
        None => {}
    }
    if job.attempts.len() > 1 {
        text.push_str(&format!(", after {} attempts", job.attempts.len()));
    }
    if job.soft_failed {
        text.push_str("; its failure is allowed");
    }
    text
}

/// A job that its dependencies kept from running: which ones.
fn never_ran(job: &JobRow, jobs: &[JobRow]) -> String {
    let kept = job.node.depends_on.iter().filter_map(|edge| {
        let other = jobs.iter().find(|other| other.index == edge.node)?;
        let forgiving = edge.allow_failure || job.node.allow_dependency_failure;
        let (_, fails) = verdict(standing(other), forgiving);
        let how = match other.state {
            JobState::Canceled => "was canceled",
            JobState::TimedOut => "timed out",
            JobState::WaitingFailed | JobState::BlockedFailed => "did not run either",
            _ => "failed",
        };
        fails.then(|| format!("{} {how}", other.node.label))
    });
    let kept: Vec<String> = kept.collect();
    match (kept.is_empty(), &job.cause) {
        (false, _) => format!("it did not run: {}", kept.join(", ")),
        (true, Some(cause)) => format!("it did not run ({cause})"),
        (true, None) => "it did not run: its build ended first".to_owned(),
    }
}

impl Core {
    fn explain_hold(&self, hold: Hold) -> Option<Why> {
        Some(match hold {
            Hold::Key => Why::Keying,
            Hold::Leader(leader) => {
                let row = &self.jobs.get(&leader)?.row;
                let number = self.builds.get(&row.build)?.row.number;
                Why::Follows { number, step: row.node.label.clone() }
            }
        })
    }

    /// Why a job in memory does not run; `None` if it is not in memory.
    #[must_use]
    pub fn explain(&self, id: JobId) -> Option<Why> {
        let job = self.jobs.get(&id)?;
        let build = self.builds.get(&job.row.build)?;
        match job.row.state {
            JobState::Pending | JobState::Waiting | JobState::WaitingFailed => {
                let edges = job.row.node.depends_on.iter();
                let unmet = edges.filter_map(|edge| {
                    let id = build.jobs.get(usize::try_from(edge.node).ok()?)?;
                    let standing = self.standing_of(*id);
                    let label = &self.jobs.get(id)?.row.node.label;
                    (standing != Standing::Good).then(|| label.clone())
                });
                let unmet: Vec<String> = unmet.collect();
                if unmet.is_empty() && !job.row.node.unresolved.is_empty() {
                    let keys = job.row.node.unresolved.iter();
                    return Some(Why::Unknown(keys.map(|dependency| dependency.key.clone()).collect()));
                }
                return Some(Why::Dependencies(unmet));
            }
            JobState::Scheduled => {}
            JobState::Blocked => return Some(Why::Blocked),
            JobState::Running if self.trigger(id).is_some() => {
                let pipeline = self.trigger(id)?.pipeline.clone();
                return Some(match job.row.triggered.last()?.number {
                    Some(number) => Why::Triggered(pipeline, number),
                    None => Why::Ordered(pipeline),
                });
            }
            JobState::Limited => {
                let (holding, ahead) = self.line_up(&job.row)?;
                let (_, group) = self.group_of(&job.row)?;
                return Some(Why::Limited { group, holding, ahead });
            }
            state => return Some(Why::NotWaiting(state)),
        }
        if let Some(until) = job.row.not_before.filter(|_| job.queued.is_none()) {
            return Some(Why::Fenced(until));
        }
        if let Some(hold) = self.hold_of(id) {
            return self.explain_hold(hold);
        }
        self.explain_queued(job)
    }

    /// Why no agent has a job that stands in its line.
    fn explain_queued(&self, job: &Job) -> Option<Why> {
        if let Patience::Until { until, .. } = job.patience {
            let (agents, bytes) = self.stocks.of(&self.inputs_of(job.row.id));
            return Some(Why::Warmer { ms: until.since_ms(self.now.mono), agents, bytes });
        }
        let (shape, _) = self.line_of(&job.row)?;
        let pools: Vec<_> = self.pools.values().filter(|pool| pool_serves(pool, &shape)).collect();
        if pools.is_empty() {
            return Some(Why::NoPool { queue: shape.queue, zone: shape.zone, trust: shape.trust });
        }
        let mut counts = std::collections::BTreeMap::new();
        for agent in self.agents.values() {
            let Some(pool) = pools.iter().find(|pool| pool.name == agent.row.pool) else { continue };
            let state = agent.state(Some(pool));
            let obstacle = match &agent.hello {
                _ if state == AgentState::Quarantined && agent.health.disk_full => Obstacle::DiskFull,
                _ if !agent.is_eligible(Some(pool)) => Obstacle::Agent(state),
                None => Obstacle::Agent(state),
                Some(_) if !has_tags(agent, &shape.tags) => Obstacle::Tags,
                Some(hello) if shape.image && !hello.runs_images => Obstacle::Images,
                Some(hello) if !agent.could_run(&shape) || hello.slots == 0 => Obstacle::TooSmall,
                Some(hello) => {
                    let need = share(shape.resources, hello.slots, hello.capacity);
                    if agent.open_at.is_some() && fits(need, agent.used, hello.capacity) {
                        return Some(Why::Soon);
                    }
                    Obstacle::Busy
                }
            };
            *counts.entry(obstacle).or_insert(0_usize) += 1;
        }
        Some(Why::NoAgent(counts.into_iter().collect()))
    }
}
