//! Rows of pools and of the agents in them, and what agents have given away.

use serde::{Deserialize, Serialize};
use windlass_protocol::job::Resources;
use windlass_protocol::{AgentId, Digest, TokenId, Trust, WallMs};

/// A pool: like agents in one zone and one trust class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// Its network.
    pub zone: String,
    /// The queues it serves.
    pub queues: Vec<String>,
    /// Its trust class.
    pub trust: Trust,
    /// Tags that its agents have, or may claim.
    pub tags: TagPolicy,
    /// How long a right lasts without a beat.
    pub lease_ms: u64,
    /// Between beats.
    pub beat_ms: u64,
    /// Takes no new agents and no new jobs.
    #[serde(default)]
    pub paused: bool,
    /// What becomes of its jobs while its zone is unreachable.
    #[serde(default)]
    pub on_unreachable: OnUnreachable,
    /// When it was made.
    pub created_at: WallMs,
}

/// What becomes of a pool's jobs while the pool's zone is unreachable (F15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnreachable {
    /// They are held for a while ([`crate::Policy::zone_hold_ms`]): their agents are not lost with their leases.
    #[default]
    Wait,
    /// Their agents are lost with their leases, as if they were silent alone, and what may be is run elsewhere.
    Replace,
}

/// Which tags an agent of a pool has (F6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "policy", content = "tags")]
pub enum TagPolicy {
    /// Exactly these; claiming another is refused.
    Fixed(Vec<(String, String)>),
    /// Those of these that an agent claims, and no others; a value `*` allows any value of that name.
    Allowed(Vec<(String, String)>),
    /// These for all, and any that an agent claims beside them.
    Free(Vec<(String, String)>),
}

impl TagPolicy {
    /// The tags that it names, whatever it says of them.
    #[must_use]
    pub fn tags(&self) -> &[(String, String)] {
        match self {
            Self::Fixed(tags) | Self::Allowed(tags) | Self::Free(tags) => tags,
        }
    }
}

/// An agent that has joined, whether it is here or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// Its id.
    pub id: AgentId,
    /// Its name, for people.
    pub name: String,
    /// Its pool: zone, queues and trust come from there.
    pub pool: String,
    /// BLAKE3 of its public key (SPKI, DER): its identity.
    pub key: Digest,
    /// By which token it joined (F5).
    pub token: TokenId,
    /// As it says.
    pub machine_id: String,
    /// Checked against the pool's policy when it joined.
    pub tags: Vec<(String, String)>,
    /// When it joined.
    pub joined_at: WallMs,
    /// It drains, by the operator's word: takes nothing more until resumed.
    #[serde(default)]
    pub draining: bool,
    /// The drain's deadline.
    #[serde(default)]
    pub drain_until: Option<WallMs>,
    /// What becomes then of what it still runs.
    #[serde(default)]
    pub on_deadline: OnDeadline,
    /// When it was last heard before it was lost or left; `None` while it is here.
    #[serde(default)]
    pub last_seen_at: Option<WallMs>,
    /// It said goodbye then; else it was lost.
    #[serde(default)]
    pub left: bool,
    /// Its key is worth nothing any more.
    #[serde(default)]
    pub revoked_at: Option<WallMs>,
    /// It left, or another took its place.
    #[serde(default)]
    pub gone: Option<String>,
}

/// What becomes of the jobs that still run at a drain's deadline (F21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDeadline {
    /// They are ended and run again elsewhere, but for those of exclusive steps that had started: these never run twice
    /// by themselves.
    #[default]
    Requeue,
    /// They are ended; only what says so itself is run again (`interruptible`, `retry`).
    Cancel,
    /// They take their time.
    Wait,
}

impl AgentRow {
    /// When one that is gone was last seen, as far as its row says.
    #[must_use]
    pub fn gone_since(&self) -> WallMs {
        self.last_seen_at.or(self.revoked_at).unwrap_or(self.joined_at)
    }
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
