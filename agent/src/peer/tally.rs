//! How blobs and chunks that were wanted were come by: counted since the agent's start, told with each beat.

use std::sync::atomic::{AtomicU64, Ordering};

use windlass_protocol::message::CacheUse;

/// Counts that only rise.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) disk_hits: AtomicU64,
    pub(crate) disk_misses: AtomicU64,
    pub(crate) peer_hits: AtomicU64,
    pub(crate) peer_misses: AtomicU64,
    pub(crate) peer_failures: AtomicU64,
}

impl Tally {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// All of them now.
    pub(crate) fn counts(&self) -> CacheUse {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheUse {
            disk_hits: read(&self.disk_hits),
            disk_misses: read(&self.disk_misses),
            peer_hits: read(&self.peer_hits),
            peer_misses: read(&self.peer_misses),
            peer_failures: read(&self.peer_failures),
        }
    }
}
