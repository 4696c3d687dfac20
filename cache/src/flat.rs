//! A flat table of rows by key: the rows themselves, and some 7 bytes to find each by. It can be copied while it changes.
//!
//! Rows lie one after the other; an open-addressed array of their positions finds them. Both are split in 256, so that what
//! grows or is copied while others wait is a 256th of it. Keys are chosen by strangers: the hash is keyed (std's
//! `RandomState`).
//!
//! A copy is of one moment ([`Table::begin_copy`]). Whoever changes a row after that of a part that was not copied yet keeps it
//! as it was ([`COPY_KEPT_MAX`]).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};

use windlass_protocol::limits::{COPY_KEPT_MAX, COPY_LINK_THREADS};

/// In how many parts a table is.
pub(crate) const SHARDS: usize = 256;

/// A position that is free.
const FREE: u32 = u32::MAX;

/// Fewer rows than this are found again by one thread.
const LINK_ALONE: usize = 100_000;

/// What is in a table.
pub(crate) trait Row: Clone + Debug {
    /// What it is found by.
    type Key: Copy + Eq + Hash + Debug;

    fn key(&self) -> Self::Key;
}

#[derive(Debug)]
struct Shard<R> {
    rows: Vec<R>,
    /// Positions in `rows`; a power of two of them, or none.
    places: Vec<u32>,
}

impl<R> Default for Shard<R> {
    fn default() -> Self {
        Self { rows: Vec::new(), places: Vec::new() }
    }
}

/// Rows of one part that changed since the copy began, as they were.
type Kept<R> = HashMap<<R as Row>::Key, Option<R>>;

/// A copy that is under way.
#[derive(Debug)]
struct Copying<R: Row> {
    /// Nothing for those that were copied.
    shards: Vec<Option<Kept<R>>>,
    kept: usize,
}

/// How far somebody has walked through a table. Within a part the last row comes first: what takes the place of a row that
/// goes was shown before.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Walk {
    shard: usize,
    /// Rows of the part that are still to come; none where it was not begun.
    left: Option<usize>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table<R: Row> {
    shards: Vec<Shard<R>>,
    key: RandomState,
    len: usize,
    copying: Option<Mutex<Copying<R>>>,
}

impl<R: Row> Default for Table<R> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), key: RandomState::new(), len: 0, copying: None }
    }
}

fn low(hash: u64) -> usize {
    usize::try_from(hash & u64::from(u32::MAX)).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: Row> Shard<R> {
    fn mask(&self) -> usize {
        self.places.len().wrapping_sub(1)
    }

    fn row(&self, place: usize) -> Option<&R> {
        let position = *self.places.get(place)?;
        self.rows.get(position as usize)
    }

    /// Where the key's position stands in `places`, or the free place where it would.
    fn find(&self, hash: u64, key: &R::Key) -> Option<usize> {
        let mask = self.mask();
        let mut place = low(hash) & mask;
        // One place in eight is free at least.
        while let Some(row) = self.row(place) {
            if row.key() == *key {
                return Some(place);
            }
            place = (place + 1) & mask;
        }
        (!self.places.is_empty()).then_some(place)
    }

    fn get(&self, hash: u64, key: &R::Key) -> Option<&R> {
        self.row(self.find(hash, key)?)
    }

    /// Finds all rows by so many places, which are a power of two and more than there are rows.
    fn link(&mut self, key: &RandomState, len: usize) {
        self.places.clear();
        self.places.resize(len, FREE);
        for (position, row) in (0..).zip(&self.rows) {
            let mut place = low(key.hash_one(row.key())) & (len - 1);
            while self.places.get(place).is_some_and(|taken| *taken != FREE) {
                place = (place + 1) & (len - 1);
            }
            if let Some(free) = self.places.get_mut(place) {
                *free = position;
            }
        }
    }

    /// Finds all rows that were added by [`Table::push`].
    fn link_all(&mut self, key: &RandomState) {
        let mut len = 8;
        while (self.rows.len() + 1) * 8 > len * 7 {
            len *= 2;
        }
        self.link(key, len);
    }

    /// Frees a place, and moves those up that stand further on only because it was taken.
    fn vacate(&mut self, key: &RandomState, mut hole: usize) {
        let mask = self.mask();
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let Some(row) = self.row(place) else { break };
            let home = low(key.hash_one(row.key())) & mask;
            if (place.wrapping_sub(home) & mask) >= (place.wrapping_sub(hole) & mask) {
                self.places.swap(hole, place);
                hole = place;
            }
        }
        if let Some(place) = self.places.get_mut(hole) {
            *place = FREE;
        }
    }

    fn make_room(&mut self) {
        if self.rows.len() == self.rows.capacity() {
            // A quarter more at a time: what is reserved and not used is memory, too.
            self.rows.reserve_exact((self.rows.len() / 4).max(8));
        }
    }
}

impl<R: Row> Table<R> {
    fn at(&self, key: &R::Key) -> (usize, u64) {
        let hash = self.key.hash_one(key);
        (usize::try_from(hash >> 56).unwrap_or_default(), hash)
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &R::Key) -> Option<&R> {
        if self.len == 0 {
            return None;
        }
        let (shard, hash) = self.at(key);
        self.shards.get(shard)?.get(hash, key)
    }

    pub(crate) fn get_mut(&mut self, key: &R::Key) -> Option<&mut R> {
        let (shard, hash) = self.at(key);
        self.keep(shard, hash, key);
        let shard = self.shards.get_mut(shard)?;
        let position = *shard.places.get(shard.find(hash, key)?)?;
        shard.rows.get_mut(position as usize)
    }

    /// Adds a row whose key has none.
    pub(crate) fn insert(&mut self, row: R) {
        let key = row.key();
        let (shard, hash) = self.at(&key);
        self.keep(shard, hash, &key);
        let Some(shard) = self.shards.get_mut(shard) else { return };
        if (shard.rows.len() + 1) * 8 > shard.places.len() * 7 {
            shard.link(&self.key, (shard.places.len() * 2).max(8));
        }
        shard.make_room();
        let position = u32::try_from(shard.rows.len()).unwrap_or(FREE);
        debug_assert!(shard.find(hash, &key).is_some_and(|place| shard.row(place).is_none()));
        if let Some(place) = shard.find(hash, &key).and_then(|place| shard.places.get_mut(place)) {
            *place = position;
            shard.rows.push(row);
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, key: &R::Key) -> Option<R> {
        if self.len == 0 {
            return None;
        }
        let (shard, hash) = self.at(key);
        self.keep(shard, hash, key);
        let shard = self.shards.get_mut(shard)?;
        let place = shard.find(hash, key)?;
        let position = *shard.places.get(place).filter(|position| **position != FREE)?;
        shard.vacate(&self.key, place);
        // The last row takes the free position.
        let last = u32::try_from(shard.rows.len().checked_sub(1)?).unwrap_or(FREE);
        if last != position
            && let Some(moved) = shard.rows.last().map(Row::key)
            && let Some(place) = shard.find(self.key.hash_one(moved), &moved)
            && let Some(place) = shard.places.get_mut(place)
        {
            *place = position;
        }
        self.len -= 1;
        Some(shard.rows.swap_remove(position as usize))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &R> {
        self.shards.iter().flat_map(|shard| &shard.rows)
    }

    /// Shows up to `rows` rows; `false` where none is left.
    pub(crate) fn walk(&self, walk: &mut Walk, rows: usize, show: &mut dyn FnMut(&R)) -> bool {
        let mut more = rows;
        while let Some(shard) = self.shards.get(walk.shard) {
            let left = walk.left.unwrap_or(usize::MAX).min(shard.rows.len());
            let piece = left.min(more);
            shard.rows.get(left - piece..left).unwrap_or_default().iter().rev().for_each(&mut *show);
            more -= piece;
            if piece < left {
                walk.left = Some(left - piece);
                return true;
            }
            *walk = Walk { shard: walk.shard + 1, left: None };
        }
        false
    }

    /// All rows, to be changed but for their keys. Not while a copy is under way.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut R> {
        self.copying = None;
        self.shards.iter_mut().flat_map(|shard| &mut shard.rows)
    }
}

/// A table that is read back whole.
impl<R: Row + Send> Table<R> {
    /// For so many rows, which come by [`Self::push`].
    pub(crate) fn with_room(rows: usize) -> Self {
        let mut table = Self::default();
        // A keyed hash spreads them evenly: six deviations more fit.
        let (mean, spread) = (rows / SHARDS, 6 * (rows / SHARDS).isqrt() + 8);
        for shard in table.shards.iter_mut().filter(|_| rows > 0) {
            shard.rows.reserve_exact(mean + spread);
        }
        table
    }

    /// Adds a row whose key has none. It is found after [`Self::link`].
    pub(crate) fn push(&mut self, row: R) {
        let (shard, _) = self.at(&row.key());
        let Some(shard) = self.shards.get_mut(shard) else { return };
        shard.make_room();
        shard.rows.push(row);
        self.len += 1;
    }

    /// Makes all rows found that were pushed.
    pub(crate) fn link(&mut self) {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(COPY_LINK_THREADS);
        let threads = if self.len < LINK_ALONE { 1 } else { threads };
        let key = &self.key;
        std::thread::scope(|scope| {
            for part in self.shards.chunks_mut(SHARDS.div_ceil(threads)).skip(1) {
                scope.spawn(move || part.iter_mut().for_each(|shard| shard.link_all(key)));
            }
        });
        for shard in self.shards.iter_mut().take(SHARDS.div_ceil(threads)) {
            shard.link_all(key);
        }
    }
}

/// A table that is copied while it changes.
impl<R: Row> Table<R> {
    /// From here on the table is copied as it is now.
    pub(crate) fn begin_copy(&mut self) {
        let shards = (0..SHARDS).map(|_| Some(HashMap::new())).collect();
        self.copying = Some(Mutex::new(Copying { shards, kept: 0 }));
    }

    /// No copy is made any more.
    pub(crate) fn end_copy(&mut self) {
        self.copying = None;
    }

    /// A row is about to change.
    fn keep(&mut self, shard: usize, hash: u64, key: &R::Key) {
        let Some(copying) = &mut self.copying else { return };
        let copying = copying.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(kept)) = copying.shards.get_mut(shard)
            && let Entry::Vacant(vacant) = kept.entry(*key)
        {
            vacant.insert(self.shards.get(shard).and_then(|shard| shard.get(hash, key)).cloned());
            copying.kept += 1;
        }
        if copying.kept > COPY_KEPT_MAX {
            self.copying = None;
        }
    }

    /// The rows of a part as they were when the copy began, each part once. Says whether they are: where too much changed
    /// meanwhile there is no copy.
    pub(crate) fn copy_shard(&self, nth: usize, take: &mut dyn FnMut(&R)) -> bool {
        let (Some(copying), Some(shard)) = (&self.copying, self.shards.get(nth)) else { return false };
        let mut copying = lock(copying);
        let Some(kept) = copying.shards.get_mut(nth).and_then(Option::take) else { return false };
        copying.kept -= kept.len();
        if kept.is_empty() {
            shard.rows.iter().for_each(take);
            return true;
        }
        for row in shard.rows.iter().filter(|row| !kept.contains_key(&row.key())) {
            take(row);
        }
        kept.values().flatten().for_each(take);
        true
    }
}

#[cfg(test)]
mod tests {
    use windlass_protocol::Digest;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Pair(Digest, u32);

    impl Row for Pair {
        type Key = Digest;

        fn key(&self) -> Digest {
            self.0
        }
    }

    struct Dice(u32);

    impl Dice {
        fn roll(&mut self) -> u32 {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            self.0
        }

        fn digest(&mut self, of: u32) -> Digest {
            Digest::of(&((self.roll() >> 16) % of).to_le_bytes())
        }
    }

    #[test]
    fn a_table_is_a_map_whatever_is_added_and_removed() {
        let (mut table, mut map) = (Table::default(), HashMap::new());
        let mut dice = Dice(1);
        for round in 0..200_000_u32 {
            let digest = dice.digest(20_000);
            if dice.roll() & 1 << 16 == 0 && !map.contains_key(&digest) {
                table.insert(Pair(digest, round));
                map.insert(digest, round);
            } else {
                assert_eq!(table.remove(&digest).map(|row| row.1), map.remove(&digest));
            }
            assert_eq!(table.get(&digest).map(|row| row.1), map.get(&digest).copied());
        }
        assert_eq!(table.len(), map.len());
        assert!(table.iter().all(|row| map.get(&row.0) == Some(&row.1)));
        for (digest, round) in &map {
            assert_eq!(table.get_mut(digest).map(|row| row.1), Some(*round));
        }
        let (mut walk, mut shown) = (Walk::default(), HashMap::new());
        while table.walk(&mut walk, 7, &mut |row| {
            shown.insert(row.0, row.1);
        }) {
            // What goes while somebody walks takes nothing else out of his sight.
            let gone = dice.digest(20_000);
            table.remove(&gone);
            map.remove(&gone);
        }
        assert!(map.iter().all(|(digest, round)| shown.get(digest) == Some(round)), "all that stayed was shown");
    }

    #[test]
    fn a_copy_is_the_table_as_it_was_whatever_changes_between_its_parts() {
        let mut table = Table::default();
        let mut dice = Dice(7);
        let change = |table: &mut Table<Pair>, dice: &mut Dice, value: u32| {
            let digest = dice.digest(5_000);
            match (table.get(&digest).is_some(), dice.roll() >> 30) {
                (false, _) => table.insert(Pair(digest, value)),
                (true, 0 | 1) => drop(table.remove(&digest)),
                (true, _) => table.get_mut(&digest).unwrap().1 = value,
            }
        };
        for round in 0..4 {
            (0..10_000).for_each(|n| change(&mut table, &mut dice, n));
            let before: HashMap<Digest, u32> = table.iter().map(|row| (row.0, row.1)).collect();
            let mut copied = Vec::new();
            table.begin_copy();
            for shard in 0..SHARDS {
                (0..60).for_each(|n| change(&mut table, &mut dice, 100_000 * (round + 1) + n));
                assert!(table.copy_shard(shard, &mut |row| copied.push(*row)));
            }
            assert!(!table.copy_shard(0, &mut |_| ()), "each part once");
            table.end_copy();
            assert_eq!(copied.len(), before.len(), "each row once");
            assert_eq!(copied.iter().map(|row| (row.0, row.1)).collect::<HashMap<_, _>>(), before);
            let mut again = Table::with_room(copied.len());
            copied.iter().for_each(|row| again.push(*row));
            again.link();
            assert!(before.iter().all(|(digest, value)| again.get(digest).map(|row| row.1) == Some(*value)));
        }
    }

    #[test]
    fn a_copy_is_given_up_where_too_much_changes_before_it_is_made() {
        let mut table = Table::default();
        table.begin_copy();
        for n in 0..=u32::try_from(COPY_KEPT_MAX).unwrap() {
            table.insert(Pair(Digest::of(&n.to_le_bytes()), n));
        }
        assert!(!table.copy_shard(0, &mut |_| ()));
    }
}
