//! Slots of concurrency groups that outlive their jobs.

use serde::{Deserialize, Serialize};
use windlass_protocol::{AttemptId, JobId, Trust, WallMs};

/// A slot of a concurrency group that outlives its job: what ran of it may still run (I3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRow {
    /// The job; its build may have left memory.
    pub job: JobId,
    /// The attempt that may still run.
    pub attempt: AttemptId,
    /// The group's trust class.
    pub trust: Trust,
    /// The group.
    pub group: String,
    /// The job's own limit.
    pub limit: u32,
    /// When it has surely ended.
    pub until: WallMs,
}
