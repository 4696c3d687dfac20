//! What an agent has of the large inputs of jobs, in few words: names and lengths (docs/design/036).

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "the archived twins and resolvers that rkyv derives carry neither docs nor Debug"
)]

use rkyv::{Archive, Deserialize, Serialize};

use crate::digest::Digest;

/// A large input of jobs, by the first 16 bytes of a BLAKE3. Whoever makes two inputs collide misleads nobody but the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug, PartialEq, Eq, PartialOrd, Ord))]
pub struct InputName([u8; 16]);

impl InputName {
    fn of(kind: &str, name: &[u8]) -> Self {
        let digest = Digest::of(&[kind.as_bytes(), b"\0", name].concat());
        let mut short = [0; 16];
        short.copy_from_slice(&digest.as_bytes()[..16]);
        Self(short)
    }

    /// A source tree, by its root directory.
    #[must_use]
    pub fn tree(root: &Digest) -> Self {
        Self::of("tree", root.as_bytes())
    }

    /// A container image, by a reference as steps write it.
    #[must_use]
    pub fn image(reference: &str) -> Self {
        Self::of("image", reference.as_bytes())
    }
}

/// An input that an agent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Stocked {
    /// Which.
    pub name: InputName,
    /// What it would cost to bring it, in bytes.
    pub bytes: u64,
}

/// What an agent has brought for jobs since its program started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Fetched {
    /// Bytes.
    pub bytes: u64,
    /// While it waited for them, in milliseconds; what was brought at the same time counts twice.
    pub ms: u64,
}
