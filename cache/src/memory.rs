//! Small blobs in memory, as they were checked: those that are asked for again (S3-FIFO, quick_cache).
//!
//! Only bytes lie here, by their name, and nothing that says who sees them: whoever asks was let in by the index before. So
//! nothing has to be taken out when a blob goes, and bytes that are found are right whatever happened on the disk since.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use windlass_protocol::Digest;
use windlass_protocol::limits::{MEMORY_BLOB_BYTES, MEMORY_ROW_BYTES};

/// The memory of a store.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Nothing for a store that keeps nothing.
    blobs: Option<Cache<Digest, Bytes, Weight>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What came of it since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Small blobs that were read from it.
    pub hits: u64,
    /// Small blobs that were read from the disk.
    pub misses: u64,
    /// Bytes in it now, what it takes to find them included.
    pub bytes: u64,
}

/// What a blob takes, with what it takes to find it.
#[derive(Debug, Clone)]
struct Weight;

impl Weighter<Digest, Bytes> for Weight {
    fn weight(&self, _: &Digest, blob: &Bytes) -> u64 {
        blob.len() as u64 + MEMORY_ROW_BYTES
    }
}

impl Memory {
    /// One that holds so many bytes, what it takes to find them included.
    pub(crate) fn new(bytes: u64) -> Self {
        let blobs = usize::try_from(bytes / MEMORY_BLOB_BYTES).unwrap_or(usize::MAX);
        let blobs = (bytes > 0).then(|| Cache::with_weighter(blobs, bytes, Weight));
        Self { blobs, hits: AtomicU64::default(), misses: AtomicU64::default() }
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<Bytes> {
        let found = self.blobs.as_ref()?.get(digest);
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps bytes that were compared with their name, until others are asked for more often.
    pub(crate) fn keep(&self, digest: Digest, bytes: Bytes) {
        if let Some(blobs) = &self.blobs {
            blobs.insert(digest, bytes);
        }
    }

    pub(crate) fn used(&self) -> MemoryUse {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bytes = self.blobs.as_ref().map_or(0, Cache::weight);
        MemoryUse { hits: count(&self.hits), misses: count(&self.misses), bytes }
    }
}
