//! Bringing ahead: what a coordinator has an agent fetch before a job wants it (docs/design/047).
//!
//! The coordinator opens a stream of the agent's control connection, only where the agent told
//! [`crate::version::BRING_1`]: a [`Bring`], and a new [`SignedGrant`] for each that is about to end. The agent tells
//! [`Brought`] until it is done. The end of either direction ends the order.

use rkyv::{Archive, Deserialize, Serialize};

use super::grant::SignedGrant;
use super::validate::{Invalid, Validate, require};
use crate::digest::Digest;
use crate::limits::{BRING_BLOBS_MAX, BRING_MAX_BYTES, BRING_TREES_MAX, DETAIL_MAX_BYTES};

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Bring {
    /// By what right it fetches, and for which namespace of its cache.
    pub grant: SignedGrant,
    /// Root directories, each with all that is below it.
    pub trees: Vec<Digest>,
    /// Blobs.
    pub blobs: Vec<Digest>,
    /// The bytes of all orders that belong together: an agent without room for them brings nothing.
    pub bytes: u64,
}

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct BroughtSoFar {
    /// Blobs of it that are here, each once.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs of it that nobody gave.
    pub absent: u64,
    /// Blobs and chunks that came.
    pub came: u64,
}

/// What an agent says of an order.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum Brought {
    /// So far; said again and again.
    Some(BroughtSoFar),
    /// That is all of it.
    All(BroughtSoFar),
    /// It does not go on.
    Not {
        /// Why, for people.
        detail: String,
    },
}

impl Validate for Bring {
    fn validate(&self) -> Result<(), Invalid> {
        self.grant.validate()?;
        require(self.trees.len() <= BRING_TREES_MAX, "bring.trees", "there are at most 1024")?;
        require(self.blobs.len() <= BRING_BLOBS_MAX, "bring.blobs", "there are at most 10000 in an order")?;
        require(self.bytes <= BRING_MAX_BYTES, "bring.bytes", "they are at most 256 GiB")
    }
}

impl Validate for Brought {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Some(_) | Self::All(_) => Ok(()),
            Self::Not { detail } => {
                require(detail.len() <= DETAIL_MAX_BYTES, "brought.detail", "it is a sentence or two")
            }
        }
    }
}
