//! Blobs whose chunks came in part when a connection broke: they wait a while for their agent to come back, so that nothing comes
//! twice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use windlass_cache::{Assembly, ChunkManifest};
use windlass_protocol::limits::{PARTS_REST_MS, PARTS_RESTING_MAX};
use windlass_protocol::{AttemptId, Namespace};

/// Whose upload it is, and who will see it.
pub(super) type Owner = (AttemptId, Namespace);

/// All of them; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Resting(Arc<Mutex<Vec<Blob>>>);

#[derive(Debug)]
struct Blob {
    owner: Owner,
    assembly: Arc<Assembly>,
    since: Instant,
}

impl Resting {
    /// What came of this blob for this owner.
    pub(super) fn take(&self, owner: &Owner, manifest: &ChunkManifest) -> Option<Arc<Assembly>> {
        let mut blobs = lock(&self.0);
        let is_it = |blob: &Blob| blob.owner == *owner && blob.assembly.manifest() == manifest;
        let at = blobs.iter().position(is_it)?;
        Some(blobs.remove(at).assembly)
    }

    /// Keeps what came. It goes by itself.
    pub(super) fn put(&self, owner: Owner, assembly: Arc<Assembly>) {
        let mut blobs = lock(&self.0);
        if blobs.len() >= PARTS_RESTING_MAX {
            blobs.remove(0);
        }
        let first = blobs.is_empty();
        blobs.push(Blob { owner, assembly, since: Instant::now() });
        drop(blobs);
        if first {
            tokio::spawn(tidy(Arc::downgrade(&self.0)));
        }
    }
}

fn lock(blobs: &Mutex<Vec<Blob>>) -> MutexGuard<'_, Vec<Blob>> {
    blobs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of those that nobody came back for, until there are none.
async fn tidy(blobs: Weak<Mutex<Vec<Blob>>>) {
    let rest = Duration::from_millis(PARTS_REST_MS);
    loop {
        tokio::time::sleep(rest / 4).await;
        let Some(blobs) = blobs.upgrade() else { return };
        let mut blobs = lock(&blobs);
        blobs.retain(|blob| blob.since.elapsed() < rest);
        if blobs.is_empty() {
            return;
        }
    }
}
