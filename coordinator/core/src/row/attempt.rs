//! An attempt of a job, with the lease that it holds or held.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use windlass_protocol::job::{Epoch, Outcome};
use windlass_protocol::{AgentId, AttemptId, BuildId, Cause, JobId, WallMs};

use super::{ReusedFrom, Weighed, Yield};

/// An attempt's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Leased to its agent.
    Assigned,
    /// Its agent took it (volatile).
    Accepted,
    /// Its command started (volatile).
    Running,
    /// Ended with an outcome.
    Finished,
    /// Ended because it was canceled.
    Canceled,
    /// Its agent was lost or its right ended.
    Lost,
}

impl AttemptState {
    /// Whether nothing more can come of it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Assigned | Self::Accepted | Self::Running => false,
            Self::Finished | Self::Canceled | Self::Lost => true,
        }
    }
}

/// An attempt, with the lease that it holds or held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// Its id.
    pub id: AttemptId,
    /// Its job.
    pub job: JobId,
    /// Its build.
    pub build: BuildId,
    /// From 1, per job.
    pub number: u32,
    /// Its state.
    pub state: AttemptState,
    /// Its right; rises when it is leased again (I2).
    pub epoch: Epoch,
    /// Its agent.
    pub agent: AgentId,
    /// The agent's name, zone and pool at that time, for people.
    pub agent_name: String,
    /// See `agent_name`.
    pub zone: String,
    /// See `agent_name`.
    pub pool: String,
    /// When it was leased.
    pub assigned_at: WallMs,
    /// Which run of the agent's machine it was given to ([`Hello::boot_id`](windlass_protocol::message::Hello::boot_id));
    /// empty where an earlier version did not note it.
    #[serde(default)]
    pub boot_id: String,
    /// What came of it.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// The log is durable to its end and agrees with the outcome.
    #[serde(default)]
    pub log_complete: bool,
    /// Why it ended without a result of its own, by the coordinator.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// When it ended, by the coordinator's clock.
    #[serde(default)]
    pub finished_at: Option<WallMs>,
    /// What it has uploaded.
    #[serde(default)]
    pub artifacts: ArtifactTally,
    /// The right by which its agent was given it; [`Self::epoch`] is newer where the agent was believed lost and came back.
    /// 0 where an earlier version did not note it.
    #[serde(default)]
    pub granted: Epoch,
    /// The calls by which it was heard of late (`speech`), in hex, oldest first: at most `CALLS_PER_ATTEMPT_MAX`, and
    /// none once it has ended.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub calls: VecDeque<String>,
    /// What may be used again of it, where its job has a key and it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yields: Option<Box<Yield>>,
    /// Nobody ran it: it is another one's result. It has no agent then, and the epoch that is never granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused: Option<Box<ReusedFrom>>,
    /// What was weighed when its agent was given it, where there was something to weigh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weighed: Option<Box<Weighed>>,
}

impl AttemptRow {
    /// Artifacts that some attempts have had, and their bytes.
    pub fn artifacts_of<'a>(rows: impl Iterator<Item = &'a Self>) -> (u64, u64) {
        rows.fold((0, 0), |(files, bytes), row| {
            (files + u64::from(row.artifacts.count), bytes.saturating_add(row.artifacts.bytes))
        })
    }
}

/// What an attempt has uploaded, counted; the artifacts have rows of their own, which the core does not keep.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArtifactTally {
    /// How many.
    pub count: u32,
    /// Their bytes.
    pub bytes: u64,
}
