//! A build: its states, its row, and the rows of everything in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_pipeline::graph::{BlockedState, Group, Notify, Supersede};
use windlass_protocol::job::Source;
use windlass_protocol::{BuildId, Cause, Digest, Namespace, WallMs};

use super::{Actor, Annotation, AttemptRow, Confined, JobRow, Registered, TriggeredFrom};

/// How a build came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildSource {
    /// `windlass run`.
    Cli,
    /// The API.
    Api,
    /// A webhook.
    Webhook,
    /// A trigger step.
    Trigger,
    /// A schedule.
    Schedule,
}

impl BuildSource {
    /// In Buildkite's words (reference 17.2).
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cli | Self::Api => "api",
            Self::Webhook => "webhook",
            Self::Trigger => "trigger_job",
            Self::Schedule => "schedule",
        }
    }
}

/// A build's state, in Buildkite's words (reference 16.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildState {
    /// Being made.
    Creating,
    /// No job has started.
    Scheduled,
    /// A job has started.
    Running,
    /// A hard failure exists, and jobs may still run.
    Failing,
    /// Ended well.
    Passed,
    /// Ended with a hard failure.
    Failed,
    /// Canceled, and a job still runs.
    Canceling,
    /// Canceled, and nothing runs.
    Canceled,
    /// A newer build took its place before it started.
    Skipped,
    /// Nothing in it was to be run.
    NotRun,
}

impl BuildState {
    /// Whether the build has ended (a retry may take it back to running).
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Creating | Self::Scheduled | Self::Running | Self::Failing | Self::Canceling => false,
            Self::Passed | Self::Failed | Self::Canceled | Self::Skipped | Self::NotRun => true,
        }
    }
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRow {
    /// Its id.
    pub id: BuildId,
    /// From 1, per pipeline.
    pub number: u64,
    /// The pipeline's name.
    pub pipeline: String,
    /// Its state.
    pub state: BuildState,
    /// What its pipeline was registered with; `None` where nobody had registered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<Registered>,
    /// For people; may be empty.
    pub branch: String,
    /// A commit id or `HEAD`; may be empty.
    pub commit: String,
    /// A tag, if it builds one.
    #[serde(default)]
    pub tag: Option<String>,
    /// At most `MESSAGE_MAX_BYTES`.
    pub message: String,
    /// Where its files come from.
    pub origin: Source,
    /// How it came to be.
    pub source: BuildSource,
    /// Who made it.
    pub creator: Actor,
    /// Where its lookups in the cache happen; its trust with it.
    pub namespace: Namespace,
    /// Why it is not trusted, for people; `None` where it is, or where an earlier version made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrusted: Option<String>,
    /// As submitted.
    pub env: Vec<(String, String)>,
    /// The pipeline's own, as it is registered and as its definition says, which lie beneath those (reference 17.1).
    #[serde(default)]
    pub pipeline_env: Vec<(String, String)>,
    /// As submitted, and as jobs set it.
    pub meta_data: BTreeMap<String, String>,
    /// What a newer build does to it.
    pub supersede: Supersede,
    /// The groups of its steps; nodes name them by index.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Who hears of it (reference 13).
    #[serde(default)]
    pub notify: Vec<Notify>,
    /// How many notifications were made of it.
    #[serde(default)]
    pub notified: u32,
    /// How many found no room (`NOTIFICATIONS_PER_BUILD_MAX`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_notified: u32,
    /// Nothing of it can run until somebody opens a gate: what its state is shown as meanwhile (reference 16.3).
    #[serde(default)]
    pub blocked: Option<BlockedState>,
    /// Who opened a gate of it last.
    #[serde(default)]
    pub unblocker: Option<Actor>,
    /// Keep failed jobs' workspaces.
    #[serde(default)]
    pub keep_workspace: bool,
    /// Its steps run, whatever earlier results there are; what they make is used by later builds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_reuse: bool,
    /// What its jobs wrote beside it, in the order of their making, without their texts.
    #[serde(default)]
    pub annotations: Vec<Annotation>,
    /// The build it was made again from.
    #[serde(default)]
    pub rebuilt_from: Option<BuildId>,
    /// The job that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggered_from: Option<TriggeredFrom>,
    /// What it may trigger, if its maker's token is restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confined: Option<Confined>,
    /// Why it ended without a result of its own.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// Asked to cancel; nothing of it starts any more (I8).
    #[serde(default)]
    pub cancel_requested: bool,
    /// When it was submitted.
    pub created_at: WallMs,
    /// When its first job was leased.
    #[serde(default)]
    pub started_at: Option<WallMs>,
    /// When it ended.
    #[serde(default)]
    pub finished_at: Option<WallMs>,
    /// The pipeline's text as submitted, by digest in the store's definitions.
    pub definition: Digest,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// A build with everything of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRows {
    /// The build.
    pub build: BuildRow,
    /// Its jobs, by index.
    pub jobs: Vec<JobRow>,
    /// Their attempts.
    pub attempts: Vec<AttemptRow>,
}
