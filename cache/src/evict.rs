//! Keeps a lazy store below its cap.
//!
//! Large blobs leave one by one, with those of their chunks that no other holds, small ones a segment at a time, whichever was not used for longer. A segment's blobs
//! that were used since they were written, or are pinned, move to the last segment first (module `compact`) and have to be used
//! again to stay once more.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use windlass_protocol::Digest;

use crate::error::Fault;
use crate::index::{Entry, Place};
use crate::store::{Durability, Shared};

/// What can leave, and when it was used last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Large(Digest),
    Segment(u32),
}

impl Shared {
    /// Evicts down to nine tenths of the cap where the store is past it.
    pub(crate) fn evict_where_full(self: &Arc<Self>) -> Result<(), Fault> {
        let (Durability::Lazy, Some(cap)) = (self.options.durability, self.options.capacity_bytes) else {
            return Ok(());
        };
        if self.disk_bytes() <= cap {
            return Ok(());
        }
        // Somebody who evicts already does it for us.
        let Ok(_one_at_a_time) = self.removal.try_lock() else { return Ok(()) };
        self.evict_to(cap - cap / 10)
    }

    /// Evicts so many bytes from a lazy store whose disk has no room for them; says whether anything went.
    pub(crate) fn evict_for(self: &Arc<Self>, bytes: u64) -> Result<bool, Fault> {
        if self.options.durability != Durability::Lazy || self.options.capacity_bytes.is_none() {
            return Ok(false);
        }
        let Ok(_one_at_a_time) = self.removal.try_lock() else { return Ok(false) };
        let before = self.disk_bytes();
        self.evict_to(before.saturating_sub(bytes))?;
        Ok(self.disk_bytes() < before)
    }

    pub(crate) fn evict_to(self: &Arc<Self>, target_bytes: u64) -> Result<(), Fault> {
        for victim in self.victims() {
            if self.disk_bytes() <= target_bytes {
                break;
            }
            match victim {
                Victim::Large(digest) => self.evict_large(&digest)?,
                Victim::Segment(number) => self.evict_segment(number)?,
            }
        }
        Ok(())
    }

    /// All that can leave, least recently used first: a segment counts as used when its last cold blob was written.
    fn victims(&self) -> Vec<Victim> {
        let active = self.appender.active_number();
        let segments: Vec<u32> = self.segments.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        let mut newest: HashMap<u32, u32> =
            segments.into_iter().filter(|number| Some(*number) != active).map(|number| (number, 0)).collect();
        let mut victims = Vec::new();
        let index = self.index();
        for entry in index.iter() {
            match entry.place {
                Place::Large { .. } | Place::Chunked { .. } if !entry.pinned() => {
                    victims.push((entry.last_used(), Victim::Large(entry.digest())));
                }
                Place::Large { .. } | Place::Chunked { .. } => {}
                Place::Small { segment, .. } => {
                    if let Some(newest) = newest.get_mut(&segment).filter(|_| !entry.hot()) {
                        *newest = (*newest).max(entry.last_used());
                    }
                }
            }
        }
        victims.extend(newest.into_iter().map(|(number, used)| (used, Victim::Segment(number))));
        victims.sort_unstable();
        victims.into_iter().map(|(_, victim)| victim).collect()
    }

    fn evict_large(&self, digest: &Digest) -> Result<(), Fault> {
        // Whoever stores it at this moment would have its record before the one that takes it back.
        let Some(_nobody_stores_it) = self.chunks.try_finishing(*digest) else { return Ok(()) };
        let mut index = self.index_mut();
        if index.get(digest).is_none_or(|entry| entry.pinned()) {
            return Ok(());
        }
        let Some((place, pin)) = index.remove(digest, None) else { return Ok(()) };
        drop(index);
        self.counters.evicted.fetch_add(1, Ordering::Relaxed);
        if let Place::Chunked { .. } = place {
            // Else the next start would find the manifest, and miss only then what it names.
            match self.void(digest) {
                // Others have filled the disk to its end: there is room for the record once the blob is gone.
                Err(fault) if fault.is_full() => {
                    self.give_back(digest, place, pin)?;
                    return self.void(digest).inspect_err(|_| self.chunks.table().doubt());
                }
                voided => voided.inspect_err(|_| self.chunks.table().doubt())?,
            }
        }
        self.give_back(digest, place, pin)
    }

    /// Lets go of a segment's small blobs that were not used since they were written or since eviction passed by, and moves the
    /// rest.
    fn evict_segment(self: &Arc<Self>, number: u32) -> Result<(), Fault> {
        let Some(leaving) = self.leaving(number)? else { return Ok(()) };
        let mut index = self.index_mut();
        let leaves = |entry: &Entry<'_>| {
            let small_and_here = matches!(entry.place, Place::Small { segment, .. } if segment == number);
            small_and_here && !entry.pinned() && !entry.cool()
        };
        let cold: Vec<Digest> = index.iter().filter(leaves).map(|entry| entry.digest()).collect();
        for digest in &cold {
            index.remove(digest, None);
        }
        drop(index);
        self.counters.evicted.fetch_add(cold.len() as u64, Ordering::Relaxed);
        self.empty_segment(leaving)
    }
}
