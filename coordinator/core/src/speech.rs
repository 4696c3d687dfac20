//! What jobs say to their own builds, by their right: each call of their command is heard once, however often it comes.
//!
//! An answer that is lost makes an agent say the same again, and what is added to a text must not be added twice. So a job's
//! row keeps the calls that it was heard by last, and the same commit that does what is said notes the call (I3).

use windlass_protocol::{BuildId, JobId, limits};

use crate::error::Rejected;
use crate::row::{Actor, Said, Speech};
use crate::state::Core;

impl Core {
    /// Hears a job.
    pub(crate) fn speak(&mut self, actor: &Actor, speech: Speech) -> Result<(), Rejected> {
        let lease = self.leases.get(&speech.attempt).ok_or(Rejected::NoLease(speech.attempt))?;
        let job = lease.job;
        let build = self.jobs[&job].row.build;
        self.check_own_build(build, speech.attempt, speech.epoch)?;
        if self.jobs[&job].row.calls.contains(&speech.call) && !self.policy.bugs.hear_twice {
            return Ok(());
        }
        if speech.call.len() > limits::NAME_MAX_BYTES {
            return Err(Rejected::Limit { what: "bytes of a call's id", limit: limits::NAME_MAX_BYTES as u64 });
        }
        self.hear(actor, build, job, speech.what)?;
        let calls = &mut self.edit_job(job).calls;
        if calls.len() >= limits::CALLS_PER_JOB_MAX {
            calls.remove(0);
        }
        calls.push(speech.call);
        Ok(())
    }

    fn hear(&mut self, actor: &Actor, build: BuildId, speaker: JobId, what: Said) -> Result<(), Rejected> {
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
        }
    }
}
