//! What placement weighed when it gave a job to its agent (docs/design/036).

use serde::{Deserialize, Serialize};
use windlass_protocol::AgentId;

/// Why an agent got a job, and not another one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Weighed {
    /// Bytes of the job's large inputs that agents have told of.
    pub input_bytes: u64,
    /// How long the job had waited for an agent that has them, in milliseconds.
    pub waited_ms: u64,
    /// Agents that were weighed: the one that got it, then those that could have had it, then busy ones that have some of
    /// its inputs; at most [`WEIGHED_MAX`](windlass_protocol::limits::WEIGHED_MAX).
    pub candidates: Vec<Candidate>,
    /// Others that were weighed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub others: u32,
}

/// An agent that was weighed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which.
    pub agent: AgentId,
    /// Its name at that time.
    pub name: String,
    /// Its zone at that time.
    pub zone: String,
    /// What it lacked of the inputs.
    pub missing_bytes: u64,
    /// At which rate its zone's agents bring bytes.
    pub zone_bytes_per_second: u64,
    /// How long it would have brought what it lacked.
    pub missing_ms: u64,
    /// Jobs that it had.
    pub jobs: u32,
    /// It could have taken the job at that moment.
    pub free: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}
