//! Volatile progress of live attempts, laid over their rows when they are read.

use std::collections::BTreeMap;

use windlass_coordinator_core::effect::Progress;
use windlass_coordinator_core::row::{AttemptRow, AttemptState, BuildRows, JobRow, JobState};
use windlass_protocol::{AttemptId, BuildId, JobId, WallMs};

/// How far the live attempts have come.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    builds: BTreeMap<BuildId, BTreeMap<JobId, Step>>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    attempt: AttemptId,
    state: AttemptState,
    job_state: JobState,
    started_at: Option<WallMs>,
}

impl Overlay {
    /// Takes progress of an attempt; that of agents is not kept here.
    pub(super) fn take(&mut self, progress: &Progress) {
        if let Progress::Attempt { build, job, attempt, state, job_state, started_at } = *progress {
            let step = Step { attempt, state, job_state, started_at };
            self.builds.entry(build).or_default().insert(job, step);
        }
    }

    /// A job that has ended makes no progress.
    pub(super) fn job_changed(&mut self, row: &JobRow) {
        if row.state.is_final() {
            self.forget_job(row.build, row.id);
        }
    }

    /// An attempt that has ended makes no progress.
    pub(super) fn attempt_changed(&mut self, row: &AttemptRow) {
        let step = self.builds.get(&row.build).and_then(|jobs| jobs.get(&row.job));
        if row.state.is_final() && step.is_some_and(|step| step.attempt == row.id) {
            self.forget_job(row.build, row.job);
        }
    }

    pub(super) fn forget(&mut self, build: BuildId) {
        self.builds.remove(&build);
    }

    fn forget_job(&mut self, build: BuildId, job: JobId) {
        if let Some(jobs) = self.builds.get_mut(&build) {
            jobs.remove(&job);
            if jobs.is_empty() {
                self.builds.remove(&build);
            }
        }
    }

    /// Lays progress over rows. Rows that have gone on in the meantime stay as they are.
    pub(super) fn lay_over(&self, rows: &mut BuildRows) {
        let Some(steps) = self.builds.get(&rows.build.id) else { return };
        for attempt in rows.attempts.iter_mut().filter(|attempt| !attempt.state.is_final()) {
            if let Some(step) = steps.get(&attempt.job).filter(|step| step.attempt == attempt.id) {
                attempt.state = step.state;
            }
        }
        for job in rows.jobs.iter_mut().filter(|job| job.state == JobState::Assigned) {
            let step = steps.get(&job.id).filter(|step| job.attempts.last() == Some(&step.attempt));
            if let Some(step) = step {
                job.state = step.job_state;
                job.started_at = job.started_at.or(step.started_at);
            }
        }
    }
}
