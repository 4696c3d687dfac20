//! What an agent says of its machine, as far as it decides the results of steps (docs/design/030).

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "the archived twins and resolvers that rkyv derives carry neither docs nor Debug"
)]

use rkyv::{Archive, Deserialize, Serialize};

use crate::digest::Digest;

/// An agent's machine, as far as it decides the results of steps. Empty texts say nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct HostFacts {
    /// What images run on it, in the words of their indexes: `linux/amd64`, `linux/arm64/v8`.
    pub platform: String,
    /// Operating system, architecture and what the operator's commands print: `NAME: VALUE`, a line each. Machines that say
    /// the same are the same to a step without an image.
    pub system: String,
    /// Of the agent's hooks and what lies beside them; `None` where they cannot be read, or are too many.
    pub hooks: Option<Digest>,
}

impl HostFacts {
    /// The name of all that [`Self::system`] says; `None` where it says nothing.
    #[must_use]
    pub fn system_digest(&self) -> Option<Digest> {
        (!self.system.is_empty()).then(|| Digest::of(self.system.as_bytes()))
    }
}
