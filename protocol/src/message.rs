//! The messages of `windlass/1`, frozen by golden bytes.
//!
//! Each travels as one rkyv archive in one [frame](crate::frame), validated before use. Control is one bidirectional
//! stream that the agent opens; logs flow on unidirectional streams, one for each attempt and connection, which begin
//! with a [`LogHeader`] and go on with raw frames (see [`log`]). Every message about an attempt carries its epoch.

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "the archived twins and resolvers that rkyv derives carry neither docs nor Debug"
)]

use rkyv::{Archive, Deserialize, Serialize};

use crate::cause::Cause;
use crate::host_facts::HostFacts;
use crate::id::{AgentId, AttemptId, BuildId, TokenId};
use crate::job::{Epoch, JobSpec, Outcome, Phase, Resources};
use crate::stock::{Fetched, Stocked};
use crate::time::WallMs;

pub mod ask;
pub mod bring;
pub mod codec;
pub mod fetch;
pub mod grant;
pub mod log;
pub mod parts;
pub mod validate;

pub use ask::{
    ArtifactQuery, Ask, AskRefused, Asked, CacheQuery, FoundArtifact, FoundCache, FoundFiles, NewArtifact, NewCache,
    Scope, SecretText, Style, Told,
};
pub use bring::{Bring, Brought, BroughtSoFar};
pub use codec::{BadMessage, decode, encode};
pub use fetch::{BlobHeader, BulkAsk, Claim, FetchBlobs, Wanted};
pub use grant::{AskGrant, CacheZone, Grant, Peer, SignedGrant};
pub use log::LogHeader;
pub use parts::{PartHeader, PartsAnswer};
pub use validate::{Invalid, Validate};

/// What an agent is and can do; sent once for each connection, first.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Hello {
    /// Its name, for people.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// What the operating system calls the machine (`/etc/machine-id`), to tell replaced agents (F9).
    pub machine_id: String,
    /// Which run of the machine this is, in the operating system's words: of what an agent was given in an earlier one and
    /// does not hold any more, nobody knows whether it started.
    pub boot_id: String,
    /// Jobs at once.
    pub slots: u32,
    /// What it has to give to jobs, in all.
    pub capacity: Resources,
    /// Tags it claims; checked against the pool's policy (F6).
    pub tags: Vec<(String, String)>,
    /// Whether it can run images.
    pub runs_images: bool,
    /// Named abilities beside the version (F59).
    pub capabilities: Vec<String>,
    /// Its machine, as far as it decides the results of steps.
    pub host: HostFacts,
    /// Every attempt that it still has, with how far it came (F14).
    pub held: Vec<Held>,
}

/// An attempt that an agent has.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Held {
    /// The attempt.
    pub attempt: AttemptId,
    /// By which right.
    pub epoch: Epoch,
    /// How far it came.
    pub phase: Phase,
    /// When its command started, by the agent's clock.
    pub started_at: Option<WallMs>,
}

/// How the machine does; volatile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Health {
    /// Free bytes where workspaces and cache are.
    pub disk_free_bytes: u64,
    /// All bytes there.
    pub disk_total_bytes: u64,
    /// Bytes of memory that can be had.
    pub memory_available_bytes: u64,
    /// Load average of one minute, in thousandths.
    pub load_millis: u64,
    /// It refuses new work until its disk has space again (F49).
    pub disk_full: bool,
    /// It could not end a job's processes, and takes nothing more (F26).
    pub cannot_kill: bool,
    /// It takes steps with an image: its container engine answers. What the hello said of that holds until the first beat.
    pub runs_images: bool,
    /// How blobs that its jobs wanted were come by.
    pub cache: CacheUse,
}

/// How an agent came by blobs and chunks that its jobs wanted, counted since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct CacheUse {
    /// They were in its own cache.
    pub disk_hits: u64,
    /// They were not.
    pub disk_misses: u64,
    /// A peer gave them.
    pub peer_hits: u64,
    /// A peer that was asked could not give them.
    pub peer_misses: u64,
    /// A peer was passed over: slow, gone or lying.
    pub peer_failures: u64,
}

/// What an agent says on its control stream.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum AgentMessage {
    /// First on each connection.
    Hello(Hello),
    /// Alive; extends the lease of everything it holds.
    Beat {
        /// Rises by one with each beat of a connection.
        seq: u64,
        /// How the machine does.
        health: Health,
        /// What it holds now; an attempt that the coordinator leased and that is missing here is not believed to run.
        held: Vec<(AttemptId, Epoch)>,
    },
    /// The offer is taken.
    Accepted {
        /// The attempt.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
    },
    /// The offer is not taken: nothing has started.
    Refused {
        /// The attempt.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
        /// Why.
        cause: Cause,
    },
    /// The command has started.
    Started {
        /// The attempt.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
        /// When, by the agent's clock.
        at: WallMs,
    },
    /// The attempt has ended and its processes are gone.
    Finished {
        /// The attempt.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
        /// What came of it.
        outcome: Outcome,
    },
    /// Answer to [`CoordinatorMessage::Stop`], or its right ended by itself: nothing of the attempt runs any more and
    /// nothing is reported. Repeated after each welcome until [`CoordinatorMessage::Committed`] answers it.
    Stopped {
        /// The attempt.
        attempt: AttemptId,
        /// By which right it had run.
        epoch: Epoch,
    },
    /// It takes nothing more: it was told to drain, or its operator stops it.
    Draining,
    /// Draining was called off.
    Resumed,
    /// It leaves; nothing runs.
    Goodbye {
        /// Why, for people.
        reason: String,
    },
    /// It wants a certificate for the same key.
    Renew {
        /// PKCS #10, DER.
        csr: Vec<u8>,
    },
    /// Its peers reach it there.
    Serves {
        /// `IP:PORT`, UDP.
        address: String,
    },
    /// What it has of the large inputs of jobs, whole each time, and what it has brought; said after a hello, and when it has
    /// changed.
    Stock {
        /// At most [`crate::limits::STOCK_INPUTS_MAX`], each once.
        inputs: Vec<Stocked>,
        /// Since its program started.
        fetched: Fetched,
    },
}

/// What becomes of an attempt that an agent says it has (F14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum Verdict {
    /// Go on, by this right (which may be newer than the one held: adoption).
    Keep {
        /// The right from now on.
        epoch: Epoch,
        /// Log bytes that are durable: sending goes on from here.
        log_offset: u64,
    },
    /// Its result is committed: drop it with its spool.
    Committed,
    /// The right has ended: end its processes and drop it.
    Stop,
}

/// Why a coordinator does not serve an agent (F8). Each has a sentence beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize, serde::Serialize)]
#[rkyv(derive(Debug))]
#[serde(rename_all = "snake_case")]
pub enum RefuseCode {
    /// No such token, or its secret is wrong.
    TokenUnknown,
    /// The token's time is over.
    TokenExpired,
    /// All its uses are taken.
    TokenUsedUp,
    /// It was revoked.
    TokenRevoked,
    /// The token does not serve the agent's address.
    Cidr,
    /// Another live agent has this name.
    NameTaken,
    /// A tag that the pool's policy does not allow.
    TagNotAllowed,
    /// The agent is too old.
    VersionTooOld,
    /// The agent is too new.
    VersionTooNew,
    /// The clocks differ too much for certificates.
    ClockSkew,
    /// The pool takes no more agents.
    PoolFull,
    /// The pool takes nobody now.
    PoolPaused,
    /// The agent's key was revoked.
    AgentRevoked,
    /// The certificate's time is over: renew.
    CertificateExpired,
    /// The request makes no sense.
    Malformed,
    /// The coordinator cannot now; come again.
    Unavailable,
    /// The token's time has not come.
    TokenNotYetValid,
    /// The token does not admit agents of this name.
    NameNotAllowed,
}

impl RefuseCode {
    /// Every code, in the order of its number.
    pub const ALL: &'static [Self] = &[
        Self::TokenUnknown,
        Self::TokenExpired,
        Self::TokenUsedUp,
        Self::TokenRevoked,
        Self::Cidr,
        Self::NameTaken,
        Self::TagNotAllowed,
        Self::VersionTooOld,
        Self::VersionTooNew,
        Self::ClockSkew,
        Self::PoolFull,
        Self::PoolPaused,
        Self::AgentRevoked,
        Self::CertificateExpired,
        Self::Malformed,
        Self::Unavailable,
        Self::TokenNotYetValid,
        Self::NameNotAllowed,
    ];

    /// One sentence that says what to do (F8).
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::TokenUnknown => "check that the token is whole and of this coordinator, or make a new one",
            Self::TokenExpired | Self::TokenUsedUp | Self::TokenRevoked => {
                "make a new join token with `windlass token create --pool POOL`"
            }
            Self::Cidr => "join from a network that the token allows, or make a token that allows this one",
            Self::NameTaken => "give this agent another --name, or stop the agent that has it; it is tried again",
            Self::TagNotAllowed => "leave the tag out, or have the pool allow it",
            Self::VersionTooOld => "install the coordinator's version of windlass on this machine",
            Self::VersionTooNew => "upgrade the coordinator first, or install its version of windlass here",
            Self::ClockSkew => "set this machine's clock and the coordinator's by NTP; it is tried again",
            Self::PoolFull => "revoke agents that are gone for good, or use another coordinator; it is tried again",
            Self::PoolPaused => "resume the pool; it is tried again",
            Self::AgentRevoked => "join again with a new token and an empty data directory, if it should be served",
            Self::CertificateExpired => "the agent renews it by itself",
            Self::Malformed => "mend what it names, or use the same version of windlass on both sides",
            Self::Unavailable => "look at the coordinator's log; it is tried again",
            Self::TokenNotYetValid => "wait until the token's time has come; it is tried again",
            Self::NameNotAllowed => "give this agent a --name that the token's pattern allows",
        }
    }

    /// Whether trying again with the same credentials can never help: the agent leaves with a code of its own.
    #[must_use]
    pub const fn permanent(self) -> bool {
        match self {
            Self::TokenUnknown
            | Self::TokenExpired
            | Self::TokenUsedUp
            | Self::TokenRevoked
            | Self::Cidr
            | Self::TagNotAllowed
            | Self::VersionTooOld
            | Self::AgentRevoked
            | Self::Malformed
            | Self::NameNotAllowed => true,
            Self::NameTaken
            | Self::VersionTooNew
            | Self::ClockSkew
            | Self::PoolFull
            | Self::PoolPaused
            | Self::CertificateExpired
            | Self::Unavailable
            | Self::TokenNotYetValid => false,
        }
    }
}

/// What a coordinator says on an agent's control stream.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum CoordinatorMessage {
    /// Answer to [`AgentMessage::Hello`]; the agent accepts no offer before it.
    Welcome {
        /// Rises with each connection of this agent; later messages of older sessions are void.
        session: u64,
        /// How long a right lasts after the last beat that was answered.
        lease_ms: u64,
        /// Between beats.
        beat_ms: u64,
        /// One for each attempt that the hello named, in its order.
        verdicts: Vec<(AttemptId, Verdict)>,
    },
    /// A beat was heard: rights last `lease_ms` from when it was *sent*.
    BeatAck {
        /// The beat's.
        seq: u64,
        /// Between beats from now on: the fleet grows and shrinks (F12).
        beat_ms: u64,
    },
    /// Run this. Repeating it with the same epoch changes nothing.
    Offer {
        /// By this right.
        epoch: Epoch,
        /// What to run.
        job: Box<JobSpec>,
    },
    /// End the attempt with the job's grace, and report its outcome with this cause.
    Cancel {
        /// The attempt.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
        /// Why.
        cause: Cause,
        /// In place of the job's grace, where it is shorter.
        grace_ms: Option<u64>,
    },
    /// The right has ended: end the attempt at once, report nothing but [`AgentMessage::Stopped`].
    Stop {
        /// The attempt.
        attempt: AttemptId,
        /// The right that ended.
        epoch: Epoch,
    },
    /// The attempt's result, or the end of this right after [`AgentMessage::Stopped`], is durable: drop it with its spool.
    Committed {
        /// The attempt.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
    },
    /// Log bytes below this offset are durable.
    LogAck {
        /// The attempt.
        attempt: AttemptId,
        /// The first byte that is not yet durable.
        offset: u64,
    },
    /// Take nothing more; finish, then leave if `leave`.
    Drain {
        /// In all, from now; then what still runs is canceled with cause `agent_stopped`.
        deadline_ms: Option<u64>,
        /// Leave when nothing runs any more.
        leave: bool,
    },
    /// Take work again.
    Resume,
    /// Answer to [`AgentMessage::Renew`].
    Certificate {
        /// The agent's certificate, then its issuer's; X.509, DER.
        chain: Vec<Vec<u8>>,
    },
    /// The coordinator ends the connection, and why.
    Refuse {
        /// For programs.
        code: RefuseCode,
        /// What to do, for people.
        detail: String,
    },
    /// Who else is in the agent's zone, of its trust, and serves others; in place of what was told before.
    Peers {
        /// The Ed25519 key that grants are signed with.
        key: [u8; 32],
        /// In order of their ids, without the agent itself or with it; at most [`crate::limits::PEERS_MAX`].
        peers: Vec<Peer>,
    },
    /// What the coordinator can do beside the version; only to who told [`crate::version::PARTS_1`].
    Knows {
        /// As in [`Hello::capabilities`].
        abilities: Vec<String>,
    },
}

/// How an agent proves where it runs, beside its token (F7). Attestors of clouds come later, without a new version.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum Evidence {
    /// Nothing but the token.
    None,
    /// A document that the provider signed.
    Document {
        /// Such as `aws-iid`.
        kind: String,
        /// As the provider gives it.
        bytes: Vec<u8>,
    },
}

/// Asks to join, on [`crate::version::ALPN_ENROL`]: one request and one answer on one stream.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Enrol {
    /// The token's public id.
    pub token: TokenId,
    /// The token's secret.
    pub secret: [u8; 32],
    /// PKCS #10, DER; its key is the agent's identity from now on.
    pub csr: Vec<u8>,
    /// For people.
    pub name: String,
    /// As in [`Hello::machine_id`].
    pub machine_id: String,
    /// As in [`Hello::tags`].
    pub tags: Vec<(String, String)>,
    /// The version of its program.
    pub version: String,
    /// Where it runs.
    pub evidence: Evidence,
}

/// Answers an [`Enrol`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum EnrolAnswer {
    /// Welcome. The same key that asks again gets the same id.
    Enrolled {
        /// The agent's id.
        agent: AgentId,
        /// The agent's certificate, then its issuer's; X.509, DER.
        chain: Vec<Vec<u8>>,
        /// What the token gave, for the agent's own log.
        pool: String,
        /// What the token gave, for the agent's own log.
        zone: String,
    },
    /// No.
    Refused {
        /// For programs.
        code: RefuseCode,
        /// What to do, for people.
        detail: String,
    },
}

/// Offers blobs that a job made. Those that are wanted follow, raw and in this order, once a [`StoreAnswer::Wanted`] came.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct StoreBlobs {
    /// For which build; its namespace decides who will see them.
    pub build: BuildId,
    /// The attempt that the agent holds.
    pub attempt: AttemptId,
    /// By which right.
    pub epoch: Epoch,
    /// What they are kept as.
    pub shelf: crate::namespace::Shelf,
    /// At most [`crate::limits::STORE_MAX_BLOBS`], each with its length.
    pub blobs: Vec<(crate::digest::Digest, u64)>,
}

/// Why blobs are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum StoreRefused {
    /// The disk is full.
    Full,
    /// The bytes are not what their digest says.
    WrongBytes,
    /// Not now; come again.
    Unavailable,
}

/// A blob that is to be sent, and from where on: what came before an earlier connection broke is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct WantedBlob {
    /// Its place in the request.
    pub place: u32,
    /// The first byte that is to be sent, no more than its length.
    pub offset: u64,
}

/// Answers a [`StoreBlobs`], twice: before the bytes and after them.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum StoreAnswer {
    /// These of the blobs are to be sent, in order.
    Wanted(Vec<WantedBlob>),
    /// All of them are durable.
    Stored,
    /// No; whole blobs before the one that failed may be kept.
    Refused {
        /// For programs.
        code: StoreRefused,
        /// For people.
        detail: String,
    },
}
