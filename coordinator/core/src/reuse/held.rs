//! Results that pins of builds hold: they neither make room for others nor go because nobody uses them (docs/design/051).
//!
//! At most half of what a pipeline may have, so that its builds go on with the other half. A newer result of the same key takes
//! the place of a held one, as of any other, if it has room there: whoever asks for it anew wants that.

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::{Namespace, limits};

use super::Reuses;
use super::entry::Sums;
use crate::amount::Amount;
use crate::error::Rejected;
use crate::row::{PinRefused, ReuseName, ReuseRow};
use crate::state::Core;

/// What may be held of a pipeline.
pub(super) const OWN: Amount = Amount {
    count: limits::PINNED_RESULTS_MAX as u64,
    files: limits::PINNED_RESULTS_MAX_FILES as u64,
    bytes: limits::PINNED_RESULTS_MAX_BYTES,
};
/// What may be held of all together.
pub(super) const ALL: Amount = Amount {
    count: limits::PINNED_RESULTS_OF_ALL_MAX as u64,
    files: limits::PINNED_RESULTS_OF_ALL_MAX_FILES as u64,
    bytes: u64::MAX,
};

/// What is held.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// How many pins hold each.
    pins: BTreeMap<ReuseName, u32>,
    /// What those come to that are there.
    sums: Sums,
}

impl Held {
    pub(super) fn has(&self, name: &ReuseName) -> bool {
        self.pins.contains_key(name)
    }

    /// What is held of some namespaces.
    pub(super) fn sum(&self, of: impl Fn(&Namespace) -> bool) -> Amount {
        self.sums.sum(of)
    }

    /// An entry takes the place of another, or of none.
    pub(super) fn replace(&mut self, before: Option<&ReuseRow>, row: &ReuseRow) {
        if self.has(&row.name) {
            before.into_iter().for_each(|before| self.sums.sub(before));
            self.sums.add(row);
        }
    }
}

impl Reuses {
    /// Results that pins hold.
    pub(crate) fn held_entries(&self) -> usize {
        self.held.pins.len()
    }

    /// That what is held is what pins say, each name once for each pin.
    pub(crate) fn check_held(&self, said: impl Iterator<Item = ReuseName>) -> Result<(), (&'static str, String)> {
        let mut pins: BTreeMap<ReuseName, u32> = BTreeMap::new();
        said.for_each(|name| *pins.entry(name).or_default() += 1);
        if pins != self.held.pins {
            return Err(("I11", format!("{} results are held, pins say {}", self.held.pins.len(), pins.len())));
        }
        let sums = Sums::of(pins.keys().filter_map(|name| self.entries.get(name)));
        if sums != self.held.sums {
            return Err(("I11", format!("held results come to {sums:?}, not {:?}", self.held.sums)));
        }
        if sums.exceed(OWN, ALL) {
            return Err(("I9", format!("held results come to {sums:?}")));
        }
        Ok(())
    }
}

impl Core {
    /// Holds an entry once more. `false` where it is not there, or there is no room among what is held.
    pub(crate) fn hold_entry(&mut self, name: &ReuseName) -> bool {
        if let Some(pins) = self.reuse.held.pins.get_mut(name) {
            *pins += 1;
            return true;
        }
        let fits = self.check_room_to_hold(&name.namespace, &BTreeSet::from([name.clone()])).is_ok();
        let Some(row) = self.reuse.entries.get(name).filter(|_| fits) else { return false };
        self.reuse.held.sums.add(row);
        self.reuse.held.pins.insert(name.clone(), 1);
        true
    }

    /// Takes in that a pin holds an entry, as its row says. Writes nothing.
    pub(crate) fn restore_hold_of_entry(&mut self, name: ReuseName) {
        if let Some(row) = self.reuse.entries.get(&name).filter(|_| !self.reuse.held.has(&name)) {
            self.reuse.held.sums.add(row);
        }
        *self.reuse.held.pins.entry(name).or_default() += 1;
    }

    /// One pin less holds an entry.
    pub(crate) fn release_entry(&mut self, name: &ReuseName) {
        let Some(pins) = self.reuse.held.pins.get_mut(name) else { return };
        *pins -= 1;
        if *pins == 0 {
            self.reuse.held.pins.remove(name);
            if let Some(row) = self.reuse.entries.get(name) {
                self.reuse.held.sums.sub(row);
            }
        }
    }

    /// Refuses to hold these entries of a namespace beside what is held already.
    pub(crate) fn check_room_to_hold(
        &self,
        namespace: &Namespace,
        names: &BTreeSet<ReuseName>,
    ) -> Result<(), Rejected> {
        let new =
            names.iter().filter(|name| !self.reuse.held.has(name)).filter_map(|name| self.reuse.entries.get(name));
        let new: Amount = new.map(Amount::from).sum();
        if new == Amount::default() {
            return Ok(());
        }
        let own = self.reuse.held.sum(|of| of == namespace).and(new);
        let all = self.reuse.held.sum(|_| true).and(new);
        PinRefused::check([
            ("results of one pipeline that pins hold", own.count, OWN.count),
            ("files of results of one pipeline that pins hold", own.files, OWN.files),
            ("bytes of results of one pipeline that pins hold", own.bytes, OWN.bytes),
        ])?;
        if !all.fits(ALL) {
            return Err(PinRefused::Full("results that pins hold").into());
        }
        Ok(())
    }
}
