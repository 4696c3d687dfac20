//! Keeps a lazy store below its cap.
//!
//! Large blobs leave one by one, with those of their chunks that no other holds, small ones a segment at a time, whichever was not used for longer. A segment's blobs
//! that were used since they were written, or are pinned, move to the last segment first and have to be used again to
//! stay once more. Grants that only a dropped segment knew are gone after a restart: such a blob is absent there and
//! fetched again.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use windlass_protocol::Digest;

use crate::appender::Item;
use crate::chunk::listing::Listing;
use crate::error::{Fault, OrFault as _};
use crate::index::{Entry, NamespaceNo, Place};
use crate::segment::{self, Check, Record};
use crate::store::{Durability, Shared};

/// What can leave, and when it was used last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Large(Digest),
    Segment(u32),
}

impl Shared {
    /// Evicts down to nine tenths of the cap where the store is past it.
    pub(crate) fn evict_where_full(&self) -> Result<(), Fault> {
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
    pub(crate) fn evict_for(&self, bytes: u64) -> Result<bool, Fault> {
        if self.options.durability != Durability::Lazy || self.options.capacity_bytes.is_none() {
            return Ok(false);
        }
        let Ok(_one_at_a_time) = self.removal.try_lock() else { return Ok(false) };
        let before = self.disk_bytes();
        self.evict_to(before.saturating_sub(bytes))?;
        Ok(self.disk_bytes() < before)
    }

    fn evict_to(&self, target_bytes: u64) -> Result<(), Fault> {
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
        let mut newest: HashMap<u32, u64> =
            segments.into_iter().filter(|number| Some(*number) != active).map(|number| (number, 0)).collect();
        let mut victims = Vec::new();
        let index = self.index();
        for (digest, entry) in index.iter() {
            match entry.place {
                Place::Large { .. } | Place::Chunked { .. } if !entry.pinned() => {
                    victims.push((entry.last_used(), Victim::Large(*digest)));
                }
                Place::Large { .. } | Place::Chunked { .. } => {}
                Place::Small { segment, .. } => {
                    if let Some(newest) = newest.get_mut(&segment).filter(|_| !entry.hot.load(Ordering::Relaxed)) {
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
        if index.get(digest).is_none_or(Entry::pinned) {
            return Ok(());
        }
        let Some(entry) = index.remove(digest) else { return Ok(()) };
        drop(index);
        self.counters.evicted.fetch_add(1, Ordering::Relaxed);
        let Entry { place, pin, .. } = entry;
        if let Place::Chunked { .. } = place {
            // Else the next start would find the manifest, and miss only then what it names.
            self.void(digest)?;
        }
        self.give_back(digest, place, pin)
    }

    /// Says again what chunk files hold of which a segment says it that goes away.
    fn move_listings(&self, number: u32) -> Result<(), Fault> {
        let file = self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
        let Some(file) = file else { return Ok(()) };
        let path = segment::path(&self.segments_dir(), number);
        let mut lengths = HashMap::new();
        if let Some(salt) = segment::read_salt(&*file).or_fault("reading", &path)? {
            segment::scan(&*file, &salt, Check::Headers, &mut |record| {
                if let Record::Chunks(listing) = record {
                    lengths.insert(listing.file, listing.file_bytes);
                }
            })
            .or_fault("reading", &path)?;
        }
        if lengths.is_empty() {
            return Ok(());
        }
        let _in_order = self.chunks.registering();
        let listings: Vec<_> = self.chunks.table().listings(&lengths).iter().map(Listing::encode).collect();
        let items: Vec<_> = listings.iter().map(|listing| Item::Chunks { listing }).collect();
        self.appender.commit(self.nobody(), &items)
    }

    fn evict_segment(&self, number: u32) -> Result<(), Fault> {
        let here: Vec<(Digest, Place, Vec<NamespaceNo>, bool)> = {
            let index = self.index();
            let of_segment = index.iter().filter(|(_, entry)| entry.place.segment() == number);
            of_segment
                .map(|(digest, entry)| {
                    let stays = entry.pinned() || entry.hot.swap(false, Ordering::Relaxed);
                    (*digest, entry.place, entry.seen_by().to_vec(), stays)
                })
                .collect()
        };
        self.move_listings(number)?;
        for (digest, place, seen_by, stays) in here {
            let Some((first, others)) = seen_by.split_first() else { continue };
            match place {
                Place::Large { bytes, .. } => {
                    self.appender.commit(*first, &[Item::MovedLarge { digest, bytes }])?;
                }
                Place::Chunked { offset, bytes, .. } => {
                    let Some(manifest) = self.read_manifest(&digest, number, offset)? else { continue };
                    let manifest = manifest.encode();
                    self.appender.commit(*first, &[Item::MovedManifest { digest, manifest: &manifest, bytes }])?;
                }
                Place::Small { offset, bytes, .. } if stays => {
                    let Some(bytes) = self.read_small(number, offset, bytes)? else { continue };
                    self.appender.commit(*first, &[Item::Moved { digest, bytes: &bytes }])?;
                }
                Place::Small { .. } => {
                    self.index_mut().remove(&digest);
                    self.counters.evicted.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
            for other in others {
                self.appender.commit(*other, &[Item::MovedGrant { digest }])?;
            }
        }
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        let path = segment::path(&self.segments_dir(), number);
        self.vfs.remove(&path).map_err(|e| Fault::io("removing", &path, e))
    }
}
