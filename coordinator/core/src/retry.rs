//! Running again by hand: one job, or all that failed (reference 10.2). The build goes back to running.

use windlass_pipeline::graph::NodeKind;
use windlass_protocol::{BuildId, JobId, limits};

use crate::error::Rejected;
use crate::row::{BuildRows, JobRefused, JobRow, JobState};
use crate::state::Core;

/// Whether a job's step and state allow that a person runs it again.
fn may_retry(job: &JobRow) -> Result<(), JobRefused> {
    let (allowed, reason) = match &job.node.kind {
        NodeKind::Command(command) => {
            let manual = &command.manual_retry;
            (manual.allowed && (job.state != JobState::Passed || manual.permit_on_passed), manual.reason.clone())
        }
        NodeKind::Trigger(_) => (job.state != JobState::Passed, Some("its build was made".to_owned())),
        NodeKind::Wait { .. } | NodeKind::Block(_) | NodeKind::Input(_) => return Err(JobRefused::NotACommand),
    };
    if !job.state.is_final() {
        return Err(JobRefused::NotEnded);
    }
    let tries = job.attempts.len().max(job.triggered.len());
    match job.state {
        _ if tries >= limits::ATTEMPTS_PER_JOB_MAX => Err(JobRefused::TooManyAttempts),
        JobState::WaitingFailed => {
            let reason = Some("what it depends on failed: run that again".to_owned());
            Err(JobRefused::NotAllowed { reason })
        }
        JobState::Skipped | JobState::Broken => {
            let reason = Some("it was not to be run".to_owned());
            Err(JobRefused::NotAllowed { reason })
        }
        _ if allowed => Ok(()),
        _ => Err(JobRefused::NotAllowed { reason }),
    }
}

impl Core {
    /// Runs again what failed in a build.
    pub(crate) fn retry_build(&mut self, id: BuildId, rows: Option<BuildRows>) -> Result<(), Rejected> {
        let loaded = self.bring_in(id, rows)?;
        let result = self.check_age(id).and_then(|()| self.failed_jobs(id));
        self.put_back(id, loaded && result.is_err());
        for job in result? {
            self.run_again(job);
        }
        Ok(())
    }

    /// Runs one job again.
    pub(crate) fn retry_job(&mut self, id: JobId, rows: Option<BuildRows>) -> Result<(), Rejected> {
        let build = match (self.jobs.get(&id), &rows) {
            (Some(job), _) => job.row.build,
            (None, Some(rows)) if rows.jobs.iter().any(|job| job.id == id) => rows.build.id,
            (None, _) => return Err(Rejected::JobNotInMemory(id)),
        };
        let loaded = self.bring_in(build, rows)?;
        let result = if self.is_canceled(build) {
            Err(Rejected::Job { job: id, why: JobRefused::BuildCanceled })
        } else {
            let allowed = may_retry(&self.jobs[&id].row).map_err(|why| Rejected::Job { job: id, why });
            self.check_age(build).and(allowed)
        };
        self.put_back(build, loaded && result.is_err());
        result?;
        self.run_again(id);
        Ok(())
    }

    /// A build that has lived as long as one may is not run again: it would be canceled at once.
    fn check_age(&self, id: BuildId) -> Result<(), Rejected> {
        if self.now.wall < self.build_end(id) {
            return Ok(());
        }
        Err(Rejected::Limit { what: "milliseconds since a build was made", limit: limits::BUILD_EXPIRY_MS })
    }

    /// The jobs that `retry` of a build means: its hard failures and canceled jobs, as far as their steps allow it.
    fn failed_jobs(&self, id: BuildId) -> Result<Vec<JobId>, Rejected> {
        let build = &self.builds[&id];
        let ended = Rejected::BuildEnded { build: id, state: build.row.state };
        if self.is_canceled(id) {
            return Err(ended);
        }
        let mut refused = None;
        let mut again = Vec::new();
        for job in &build.jobs {
            let row = &self.jobs[job].row;
            let failed =
                matches!(row.state, JobState::Failed | JobState::TimedOut | JobState::Expired | JobState::Canceled);
            if !failed || row.soft_failed {
                continue;
            }
            match may_retry(row) {
                Ok(()) => again.push(*job),
                Err(why) => refused = Some(Rejected::Job { job: *job, why }),
            }
        }
        match (again.is_empty(), refused) {
            (false, _) => Ok(again),
            (true, Some(refused)) => Err(refused),
            (true, None) => Err(ended),
        }
    }

    /// Sends a job that has ended back to where its dependencies put it.
    fn run_again(&mut self, id: JobId) {
        let build = self.jobs[&id].row.build;
        let row = self.edit_build(build);
        (row.finished_at, row.cause) = (None, None);
        if let Some(root) = row.triggered_from.as_ref().map(|from| from.root)
            && !self.lineages.contains_key(&root)
        {
            // All that was below had ended and was forgotten: it is counted anew.
            self.count_in(root);
        }
        self.change_job(id, |row| {
            // Who runs again what had passed wants it run.
            row.fresh = row.state == JobState::Passed;
            row.reuse = None;
            row.state = JobState::Waiting;
            (row.soft_failed, row.cause, row.runnable_at) = (false, None, None);
            row.agents_lost.clear();
            row.requeues = 0;
        });
        self.take_up_again(build);
        // What it depends on may wait again now.
        self.settle_dependencies();
        self.reconsider(id);
        self.settle_dependencies();
        self.arm_expiry(build);
    }

    /// Takes a build that has left memory in again; `true` if it did.
    fn bring_in(&mut self, id: BuildId, rows: Option<BuildRows>) -> Result<bool, Rejected> {
        if self.builds.contains_key(&id) {
            return Ok(false);
        }
        let rows = rows.filter(|rows| rows.build.id == id).ok_or(Rejected::NotInMemory(id))?;
        if self.builds.len() >= limits::LIVE_BUILDS_MAX {
            return Err(Rejected::Limit { what: "builds that have not ended", limit: limits::LIVE_BUILDS_MAX as u64 });
        }
        if self.jobs.len() + rows.jobs.len() > limits::LIVE_JOBS_MAX {
            return Err(Rejected::Limit { what: "jobs that have not ended", limit: limits::LIVE_JOBS_MAX as u64 });
        }
        self.insert_build(rows.build, rows.jobs, rows.attempts);
        Ok(true)
    }

    fn put_back(&mut self, id: BuildId, refused: bool) {
        if refused {
            self.forget_build(id);
        }
    }
}
