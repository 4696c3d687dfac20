//! A job: its states, its row, and what is written in it of uploads and gates.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windlass_pipeline::graph::Node;
use windlass_protocol::{AgentId, AttemptId, BuildId, Cause, Digest, JobId, WallMs};

use super::{Actor, JobReuse, Triggered};

/// A job's state, in Buildkite's words (reference 16.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Just made.
    Pending,
    /// Dependencies are not done.
    Waiting,
    /// A dependency failed: it will not run (unless that one is retried and passes).
    WaitingFailed,
    /// A gate waits for a person.
    Blocked,
    /// A gate that cannot be reached because of a failure.
    BlockedFailed,
    /// A gate was opened.
    Unblocked,
    /// A gate was opened, then the build failed.
    UnblockedFailed,
    /// Its concurrency group is being looked at.
    Limiting,
    /// It waits for its concurrency group.
    Limited,
    /// Ready for an agent.
    Scheduled,
    /// Leased to an agent. Volatile progress beyond it: accepted, running.
    Assigned,
    /// The agent took it (volatile).
    Accepted,
    /// Its command started (volatile); of a trigger, which no agent runs: its build is ordered or waited for.
    Running,
    /// Ended well, or a wait that is over.
    Passed,
    /// Ended with a failure.
    Failed,
    /// Being canceled.
    Canceling,
    /// Canceled.
    Canceled,
    /// Its time is over; its end is awaited.
    TimingOut,
    /// Its time was over.
    TimedOut,
    /// Not to be run: by `skip`, or by a newer build.
    Skipped,
    /// Excluded by configuration.
    Broken,
    /// Never taken in time.
    Expired,
}

impl JobState {
    /// Whether the job has ended, for now.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Pending
            | Self::Waiting
            | Self::Blocked
            | Self::Limiting
            | Self::Limited
            | Self::Scheduled
            | Self::Assigned
            | Self::Accepted
            | Self::Running
            | Self::Canceling
            | Self::TimingOut => false,
            Self::WaitingFailed
            | Self::BlockedFailed
            | Self::Unblocked
            | Self::UnblockedFailed
            | Self::Passed
            | Self::Failed
            | Self::Canceled
            | Self::TimedOut
            | Self::Skipped
            | Self::Broken
            | Self::Expired => true,
        }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Its build.
    pub build: BuildId,
    /// Its place in the build's graph.
    pub index: u32,
    /// The step, resolved; every copy of the row shares it. What uploads and `step update` change of it is a new one. Edges
    /// name other jobs of the build by [`JobRow::index`].
    pub node: Arc<Node>,
    /// Its state; volatile progress (`accepted`, `running`) is stored as `assigned`.
    pub state: JobState,
    /// The last attempt's, if it has one.
    #[serde(default)]
    pub exit_status: Option<i32>,
    /// The last attempt's, by number.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Why it ended without a result of its own.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// It failed, and that is forgiven.
    #[serde(default)]
    pub soft_failed: bool,
    /// Uses of each rule of `retry.automatic`, by its place.
    #[serde(default)]
    pub rule_uses: Vec<u32>,
    /// Times it moved to another agent before its command started.
    #[serde(default)]
    pub requeues: u32,
    /// Agents it has lost after its command started.
    #[serde(default)]
    pub agents_lost: Vec<AgentId>,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptId>,
    /// Who opened it, where it is a gate that was opened.
    #[serde(default)]
    pub unblocked: Option<Unblocked>,
    /// What it uploaded, oldest first.
    #[serde(default)]
    pub uploads: Vec<Uploaded>,
    /// What came of its wish to be reused; `None` where it has none, or where its key is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<JobReuse>,
    /// Somebody ran it again by hand although it had passed: it runs, whatever earlier results there are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// Builds that it made or is making, where it is a trigger, oldest first: a retry makes another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggered: Vec<Triggered>,
    /// Where it was canceled with less grace than its own.
    #[serde(default)]
    pub cancel_grace_ms: Option<u64>,
    /// Not to be leased before this time: a fence for an exclusive step, or a pause between retries.
    #[serde(default)]
    pub not_before: Option<WallMs>,
    /// When it was made.
    pub created_at: WallMs,
    /// When its dependencies were done.
    #[serde(default)]
    pub runnable_at: Option<WallMs>,
    /// When its command (or its wait) started.
    #[serde(default)]
    pub started_at: Option<WallMs>,
    /// When it ended.
    #[serde(default)]
    pub finished_at: Option<WallMs>,
}

/// An upload that a job made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// As the client made it: the same again is the same upload.
    pub id: String,
    /// By which attempt.
    pub attempt: AttemptId,
    /// Of its text.
    pub digest: Digest,
    /// Its text's length; 0 where an earlier version did not note it.
    #[serde(default)]
    pub bytes: usize,
    /// When.
    pub at: WallMs,
}

/// How a gate was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unblocked {
    /// By whom.
    pub by: Actor,
    /// When.
    pub at: WallMs,
    /// What was answered, by the fields' keys in their order.
    pub answers: Vec<(String, String)>,
}
