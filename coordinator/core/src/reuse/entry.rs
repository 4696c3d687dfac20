//! Entries: results that later steps with the same key use, within limits, and never across namespaces but for an overlay that
//! reads its project's trusted ones (I12).
//!
//! Who is past a limit loses what was used longest ago: of itself, and overlays of overlays, so that nobody untrusted pushes
//! out what is trusted. An entry that goes leaves a few words behind. Its files stay while artifacts name them, and its log
//! while attempts do.

use std::collections::BTreeMap;

use windlass_protocol::{Digest, Namespace, Trust, WallMs, limits};

use super::held;
use crate::amount::Amount;
use crate::effect::{Effect, ReuseNews};
use crate::error::Rejected;
use crate::row::{Gone, JobRow, ReuseGone, ReuseName, ReuseRow};
use crate::state::Core;

impl From<&ReuseRow> for Amount {
    fn from(row: &ReuseRow) -> Self {
        Self { count: 1, files: row.outputs.len() as u64, bytes: row.bytes }
    }
}

/// Why it is more than `most`, if it is.
const fn excess(sum: Amount, most: Amount) -> Option<Gone> {
    if sum.bytes > most.bytes {
        Some(Gone::Size)
    } else if sum.fits(most) {
        None
    } else {
        Some(Gone::Count)
    }
}

const TRUSTED: Amount =
    Amount { count: limits::REUSE_TRUSTED_MAX as u64, files: u64::MAX, bytes: limits::REUSE_TRUSTED_MAX_BYTES };
const OVERLAY: Amount =
    Amount { count: limits::REUSE_OVERLAY_MAX as u64, files: u64::MAX, bytes: limits::REUSE_OVERLAY_MAX_BYTES };
const OVERLAYS: Amount =
    Amount { count: limits::REUSE_OVERLAYS_MAX as u64, files: u64::MAX, bytes: limits::REUSE_OVERLAYS_MAX_BYTES };
const ALL: Amount =
    Amount { count: limits::REUSE_ENTRIES_MAX as u64, files: limits::REUSE_FILES_MAX as u64, bytes: u64::MAX };

/// What the entries of each namespace come to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Sums(BTreeMap<Namespace, Amount>);

impl Sums {
    pub(super) fn of<'a>(rows: impl Iterator<Item = &'a ReuseRow>) -> Self {
        let mut sums = Self::default();
        rows.for_each(|row| sums.add(row));
        sums
    }

    pub(super) fn add(&mut self, row: &ReuseRow) {
        let sum = self.0.entry(row.name.namespace.clone()).or_default();
        *sum = sum.and(Amount::from(row));
    }

    pub(super) fn sub(&mut self, row: &ReuseRow) {
        let Some(sum) = self.0.get_mut(&row.name.namespace) else { return };
        *sum = sum.less(Amount::from(row));
        if *sum == Amount::default() {
            self.0.remove(&row.name.namespace);
        }
    }

    pub(super) fn sum(&self, of: impl Fn(&Namespace) -> bool) -> Amount {
        let some = self.0.iter().filter(|(namespace, _)| of(namespace));
        some.map(|(_, amount)| *amount).sum()
    }

    /// Whether one of the namespaces, or all together, have more than they may.
    pub(super) fn exceed(&self, own: Amount, all: Amount) -> bool {
        !(self.0.values().all(|sum| sum.fits(own)) && self.sum(|_| true).fits(all))
    }
}

impl Core {
    /// The entry that a namespace reads under a key: its own, then its project's trusted one's.
    pub(crate) fn visible(&self, name: &ReuseName) -> Option<ReuseName> {
        if self.policy.bugs.read_any_entry {
            return self.reuse.entries.keys().find(|other| other.key == name.key).cloned();
        }
        let beneath = name.namespace.overlay.is_some().then(|| Namespace::trusted(&name.namespace.project));
        let places = [Some(name.namespace.clone()), beneath];
        let names = places.into_iter().flatten().map(|namespace| ReuseName { namespace, key: name.key });
        names.into_iter().find(|name| self.reuse.entries.contains_key(name))
    }

    /// That an entry was under this key and went, as far as a namespace may know.
    pub(super) fn gone_of(&self, name: &ReuseName) -> Option<(Gone, WallMs)> {
        if self.visible(name).is_some() {
            return None;
        }
        let trusted = ReuseName { namespace: Namespace::trusted(&name.namespace.project), key: name.key };
        let places = [name, &trusted];
        let gone = places.into_iter().find_map(|name| self.reuse.gone.get(name))?;
        Some((gone.why, gone.at))
    }

    /// Notes that an entry is used, unless that was done not long ago.
    pub(super) fn touch_entry(&mut self, name: &ReuseName) {
        let now = self.now.wall;
        let Some(row) = self.reuse.entries.get_mut(name) else { return };
        if now.0.saturating_sub(row.used_at.0) >= limits::REUSE_TOUCH_MS {
            row.used_at = now;
            self.book.reuse.insert(name.clone());
        }
    }

    /// Writes an entry; a newer one takes the place of an older one with the same key. Whoever waits for it is looked at again.
    /// `false` where there is no room for it.
    pub(super) fn add_entry(&mut self, row: ReuseRow) -> bool {
        let name = row.name.clone();
        let trusted = name.namespace.trust() == Trust::Trusted;
        let own = if trusted { TRUSTED } else { OVERLAY };
        if !self.has_room_beside_held(&row, own) {
            return false;
        }
        if self.reuse.gone.remove(&name).is_some() {
            self.book.reuse_gone.insert(name.clone());
        }
        self.book.reuse.insert(name.clone());
        self.reuse.sums.add(&row);
        self.reuse.held.replace(self.reuse.entries.get(&name), &row);
        if let Some(before) = self.reuse.entries.insert(name.clone(), row) {
            self.reuse.sums.sub(&before);
        }
        let (namespace, project) = (name.namespace.clone(), name.namespace.project.clone());
        let is_own = |of: &Namespace| *of == namespace;
        self.trim_entries(&name, own, is_own, is_own);
        if !trusted {
            let overlays = |of: &Namespace| of.project == project && of.overlay.is_some();
            self.trim_entries(&name, OVERLAYS, overlays, overlays);
        }
        // Of all projects: anybody's overlays first, and for what is trusted whatever was used longest ago.
        self.trim_entries(&name, ALL, |_| true, |of| of.overlay.is_some());
        if trusted {
            self.trim_entries(&name, ALL, |_| true, |_| true);
        } else if !self.reuse.sums.sum(|_| true).fits(ALL) {
            drop(self.drop_entry(&name, Gone::Count));
            return false;
        }
        self.look_again(&name);
        true
    }

    /// Whether an entry fits beside those that pins hold, once all others have made room. One that takes a held one's place is
    /// held, too, and has the room of those.
    fn has_room_beside_held(&self, row: &ReuseRow, own: Amount) -> bool {
        let replaced = self.reuse.entries.get(&row.name).filter(|_| self.reuse.held.has(&row.name));
        let (own, all) = if replaced.is_some() { (held::OWN, held::ALL) } else { (own, ALL) };
        let replaced = replaced.map(Amount::from).unwrap_or_default();
        let fits = |most: Amount, held: Amount| Amount::from(row).and(held.less(replaced)).fits(most);
        fits(own, self.reuse.held.sum(|of| *of == row.name.namespace)) && fits(all, self.reuse.held.sum(|_| true))
    }

    /// Whether an entry goes by policy, and not only when somebody else takes its place.
    fn may_go(&self, row: &ReuseRow) -> bool {
        self.policy.bugs.let_go_of_pinned || !self.reuse.held.has(&row.name)
    }

    /// Takes what a fleet made, within the limits of what is made here.
    pub(super) fn adopt_entry(&mut self, row: &ReuseRow) -> Result<(), Rejected> {
        let limit = |what, limit| Err(Rejected::Limit { what, limit });
        if row.outputs.len() > limits::REUSE_OUTPUTS_MAX {
            return limit("files of one result", limits::REUSE_OUTPUTS_MAX as u64);
        }
        let mut row = row.clone();
        row.bytes = row.outputs.iter().fold(0_u64, |sum, output| sum.saturating_add(output.bytes));
        (row.created_at, row.used_at) = (self.now.wall, self.now.wall);
        if self.add_entry(row) { Ok(()) } else { limit("bytes of results", limits::REUSE_TRUSTED_MAX_BYTES) }
    }

    /// The entry that a namespace reads under a key, and nothing else of what there is (I12).
    #[must_use]
    pub fn readable(&self, namespace: &Namespace, key: Digest) -> Option<&ReuseRow> {
        let found = self.visible(&ReuseName { namespace: namespace.clone(), key })?;
        // Nobody untrusted is heard by who is trusted, and nobody learns of another's.
        assert!(namespace.reads(&found.namespace), "{namespace} reads nothing of {}", found.namespace);
        self.reuse.entries.get(&found)
    }

    /// All jobs that read an entry are looked at again.
    fn look_again(&mut self, name: &ReuseName) {
        self.reuse.due.insert(name.clone());
        if name.namespace.overlay.is_none() {
            let from = ReuseName { namespace: name.namespace.clone(), key: Digest::from_bytes([0; 32]) };
            let own = self.reuse.runs.range(from..);
            let own = own.take_while(|(other, _)| other.namespace.project == name.namespace.project);
            let same: Vec<_> = own.map(|(other, _)| other).filter(|other| other.key == name.key).cloned().collect();
            self.reuse.due.extend(same);
        }
    }

    /// Where those namespaces have more than they may, lets go of what was used longest ago of some of them. `new` stays.
    fn trim_entries(
        &mut self,
        new: &ReuseName,
        most: Amount,
        counted: impl Fn(&Namespace) -> bool,
        going: impl Fn(&Namespace) -> bool,
    ) {
        let mut sum = self.reuse.sums.sum(&counted);
        if sum.fits(most) {
            return;
        }
        let others = self.reuse.entries.values().filter(|row| row.name != *new && going(&row.name.namespace));
        let others = others.filter(|row| self.may_go(row));
        let mut by_use: Vec<(WallMs, ReuseName)> = others.map(|row| (row.used_at, row.name.clone())).collect();
        by_use.sort();
        for (_, name) in by_use {
            let Some(why) = excess(sum, most) else { break };
            if let Some(row) = self.drop_entry(&name, why) {
                sum = sum.less(Amount::from(&row));
            }
        }
    }

    /// Lets go of entries that nobody has used since.
    pub(crate) fn forget_entries(&mut self, unused_since: WallMs) {
        let unused = self.reuse.entries.values().filter(|row| row.used_at < unused_since && self.may_go(row));
        // The rest of them next time: a commit has its limit.
        let going: Vec<_> = unused.take(limits::EXPIRE_ROWS_MAX).map(|row| row.name.clone()).collect();
        for name in going {
            self.drop_entry(&name, Gone::Unused);
        }
    }

    fn drop_entry(&mut self, name: &ReuseName, why: Gone) -> Option<ReuseRow> {
        let row = self.reuse.entries.remove(name)?;
        self.reuse.sums.sub(&row);
        self.book.reuse.insert(name.clone());
        self.book.reuse_gone.insert(name.clone());
        self.reuse.gone.insert(name.clone(), ReuseGone { name: name.clone(), why, at: self.now.wall });
        while self.reuse.gone.len() > limits::REUSE_GONE_MAX {
            let oldest =
                self.reuse.gone.values().min_by_key(|gone| (gone.at, &gone.name)).map(|gone| gone.name.clone());
            let Some(oldest) = oldest else { break };
            self.reuse.gone.remove(&oldest);
            self.book.reuse_gone.insert(oldest);
        }
        self.book.out.push(Effect::Reuse(ReuseNews::Evicted(1)));
        Some(row)
    }

    /// Earlier results of a job's step that its namespace reads, with other keys than its own, the newest first: what its miss
    /// is compared with.
    #[must_use]
    pub fn earlier(&self, namespace: &Namespace, job: &JobRow, key: Digest, before: WallMs) -> Vec<ReuseRow> {
        let same = |row: &&ReuseRow| {
            row.step_key == job.node.key
                && row.from.step == job.node.label
                && row.name.key != key
                && row.created_at <= before
                && row.from.job != job.id
        };
        let trusted = ReuseName { namespace: Namespace::trusted(&namespace.project), key: Digest::from_bytes([0; 32]) };
        let project = self.reuse.entries.range(trusted..);
        let project = project.take_while(|(name, _)| name.namespace.project == namespace.project);
        let mine = project.filter(|(name, _)| namespace.reads(&name.namespace)).map(|(_, row)| row);
        let mut found: Vec<&ReuseRow> = mine.filter(same).collect();
        found.sort_by_key(|row| std::cmp::Reverse((row.created_at, row.name.key)));
        found.into_iter().take(limits::REUSE_COMPARED_MAX).cloned().collect()
    }

    /// What all entries come to.
    #[must_use]
    pub fn reuse_entries(&self) -> Amount {
        self.reuse.sums.sum(|_| true)
    }

    pub(super) fn check_entries(&self) -> Result<(), (&'static str, String)> {
        let Some(misplaced) = self.reuse.entries.iter().find(|(name, row)| **name != row.name) else {
            let sums = Sums::of(self.reuse.entries.values());
            if sums != self.reuse.sums {
                return Err(("I11", format!("entries come to {sums:?}, not {:?}", self.reuse.sums)));
            }
            let over = sums.0.iter().find(|(of, sum)| {
                let most = if of.trust() == Trust::Trusted { TRUSTED } else { OVERLAY };
                !sum.fits(most)
            });
            return match over {
                Some((of, sum)) => Err(("I9", format!("{of} has {sum:?} entries"))),
                None if !sums.sum(|_| true).fits(ALL) => Err(("I9", "there are too many entries".to_owned())),
                None => Ok(()),
            };
        };
        Err(("I11", format!("{:?} stands under another name", misplaced.1.name)))
    }
}
