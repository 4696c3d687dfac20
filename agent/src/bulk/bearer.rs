//! By what right blobs are fetched: a job's own, one that a peer has shown, or one that came with an order.

use std::fmt;
use std::sync::Arc;

use windlass_protocol::job::JobSpec;
use windlass_protocol::message::{Claim, SignedGrant};

use super::order::Warrant;
use crate::right::Right;

/// Who fetches.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bearer<'a> {
    /// A job of this agent.
    Job(&'a JobSpec, &'a Right),
    /// An agent of the same zone, in whose place this one asks.
    Peer(&'a Arc<SignedGrant>),
    /// The coordinator, ahead of jobs.
    Order(&'a Warrant),
}

impl Bearer<'_> {
    /// What the coordinator is shown: a job's right may have risen since it was shown last.
    pub(crate) fn claim(self) -> Claim {
        match self {
            Self::Job(job, right) => Claim::Lease { build: job.build, attempt: job.attempt, epoch: right.epoch() },
            Self::Peer(grant) => Claim::Grant(Box::new(SignedGrant::clone(grant))),
            Self::Order(warrant) => Claim::Grant(Box::new(SignedGrant::clone(&warrant.grant()))),
        }
    }
}

impl fmt::Display for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(job, _) => write!(f, "attempt {}", job.attempt),
            Self::Peer(grant) => write!(f, "peer {}", grant.grant.agent),
            Self::Order(_) => f.write_str("order"),
        }
    }
}
