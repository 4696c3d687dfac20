//! What is durable: the rows that a store keeps, and the changes that make them.
//!
//! A row is plain data in the words of the interface. Loading the rows gives the same core again (I11); whatever is
//! not in a row is volatile by design: connections, beats, and progress that agents tell anew after a restart.

mod artifact;
mod attempt;
mod audit;
mod build;
mod cache;
mod concurrency;
mod event;
mod fleet;
mod job;
mod notification;
mod pin;
mod pipeline;
mod refused;
mod reuse;
mod schedule;
mod secret;
mod speech;
mod submit;
mod token;
mod trigger;
mod weighed;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use windlass_protocol::{
    AgentId, AnnotationId, AttemptId, BuildId, Digest, JobId, NotificationId, ScheduleId, TokenId,
};

pub use self::artifact::{ArtifactRow, PutArtifact};
pub use self::attempt::{ArtifactTally, AttemptRow, AttemptState};
pub use self::audit::{Actor, ActorKind, AuditRow};
pub use self::build::{BuildRow, BuildRows, BuildSource, BuildState};
pub use self::cache::{CacheName, CacheRequest, CacheRow};
pub use self::concurrency::HoldRow;
pub use self::event::{BuildEvent, EventRow};
pub use self::fleet::{AgentRow, OnDeadline, OnUnreachable, PoolRow, TagPolicy, Usage};
pub use self::job::{JobRow, JobState, Unblocked, Uploaded};
pub use self::notification::{
    BuildFacts, BuildNews, CommitState, Delivery, Message, NotificationRow, NotificationState, origin_of,
};
pub use self::pin::{Anew, NewPin, PinGone, PinRefused, PinRequest, PinRow};
pub use self::pipeline::{DEFAULT_BRANCH, PipelineChange, PipelineRow, Registered};
pub use self::refused::JobRefused;
pub use self::reuse::{
    Followed, Gone, Hosts, JobReuse, Kept, KeySubject, Keyed, KeyedJob, Output, ReuseGone, ReuseName, ReuseRequest,
    ReuseRow, ReusedFrom, Role, Unkeyed, Yield, digest_of,
};
pub use self::schedule::{Fired, Firing, NewSchedule, ScheduleRow};
pub use self::secret::{Sealed, SecretName, SecretRefused, SecretRequest, SecretRow};
pub use self::speech::{Annotate, Annotation, AnnotationStyle, Said, Speech, StepChange};
pub use self::submit::{IdempotencyRow, Submit, Upload};
pub use self::token::{JoinRefused, Joining, NewToken, Scope, TokenGrant, TokenRow};
pub use self::trigger::{Confined, LineageRow, Triggered, TriggeredFrom};
pub use self::weighed::{Candidate, Weighed};

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
    /// Insert or replace: all of the build's artifacts stay.
    Pin(Box<PinRow>),
    /// A pin holds the result of this key in its build's namespace; saying it again changes nothing.
    PinResult {
        /// Whose pin.
        build: BuildId,
        /// The key.
        key: Digest,
    },
    /// Delete, with all results that it holds; the build's artifacts go when their own time is over.
    PinOver(BuildId),
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
    /// Pins by their builds.
    pub pins: BTreeMap<BuildId, PinRow>,
    /// Which results each of them holds, by their keys.
    pub pinned_results: BTreeSet<(BuildId, Digest)>,
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
