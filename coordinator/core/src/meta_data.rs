//! A build's meta-data, as its jobs set it (reference 19.2).

use std::collections::BTreeMap;

use windlass_protocol::AttemptId;
use windlass_protocol::job::Epoch;

use crate::error::Rejected;
use crate::gate::check_meta_data;
use crate::row::JobRefused;
use crate::state::Core;

impl Core {
    /// Sets meta-data of the build whose job holds the attempt by this right.
    pub(crate) fn set_meta_data(
        &mut self,
        attempt: AttemptId,
        epoch: Epoch,
        values: BTreeMap<String, String>,
    ) -> Result<(), Rejected> {
        let lease = self.leases.get(&attempt).ok_or(Rejected::NoLease(attempt))?;
        if epoch != lease.epoch {
            return Err(Rejected::StaleEpoch { attempt, held: lease.epoch, got: epoch });
        }
        let job = lease.job;
        let build = self.jobs[&job].row.build;
        let row = &self.builds[&build].row;
        if row.cancel_requested {
            return Err(Rejected::Job { job, why: JobRefused::BuildCanceled });
        }
        if values.iter().all(|(key, value)| row.meta_data.get(key) == Some(value)) {
            return Ok(());
        }
        let mut meta_data = row.meta_data.clone();
        meta_data.extend(values);
        check_meta_data(&meta_data)?;
        self.edit_build(build).meta_data = meta_data;
        Ok(())
    }
}
