//! How a step or a group stands, by all of its jobs together: the words of `step get state|outcome` and of `step.state` and
//! `step.outcome` in conditions (reference 10 and 16.1), and the state of a commit.

use windlass_pipeline::graph::NodeKind;
use windlass_protocol::CauseKind;

use crate::row::{CommitState, JobRow, JobState};

/// How many jobs stand how; a job changes its place with its state alone, and at its end with why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepTally {
    work: Counts,
    /// Waits, blocks and inputs: they have no work of their own.
    gates: Counts,
}

/// Each is a number of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    /// Wait for others.
    waiting: u32,
    /// Wait for somebody's answer.
    blocked: u32,
    /// May run.
    ready: u32,
    running: u32,
    passed: u32,
    /// Did not pass, and were forgiven.
    soft_failed: u32,
    /// Failed by what they do.
    failed: u32,
    /// Failed by what was around them: an agent that was lost, an image that could not be pulled.
    lost: u32,
    canceled: u32,
    expired: u32,
    /// Were not reached, because something before them failed.
    unreached: u32,
    /// Were not to be run.
    idle: u32,
}

impl StepTally {
    /// That of these jobs.
    pub fn of<'a>(jobs: impl IntoIterator<Item = &'a JobRow>) -> Self {
        let mut tally = Self::default();
        for job in jobs {
            tally.add(job);
        }
        tally
    }

    pub(crate) fn add(&mut self, job: &JobRow) {
        *self.place_of(job) += 1;
    }

    /// Takes out a job that was added as it is.
    pub(crate) fn sub(&mut self, job: &JobRow) {
        *self.place_of(job) -= 1;
    }

    fn place_of(&mut self, job: &JobRow) -> &mut u32 {
        let counts = match job.node.kind {
            NodeKind::Command(_) | NodeKind::Trigger(_) => &mut self.work,
            NodeKind::Wait { .. } | NodeKind::Block(_) | NodeKind::Input(_) => &mut self.gates,
        };
        counts.place(job.state, job.soft_failed, job.cause.as_ref().map(|cause| cause.kind))
    }

    const fn all(&self) -> [&Counts; 2] {
        [&self.work, &self.gates]
    }

    fn sum(&self, of: impl Fn(&Counts) -> u32) -> u32 {
        self.all().into_iter().map(of).sum()
    }

    /// Whether all of its jobs have ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.sum(Counts::open) == 0
    }

    /// What a commit's state would be; `None` as long as nothing of it may run, and where nothing was to be run.
    pub(crate) fn commit_state(&self) -> Option<CommitState> {
        let (failed, errored) = (self.sum(|it| it.failed + it.lost), self.sum(|it| it.canceled + it.expired));
        let ended = failed + errored + self.sum(|it| it.passed + it.soft_failed);
        match (self.is_over(), self.sum(|it| it.ready + it.running) + ended, failed, errored) {
            (_, 0, ..) => None,
            (false, ..) => Some(CommitState::Pending),
            (true, _, 1.., _) => Some(CommitState::Failure),
            (true, _, 0, 1..) => Some(CommitState::Error),
            (true, _, 0, 0) => Some(CommitState::Success),
        }
    }

    /// How far a step is.
    #[must_use]
    pub fn state(&self) -> &'static str {
        let any = |of: fn(&Counts) -> u32| self.sum(of) > 0;
        if self.is_over() {
            return match self.sum(Counts::jobs) {
                jobs if jobs == self.sum(|it| it.idle) => "ignored",
                jobs if jobs == self.sum(|it| it.canceled) => "canceled",
                _ => "finished",
            };
        }
        match () {
            () if any(Counts::bad) => "failing",
            () if any(|it| it.blocked) => "waiting_for_input",
            () if any(|it| it.running + it.passed + it.soft_failed) => "running",
            () if any(|it| it.ready) => "ready",
            () => "waiting_for_dependencies",
        }
    }

    /// How a step did; nothing before its end. Somebody's cancel counts as a failure, as upstream counts it.
    #[must_use]
    pub fn outcome(&self) -> Option<&'static str> {
        let work = &self.work;
        self.is_over().then_some(match () {
            () if work.jobs() == work.idle => "neutral",
            () if work.failed + work.canceled > 0 => "hard_failed",
            () if work.lost + work.expired + work.unreached > 0 => "errored",
            () if work.soft_failed > 0 => "soft_failed",
            () => "passed",
        })
    }
}

impl Counts {
    fn place(&mut self, state: JobState, soft_failed: bool, cause: Option<CauseKind>) -> &mut u32 {
        match state {
            JobState::Pending | JobState::Waiting | JobState::Limiting => &mut self.waiting,
            JobState::Blocked => &mut self.blocked,
            JobState::Limited | JobState::Scheduled | JobState::Assigned | JobState::Accepted => &mut self.ready,
            JobState::Running | JobState::Canceling | JobState::TimingOut => &mut self.running,
            JobState::Passed | JobState::Unblocked => &mut self.passed,
            JobState::Failed | JobState::TimedOut | JobState::Canceled | JobState::Expired if soft_failed => {
                &mut self.soft_failed
            }
            JobState::Failed | JobState::TimedOut if cause.is_some_and(is_infrastructure) => &mut self.lost,
            JobState::Failed | JobState::TimedOut => &mut self.failed,
            JobState::Canceled => &mut self.canceled,
            JobState::Expired => &mut self.expired,
            JobState::WaitingFailed | JobState::BlockedFailed | JobState::UnblockedFailed => &mut self.unreached,
            JobState::Skipped | JobState::Broken => &mut self.idle,
        }
    }

    const fn open(&self) -> u32 {
        self.waiting + self.blocked + self.ready + self.running
    }

    const fn bad(&self) -> u32 {
        self.failed + self.lost + self.canceled + self.expired
    }

    const fn jobs(&self) -> u32 {
        self.open() + self.bad() + self.passed + self.soft_failed + self.unreached + self.idle
    }
}

/// Whether a job that ends by this cause was not ended by anything of its own.
const fn is_infrastructure(cause: CauseKind) -> bool {
    match cause {
        CauseKind::AgentLost
        | CauseKind::LeaseLost
        | CauseKind::AgentStopped
        | CauseKind::SpotNotice
        | CauseKind::DiskFull
        | CauseKind::Expired
        | CauseKind::ImageMissing
        | CauseKind::ImagePullFailed
        | CauseKind::CheckoutFailed
        | CauseKind::SourceMissing
        | CauseKind::ArtifactMissing
        | CauseKind::PluginFailed
        | CauseKind::SecretMissing
        | CauseKind::DependencyFailed
        | CauseKind::NoSuchQueue
        | CauseKind::RefusedByPolicy
        | CauseKind::Internal => true,
        CauseKind::OutOfMemory
        | CauseKind::Timeout
        | CauseKind::Canceled
        | CauseKind::Superseded
        | CauseKind::HookFailed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Job = (bool, JobState, bool, Option<CauseKind>);

    fn tally(jobs: &[Job]) -> StepTally {
        let mut tally = StepTally::default();
        for (works, state, soft_failed, cause) in jobs {
            let counts = if *works { &mut tally.work } else { &mut tally.gates };
            *counts.place(*state, *soft_failed, *cause) += 1;
        }
        tally
    }

    const fn job(state: JobState) -> Job {
        (true, state, false, None)
    }

    const fn by(state: JobState, cause: CauseKind) -> Job {
        (true, state, false, Some(cause))
    }

    const fn gate(state: JobState) -> Job {
        (false, state, false, None)
    }

    #[test]
    fn every_state_and_outcome_of_the_reference_is_told_where_it_is() {
        use JobState::*;
        let soft = (true, Failed, true, None);
        let rows: [(&str, Option<&str>, Vec<Job>); 24] = [
            ("ignored", Some("neutral"), vec![job(Broken)]),
            ("ignored", Some("neutral"), vec![job(Skipped), job(Broken)]),
            ("waiting_for_dependencies", None, vec![job(Waiting)]),
            ("ready", None, vec![job(Scheduled), job(Waiting)]),
            ("waiting_for_input", None, vec![gate(Blocked)]),
            ("running", None, vec![job(Running), job(Scheduled)]),
            ("running", None, vec![job(Passed), job(Scheduled)]),
            ("running", None, vec![soft, job(Running)]),
            ("failing", None, vec![job(Failed), job(Running)]),
            ("failing", None, vec![job(Canceled), job(Running)]),
            ("canceled", Some("hard_failed"), vec![job(Canceled)]),
            ("finished", Some("hard_failed"), vec![job(Canceled), job(Passed)]),
            ("finished", Some("neutral"), vec![gate(Passed)]),
            ("finished", Some("neutral"), vec![gate(Unblocked)]),
            ("finished", Some("neutral"), vec![gate(BlockedFailed)]),
            ("finished", Some("passed"), vec![job(Passed), job(Skipped)]),
            ("finished", Some("soft_failed"), vec![soft, job(Passed)]),
            ("finished", Some("hard_failed"), vec![soft, job(Failed)]),
            ("finished", Some("hard_failed"), vec![by(TimedOut, CauseKind::Timeout)]),
            (
                "finished",
                Some("hard_failed"),
                vec![by(Failed, CauseKind::OutOfMemory), by(Failed, CauseKind::AgentLost)],
            ),
            ("finished", Some("errored"), vec![by(Failed, CauseKind::AgentLost), job(Passed)]),
            ("finished", Some("errored"), vec![by(Failed, CauseKind::ImagePullFailed)]),
            ("finished", Some("errored"), vec![by(Expired, CauseKind::Expired)]),
            ("finished", Some("errored"), vec![job(WaitingFailed)]),
        ];
        for (how_far, how, jobs) in &rows {
            let tally = tally(jobs);
            assert_eq!((tally.state(), tally.outcome()), (*how_far, *how), "{jobs:?}");
        }
    }

    #[test]
    fn a_commit_fails_by_what_failed_and_errs_where_somebody_ended_it() {
        use JobState::*;
        let rows: [(Option<CommitState>, Vec<Job>); 8] = [
            (None, vec![job(Waiting), gate(Blocked)]),
            (None, vec![job(Broken), job(WaitingFailed)]),
            (Some(CommitState::Pending), vec![job(Scheduled), job(Waiting)]),
            (Some(CommitState::Pending), vec![job(Failed), job(Running)]),
            (Some(CommitState::Failure), vec![job(Failed), job(Canceled)]),
            (Some(CommitState::Failure), vec![by(Failed, CauseKind::AgentLost)]),
            (Some(CommitState::Error), vec![job(Passed), by(Expired, CauseKind::Expired)]),
            (Some(CommitState::Success), vec![(true, Failed, true, None), gate(Unblocked)]),
        ];
        for (state, jobs) in &rows {
            assert_eq!(tally(jobs).commit_state(), *state, "{jobs:?}");
        }
    }
}
