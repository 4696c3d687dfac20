//! Fetching blobs: what opens a stream of a bulk connection, or of one between two agents of a zone, and what stands before
//! the bytes that answer it.

use rkyv::{Archive, Deserialize, Serialize};

use super::StoreBlobs;
use super::grant::{AskGrant, SignedGrant};
use super::validate::{Invalid, Validate, require};
use crate::digest::Digest;
use crate::id::{AttemptId, BuildId};
use crate::job::Epoch;
use crate::limits::{
    BLOB_MAX_BYTES, CHUNK_MAX_BYTES, FETCH_MAX_CHUNKS, MANIFEST_MAX_BYTES, MISSING_MAX_DIGESTS, PARTS_MIN_BYTES,
};

/// What opens a stream on [`crate::version::ALPN_BULK`]: one request on each. The lease is the capability.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum BulkAsk {
    /// The agent wants blobs; each comes after a [`BlobHeader`].
    Fetch(FetchBlobs),
    /// The agent has blobs; a [`super::StoreAnswer`] says which of them are wanted, and another one how it came out.
    Store(StoreBlobs),
    /// The agent wants to show its peers what it may read; a [`SignedGrant`] answers it.
    Grant(AskGrant),
    /// The agent has large blobs, and sends what of their chunks is missing; a [`super::PartsAnswer`] says of which. Only to who told
    /// [`crate::version::PARTS_1`].
    Parts(StoreBlobs),
}

/// Asks for blobs; the only request on [`crate::version::ALPN_PEER`]. What a job of the build may see is found, wherever it was
/// kept.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct FetchBlobs {
    /// By what right.
    pub by: Claim,
    /// What is wanted.
    pub wanted: Wanted,
}

/// By what right blobs are fetched: its namespace decides what is visible.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum Claim {
    /// An attempt that the agent holds; to a coordinator only.
    Lease {
        /// For which build.
        build: BuildId,
        /// The attempt that the agent holds.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
    },
    /// What a coordinator signed: for an agent that asks a peer, and for the peer that asks the coordinator in its place.
    Grant(Box<SignedGrant>),
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum Wanted {
    /// Blobs, each whole; at most [`MISSING_MAX_DIGESTS`]. The answers come in this order.
    Whole(Vec<Digest>),
    /// The same, but of a large blob its manifest, after [`BlobHeader::Manifest`].
    Parts(Vec<Digest>),
    /// Chunks of a large blob, each like a blob; at most [`FETCH_MAX_CHUNKS`].
    Chunks {
        /// The blob.
        blob: Digest,
        /// Places in its manifest.
        places: Vec<u32>,
    },
}

/// Before each blob that answers a [`FetchBlobs`]; the raw bytes follow it, unframed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum BlobHeader {
    /// So many bytes follow.
    Found {
        /// The blob's length.
        bytes: u64,
    },
    /// The blob is not there, or not for this build.
    Absent,
    /// It is large, and so many bytes of its manifest follow.
    Manifest {
        /// The manifest's length.
        bytes: u64,
    },
    /// A peer does not have it and cannot get it, or gives none of this kind: ask the coordinator.
    Elsewhere,
    /// A peer is fetching it; another header for the same blob follows.
    Waiting,
    /// A chunk, and so many bytes of it follow as they are stored: a zstd frame, shorter than the chunk. Only to who told
    /// [`crate::version::CHUNKS_2`].
    Packed {
        /// The frame's length.
        bytes: u64,
    },
}

impl Validate for BulkAsk {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Fetch(fetch) => fetch.validate(),
            Self::Store(store) => store.validate(),
            Self::Grant(ask) => ask.validate(),
            Self::Parts(offer) => {
                offer.validate()?;
                let large = offer.blobs.iter().all(|(_, bytes)| *bytes > PARTS_MIN_BYTES);
                require(large, "parts.bytes", "a blob of 1 MiB or less is sent whole")
            }
        }
    }
}

impl Validate for FetchBlobs {
    fn validate(&self) -> Result<(), Invalid> {
        self.by.validate()?;
        self.wanted.validate()
    }
}

impl Validate for Claim {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Lease { build: _, attempt: _, epoch } => {
                require(epoch.0 > 0, "fetch.epoch", "epoch 0 is never granted")
            }
            Self::Grant(grant) => grant.validate(),
        }
    }
}

impl Validate for Wanted {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Whole(digests) | Self::Parts(digests) => {
                let counted = (1..=MISSING_MAX_DIGESTS).contains(&digests.len());
                require(counted, "fetch.digests", "a request names 1 to 10000 blobs")
            }
            Self::Chunks { blob: _, places } => {
                let counted = (1..=FETCH_MAX_CHUNKS).contains(&places.len());
                require(counted, "fetch.places", "a request names 1 to 1024 chunks")
            }
        }
    }
}

impl Validate for BlobHeader {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Found { bytes } => require(*bytes <= BLOB_MAX_BYTES, "blob.bytes", "a blob has at most 64 GiB"),
            Self::Manifest { bytes } => {
                let sized = *bytes <= MANIFEST_MAX_BYTES as u64;
                require(sized, "blob.bytes", "a manifest has at most 98 MB")
            }
            Self::Packed { bytes } => {
                require((1..CHUNK_MAX_BYTES as u64).contains(bytes), "blob.bytes", "a packed chunk has less than 2 MiB")
            }
            Self::Absent | Self::Elsewhere | Self::Waiting => Ok(()),
        }
    }
}
