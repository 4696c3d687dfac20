//! Caches by key: what an entry is, and what is asked about entries (docs/design/026).

use serde::{Deserialize, Serialize};
use windlass_protocol::job::Epoch;
use windlass_protocol::{AttemptId, BuildId, Digest, JobId, Namespace, WallMs};

/// Which entry. Names of a namespace lie together in their order, so that the beginning of a key finds its keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheName {
    /// Whose: that of the build that saved it.
    pub namespace: Namespace,
    /// Of its registry and its paths.
    pub scope: Digest,
    /// Its key.
    pub key: String,
}

/// An entry. But for its last use it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRow {
    /// Its name.
    pub name: CacheName,
    /// The blob on the namespace's shelf that names everything in it.
    pub manifest: Digest,
    /// Its length.
    pub manifest_bytes: u64,
    /// Files in it: blobs that its manifest names, as the coordinator counted them.
    pub files: u64,
    /// Their bytes, and the manifest's.
    pub bytes: u64,
    /// The build that saved it, which may be no more.
    pub build: BuildId,
    /// The job that saved it.
    pub job: JobId,
    /// When it was saved.
    pub created_at: WallMs,
    /// When it was used last, an hour more or less.
    pub used_at: WallMs,
    /// It stays, whoever needs room and however long it is not used.
    #[serde(default)]
    pub pinned: bool,
}

/// What is asked about entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheRequest {
    /// The one that a job may have, if there is any; [`crate::effect::Reply::Cache`].
    Find {
        /// Whose job.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
        /// Of its registry and its paths.
        scope: Digest,
        /// Its key.
        key: String,
        /// Beginnings of keys that will do, the first one first.
        restore_keys: Vec<String>,
    },
    /// Note what a job saved; [`crate::effect::Reply::Cache`] is what stands under its key now, which may be another's.
    Save {
        /// Whose job.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
        /// Of its registry and its paths.
        scope: Digest,
        /// Its key.
        key: String,
        /// The blob that names everything in it; the shell has looked at it and at all that it names.
        manifest: Digest,
        /// Its length.
        manifest_bytes: u64,
        /// Files in it.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Let an entry of a project's trusted builds stay, or no longer.
    Pin {
        /// Which.
        name: CacheName,
        /// Whether it stays.
        pinned: bool,
    },
    /// Let go of an entry that somebody wants gone; nothing happens where it is gone or another by now.
    Remove {
        /// Which.
        name: CacheName,
        /// By the manifest that it had.
        manifest: Digest,
    },
    /// Let go of what nobody has used since.
    Forget {
        /// Since then.
        unused_since: WallMs,
    },
    /// Let go of those whose manifests cannot be read: nobody can be served them, and nobody else could save under their keys.
    Drop {
        /// Which, by the manifests that they had; one that has another by now stays.
        damaged: Vec<(CacheName, Digest)>,
    },
}
