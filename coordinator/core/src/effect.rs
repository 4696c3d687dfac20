//! What the core wants done. Effects are released only after the changes queued before them are durable.

use windlass_protocol::job::Epoch;
use windlass_protocol::message::{CoordinatorMessage, RefuseCode};
use windlass_protocol::{AgentId, AttemptId, BuildId, Digest, JobId, TokenId, WallMs};

use crate::input::{ConnId, ReplyTo};
use crate::order::Order;
use crate::row::{AttemptState, Change, JobState, KeySubject, NotificationRow};

/// One thing to do. Order matters: a [`Effect::Change`] must be durable before any later effect is released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make it durable.
    Change(Change),
    /// Answer a client.
    Reply {
        /// Whom.
        to: ReplyTo,
        /// What.
        reply: Reply,
    },
    /// Say it to an agent on this connection.
    Send {
        /// The agent.
        agent: AgentId,
        /// Its connection.
        conn: ConnId,
        /// The message.
        message: Box<CoordinatorMessage>,
    },
    /// End a connection, after saying why.
    Disconnect {
        /// The agent.
        agent: AgentId,
        /// Its connection.
        conn: ConnId,
        /// For programs.
        code: RefuseCode,
        /// For people.
        detail: String,
    },
    /// Watch an attempt's log until it is durable to this length with this digest, or the time is over; answer with
    /// [`crate::input::Input::LogSettled`]. Asking again changes nothing.
    SettleLog {
        /// The attempt.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
        /// The log's final length.
        bytes: u64,
        /// Its digest.
        digest: Digest,
    },
    /// Find out what a build is to run that nobody submits, and answer with [`crate::input::Input::Obtained`]. Asking again
    /// changes nothing.
    Obtain(Box<Order>),
    /// Find out a step's key, and answer with [`crate::input::Input::Keyed`]. It is asked again after a restart.
    Key {
        /// Which question it is: the answer says it.
        ask: u64,
        /// The step.
        subject: Box<KeySubject>,
    },
    /// Send a notification once, and answer with [`crate::input::Input::Delivered`]. It is sent again where no answer comes.
    Deliver(Box<NotificationRow>),
    /// No more log bytes of this attempt are accepted under rights older than `epoch`; with `sealed` none at all, and
    /// the log is to be sealed.
    FenceLog {
        /// The attempt.
        attempt: AttemptId,
        /// The least right that may still append.
        epoch: Epoch,
        /// It is over.
        sealed: bool,
    },
    /// A job that was ready since then is leased, durably, for the first time in this attempt; for metrics.
    Dispatched {
        /// When its dependencies were done, or its retry was decided.
        runnable_at: WallMs,
    },
    /// What reuse came to, durably; for metrics and the operator's log.
    Reuse(ReuseNews),
    /// Volatile progress, for views and watchers; may step back after a restart.
    Progress(Progress),
    /// The build has ended, is durable, and is in memory no more.
    Retired(BuildId),
}

/// What came of reuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReuseNews {
    /// A job ended with an earlier result, which had taken so long.
    Hit {
        /// In milliseconds.
        saved_ms: u64,
    },
    /// There was none: it runs, or waits for one that does.
    Miss,
    /// It has no key.
    Unkeyed,
    /// A result may be used again from now on.
    Stored,
    /// A result may not be used again.
    NotStored,
    /// So many entries went.
    Evicted(usize),
    /// A hit was run all the same, and came to the same.
    Same,
    /// A hit was run all the same, and came to something else: its step depends on more than its key says.
    Differs {
        /// The build.
        build: BuildId,
        /// The job.
        job: JobId,
        /// How, for people.
        detail: String,
    },
}

/// Volatile progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// An attempt got further.
    Attempt {
        /// The build.
        build: BuildId,
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: AttemptId,
        /// The attempt's state.
        state: AttemptState,
        /// The job's state.
        job_state: JobState,
        /// When its command started, if it has.
        started_at: Option<WallMs>,
    },
    /// An agent's volatile state changed.
    Agent {
        /// The agent.
        agent: AgentId,
        /// Its state.
        state: AgentState,
    },
}

/// An agent's state (F10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// Enrolled or loaded, not yet heard since.
    Joining,
    /// Heard of in time.
    Online,
    /// Silent for three beats: gets no offers; its jobs go on.
    Suspect,
    /// Silent for a whole lease: its rights have ended.
    Lost,
    /// Finishes what it has.
    Draining,
    /// Takes nothing for now.
    Paused,
    /// It could not end a job's processes or its disk is full: takes nothing.
    Quarantined,
    /// It left.
    Gone,
}

/// Answers to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The build exists, durably. `existing` if an idempotency key had made it before.
    Submitted {
        /// Which.
        build: BuildId,
        /// It was there before.
        existing: bool,
    },
    /// Done, durably.
    Done,
    /// Secrets that a job may have, sealed; that they were asked for is in the audit trail.
    Secrets(Vec<crate::row::SecretRow>),
    /// The cache that stands under a key, if there is any.
    Cache(Option<Box<crate::row::CacheRow>>),
    /// The build is pinned, durably.
    Pinned {
        /// Which.
        build: BuildId,
        /// What was said of it before, if it was pinned already.
        before: Option<Box<crate::row::PinRow>>,
    },
    /// The build is not pinned any more, durably.
    Unpinned {
        /// Its pin, if it had one.
        before: Option<Box<crate::row::PinRow>>,
    },
    /// The token exists.
    Token {
        /// Which.
        token: TokenId,
    },
    /// These agents drain.
    Drained {
        /// They do.
        drained: Vec<AgentId>,
        /// They are meant too, and too many are unavailable already.
        waiting: Vec<AgentId>,
    },
    /// The agent may have a certificate.
    Joined {
        /// Its id.
        agent: AgentId,
        /// Its pool.
        pool: String,
        /// Its zone.
        zone: String,
        /// Its trust class.
        trust: windlass_protocol::Trust,
    },
}
