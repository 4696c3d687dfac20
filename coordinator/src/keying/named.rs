//! Blobs that a step names by their digests: each found within what its build sees (I12), among sources and among artifacts.
//!
//! One that nobody has and one that others have are told in the same words.

use std::collections::BTreeMap;

use windlass_cache::tree::mode_of;
use windlass_cache::{Node, Sha256Digest, Store};
use windlass_pipeline::graph::{BlobName, NamedBlob};
use windlass_protocol::{Digest, Namespace, Shelf};

use super::prune::TreeError;

/// A blob that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    /// Its name here, however the step names it.
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) executable: bool,
}

impl Named {
    /// As a file of a step.
    pub(super) const fn node(self) -> Node {
        let mode = mode_of(self.executable);
        Node::File { digest: self.digest, len: self.bytes, mode }
    }
}

/// Finds them all, by path; from then on the build sees each among its sources, and each counts as used.
pub(super) fn find(
    store: &Store,
    namespace: &Namespace,
    asked: &[NamedBlob],
) -> Result<BTreeMap<String, Named>, TreeError> {
    let mut found = BTreeMap::new();
    for blob in asked {
        let unseen = || TreeError::Unnamed { path: blob.path.clone(), digest: blob.digest.to_string() };
        let (digest, bytes) = look(store, namespace, &blob.digest)?.ok_or_else(unseen)?;
        found.insert(blob.path.clone(), Named { digest, bytes, executable: blob.executable });
    }
    Ok(found)
}

/// A blob and its length. What lies among the artifacts comes among the sources, where a step's files are read.
fn look(store: &Store, namespace: &Namespace, name: &BlobName) -> Result<Option<(Digest, u64)>, TreeError> {
    let shelf = namespace.on(Shelf::Artifacts);
    for place in [namespace, &shelf] {
        let digest = match name {
            BlobName::Blake3(digest) => Some(*digest),
            BlobName::Sha256(bytes) => store.by_sha256(place, &Sha256Digest(*bytes)),
        };
        let Some(digest) = digest else { continue };
        let Some(bytes) = store.blob_len(place, &digest) else { continue };
        let is_there = place == namespace || store.grant(namespace, &[digest])?.is_empty();
        // Whoever asks uses it: it does not go as what nobody needs, though all its steps are hits.
        if is_there && store.missing(namespace, &[digest]).is_empty() {
            return Ok(Some((digest, bytes)));
        }
    }
    Ok(None)
}
