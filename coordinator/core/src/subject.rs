//! Steps and groups that somebody hears of: what all their jobs come to together (docs/design/025).

use std::collections::BTreeMap;

use windlass_pipeline::graph::{Group, Place};
use windlass_protocol::{BuildId, JobId};

use crate::logbook::Logbook;
use crate::row::{CommitState, JobRow, JobState};
use crate::state::{Build, Core};

/// What is told of beside the build: its jobs are told of together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The step at this place.
    Step(Place),
    /// The group of this index.
    Group(u32),
}

/// How many jobs of a subject are how far; kept in step with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum {
    /// Have not ended and wait for others.
    waiting: u32,
    /// Have not ended and may run.
    begun: u32,
    passed: u32,
    /// Failed, and were forgiven.
    pub(crate) soft: u32,
    pub(crate) failed: u32,
    /// Came to no result: canceled, expired.
    pub(crate) errored: u32,
    /// Were not to be run.
    idle: u32,
}

/// A subject in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) sum: Sum,
    /// The first of its jobs: the subject has its name and its `notify`.
    pub(crate) first: JobId,
}

impl Heard {
    fn of(job: &JobRow) -> Self {
        Self { sum: Sum::default(), first: job.id }
    }
}

impl Sum {
    fn slot(&mut self, job: &JobRow) -> &mut u32 {
        match job.state {
            JobState::Pending | JobState::Waiting | JobState::Blocked | JobState::Limiting => &mut self.waiting,
            JobState::Limited
            | JobState::Scheduled
            | JobState::Assigned
            | JobState::Accepted
            | JobState::Running
            | JobState::Canceling
            | JobState::TimingOut => &mut self.begun,
            JobState::Passed | JobState::Unblocked => &mut self.passed,
            JobState::Failed | JobState::TimedOut | JobState::Canceled | JobState::Expired if job.soft_failed => {
                &mut self.soft
            }
            JobState::Failed | JobState::TimedOut => &mut self.failed,
            JobState::Canceled | JobState::Expired => &mut self.errored,
            JobState::WaitingFailed
            | JobState::BlockedFailed
            | JobState::UnblockedFailed
            | JobState::Skipped
            | JobState::Broken => &mut self.idle,
        }
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.waiting + self.begun == 0
    }

    /// What a commit's state would be; `None` as long as nothing of it may run, and where nothing was to be run.
    pub(crate) const fn state(&self) -> Option<CommitState> {
        let ended = self.passed + self.soft + self.failed + self.errored;
        match (self.is_over(), self.begun + ended, self.failed, self.errored) {
            (_, 0, ..) => None,
            (false, ..) => Some(CommitState::Pending),
            (true, _, 1.., _) => Some(CommitState::Failure),
            (true, _, 0, 1..) => Some(CommitState::Error),
            (true, _, 0, 0) => Some(CommitState::Success),
        }
    }
}

/// The subjects that a job is of: its step and its group, as far as somebody hears of them.
pub(crate) fn subjects_of(job: &JobRow, groups: &[Group]) -> impl Iterator<Item = Subject> {
    let step = (!job.node.notify.is_empty()).then(|| Subject::Step(job.node.place.clone()));
    let heard = |group: &u32| {
        let group = usize::try_from(*group).ok().and_then(|index| groups.get(index));
        group.is_some_and(|group| !group.notify.is_empty())
    };
    step.into_iter().chain(job.node.place.group.filter(heard).map(Subject::Group))
}

/// The subjects of a build's jobs, in the jobs' order, from scratch.
pub(crate) fn sums<'a>(jobs: impl Iterator<Item = &'a JobRow>, groups: &[Group]) -> BTreeMap<Subject, Heard> {
    let mut sums = BTreeMap::<_, Heard>::new();
    for job in jobs {
        for subject in subjects_of(job, groups) {
            *sums.entry(subject).or_insert_with(|| Heard::of(job)).sum.slot(job) += 1;
        }
    }
    sums
}

/// A job changes: it is counted out, and in again when it has changed.
pub(crate) fn count(home: &mut Build, book: &mut Logbook, job: &JobRow, is_in: bool) {
    for subject in subjects_of(job, &home.row.groups) {
        let sum = &mut home.subjects.entry(subject.clone()).or_insert_with(|| Heard::of(job)).sum;
        if is_in {
            *sum.slot(job) += 1;
        } else {
            // Only what it was before the first change counts: it is compared with what it is in the end.
            book.subjects.entry((job.build, subject)).or_insert(*sum);
            *sum.slot(job) -= 1;
        }
    }
}

impl Core {
    /// Steps, groups or who hears of them have changed: all are counted anew.
    pub(crate) fn recount_subjects(&mut self, build: BuildId) {
        let Some(home) = self.builds.get(&build) else { return };
        let new = sums(home.jobs.iter().map(|id| &self.jobs[id].row), &home.row.groups);
        if let Some(home) = self.builds.get_mut(&build) {
            home.subjects = new;
        }
    }
}
