//! Blobs on their way into a job: through the agent's cache, where the next job finds them, or past it where they are large.

use std::io::Read as _;

use windlass_cache::{Blob, BlobReader};
use windlass_protocol::limits::HANDS_CHUNK_BYTES;
use windlass_protocol::{Cause, Digest, Namespace};

use crate::job_api::Shared;
use crate::job_api::account::Account;
use crate::job_api::door::Party;

/// A file up to this size comes through the agent's cache; a larger one past it.
pub(super) const CACHED_MAX_BYTES: u64 = 64 << 20;

/// Files that are fetched together.
pub(super) const GROUP_MAX_FILES: usize = 256;
/// Their bytes.
pub(super) const GROUP_MAX_BYTES: u64 = 64 << 20;

/// Times that a small file is fetched, if the cache is so full that it is gone before it is read.
const TRIES: u32 = 3;

/// Brings blobs into the agent's cache, and holds each there; `None` where the cache has no room for it.
pub(super) async fn fetch(
    party: &Party,
    shared: &Shared,
    namespace: &Namespace,
    digests: &[Digest],
) -> Result<Vec<Option<Blob>>, Cause> {
    let mut blobs: Vec<Option<Blob>> = digests.iter().map(|_| None).collect();
    for _ in 0..TRIES {
        let missing = digests.iter().zip(&blobs).filter(|(_, blob)| blob.is_none());
        let missing: Vec<Digest> = missing.map(|(digest, _)| *digest).collect();
        if missing.is_empty() {
            break;
        }
        shared.bulk.fetch(&party.spec, &party.right, namespace, missing).await?;
        for (digest, blob) in digests.iter().zip(&mut blobs).filter(|(_, blob)| blob.is_none()) {
            *blob = shared.bulk.cached(namespace, *digest).await?;
        }
    }
    Ok(blobs)
}

/// The next bytes of a blob, read in the job's turn; none is its end.
pub(super) async fn next_piece(account: &Account, mut reader: BlobReader) -> std::io::Result<(Vec<u8>, BlobReader)> {
    let read = account.work(move || {
        let mut piece = vec![0; HANDS_CHUNK_BYTES];
        let read = reader.read(&mut piece)?;
        piece.truncate(read);
        Ok::<_, std::io::Error>((piece, reader))
    });
    read.await.map_err(std::io::Error::other)?
}
