//! Who sees what, each set of namespaces once: most blobs are seen by one of a few.

use std::collections::HashMap;
use std::sync::Arc;

use super::NamespaceNo;

/// The number of a set.
pub(super) type SetNo = u32;

#[derive(Debug)]
struct Set {
    /// Sorted.
    members: Arc<[NamespaceNo]>,
    /// Blobs that have it.
    blobs: usize,
}

/// All sets that some blob has.
#[derive(Debug, Default)]
pub(super) struct Sets {
    sets: Vec<Set>,
    numbers: HashMap<Arc<[NamespaceNo]>, SetNo>,
    free: Vec<SetNo>,
}

impl Sets {
    /// The set's number, for one more blob.
    pub(super) fn hold(&mut self, members: &[NamespaceNo]) -> SetNo {
        if let Some(number) = self.numbers.get(members) {
            if let Some(set) = self.sets.get_mut(*number as usize) {
                set.blobs += 1;
            }
            return *number;
        }
        let members: Arc<[NamespaceNo]> = members.into();
        let set = Set { members: Arc::clone(&members), blobs: 1 };
        let number = self.free.pop().unwrap_or_else(|| SetNo::try_from(self.sets.len()).unwrap_or(SetNo::MAX));
        match self.sets.get_mut(number as usize) {
            Some(free) => *free = set,
            None => self.sets.push(set),
        }
        self.numbers.insert(members, number);
        number
    }

    /// A blob has it no more.
    pub(super) fn release(&mut self, number: SetNo) {
        let Some(set) = self.sets.get_mut(number as usize) else { return };
        set.blobs = set.blobs.saturating_sub(1);
        if set.blobs == 0 {
            self.numbers.remove(&set.members);
            set.members = Arc::default();
            self.free.push(number);
        }
    }

    /// Sorted.
    pub(super) fn members(&self, number: SetNo) -> &[NamespaceNo] {
        self.sets.get(number as usize).map(|set| &*set.members).unwrap_or_default()
    }
}

/// What is copied of them, and read back.
impl Sets {
    /// By number; those that no blob has are empty.
    pub(super) fn all(&self) -> Vec<Arc<[NamespaceNo]>> {
        self.sets.iter().map(|set| Arc::clone(&set.members)).collect()
    }

    /// The same with how many blobs have each. Nothing where two are the same.
    pub(super) fn load(sets: &[Arc<[NamespaceNo]>], blobs: &[(usize, u64)]) -> Option<Self> {
        let mut loaded = Self::default();
        for (number, (members, (blobs, _))) in (0..).zip(sets.iter().zip(blobs)) {
            if *blobs == 0 {
                loaded.sets.push(Set { members: Arc::default(), blobs: 0 });
                loaded.free.push(number);
                continue;
            }
            loaded.sets.push(Set { members: Arc::clone(members), blobs: *blobs });
            if loaded.numbers.insert(Arc::clone(members), number).is_some() {
                return None;
            }
        }
        Some(loaded)
    }
}
