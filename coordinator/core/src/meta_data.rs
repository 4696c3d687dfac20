//! Who may speak for a build: the jobs of it that hold a right (reference 19.2).

use windlass_protocol::job::Epoch;
use windlass_protocol::{AttemptId, BuildId};

use crate::error::Rejected;
use crate::row::JobRefused;
use crate::state::Core;

impl Core {
    /// That the attempt is held by this right, and is of this build, which goes on.
    pub(crate) fn check_own_build(&self, build: BuildId, attempt: AttemptId, epoch: Epoch) -> Result<(), Rejected> {
        let lease = self.leases.get(&attempt).ok_or(Rejected::NoLease(attempt))?;
        if epoch != lease.epoch {
            return Err(Rejected::StaleEpoch { attempt, held: lease.epoch, got: epoch });
        }
        let job = lease.job;
        if self.jobs[&job].row.build != build {
            return Err(Rejected::NoLease(attempt));
        }
        if self.builds[&build].row.cancel_requested {
            return Err(Rejected::Job { job, why: JobRefused::BuildCanceled });
        }
        Ok(())
    }
}
