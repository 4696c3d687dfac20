//! By what right blobs are fetched: a job's own, or one that a peer has shown.

use std::sync::Arc;

use windlass_protocol::job::JobSpec;
use windlass_protocol::message::{Claim, SignedGrant};

use crate::right::Right;

/// Who fetches.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bearer<'a> {
    /// A job of this agent.
    Job(&'a JobSpec, &'a Right),
    /// An agent of the same zone, in whose place this one asks.
    Peer(&'a Arc<SignedGrant>),
}

impl Bearer<'_> {
    /// What the coordinator is shown: a job's right may have risen since it was shown last.
    pub(crate) fn claim(self) -> Claim {
        match self {
            Self::Job(job, right) => Claim::Lease { build: job.build, attempt: job.attempt, epoch: right.epoch() },
            Self::Peer(grant) => Claim::Grant(Box::new(SignedGrant::clone(grant))),
        }
    }
}
