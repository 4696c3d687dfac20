//! A flat table of blobs by digest: 52 bytes each, and some 7 to find it by.
//!
//! Rows lie one after the other; an open-addressed array of their positions finds them. Both are split in 256, so that what
//! grows while others wait is a 256th of it. Digests are chosen by strangers: the hash is keyed (std's `RandomState`).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use windlass_protocol::Digest;

const SHARDS: usize = 256;

/// A position that is free.
const FREE: u32 = u32::MAX;

/// One stored blob.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) digest: Digest,
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Of a small blob its length, of one in chunks that of its manifest.
    pub(super) bytes: u32,
    /// The set of namespaces that see it, and above that the flags.
    pub(super) set: AtomicU32,
    pub(super) used: AtomicU32,
}

impl Row {
    pub(super) fn has(&self, flag: u32) -> bool {
        self.set.load(Ordering::Relaxed) & flag != 0
    }

    pub(super) fn raise(&self, flag: u32) {
        if !self.has(flag) {
            self.set.fetch_or(flag, Ordering::Relaxed);
        }
    }

    /// Says whether it was up.
    pub(super) fn lower(&self, flag: u32) -> bool {
        self.set.fetch_and(!flag, Ordering::Relaxed) & flag != 0
    }
}

#[derive(Debug, Default)]
struct Shard {
    rows: Vec<Row>,
    /// Positions in `rows`; a power of two of them, or none.
    places: Vec<u32>,
}

/// How far somebody has walked through the table. Within a shard the last row comes first: what takes the place of a row that
/// goes was shown before.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    shard: usize,
    /// Rows of the shard that are still to come; none where it was not begun.
    left: Option<usize>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    shards: Vec<Shard>,
    key: RandomState,
    len: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), key: RandomState::new(), len: 0 }
    }
}

fn low(hash: u64) -> usize {
    usize::try_from(hash & u64::from(u32::MAX)).unwrap_or_default()
}

impl Shard {
    fn mask(&self) -> usize {
        self.places.len().wrapping_sub(1)
    }

    fn row(&self, place: usize) -> Option<&Row> {
        let position = *self.places.get(place)?;
        self.rows.get(position as usize)
    }

    /// Where the digest's position stands in `places`, or the free place where it would.
    fn find(&self, hash: u64, digest: &Digest) -> Option<usize> {
        let mask = self.mask();
        let mut place = low(hash) & mask;
        // One place in eight is free at least.
        while let Some(row) = self.row(place) {
            if row.digest == *digest {
                return Some(place);
            }
            place = (place + 1) & mask;
        }
        (!self.places.is_empty()).then_some(place)
    }

    fn grow(&mut self, key: &RandomState) {
        let len = (self.places.len() * 2).max(8);
        self.places.clear();
        self.places.resize(len, FREE);
        for (position, row) in (0..).zip(&self.rows) {
            let mut place = low(key.hash_one(row.digest)) & (len - 1);
            while self.places.get(place).is_some_and(|taken| *taken != FREE) {
                place = (place + 1) & (len - 1);
            }
            if let Some(free) = self.places.get_mut(place) {
                *free = position;
            }
        }
    }

    /// Frees a place, and moves those up that stand further on only because it was taken.
    fn vacate(&mut self, key: &RandomState, mut hole: usize) {
        let mask = self.mask();
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let Some(row) = self.row(place) else { break };
            let home = low(key.hash_one(row.digest)) & mask;
            if (place.wrapping_sub(home) & mask) >= (place.wrapping_sub(hole) & mask) {
                self.places.swap(hole, place);
                hole = place;
            }
        }
        if let Some(place) = self.places.get_mut(hole) {
            *place = FREE;
        }
    }
}

impl Table {
    fn at(&self, digest: &Digest) -> (usize, u64) {
        let hash = self.key.hash_one(digest);
        (usize::try_from(hash >> 56).unwrap_or_default(), hash)
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&Row> {
        let (shard, hash) = self.at(digest);
        let shard = self.shards.get(shard)?;
        shard.row(shard.find(hash, digest)?)
    }

    pub(super) fn get_mut(&mut self, digest: &Digest) -> Option<&mut Row> {
        let (shard, hash) = self.at(digest);
        let shard = self.shards.get_mut(shard)?;
        let position = *shard.places.get(shard.find(hash, digest)?)?;
        shard.rows.get_mut(position as usize)
    }

    /// Adds a row whose digest has none.
    pub(super) fn insert(&mut self, row: Row) {
        let (shard, hash) = self.at(&row.digest);
        let Some(shard) = self.shards.get_mut(shard) else { return };
        if (shard.rows.len() + 1) * 8 > shard.places.len() * 7 {
            shard.grow(&self.key);
        }
        if shard.rows.len() == shard.rows.capacity() {
            // A quarter more at a time: what is reserved and not used is memory, too.
            shard.rows.reserve_exact((shard.rows.len() / 4).max(8));
        }
        let position = u32::try_from(shard.rows.len()).unwrap_or(FREE);
        debug_assert!(shard.find(hash, &row.digest).is_some_and(|place| shard.row(place).is_none()));
        if let Some(place) = shard.find(hash, &row.digest).and_then(|place| shard.places.get_mut(place)) {
            *place = position;
            shard.rows.push(row);
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, digest: &Digest) -> Option<Row> {
        let (shard, hash) = self.at(digest);
        let shard = self.shards.get_mut(shard)?;
        let place = shard.find(hash, digest)?;
        let position = *shard.places.get(place).filter(|position| **position != FREE)?;
        shard.vacate(&self.key, place);
        // The last row takes the free position.
        let last = u32::try_from(shard.rows.len().checked_sub(1)?).unwrap_or(FREE);
        if last != position
            && let Some(moved) = shard.rows.last().map(|row| row.digest)
            && let Some(place) = shard.find(self.key.hash_one(moved), &moved)
            && let Some(place) = shard.places.get_mut(place)
        {
            *place = position;
        }
        self.len -= 1;
        Some(shard.rows.swap_remove(position as usize))
    }

    /// Shows up to `rows` rows; `false` where none is left.
    pub(super) fn walk(&self, cursor: &mut Cursor, rows: usize, show: &mut dyn FnMut(&Row)) -> bool {
        let mut more = rows;
        while let Some(shard) = self.shards.get(cursor.shard) {
            let left = cursor.left.unwrap_or(usize::MAX).min(shard.rows.len());
            let piece = left.min(more);
            shard.rows.get(left - piece..left).unwrap_or_default().iter().rev().for_each(&mut *show);
            more -= piece;
            if piece < left {
                cursor.left = Some(left - piece);
                return true;
            }
            *cursor = Cursor { shard: cursor.shard + 1, left: None };
        }
        false
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Row> {
        self.shards.iter().flat_map(|shard| &shard.rows)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_table_is_a_map_whatever_is_added_and_removed() {
        let (mut table, mut map) = (Table::default(), HashMap::new());
        let mut state = 1_u32;
        for round in 0..200_000_u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let digest = Digest::of(&((state >> 16) % 20_000).to_le_bytes());
            if state.is_multiple_of(2) && !map.contains_key(&digest) {
                let (set, used) = (AtomicU32::new(0), AtomicU32::new(0));
                table.insert(Row { digest, segment: round, offset: 0, bytes: 0, set, used });
                map.insert(digest, round);
            } else {
                assert_eq!(table.remove(&digest).map(|row| row.segment), map.remove(&digest));
            }
            assert_eq!(table.get(&digest).map(|row| row.segment), map.get(&digest).copied());
        }
        assert_eq!(table.len(), map.len());
        assert!(table.iter().all(|row| map.get(&row.digest) == Some(&row.segment)));
        let (mut cursor, mut shown) = (Cursor::default(), HashMap::new());
        while table.walk(&mut cursor, 7, &mut |row| {
            shown.insert(row.digest, row.segment);
        }) {
            // What goes while somebody walks takes nothing else out of his sight.
            let gone = Digest::of(&(state % 20_000).to_le_bytes());
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            table.remove(&gone);
            map.remove(&gone);
        }
        assert!(map.iter().all(|(digest, round)| shown.get(digest) == Some(round)), "all that stayed was shown");
        for (digest, round) in &map {
            assert_eq!(table.get_mut(digest).map(|row| row.segment), Some(*round));
        }
    }
}
