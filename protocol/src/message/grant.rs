//! Grants: what an agent may read, in words that its coordinator signed, so that its peers can believe it.
//!
//! ```text
//! "windlass grant v1\0"   agent 16   trust u8   expires u64   project u16 + text   overlay u8 + u16 + text   zone u16 + text
//! ```
//! That is what is signed (little-endian): one encoding for each grant, which no certificate and no message begins like.

use rkyv::{Archive, Deserialize, Serialize};

use super::validate::{Invalid, Validate, name, require};
use crate::id::{AgentId, AttemptId, BuildId};
use crate::job::Epoch;
use crate::limits::{PEER_ADDRESS_MAX_BYTES, PEERS_MAX};
use crate::namespace::{Namespace, Trust};
use crate::time::WallMs;

/// Asks for a grant, by the right to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct AskGrant {
    /// For which build.
    pub build: BuildId,
    /// The attempt that the agent holds.
    pub attempt: AttemptId,
    /// By which right.
    pub epoch: Epoch,
}

/// What an agent may read, and until when: as much as the lease that it was given with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Grant {
    /// Who may read.
    pub agent: AgentId,
    /// From whom: peers of this zone,
    pub zone: String,
    /// and of this trust.
    pub trust: Trust,
    /// What this namespace sees, on all of its shelves.
    pub namespace: Namespace,
    /// Until then, by the coordinator's clock.
    pub expires_at: WallMs,
}

/// Agents that share what they fetch: those of one zone and one trust (docs/design/033).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheZone {
    /// Their zone.
    pub zone: String,
    /// Their trust.
    pub trust: Trust,
}

/// A grant with its coordinator's signature.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SignedGrant {
    /// What is granted.
    pub grant: Grant,
    /// Ed25519 over [`Grant::statement`].
    pub signature: [u8; 64],
}

/// An agent that serves others of its zone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Peer {
    /// Who it is; its certificate has to say the same.
    pub agent: AgentId,
    /// `IP:PORT`, UDP.
    pub address: String,
}

impl Grant {
    /// Among whom it is good.
    #[must_use]
    pub fn cache_zone(&self) -> CacheZone {
        CacheZone { zone: self.zone.clone(), trust: self.trust }
    }

    /// What is signed.
    #[must_use]
    pub fn statement(&self) -> Vec<u8> {
        let mut out = b"windlass grant v1\0".to_vec();
        let text = |out: &mut Vec<u8>, text: &str| {
            // Names are short: `validate` is asked first on either side.
            out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        out.extend_from_slice(self.agent.as_bytes());
        out.push(match self.trust {
            Trust::Untrusted => 0,
            Trust::Trusted => 1,
        });
        out.extend_from_slice(&self.expires_at.0.to_le_bytes());
        text(&mut out, &self.namespace.project);
        out.push(u8::from(self.namespace.overlay.is_some()));
        text(&mut out, self.namespace.overlay.as_deref().unwrap_or_default());
        text(&mut out, &self.zone);
        out
    }
}

impl Validate for AskGrant {
    fn validate(&self) -> Result<(), Invalid> {
        require(self.epoch.0 > 0, "grant.epoch", "epoch 0 is never granted")
    }
}

impl Validate for SignedGrant {
    fn validate(&self) -> Result<(), Invalid> {
        let grant = &self.grant;
        name("grant.zone", &grant.zone)?;
        name("grant.namespace", &grant.namespace.project)?;
        grant.namespace.overlay.as_ref().map_or(Ok(()), |overlay| name("grant.namespace", overlay))
    }
}

impl Validate for Peer {
    fn validate(&self) -> Result<(), Invalid> {
        address("peer.address", &self.address)
    }
}

/// Whether a text is an address that a peer can be reached at.
pub(super) fn address(field: &'static str, text: &str) -> Result<(), Invalid> {
    let parsed = text.parse::<std::net::SocketAddr>();
    let good = text.len() <= PEER_ADDRESS_MAX_BYTES
        && parsed.is_ok_and(|at| at.port() > 0 && !at.ip().is_unspecified() && !at.ip().is_multicast());
    require(good, field, "it is IP:PORT of one machine")
}

/// Whether a list of peers is one.
pub(super) fn peers(field: &'static str, peers: &[Peer]) -> Result<(), Invalid> {
    require(peers.len() <= PEERS_MAX, field, "there are at most 64")?;
    let sorted = peers.is_sorted_by(|a, b| a.agent < b.agent);
    require(sorted, field, "each agent stands in it once, in order")?;
    peers.iter().try_for_each(Validate::validate)
}
