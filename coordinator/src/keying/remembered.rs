//! What was found out and may be asked again: a bounded number of it, of which what is used stays.

use std::collections::BTreeMap;

/// Values by their keys. When there are too many, those that were not used since the last time go.
#[derive(Debug)]
pub(super) struct Remembered<K, V> {
    young: BTreeMap<K, V>,
    old: BTreeMap<K, V>,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { young: BTreeMap::new(), old: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, V> Remembered<K, V> {
    /// A value, which counts as used.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.young.insert(key, value);
        }
        self.young.get(key)
    }

    /// Keeps a value, and at most `most` of all.
    pub(super) fn put(&mut self, key: K, value: V, most: usize) {
        self.old.remove(&key);
        self.young.insert(key, value);
        if self.young.len() > most / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        if self.young.len() + self.old.len() > most {
            self.old.clear();
        }
    }

    /// Forgets a value.
    pub(super) fn forget(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_too_many_and_what_is_used_stays() {
        let mut kept = Remembered::default();
        for number in 0..1_000 {
            kept.put(number, number, 10);
            assert!(kept.young.len() + kept.old.len() <= 10);
            assert_eq!(kept.get(&0), Some(&0), "after {number}");
        }
        assert_eq!(kept.get(&5), None);
        kept.forget(&0);
        assert_eq!(kept.get(&0), None);
    }
}
