//! Blobs whose chunks came in part when a connection broke: they wait a while for their agent to come back, so that nothing comes
//! twice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use windlass_cache::{Assembly, ChunkManifest};
use windlass_protocol::limits::{PARTS_REST_MS, PARTS_RESTING_MAX};
use windlass_protocol::{AttemptId, Namespace, Trust};

/// Whose upload it is, and who will see it.
pub(super) type Owner = (AttemptId, Namespace);

/// All of them; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Resting(Arc<Mutex<Vec<Blob>>>);

#[derive(Debug)]
struct Blob {
    owner: Owner,
    trust: Trust,
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

    /// Keeps what came; of those of equal trust the one that has waited longest goes for it, where there are too many. It goes by
    /// itself.
    pub(super) fn put(&self, owner: Owner, trust: Trust, assembly: Arc<Assembly>) {
        let mut blobs = lock(&self.0);
        let is_alike = |blob: &Blob| blob.trust == trust;
        let oldest = blobs.iter().position(is_alike);
        let full = blobs.iter().filter(|blob| is_alike(blob)).count() >= PARTS_RESTING_MAX;
        let gone = oldest.filter(|_| full).map(|at| blobs.remove(at));
        let first = blobs.is_empty();
        blobs.push(Blob { owner, trust, assembly, since: Instant::now() });
        drop(blobs);
        let_go(gone.into_iter().collect());
        if first {
            tokio::spawn(tidy(Arc::downgrade(&self.0)));
        }
    }
}

/// Gives back what they hold: files are removed for it.
fn let_go(gone: Vec<Blob>) {
    if !gone.is_empty() {
        tokio::task::spawn_blocking(move || drop(gone));
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
        let gone = blobs.extract_if(.., |blob| blob.since.elapsed() >= rest).collect();
        let none = blobs.is_empty();
        drop(blobs);
        let_go(gone);
        if none {
            return;
        }
    }
}
