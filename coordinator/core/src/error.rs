//! Why the core refuses an input. Nothing has changed then.

use windlass_protocol::job::Epoch;
use windlass_protocol::{AgentId, AttemptId, BuildId, JobId, NotificationId, ScheduleId, TokenId};

use crate::row::{BuildState, JobRefused, JoinRefused, PinRefused, SecretRefused};

/// The caller's doing; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No such build, or it has ended and left memory.
    #[error("build {0} is not in memory")]
    NotInMemory(BuildId),
    /// No such job in memory.
    #[error("job {0} is not in memory")]
    JobNotInMemory(JobId),
    /// The build has ended already.
    #[error("build {build} has already ended as {state:?}")]
    BuildEnded {
        /// Which.
        build: BuildId,
        /// So.
        state: BuildState,
    },
    /// A job's state or rules do not allow it.
    #[error("job {job}: {why}")]
    Job {
        /// Which.
        job: JobId,
        /// Why.
        why: JobRefused,
    },
    /// An answer to a gate's question is not one that it takes.
    #[error("field `{field}`: {why}")]
    Answer {
        /// Its key.
        field: String,
        /// Why, and what it takes.
        why: String,
    },
    /// The same idempotency key was used with another body.
    #[error("the idempotency key was used before with another body")]
    IdempotencyMismatch,
    /// Another build of the pipeline got the number that the submit was made for: compile with the next one.
    #[error("another build of the pipeline was given the number first; the next one is {next}")]
    NumberTaken {
        /// The number that is next now.
        next: u64,
    },
    /// The pipeline was registered otherwise since it was decided what is run and trusted: decide again.
    #[error("the pipeline `{0}` is registered otherwise since")]
    PipelineChanged(String),
    /// A build has this id already.
    #[error("build {0} exists already")]
    IdTaken(BuildId),
    /// Nobody has ordered this build, or not any more.
    #[error("build {0} is not ordered")]
    NoOrder(BuildId),
    /// Nobody has asked for this job's key, or not any more.
    #[error("nobody asks for the key of job {0}")]
    NotAsked(JobId),
    /// This try of a notification is not under way, or not any more.
    #[error("notification {0} is not on its way")]
    NotUnderWay(NotificationId),
    /// A limit was reached.
    #[error("{what}: at most {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A graph that cannot be (an edge to nowhere, a cycle): the shell's checker should have refused it.
    #[error("the step graph is not valid: {0}")]
    Graph(String),
    /// A token contradicts the pool that exists.
    #[error("pool `{pool}` exists with another {field}")]
    PoolConflict {
        /// The pool.
        pool: String,
        /// Which field differs.
        field: &'static str,
    },
    /// A pipeline is registered by this name.
    #[error("the pipeline `{0}` is registered already")]
    PipelineExists(String),
    /// No pipeline is registered by this name.
    #[error("no pipeline `{0}` is registered")]
    NoSuchPipeline(String),
    /// There is no such schedule.
    #[error("there is no schedule {0}")]
    NoSuchSchedule(ScheduleId),
    /// What is said of a pipeline is nothing that one can have.
    #[error("{what}: {why}")]
    Setting {
        /// Of what.
        what: &'static str,
        /// What it takes.
        why: String,
    },
    /// There is no such pool.
    #[error("there is no pool `{0}`")]
    NoSuchPool(String),
    /// There is no such token.
    #[error("there is no token {0}")]
    NoSuchToken(TokenId),
    /// A secret is not set, not there, or not given.
    #[error(transparent)]
    Secret(#[from] SecretRefused),
    /// A build cannot be pinned.
    #[error(transparent)]
    Pin(#[from] PinRefused),
    /// There is no such agent.
    #[error("there is no agent {0}")]
    NoSuchAgent(AgentId),
    /// It may not join.
    #[error("{}", .0.detail)]
    Join(JoinRefused),
    /// A message of a connection that is not the agent's current one.
    #[error("agent {0} has another connection")]
    VoidConnection(AgentId),
    /// The attempt is not known, or holds no lease.
    #[error("attempt {0} holds no lease")]
    NoLease(AttemptId),
    /// A right that has been replaced (I3).
    #[error("attempt {attempt} is at epoch {}, the message carries {}", held.0, got.0)]
    StaleEpoch {
        /// Which.
        attempt: AttemptId,
        /// The right it has now.
        held: Epoch,
        /// The right in the message.
        got: Epoch,
    },
    /// An attempt of another agent.
    #[error("attempt {attempt} is not held by agent {agent}")]
    NotYours {
        /// Which.
        attempt: AttemptId,
        /// Who asked.
        agent: AgentId,
    },
}
