//! Cancelling: what has not begun ends at once, what runs is told to end and has a deadline for it (I8).

use windlass_protocol::message::CoordinatorMessage;
use windlass_protocol::{BuildId, Cause, CauseKind, JobId};

use crate::error::Rejected;
use crate::result::forgives;
use crate::row::{BuildState, JobRefused, JobState};
use crate::state::{Core, Phase};
use crate::trigger;

/// Whether a grace is shorter than one that was given before; `None` is a job's own.
fn is_shorter(grace_ms: Option<u64>, before: Option<u64>) -> bool {
    grace_ms.is_some_and(|ms| before.is_none_or(|before| ms < before))
}

impl Core {
    /// A build that can still be canceled.
    pub(crate) fn check_cancel_build(&self, id: BuildId) -> Result<(), Rejected> {
        let build = self.builds.get(&id).ok_or(Rejected::NotInMemory(id))?;
        if build.row.state.is_final() {
            return Err(Rejected::BuildEnded { build: id, state: build.row.state });
        }
        Ok(())
    }

    /// Ends a build as a whole: nothing of it starts any more.
    pub(crate) fn cancel_build(&mut self, id: BuildId, cause: Cause) {
        let Some(build) = self.builds.get(&id) else { return };
        if build.row.cancel_requested {
            return;
        }
        let jobs = build.jobs.clone();
        let unstarted = cause.kind == CauseKind::Superseded && build.row.started_at.is_none();
        let to = if unstarted { JobState::Skipped } else { JobState::Canceled };
        let row = self.edit_build(id);
        row.cancel_requested = true;
        row.cause = Some(cause.clone());
        self.book.touched.insert(id);
        for job in jobs {
            match self.jobs[&job].row.state {
                state if state.is_final() => {}
                JobState::Assigned => {
                    self.edit_job(job).cancel_grace_ms = None;
                    self.cancel_leased(job, cause.clone());
                }
                JobState::Canceling | JobState::TimingOut => {}
                _ if self.policy.bugs.ignore_cancel => {}
                _ => self.end_unleased(job, to, cause.clone()),
            }
        }
    }

    /// A job that can still be canceled by itself.
    pub(crate) fn check_cancel_job(&self, id: JobId) -> Result<(), Rejected> {
        let job = self.jobs.get(&id).ok_or(Rejected::JobNotInMemory(id))?;
        let lease = job.row.attempts.last().and_then(|attempt| self.leases.get(attempt));
        let finishing = lease.is_some_and(|lease| matches!(lease.phase, Phase::Finishing(_)));
        if job.row.state.is_final() || finishing {
            return Err(Rejected::Job { job: id, why: JobRefused::Ended });
        }
        Ok(())
    }

    /// Ends one job; its processes get this grace, where it is shorter than their own. One that is being canceled already may
    /// get a shorter one.
    pub(crate) fn cancel_job(&mut self, id: JobId, cause: Cause, grace_ms: Option<u64>) {
        match self.jobs[&id].row.state {
            JobState::Assigned => {
                self.edit_job(id).cancel_grace_ms = grace_ms;
                self.cancel_leased(id, cause);
            }
            JobState::Canceling if is_shorter(grace_ms, self.jobs[&id].row.cancel_grace_ms) => {
                self.edit_job(id).cancel_grace_ms = grace_ms;
                self.cancel_leased(id, cause);
            }
            JobState::Canceling | JobState::TimingOut => {}
            _ => {
                let forgiven = self.command(id).is_some_and(|command| forgives(command, JobState::Canceled, None));
                let forgiven = forgiven || self.trigger(id).is_some_and(|it| trigger::forgives(it, JobState::Canceled));
                self.edit_job(id).soft_failed = forgiven;
                self.end_unleased(id, JobState::Canceled, cause);
            }
        }
    }

    /// Tells the agent to end a job. One whose command has ended already is only waited for.
    fn cancel_leased(&mut self, id: JobId, cause: Cause) {
        let Some(attempt) = self.jobs[&id].row.attempts.last().copied() else { return };
        let Some(lease) = self.leases.get(&attempt) else { return };
        if self.jobs[&id].row.state == JobState::TimingOut {
            return;
        }
        let finishing = matches!(lease.phase, Phase::Finishing(_));
        let (agent, epoch) = (lease.agent, lease.epoch);
        let grace_ms = self.jobs[&id].row.cancel_grace_ms;
        let told = cause.clone();
        self.change_job(id, |row| {
            row.state = JobState::Canceling;
            row.cause = Some(told);
        });
        if !finishing {
            self.send(agent, CoordinatorMessage::Cancel { attempt, epoch, cause, grace_ms });
            self.arm(attempt);
        }
    }

    /// A job that was being canceled has ended.
    pub(crate) fn end_canceled(&mut self, id: JobId) {
        let forgiven = self.command(id).is_some_and(|command| forgives(command, JobState::Canceled, None));
        self.change_job(id, |row| {
            row.state = JobState::Canceled;
            row.soft_failed = forgiven;
        });
    }

    /// Older builds of the same pipeline and branch, in the same namespace (I12: an overlay ends nothing of another),
    /// that ask to be superseded by this one.
    pub(crate) fn supersede_older(&mut self, newer: &crate::row::BuildRow) {
        use windlass_pipeline::graph::Supersede;
        let key = (newer.pipeline.clone(), newer.branch.clone());
        let Some(builds) = self.branches.get(&key).filter(|_| !newer.branch.is_empty()) else { return };
        let superseded: Vec<_> = builds
            .iter()
            .filter(|id| {
                let row = &self.builds[id].row;
                let asks = match row.supersede {
                    Supersede::Never => false,
                    Supersede::Waiting => row.started_at.is_none(),
                    Supersede::Running => true,
                };
                // A build that comes from another one does not end that.
                let above = self.is_above(row.id, newer.triggered_from.as_ref());
                asks && !above && row.number < newer.number && row.namespace == newer.namespace && !row.cancel_requested
            })
            .copied()
            .collect();
        for id in superseded {
            let detail = format!("build #{} of the same branch took its place", newer.number);
            self.cancel_build(id, Self::cause(CauseKind::Superseded, &detail));
        }
    }

    /// Whether a build's state allows nothing more to start in it.
    pub(crate) fn is_canceled(&self, id: BuildId) -> bool {
        self.builds.get(&id).is_some_and(|build| {
            build.row.cancel_requested || matches!(build.row.state, BuildState::Canceled | BuildState::Skipped)
        })
    }
}
