//! The floor of free space of a lazy store, which others fill: looked at from time to time, and kept by letting go of blobs.
//!
//! What a store writes itself keeps cap and floor by itself (modules `evict`, `space`). A job that writes to the same disk asks
//! nobody. So the store gives way well before its floor: from half a floor above it on, and until there are two of them.

use std::sync::PoisonError;

use windlass_protocol::limits::{CACHE_FLOOR_PART, FLOOR_PIECE_BYTES, FLOOR_SEGMENT_MIN_BYTES};

use crate::error::{Fault, OrFault as _};
use crate::store::{Durability, Shared, Store};

/// What a look at the disk came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// What others can write before the store has to give way.
    pub headroom_bytes: u64,
    /// What the store let go of.
    pub freed_bytes: u64,
    /// It has to let go of more.
    pub more: bool,
}

impl Store {
    /// The size of the disk that the store is on, in bytes, whoever else uses it.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn disk_size(&self) -> Result<u64, Fault> {
        let shared = &self.shared;
        Ok(shared.vfs.space(&shared.dir).or_fault("measuring the space of", &shared.dir)?.total_bytes)
    }

    /// Looks whether a lazy store is within its cap and its disk's floor, and lets go of what was used least recently where it is
    /// not, [`FLOOR_PIECE_BYTES`] and one blob or segment at most. What is pinned stays.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn keep_floor(&self) -> Result<Look, Fault> {
        let shared = &self.shared;
        let (Durability::Lazy, Some(cap)) = (shared.options.durability, shared.options.capacity_bytes) else {
            return Ok(Look { headroom_bytes: u64::MAX, freed_bytes: 0, more: false });
        };
        let space = shared.vfs.space(&shared.dir).or_fault("measuring the space of", &shared.dir)?;
        let floor = shared.options.floor_bytes.min(space.total_bytes / CACHE_FLOOR_PART);
        // What uploads were promised is as good as written.
        let free = space.free_bytes.saturating_sub(shared.account.reserved_bytes());
        let line = floor + floor / 2;
        let held = shared.disk_bytes();
        let mut target = if free < line { held.saturating_sub(2 * floor - free) } else { held };
        if held > cap {
            target = target.min(cap - cap / 10);
        }
        let headroom_bytes = free.saturating_sub(line);
        if target >= held {
            return Ok(Look { headroom_bytes, freed_bytes: 0, more: false });
        }
        let left = shared.let_go(target.max(held.saturating_sub(FLOOR_PIECE_BYTES)))?;
        Ok(Look { headroom_bytes, freed_bytes: held.saturating_sub(left), more: left > target })
    }
}

impl Shared {
    /// Lets go until so many bytes are left, of the segment that grows too where that is what there is. Answers how many are left.
    fn let_go(self: &std::sync::Arc<Self>, target_bytes: u64) -> Result<u64, Fault> {
        // Who evicts or compacts already holds it for as long as a piece takes.
        let _one_at_a_time = self.removal.lock().unwrap_or_else(PoisonError::into_inner);
        self.evict_to(target_bytes)?;
        if self.disk_bytes() > target_bytes && self.appender.retire(FLOOR_SEGMENT_MIN_BYTES) {
            self.evict_to(target_bytes)?;
        }
        Ok(self.disk_bytes())
    }
}
