//! Tokens: what lets agents join and clients ask.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use windlass_protocol::message::RefuseCode;
use windlass_protocol::{Digest, TokenId, WallMs};

use super::{Actor, PoolRow};
use crate::terms::JoinTerms;

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Its public id.
    pub id: TokenId,
    /// Hash of its secret.
    pub secret_hash: Digest,
    /// What it lets one do.
    pub grant: TokenGrant,
    /// For people.
    pub note: String,
    /// Who made it.
    pub created_by: Actor,
    /// When.
    pub created_at: WallMs,
    /// Its end; `None` is never.
    pub expires_at: Option<WallMs>,
    /// It was taken back.
    #[serde(default)]
    pub revoked_at: Option<WallMs>,
    /// When it was last used, coarsely: a use is written some minutes later, so that no request costs a commit.
    #[serde(default)]
    pub last_used_at: Option<WallMs>,
}

/// What a token lets one do. The two kinds never mix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum TokenGrant {
    /// Lets agents enrol in a pool.
    Join {
        /// The pool.
        pool: String,
        /// How many agents; `None` is any number.
        max_uses: Option<u32>,
        /// How many it has admitted.
        used: u32,
        /// What it asks of an agent beside its secret.
        #[serde(default)]
        terms: JoinTerms,
    },
    /// Lets a client use the API.
    Api {
        /// What it may do.
        scopes: Vec<Scope>,
        /// Only this pipeline.
        #[serde(default)]
        pipeline: Option<String>,
        /// Only this branch.
        #[serde(default)]
        branch: Option<String>,
    },
}

impl TokenGrant {
    /// A grant for agents of a pool that asks nothing but its secret.
    #[must_use]
    pub fn join(pool: impl Into<String>, max_uses: Option<u32>) -> Self {
        Self::Join { pool: pool.into(), max_uses, used: 0, terms: JoinTerms::default() }
    }
}

/// What an API token may do; names are fixed by the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// See builds, jobs and logs.
    #[serde(rename = "builds:read")]
    BuildsRead,
    /// Submit, cancel, retry.
    #[serde(rename = "builds:write")]
    BuildsWrite,
    /// What it submits is trusted.
    #[serde(rename = "builds:trusted")]
    BuildsTrusted,
    /// Register pipelines.
    #[serde(rename = "pipelines:write")]
    PipelinesWrite,
    /// See agents.
    #[serde(rename = "agents:read")]
    AgentsRead,
    /// Drain, resume, revoke agents; make join tokens of existing pools.
    #[serde(rename = "agents:write")]
    AgentsWrite,
    /// Make and change pools.
    #[serde(rename = "pools:write")]
    PoolsWrite,
    /// Read blobs.
    #[serde(rename = "cache:read")]
    CacheRead,
    /// Write blobs.
    #[serde(rename = "cache:write")]
    CacheWrite,
    /// Read images.
    #[serde(rename = "images:read")]
    ImagesRead,
    /// Write images.
    #[serde(rename = "images:write")]
    ImagesWrite,
    /// Set secrets.
    #[serde(rename = "secrets:write")]
    SecretsWrite,
    /// Everything.
    #[serde(rename = "admin")]
    Admin,
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
