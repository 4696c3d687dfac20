//! What placement weighed for an attempt, as the API shows it.

use serde::Serialize;
use utoipa::ToSchema;
use windlass_coordinator_core::row::{AttemptRow, Candidate};
use windlass_protocol::AgentId;

/// What was weighed when a job was given to its agent: nothing of it where no agent had told of any of its inputs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Weighed {
    /// The attempt's number.
    attempt: u32,
    /// Bytes of the job's large inputs (source tree, image) that agents have told of.
    input_bytes: u64,
    /// How long the job had waited for an agent that has them, in milliseconds.
    waited_ms: u64,
    /// The agent that got it, then those that could have taken it at that moment, then busy ones that have some of its inputs.
    candidates: Vec<WeighedAgent>,
    /// Others that were weighed.
    others: u32,
}

/// An agent that was weighed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WeighedAgent {
    #[schema(value_type = String)]
    id: AgentId,
    name: String,
    zone: String,
    /// It got the job.
    chosen: bool,
    /// It could have taken the job at that moment.
    free: bool,
    /// Jobs that it had.
    jobs: u32,
    /// What it lacked of the inputs.
    missing_bytes: u64,
    /// At which rate its zone's agents bring bytes.
    zone_bytes_per_second: u64,
    /// How long it would have brought what it lacked, in milliseconds.
    missing_ms: u64,
}

impl Weighed {
    pub(super) fn of(row: &AttemptRow) -> Option<Self> {
        let weighed = row.weighed.as_deref()?;
        let agent = |candidate: &Candidate| WeighedAgent {
            id: candidate.agent,
            name: candidate.name.clone(),
            zone: candidate.zone.clone(),
            chosen: candidate.agent == row.agent,
            free: candidate.free,
            jobs: candidate.jobs,
            missing_bytes: candidate.missing_bytes,
            zone_bytes_per_second: candidate.zone_bytes_per_second,
            missing_ms: candidate.missing_ms,
        };
        Some(Self {
            attempt: row.number,
            input_bytes: weighed.input_bytes,
            waited_ms: weighed.waited_ms,
            candidates: weighed.candidates.iter().map(agent).collect(),
            others: weighed.others,
        })
    }
}
