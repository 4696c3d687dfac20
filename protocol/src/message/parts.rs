//! Storing large blobs of jobs by their chunks: what is said on the stream of a [`super::BulkAsk::Parts`], in turns.
//!
//! The coordinator tells which of the offered blobs are to be cut. For each of them, in order: the agent sends its manifest,
//! the coordinator tells the places of the chunks that it lacks for that namespace, the agent sends those, and the coordinator
//! says that the blob is durable. What did not come so is offered whole afterwards ([`super::BulkAsk::Store`]).

use rkyv::{Archive, Deserialize, Serialize};

use super::StoreRefused;
use super::validate::{Invalid, Validate, at_most, require};
use crate::limits::{CHUNK_MAX_BYTES, DETAIL_MAX_BYTES, PARTS_CHUNKS_MAX, PARTS_MANIFEST_MAX_BYTES, STORE_MAX_BLOBS};

/// What the coordinator says.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum PartsAnswer {
    /// Once, first: these of the offered blobs are to be cut, by their places in the offer, in order. The others are there, or
    /// nothing that may be seen with them has anything of theirs.
    Cut(Vec<u32>),
    /// After a manifest: the chunks at these places of it are to be sent, each once, in any order.
    Lacks(Vec<u32>),
    /// After a manifest: too little of the blob is there; it is to be sent whole.
    Whole,
    /// After the last chunk: the blob is durable.
    Stored,
    /// This blob is not taken so, and nothing more of the offer.
    Refused {
        /// For programs.
        code: StoreRefused,
        /// For people.
        detail: String,
    },
}

/// What the agent says; the raw bytes follow it, unframed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum PartHeader {
    /// So many bytes of the next blob's manifest follow.
    Manifest {
        /// The manifest's length.
        bytes: u64,
    },
    /// The next blob is not offered so; it will be sent whole.
    Passed,
    /// A chunk follows: a zstd frame where the bytes are fewer than the manifest says that the chunk has.
    Chunk {
        /// Its place in the manifest.
        place: u32,
        /// How many bytes follow.
        bytes: u32,
    },
}

impl Validate for PartsAnswer {
    fn validate(&self) -> Result<(), Invalid> {
        let rising = |places: &Vec<u32>| places.is_sorted_by(|a, b| a < b);
        match self {
            Self::Cut(places) => {
                require(places.len() <= STORE_MAX_BLOBS, "parts.cut", "there are at most 8000")?;
                require(rising(places), "parts.cut", "each place comes once, in order")
            }
            Self::Lacks(places) => {
                require(places.len() <= PARTS_CHUNKS_MAX, "parts.lacks", "a manifest of 4 MiB names no more chunks")?;
                require(rising(places), "parts.lacks", "each place comes once, in order")
            }
            Self::Whole | Self::Stored => Ok(()),
            Self::Refused { code: _, detail } => at_most("parts.detail", detail, DETAIL_MAX_BYTES),
        }
    }
}

impl Validate for PartHeader {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Manifest { bytes } => {
                let sized = (1..=PARTS_MANIFEST_MAX_BYTES as u64).contains(bytes);
                require(sized, "parts.manifest", "a manifest that is offered has at most 4 MiB")
            }
            Self::Passed => Ok(()),
            Self::Chunk { place: _, bytes } => {
                let sized = (1..=CHUNK_MAX_BYTES).contains(&(*bytes as usize));
                require(sized, "parts.chunk", "a chunk has at most 2 MiB")
            }
        }
    }
}
