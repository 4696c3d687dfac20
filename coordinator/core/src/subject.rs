//! Steps and groups that somebody hears of: what all their jobs come to together (docs/design/025).

use std::collections::BTreeMap;

use windlass_pipeline::graph::{Group, Place};
use windlass_protocol::{BuildId, JobId};

use crate::logbook::Logbook;
use crate::row::JobRow;
use crate::standing::StepTally;
use crate::state::{Build, Core};

/// What is told of beside the build: its jobs are told of together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The step at this place.
    Step(Place),
    /// The group of this index.
    Group(u32),
}

/// A subject in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) tally: StepTally,
    /// The first of its jobs: the subject has its name and its `notify`.
    pub(crate) first: JobId,
}

impl Heard {
    fn of(job: &JobRow) -> Self {
        Self { tally: StepTally::default(), first: job.id }
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
            sums.entry(subject).or_insert_with(|| Heard::of(job)).tally.add(job);
        }
    }
    sums
}

/// A job changes: it is counted out, and in again when it has changed.
pub(crate) fn count(home: &mut Build, book: &mut Logbook, job: &JobRow, is_in: bool) {
    for subject in subjects_of(job, &home.row.groups) {
        let tally = &mut home.subjects.entry(subject.clone()).or_insert_with(|| Heard::of(job)).tally;
        if is_in {
            tally.add(job);
        } else {
            // Only what it was before the first change counts: it is compared with what it is in the end.
            book.subjects.entry((job.build, subject)).or_insert(*tally);
            tally.sub(job);
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
