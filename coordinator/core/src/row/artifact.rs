//! Artifacts: their rows, and what people add to a build's; jobs add theirs by their right.

use serde::{Deserialize, Serialize};
use windlass_protocol::{ArtifactId, AttemptId, BuildId, Digest, JobId, Namespace, WallMs};

use super::{Actor, BuildRows, Output, PinRow};

/// An artifact: a file of a job that outlives it. Its bytes are a blob on the namespace's shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRow {
    /// Its id.
    pub id: ArtifactId,
    /// Its build.
    pub build: BuildId,
    /// Its job.
    pub job: JobId,
    /// The attempt that uploaded it.
    pub attempt: AttemptId,
    /// Its path in the build, with `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its bytes: the blob's name.
    pub digest: Digest,
    /// SHA-1 of its bytes, in hex.
    pub sha1: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Such as `text/plain`.
    pub content_type: String,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// Its build's, whose shelf has the blob.
    pub namespace: Namespace,
    /// When it was added.
    pub created_at: WallMs,
    /// When it goes.
    pub expires_at: WallMs,
    /// The person who added it; `None`: the job itself.
    #[serde(default)]
    pub by: Option<Actor>,
}

impl ArtifactRow {
    /// As readers see it: it goes when its time is over, and not before its build's pin ends.
    #[must_use]
    pub fn held_by(mut self, pin: Option<&PinRow>) -> Self {
        self.expires_at = self.expires_at.max(pin.map_or(self.expires_at, PinRow::end));
        self
    }
}

/// An artifact that a person has uploaded. Its bytes are on the shelf of the build's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutArtifact {
    /// Of which build; it may be over.
    pub build: BuildId,
    /// Of which attempt of its jobs.
    pub attempt: AttemptId,
    /// What it is.
    pub artifact: Output,
    /// Its rows, if it has left memory ([`crate::Rejected::NotInMemory`] asks for them). Who counts in them what there is lets
    /// nobody else do the same until this is done.
    pub rows: Option<Box<BuildRows>>,
}
