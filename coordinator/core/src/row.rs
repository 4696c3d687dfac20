//! What is durable: the rows that a store keeps, and the changes that make them.
//!
//! A row is plain data in the words of the interface. Loading the rows gives the same core again (I11); whatever is
//! not in a row is volatile by design: connections, beats, and progress that agents tell anew after a restart.

mod artifact;
mod cache;
mod fleet;
mod notification;
mod pipeline;
mod refused;
mod reuse;
mod schedule;
mod secret;
mod speech;
mod token;
mod trigger;
mod weighed;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windlass_pipeline::graph::{BlockedState, Graph, Group, Node, Notify, Supersede};
use windlass_protocol::job::{Epoch, Outcome, Resources, Source};
use windlass_protocol::message::RefuseCode;
use windlass_protocol::{
    AgentId, AnnotationId, ArtifactId, AttemptId, BuildId, Cause, Digest, JobId, Namespace, NotificationId, ScheduleId,
    TokenId, Trust, WallMs,
};

pub use self::artifact::PutArtifact;
pub use self::cache::{CacheName, CacheRequest, CacheRow};
pub use self::fleet::{AgentRow, OnDeadline, OnUnreachable, PoolRow, TagPolicy};
pub use self::notification::{
    BuildFacts, BuildNews, CommitState, Delivery, Message, NotificationRow, NotificationState, origin_of,
};
pub use self::pipeline::{DEFAULT_BRANCH, PipelineChange, PipelineRow, Registered};
pub use self::refused::JobRefused;
pub use self::reuse::{
    Followed, Gone, Hosts, JobReuse, Kept, KeySubject, Keyed, KeyedJob, Output, ReuseGone, ReuseName, ReuseRequest,
    ReuseRow, ReusedFrom, Role, Unkeyed, Yield, digest_of,
};
pub use self::schedule::{Fired, Firing, NewSchedule, ScheduleRow};
pub use self::secret::{Sealed, SecretName, SecretRefused, SecretRequest, SecretRow};
pub use self::speech::{Annotate, Annotation, AnnotationStyle, Said, Speech, StepChange};
pub use self::token::{Scope, TokenGrant, TokenRow};
pub use self::trigger::{Confined, LineageRow, Triggered, TriggeredFrom};
pub use self::weighed::{Candidate, Weighed};

/// Who asked for something, as written in rows and in the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// What it is.
    pub kind: ActorKind,
    /// Its name: a token's note or id, a user, a pipeline and number.
    pub name: String,
}

/// What kind of actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// An API token.
    Token,
    /// A person.
    User,
    /// A webhook.
    Webhook,
    /// Another build.
    Build,
    /// The coordinator itself.
    System,
}

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

/// What an attempt has uploaded, counted; the artifacts have rows of their own, which the core does not keep.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArtifactTally {
    /// How many.
    pub count: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// An artifact: a file of a job that outlives it. Its bytes are a blob on the namespace's shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRow {
    /// Its id.
    pub id: ArtifactId,
    /// Its build.
    pub build: BuildId,
    /// Its job.
    pub job: JobId,
    /// The attempt that uploaded it.
    pub attempt: AttemptId,
    /// Its path in the build, with `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its bytes: the blob's name.
    pub digest: Digest,
    /// SHA-1 of its bytes, in hex.
    pub sha1: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Such as `text/plain`.
    pub content_type: String,
    /// Its build's, whose shelf has the blob.
    pub namespace: Namespace,
    /// When it was added.
    pub created_at: WallMs,
    /// When it goes.
    pub expires_at: WallMs,
    /// The person who added it; `None`: the job itself.
    #[serde(default)]
    pub by: Option<Actor>,
}

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

/// A remembered submit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRow {
    /// Who, then the key: two tokens never share one.
    pub key: (TokenId, String),
    /// Digest of the body.
    pub body: Digest,
    /// What it made.
    pub build: BuildId,
    /// When.
    pub at: WallMs,
}

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// When.
    pub at: WallMs,
    /// Who.
    pub actor: Actor,
    /// What, as `build.submit` or `token.revoke`.
    pub action: String,
    /// To what: an id or a name.
    pub target: String,
    /// For people.
    pub detail: String,
}

/// A durable event of a build, for its watchers; numbered by the commit that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// The build.
    pub build: BuildId,
    /// When.
    pub at: WallMs,
    /// What.
    pub event: BuildEvent,
}

/// What happened to a build, durably. Rows are as they were then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum BuildEvent {
    /// It was made.
    BuildCreated,
    /// Its state changed, and it has not ended.
    BuildChanged {
        /// To this.
        state: BuildState,
    },
    /// It ended.
    BuildFinished {
        /// So.
        state: BuildState,
    },
    /// A job's durable state changed, and it has not ended.
    JobChanged {
        /// The job.
        job: JobId,
        /// To this.
        state: JobState,
        /// Its last attempt, if it has one.
        attempt: Option<AttemptId>,
    },
    /// An annotation was made, or changed.
    Annotated {
        /// Which.
        annotation: AnnotationId,
        /// Its name.
        context: String,
        /// The job that it is about.
        job: Option<JobId>,
    },
    /// An annotation was taken away.
    AnnotationRemoved {
        /// Which.
        annotation: AnnotationId,
        /// Its name.
        context: String,
        /// The job that it was about.
        job: Option<JobId>,
    },
    /// A job was run although its result was there, and came to another one.
    ReuseDiffers {
        /// The job.
        job: JobId,
        /// How, for people.
        detail: String,
    },
    /// A job ended (it may be retried).
    JobFinished {
        /// The job.
        job: JobId,
        /// So.
        state: JobState,
        /// Its last attempt, if it had one.
        attempt: Option<AttemptId>,
    },
}

/// The coordinator's own numbers that must never go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MetaRow {
    /// The last epoch granted (I2).
    pub last_epoch: u64,
}

/// One change of the rows. A commit is a list of them, all or nothing, applied in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The coordinator's own numbers.
    Meta(MetaRow),
    /// A pipeline's last build number.
    PipelineNumber {
        /// The pipeline's name.
        pipeline: String,
        /// The last number given.
        last: u64,
    },
    /// Insert or replace.
    Pipeline(Box<PipelineRow>),
    /// Insert or replace.
    Build(Box<BuildRow>),
    /// Insert or replace.
    Job(Box<JobRow>),
    /// Insert or replace.
    Attempt(Box<AttemptRow>),
    /// Insert or replace.
    Pool(Box<PoolRow>),
    /// Insert or replace.
    Agent(Box<AgentRow>),
    /// Insert or replace.
    Token(Box<TokenRow>),
    /// Delete.
    TokenOver(TokenId),
    /// Insert or replace.
    Secret(Box<SecretRow>),
    /// Delete.
    SecretGone(Box<SecretName>),
    /// Insert or replace.
    Cache(Box<CacheRow>),
    /// Delete.
    CacheGone(Box<CacheName>),
    /// Insert or replace.
    Reuse(Box<ReuseRow>),
    /// Delete.
    ReuseOver(Box<ReuseName>),
    /// Insert or replace.
    ReuseGone(Box<ReuseGone>),
    /// Delete.
    ReuseGoneOver(Box<ReuseName>),
    /// Insert or replace.
    Hold(HoldRow),
    /// Delete.
    HoldOver(JobId),
    /// Insert or replace.
    Schedule(Box<ScheduleRow>),
    /// Delete.
    ScheduleOver(ScheduleId),
    /// Insert or replace.
    Lineage(LineageRow),
    /// Delete.
    LineageOver(BuildId),
    /// The text of an annotation.
    AnnotationText {
        /// Which.
        annotation: AnnotationId,
        /// Of which build.
        build: BuildId,
        /// All of it, or what is added to what is there.
        text: String,
        /// It is added.
        append: bool,
    },
    /// Delete its text.
    AnnotationGone(AnnotationId),
    /// Insert.
    Idempotency(IdempotencyRow),
    /// Append.
    Audit(AuditRow),
    /// Append; the store numbers it by commit and place.
    Event(EventRow),
    /// Append.
    Artifact(Box<ArtifactRow>),
    /// Insert or replace.
    Notification(Box<NotificationRow>),
    /// A pipeline's text, by digest; inserting it again changes nothing.
    Definition {
        /// Of the text.
        digest: Digest,
        /// The text.
        text: String,
    },
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

/// All that a core needs to start: everything that is not history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// The coordinator's own numbers.
    pub meta: MetaRow,
    /// Each pipeline's last build number.
    pub pipeline_numbers: BTreeMap<String, u64>,
    /// Registered pipelines by name.
    pub pipelines: BTreeMap<String, PipelineRow>,
    /// Builds that have not ended.
    pub builds: BTreeMap<BuildId, BuildRow>,
    /// Their jobs.
    pub jobs: BTreeMap<JobId, JobRow>,
    /// Their attempts.
    pub attempts: BTreeMap<AttemptId, AttemptRow>,
    /// All pools.
    pub pools: BTreeMap<String, PoolRow>,
    /// All agents that are not gone.
    pub agents: BTreeMap<AgentId, AgentRow>,
    /// All tokens.
    pub tokens: BTreeMap<TokenId, TokenRow>,
    /// Secrets, sealed.
    pub secrets: BTreeMap<SecretName, SecretRow>,
    /// Caches by key.
    pub caches: BTreeMap<CacheName, CacheRow>,
    /// Results that may be used again.
    pub reuse: BTreeMap<ReuseName, ReuseRow>,
    /// Those that went.
    pub reuse_gone: BTreeMap<ReuseName, ReuseGone>,
    /// Slots of concurrency groups that outlive their jobs.
    pub holds: BTreeMap<JobId, HoldRow>,
    /// All schedules.
    pub schedules: BTreeMap<ScheduleId, ScheduleRow>,
    /// How many builds were triggered below one.
    pub lineages: BTreeMap<BuildId, LineageRow>,
    /// Notifications that are not over.
    pub notifications: BTreeMap<NotificationId, NotificationRow>,
    /// Submits that are remembered.
    pub idempotency: BTreeMap<(TokenId, String), IdempotencyRow>,
}

/// What a submit asks for. The shell has compiled the pipeline, checked scopes and made the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submit {
    /// Made by the shell, because a pipeline may say it.
    pub id: BuildId,
    /// The number that the pipeline was compiled with, if it says it: it is the build's, or the submit is refused with
    /// [`crate::Rejected::NumberTaken`].
    pub number: Option<u64>,
    /// The pipeline's name.
    pub pipeline: String,
    /// The registration by which it was decided what is run and trusted, if there was one. Where the pipeline has another one
    /// by now, the submit is refused with [`crate::Rejected::PipelineChanged`].
    pub registration: Option<Box<PipelineRow>>,
    /// Its text.
    pub definition: String,
    /// What the text came to.
    pub graph: Graph,
    /// As in [`BuildRow`].
    pub branch: String,
    /// As in [`BuildRow`].
    pub commit: String,
    /// As in [`BuildRow`].
    pub tag: Option<String>,
    /// As in [`BuildRow`].
    pub message: String,
    /// As in [`BuildRow`].
    pub origin: Source,
    /// As in [`BuildRow`].
    pub source: BuildSource,
    /// As in [`BuildRow`].
    pub creator: Actor,
    /// As in [`BuildRow`].
    pub namespace: Namespace,
    /// As in [`BuildRow`].
    pub env: Vec<(String, String)>,
    /// As in [`BuildRow`].
    pub meta_data: BTreeMap<String, String>,
    /// As in [`BuildRow`].
    pub keep_workspace: bool,
    /// As in [`BuildRow`].
    pub no_reuse: bool,
    /// As in [`BuildRow`].
    pub rebuilt_from: Option<BuildId>,
    /// As in [`BuildRow`].
    pub triggered_from: Option<TriggeredFrom>,
    /// As in [`BuildRow`].
    pub confined: Option<Confined>,
    /// As in [`BuildRow`].
    pub untrusted: Option<String>,
    /// Who and which key, with the body's digest, if the client gave a key.
    pub idempotency: Option<((TokenId, String), Digest)>,
}

/// What a job adds to its build. The shell has compiled the text and checked who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Which attempt uploads: it must hold a right.
    pub attempt: AttemptId,
    /// By which right, where an agent hands it on.
    pub epoch: Option<Epoch>,
    /// Made by the client, a UUID: the same again changes nothing.
    pub id: String,
    /// The text.
    pub definition: String,
    /// What it came to.
    pub graph: Graph,
    /// Steps after the job's own that have not started go first.
    pub replace: bool,
}

/// A new token, and for a join token of a new pool the pool with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Made by the shell with its secret.
    pub id: TokenId,
    /// Hash of its secret.
    pub secret_hash: Digest,
    /// What it lets one do.
    pub grant: TokenGrant,
    /// For a join token: the pool as the caller describes it. It makes the pool if there is none; one that contradicts
    /// an existing pool is refused.
    pub pool: Option<PoolRow>,
    /// For people.
    pub note: String,
    /// Its end; `None` is never.
    pub expires_at: Option<WallMs>,
}

/// A request to join, with its secret already hashed and its key already proven by the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joining {
    /// The token.
    pub token: TokenId,
    /// Hash of the secret that was given.
    pub secret_hash: Digest,
    /// BLAKE3 of the public key (SPKI, DER).
    pub key: Digest,
    /// For people.
    pub name: String,
    /// As the agent says.
    pub machine_id: String,
    /// As the agent claims.
    pub tags: Vec<(String, String)>,
    /// Where it asks from, as the link sees it.
    pub address: Option<IpAddr>,
}

/// Why a request to join was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefused {
    /// For programs.
    pub code: RefuseCode,
    /// What to do, for people.
    pub detail: String,
}

/// What an agent has in all and has given away; volatile, for views and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Jobs at once.
    pub slots: u32,
    /// Taken.
    pub slots_used: u32,
    /// In all.
    pub capacity: Resources,
    /// Taken.
    pub used: Resources,
}
