//! What jobs say to their own builds, by their right: each call of their command is heard once, however often it comes.
//!
//! An answer that is lost makes an agent say the same again, and what is said must not be done twice, nor after what was
//! said since: so an attempt's row keeps the calls that it was heard by last, and the same commit that does what is said
//! notes the call (I3). Uploads are known by records of their own (`upload`). The design: `docs/design/024-what-a-build-costs.md`.

use windlass_protocol::job::Epoch;
use windlass_protocol::{AttemptId, BuildId, Cause, CauseKind, JobId, hex, limits};

use crate::error::Rejected;
use crate::row::{Actor, JobRefused, Said, Speech};
use crate::state::Core;

impl Core {
    /// The job of an attempt that is held by this right; `None` asks for any.
    pub(crate) fn held(&self, attempt: AttemptId, epoch: Option<Epoch>) -> Result<JobId, Rejected> {
        let lease = self.leases.get(&attempt).ok_or(Rejected::NoLease(attempt))?;
        match epoch.filter(|epoch| *epoch != lease.epoch) {
            Some(got) => Err(Rejected::StaleEpoch { attempt, held: lease.epoch, got }),
            None => Ok(lease.job),
        }
    }

    /// That the build of a job goes on.
    pub(crate) fn check_goes_on(&self, job: JobId) -> Result<(), Rejected> {
        if self.builds[&self.jobs[&job].row.build].row.cancel_requested {
            return Err(Rejected::Job { job, why: JobRefused::BuildCanceled });
        }
        Ok(())
    }

    /// Hears a job, once.
    pub(crate) fn speak(&mut self, actor: &Actor, speech: Speech) -> Result<(), Rejected> {
        let Speech { attempt, epoch, call, what } = speech;
        let job = match self.held(attempt, Some(epoch)) {
            Err(_) if self.policy.bugs.believe_stale_cancel && what == Said::CancelBuild => {
                self.attempts.get(&attempt).ok_or(Rejected::NoLease(attempt))?.job
            }
            held => held?,
        };
        let call = hex::to(&call);
        if self.attempts[&attempt].calls.contains(&call) && !self.policy.bugs.hear_twice {
            return Ok(());
        }
        if !what.outlasts_cancel() {
            self.check_goes_on(job)?;
        }
        let build = self.jobs[&job].row.build;
        let spoils = what.spoils();
        self.hear(actor, (build, job, attempt), what)?;
        if let Some(why) = spoils {
            self.spoil(attempt, why);
        }
        let calls = &mut self.edit_attempt(attempt).calls;
        while calls.len() >= limits::CALLS_PER_ATTEMPT_MAX {
            calls.pop_front();
        }
        calls.push_back(call);
        Ok(())
    }

    fn hear(
        &mut self,
        actor: &Actor,
        (build, speaker, attempt): (BuildId, JobId, AttemptId),
        what: Said,
    ) -> Result<(), Rejected> {
        match what {
            Said::Annotate(annotate) => self.annotate(build, speaker, annotate),
            Said::RemoveAnnotation { context, own } => {
                self.remove_annotation(build, &context, own.then_some(speaker));
                Ok(())
            }
            Said::TakeToken { detail } => {
                self.audit(actor, "token.oidc", &speaker.to_string(), &detail);
                Ok(())
            }
            Said::UpdateStep { job, change } => {
                let detail = self.update_step(build, job, change)?;
                self.audit(actor, "step.update", &job.to_string(), &detail);
                Ok(())
            }
            // It is the job's work, and nothing for the audit trail.
            Said::SetMetaData(values) => self.set_meta_data(build, values),
            Said::AddArtifacts(artifacts) => self.add_artifacts(attempt, artifacts),
            Said::CancelBuild => {
                let detail = format!("by job {speaker} of the build");
                self.cancel_build(build, Self::cause(CauseKind::Canceled, &detail));
                self.audit(actor, "build.cancel", &build.to_string(), &detail);
                Ok(())
            }
            Said::CancelJobs { jobs, grace_ms } => {
                let cause = Self::cause(CauseKind::Canceled, &format!("canceled by job {speaker}"));
                self.cancel_jobs(actor, build, &jobs, &cause, grace_ms)
            }
        }
    }

    /// Cancels what has not ended of a build's jobs.
    fn cancel_jobs(
        &mut self,
        actor: &Actor,
        build: BuildId,
        jobs: &[JobId],
        cause: &Cause,
        grace_ms: Option<u64>,
    ) -> Result<(), Rejected> {
        let is_stranger = |id: &&JobId| self.jobs.get(*id).is_none_or(|job| job.row.build != build);
        if let Some(stranger) = jobs.iter().find(is_stranger) {
            return Err(Rejected::JobNotInMemory(*stranger));
        }
        for job in jobs {
            if self.check_cancel_job(*job).is_ok() {
                self.cancel_job(*job, cause.clone(), grace_ms);
                self.audit(actor, "job.cancel", &job.to_string(), "");
            }
        }
        Ok(())
    }
}
