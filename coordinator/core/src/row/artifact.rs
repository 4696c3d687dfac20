//! What people add to a build's artifacts; jobs add theirs by their right.

use windlass_protocol::message::NewArtifact;
use windlass_protocol::{AttemptId, BuildId};

use super::BuildRows;

/// An artifact that a person has uploaded. Its bytes are on the shelf of the build's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutArtifact {
    /// Of which build; it may be over.
    pub build: BuildId,
    /// Of which attempt of its jobs.
    pub attempt: AttemptId,
    /// What it is.
    pub artifact: NewArtifact,
    /// Its rows, if it has left memory ([`crate::Rejected::NotInMemory`] asks for them). Who counts in them what there is lets
    /// nobody else do the same until this is done.
    pub rows: Option<Box<BuildRows>>,
}
