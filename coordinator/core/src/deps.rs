//! Dependencies: when a job may run, and when it will not (reference 6.3, 6.4).

use windlass_pipeline::graph::NodeKind;
use windlass_protocol::JobId;

use crate::load::count_dependencies;
use crate::row::{JobRow, JobState};
use crate::state::Core;

/// What a job is to those that depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not over.
    Open,
    /// Over, and those that depend on it may go on.
    Good,
    /// Failed; an edge may forgive it.
    Failed,
    /// Canceled; nothing forgives it.
    Canceled,
}

/// What a job is to those that depend on it.
pub(crate) const fn standing(job: &JobRow) -> Standing {
    match job.state {
        JobState::Pending
        | JobState::Waiting
        | JobState::Blocked
        | JobState::Limiting
        | JobState::Limited
        | JobState::Scheduled
        | JobState::Assigned
        | JobState::Accepted
        | JobState::Running
        | JobState::Canceling
        | JobState::TimingOut => Standing::Open,
        JobState::Passed | JobState::Skipped | JobState::Broken | JobState::Unblocked | JobState::UnblockedFailed => {
            Standing::Good
        }
        JobState::Failed | JobState::TimedOut if job.soft_failed => Standing::Good,
        JobState::Failed
        | JobState::TimedOut
        | JobState::Expired
        | JobState::WaitingFailed
        | JobState::BlockedFailed => Standing::Failed,
        JobState::Canceled => Standing::Canceled,
    }
}

/// Whether an edge to a job of this standing is waited for, and whether it keeps the dependent from running.
pub(crate) const fn verdict(standing: Standing, forgiving: bool) -> (bool, bool) {
    match standing {
        Standing::Open => (true, false),
        Standing::Good => (false, false),
        Standing::Failed => (false, !forgiving),
        Standing::Canceled => (false, true),
    }
}

impl Core {
    /// Carries every change of a job's standing to those that depend on it, and theirs to the next.
    pub(crate) fn settle_dependencies(&mut self) {
        while let Some((job, before)) = self.ripple.pop_first() {
            let row = &self.jobs[&job].row;
            let (build, index, after) = (row.build, row.index, standing(row));
            if before == after {
                continue;
            }
            let list = usize::try_from(index).ok().and_then(|index| self.builds[&build].dependents.get(index));
            for (dependent, place) in list.cloned().unwrap_or_default() {
                let Some(dependent) =
                    usize::try_from(dependent).ok().and_then(|i| self.builds[&build].jobs.get(i).copied())
                else {
                    continue;
                };
                self.recount(dependent, place, before, after);
                self.reconsider(dependent);
            }
        }
    }

    fn recount(&mut self, dependent: JobId, place: u32, before: Standing, after: Standing) {
        let Some(job) = self.jobs.get_mut(&dependent) else { return };
        let edge = usize::try_from(place).ok().and_then(|place| job.row.node.depends_on.get(place));
        let forgiving = edge.is_some_and(|edge| edge.allow_failure) || job.row.node.allow_dependency_failure;
        let ((waited, failed), (waits, fails)) = (verdict(before, forgiving), verdict(after, forgiving));
        job.waits = job.waits + u32::from(waits) - u32::from(waited);
        job.bad = job.bad + u32::from(fails) - u32::from(failed);
    }

    /// Moves a job that has not begun to where its dependencies put it.
    pub(crate) fn reconsider(&mut self, id: JobId) {
        let job = &self.jobs[&id];
        if self.builds[&job.row.build].row.cancel_requested {
            return;
        }
        let slack = u32::from(self.policy.bugs.forget_dependency);
        match job.row.state {
            JobState::Pending | JobState::Waiting | JobState::WaitingFailed | JobState::BlockedFailed => {
                if job.bad > 0 {
                    self.fail_waiting(id);
                } else if job.waits > slack {
                    self.change_job(id, |row| (row.state, row.cause) = (JobState::Waiting, None));
                } else {
                    self.ready(id);
                }
            }
            // A dependency is being run again by hand before this one was leased, or opened.
            JobState::Scheduled | JobState::Limited | JobState::Limiting | JobState::Blocked
                if job.row.attempts.is_empty() =>
            {
                if job.bad > 0 {
                    self.fail_waiting(id);
                } else if job.waits > slack {
                    self.set_state(id, JobState::Waiting);
                }
            }
            _ => {}
        }
    }

    /// A job's dependencies will not allow it.
    pub(crate) fn fail_waiting(&mut self, id: JobId) {
        let to = match self.jobs[&id].row.node.kind {
            NodeKind::Block(_) | NodeKind::Input(_) => JobState::BlockedFailed,
            NodeKind::Command(_) | NodeKind::Wait { .. } | NodeKind::Trigger(_) => JobState::WaitingFailed,
        };
        self.set_state(id, to);
    }

    /// Proves from the rows alone that a job's dependencies allow it, whatever has been counted.
    pub(crate) fn clear(&mut self, id: JobId) {
        let job = &self.jobs[&id];
        let build = &self.builds[&job.row.build];
        let find = |node: usize| build.jobs.get(node).and_then(|id| self.jobs.get(id)).map(|job| &job.row);
        let cleared = count_dependencies(&job.row, find) == (0, 0);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.cleared = cleared;
        }
    }

    /// A job's dependencies allow it.
    fn ready(&mut self, id: JobId) {
        let wall = self.now.wall;
        self.clear(id);
        let row = self.edit_job(id);
        row.runnable_at = Some(wall);
        row.cause = None;
        match &row.node.kind {
            NodeKind::Command(command) if command.concurrency.is_some() => self.set_state(id, JobState::Limiting),
            NodeKind::Command(_) => self.set_state(id, JobState::Scheduled),
            NodeKind::Wait { .. } => {
                row.started_at = Some(wall);
                self.set_state(id, JobState::Passed);
            }
            NodeKind::Block(_) | NodeKind::Input(_) => self.set_state(id, JobState::Blocked),
            NodeKind::Trigger(_) => self.start_trigger(id),
        }
    }
}
