//! What can happen to the core: everything that the shell hands in.

use windlass_protocol::job::{Epoch, Outcome};
use windlass_protocol::message::{Health, Hello};
use windlass_protocol::stock::{Fetched, Stocked};
use windlass_protocol::{
    AgentId, AttemptId, BuildId, Cause, Digest, JobId, NotificationId, PipelineId, ScheduleId, TokenId,
};

use crate::order::Obtained;
use crate::row::{
    Actor, BuildRows, CacheRequest, Delivery, Joining, Keyed, NewSchedule, NewToken, OnDeadline, PinRequest,
    PipelineChange, PutArtifact, ReuseRequest, SecretRequest, Speech, Submit, Unkeyed, Upload,
};
use crate::selector::DrainMany;

/// Whom to answer: the shell's own number for a waiting request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo(pub u64);

/// One connection of one agent: the shell's own number, never used twice while the core lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A client asks; exactly one [`crate::effect::Effect::Reply`] answers, or the rejection that `handle` returns.
    Request {
        /// Whom to answer.
        reply: ReplyTo,
        /// Who asks.
        actor: Actor,
        /// What for.
        request: Request,
    },
    /// An agent with a valid certificate said hello on a new connection; an older one of the same agent is void.
    AgentHello {
        /// From its certificate.
        agent: AgentId,
        /// BLAKE3 of the key in its certificate.
        key: Digest,
        /// The connection.
        conn: ConnId,
        /// What it said; `held` may name attempts that are long over.
        hello: Box<Hello>,
    },
    /// A message of an agent on its connection.
    Agent {
        /// From its certificate.
        agent: AgentId,
        /// The connection; messages of a void one are rejected.
        conn: ConnId,
        /// What it said.
        event: AgentEvent,
    },
    /// A connection ended.
    AgentGone {
        /// From its certificate.
        agent: AgentId,
        /// The connection.
        conn: ConnId,
        /// `connection_closed`, `connection_lost` (F18).
        detail: String,
    },
    /// Answer to [`crate::effect::Effect::Obtain`]: what an ordered build runs, or why it cannot be.
    Obtained {
        /// The build.
        build: BuildId,
        /// What was found.
        obtained: Result<Box<Obtained>, Cause>,
    },
    /// Answer to [`crate::effect::Effect::Key`].
    Keyed {
        /// The job.
        job: JobId,
        /// Which question.
        ask: u64,
        /// Its key, or why it has none.
        outcome: Result<Box<Keyed>, Unkeyed>,
    },
    /// Answer to [`crate::effect::Effect::Deliver`].
    Delivered {
        /// Which notification.
        id: NotificationId,
        /// Which try: one more than the row that was sent had.
        attempt: u32,
        /// What came of it.
        delivery: Delivery,
    },
    /// Answer to [`crate::effect::Effect::SettleLog`]: what the log came to.
    LogSettled {
        /// The attempt.
        attempt: AttemptId,
        /// By which right it was asked.
        epoch: Epoch,
        /// Whether it is durable to the length and digest that the outcome names; else why not.
        settled: Result<(), String>,
    },
}

/// What an agent says after its hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEvent {
    /// Alive, holding these.
    Beat {
        /// To be acknowledged.
        seq: u64,
        /// How the machine does.
        health: Health,
        /// What it holds.
        held: Vec<(AttemptId, Epoch)>,
    },
    /// What it has of the large inputs of jobs, whole, and what it has brought since its program started.
    Stock {
        /// Each once.
        inputs: Vec<Stocked>,
        /// Both numbers begin anew with its program.
        fetched: Fetched,
    },
    /// It took the offer.
    Accepted(AttemptId, Epoch),
    /// It did not take the offer; nothing started.
    Refused(AttemptId, Epoch, Cause),
    /// The command started.
    Started(AttemptId, Epoch, windlass_protocol::WallMs),
    /// The attempt ended.
    Finished(AttemptId, Epoch, Box<Outcome>),
    /// Nothing of the attempt runs any more.
    Stopped(AttemptId, Epoch),
    /// It takes nothing more.
    Draining,
    /// It takes work again.
    Resumed,
    /// It leaves.
    Goodbye {
        /// Why.
        reason: String,
    },
}

/// What a client can ask for. Scopes are the shell's to check; states are the core's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Set, remove or read secrets.
    Secret(Box<SecretRequest>),
    /// Find or save caches, or let go of some.
    Cache(Box<CacheRequest>),
    /// Let go of results that nobody uses again.
    Reuse(ReuseRequest),
    /// Let all of a build stay, or no longer.
    Pin(PinRequest),
    /// Make a build.
    Submit(Box<Submit>),
    /// Cancel a build; canceling one that has ended is refused.
    CancelBuild {
        /// Which.
        build: BuildId,
        /// Why: `canceled`, with who and what for.
        detail: String,
    },
    /// Cancel one job.
    CancelJob {
        /// Which.
        job: JobId,
        /// Between the polite signal and the kill, where that is to be less than the job's own.
        grace_ms: Option<u64>,
    },
    /// Run again what failed in a build (its hard failures and canceled jobs, and what waited on them).
    RetryBuild {
        /// Which.
        build: BuildId,
        /// Its rows, if it has left memory ([`crate::Rejected::NotInMemory`] asks for them).
        rows: Option<Box<BuildRows>>,
    },
    /// Run one job again.
    RetryJob {
        /// Which.
        job: JobId,
        /// As in `RetryBuild`.
        rows: Option<Box<BuildRows>>,
    },
    /// Open a gate.
    Unblock {
        /// Which.
        job: JobId,
        /// Answers by the fields' keys; several values for a choice of several.
        answers: std::collections::BTreeMap<String, Vec<String>>,
    },
    /// Add steps to the build of a running job, right after its own (reference 7).
    Upload(Box<Upload>),
    /// Set some of a build's meta-data, all or none; what is there under the same keys is replaced.
    SetMetaData {
        /// Which; it must not have ended.
        build: BuildId,
        /// Neither keys nor values may be blank (reference 19.2).
        values: std::collections::BTreeMap<String, String>,
    },
    /// What a job says to its own build, by its right; the same call again changes nothing.
    Speak(Box<Speech>),
    /// Register a pipeline: the defaults, and what is said of it.
    CreatePipeline {
        /// Made by the shell.
        id: PipelineId,
        /// Nobody has registered it.
        name: String,
        /// What is not as it is by default.
        change: Box<PipelineChange>,
    },
    /// Say something of a registered pipeline anew. Builds that are made already go on as they are.
    UpdatePipeline {
        /// Which.
        name: String,
        /// What.
        change: Box<PipelineChange>,
    },
    /// Make a schedule of a registered pipeline.
    AddSchedule(Box<NewSchedule>),
    /// Take a schedule away; what it made goes on.
    RemoveSchedule {
        /// Which.
        schedule: ScheduleId,
    },
    /// Note what a person has uploaded for a job.
    PutArtifact(Box<PutArtifact>),
    /// Make a token.
    CreateToken(Box<NewToken>),
    /// Take a token back; its agents stay unless `and_agents` (F5).
    RevokeToken {
        /// Which.
        token: TokenId,
        /// Revoke the agents that it admitted, too.
        and_agents: bool,
    },
    /// Join: a use is consumed and the agent exists in the same commit (F2). The same key gets the same agent.
    Join(Box<Joining>),
    /// Let agents finish and take nothing more (F21, F22); all are made ineligible in one commit.
    DrainAgents {
        /// Which.
        agents: Vec<AgentId>,
        /// In all; 0 is now.
        deadline_ms: Option<u64>,
        /// What becomes of what still runs then.
        on_deadline: OnDeadline,
    },
    /// As `DrainAgents`, of all that are selected, or of as many as may be unavailable.
    DrainMany(Box<DrainMany>),
    /// Let a draining agent take work again.
    ResumeAgent {
        /// Which.
        agent: AgentId,
    },
    /// Its key is worth nothing from now on; its connection is cut, its jobs end as lost.
    RevokeAgent {
        /// Which.
        agent: AgentId,
    },
    /// Tokens were used, each last at this time.
    NoteUses(Vec<(TokenId, windlass_protocol::WallMs)>),
    /// Builds, idempotency keys and gone agents older than this may be forgotten by the core (the store's rows are the
    /// shell's to delete).
    Retain {
        /// Idempotency keys made before this are forgotten.
        idempotency_before: windlass_protocol::WallMs,
        /// Tokens that could do nothing more before this are forgotten, unless an agent that one of them admitted is known.
        tokens_before: windlass_protocol::WallMs,
    },
}
