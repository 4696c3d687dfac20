//! Lets go by policy of what a namespace has not used for long, or has beyond its bytes, a bounded piece at a time.
//!
//! A sweep fixes at its beginning which uses are old: whatever is used, promised or marked as needed from then on stays, however
//! long the sweep takes. It walks the table once to find out what of a namespace past its bytes was used longest ago, if there is
//! such a one, and once to let go. Between two pieces it holds no lock. It has nothing on disk: one that a crash cut short is
//! begun anew.

use std::collections::HashMap;
use std::sync::PoisonError;

use windlass_protocol::limits::{
    SWEEP_DIRECTORIES_MAX, SWEEP_LOOK_ROWS, SWEEP_OVER_MAX, SWEEP_PARTS, SWEEP_RELEASE_LARGE_MAX, SWEEP_RELEASE_MAX,
    SWEEP_ROWS, TREE_DIR_MAX_BYTES,
};
use windlass_protocol::{Digest, Namespace, WallMs};

use crate::error::{Error, Fault};
use crate::index::{Entry, NamespaceNo, Place, Usage, Walk};
use crate::release::HeldBlob;
use crate::store::Store;
use crate::tombstone::WhyGone;
use crate::tree::{Directory, Node};

/// What a namespace may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Beyond so many bytes what was used longest ago goes.
    pub max_bytes: Option<u64>,
    /// What nobody used for so long goes.
    pub max_age_ms: Option<u64>,
}

/// What a sweep let go, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Blobs that a namespace saw, once for each that did.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of those, the blobs that are stored no more, as nobody else saw them. Of a sweep that only looks, at least so many.
    pub gone_blobs: u64,
    /// Their bytes, before compression; the disk has them back as segments are compacted.
    pub gone_bytes: u64,
}

impl Swept {
    fn add(&mut self, bytes: u64, gone: bool) {
        (self.blobs, self.bytes) = (self.blobs + 1, self.bytes + bytes);
        if gone {
            (self.gone_blobs, self.gone_bytes) = (self.gone_blobs + 1, self.gone_bytes + bytes);
        }
    }
}

/// How far a sweep is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SweepCounts {
    /// Rows that were looked at, each walk counted.
    pub rows: u64,
    /// Of about so many.
    pub of_rows: u64,
    /// What went, by namespace and cause.
    pub swept: HashMap<(Namespace, WhyGone), Swept>,
    /// What stays though its policy says otherwise.
    pub spared: Spared,
}

/// What stays though its policy says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spared {
    /// Blobs that somebody reads or holds at this moment.
    pub pinned: u64,
    /// Blobs that were used between being chosen and going.
    pub used: u64,
}

/// A namespace that has something to let go.
#[derive(Debug)]
struct Ruled {
    namespace: Namespace,
    /// What was used before goes by its age.
    age_cut: u32,
    /// What was used before goes by size, as long as there is excess.
    size_cut: u32,
    excess_bytes: u64,
    /// Bytes by when they were used, where that is to be found out.
    parts: Option<Box<[u64; SWEEP_PARTS]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Counting,
    Releasing,
    Done,
}

/// A sweep that is under way.
#[derive(Debug)]
pub struct Sweep {
    at: WallMs,
    dry: bool,
    phase: Phase,
    cursor: Walk,
    /// Nothing that was used since goes.
    cut: u32,
    ruled: HashMap<NamespaceNo, Ruled>,
    counts: SweepCounts,
}

impl Sweep {
    /// What it did so far.
    #[must_use]
    pub const fn counts(&self) -> &SweepCounts {
        &self.counts
    }

    /// Whether there is nothing left to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Whether it only looks.
    #[must_use]
    pub const fn is_dry(&self) -> bool {
        self.dry
    }
}

fn part(used: u32, cut: u32) -> usize {
    let part = u64::from(used) * SWEEP_PARTS as u64 / u64::from(cut.max(1));
    usize::try_from(part).unwrap_or(usize::MAX).min(SWEEP_PARTS - 1)
}

impl Ruled {
    /// `None` where nothing of it can go.
    fn new(namespace: &Namespace, policy: Policy, usage: Usage, (cut, age_cut): (u32, u32)) -> Option<Self> {
        // A tenth more than is needed, so that the next blob is not past it again.
        let over = policy.max_bytes.filter(|max_bytes| usage.bytes > *max_bytes);
        let excess_bytes = over.map_or(0, |max_bytes| usage.bytes - (max_bytes - max_bytes / 10));
        let parts = (excess_bytes > 0).then(|| Box::new([0; SWEEP_PARTS]));
        let ruled = Self { namespace: namespace.clone(), age_cut: age_cut.min(cut), size_cut: 0, excess_bytes, parts };
        (ruled.age_cut > 0 || ruled.excess_bytes > 0).then_some(ruled)
    }

    /// From the bytes of each part: before which use those were that have to go.
    fn settle(&mut self, cut: u32) {
        let Some(parts) = self.parts.take() else { return };
        let mut sum = 0;
        let whole = parts.iter().position(|bytes| {
            sum += bytes;
            sum >= self.excess_bytes
        });
        let upto = whole.map_or(SWEEP_PARTS, |last| last + 1) as u64;
        // One more than the last use that falls into the part.
        self.size_cut = u32::try_from((upto * u64::from(cut)).div_ceil(SWEEP_PARTS as u64)).unwrap_or(cut).min(cut);
    }

    fn due(&self, used: u32) -> Option<WhyGone> {
        if used < self.age_cut {
            Some(WhyGone::Age)
        } else if used < self.size_cut && self.excess_bytes > 0 {
            Some(WhyGone::Size)
        } else {
            None
        }
    }
}

impl Store {
    /// Begins a sweep by what `policy` says of each namespace. What live work needs is to be marked after this and before the
    /// first [`Self::sweep`] ([`Roots`]). With `dry` nothing goes.
    #[must_use]
    pub fn begin_sweep(&self, at: WallMs, dry: bool, policy: impl Fn(&Namespace) -> Option<Policy>) -> Sweep {
        let now_ms = self.shared.note_time();
        let cut = self.shared.promise_cut();
        let index = self.shared.index();
        let mut ruled = HashMap::new();
        let mut over = 0;
        for (number, namespace) in (0..).zip(index.names()) {
            let usage = index.usage(number);
            let Some(mut policy) = policy(namespace).filter(|_| usage.blobs > 0 && cut > 0) else { continue };
            if over >= SWEEP_OVER_MAX {
                policy.max_bytes = None;
            }
            let before_ms = policy.max_age_ms.and_then(|age_ms| now_ms.checked_sub(age_ms));
            let age_cut = before_ms.map_or(0, |at_ms| index.cut(at_ms));
            if let Some(rule) = Ruled::new(namespace, policy, usage, (cut, age_cut)) {
                over += usize::from(rule.excess_bytes > 0);
                ruled.insert(number, rule);
            }
        }
        let phase = match (ruled.is_empty(), over) {
            (true, _) => Phase::Done,
            (false, 0) => Phase::Releasing,
            (false, _) => Phase::Counting,
        };
        let rows = index.totals().0 as u64;
        let of_rows = match phase {
            Phase::Counting => 2 * rows,
            Phase::Releasing => rows,
            Phase::Done => 0,
        };
        let counts = SweepCounts { of_rows, ..SweepCounts::default() };
        Sweep { at, dry, phase, cursor: Walk::default(), cut, ruled, counts }
    }

    /// Goes on with a sweep, a piece of bounded work. `false` when it is done.
    ///
    /// # Errors
    /// As [`Store::release`]; the sweep can be gone on with.
    pub fn sweep(&self, sweep: &mut Sweep) -> Result<bool, Error> {
        match sweep.phase {
            Phase::Counting => {
                if !self.count_piece(sweep) {
                    let cut = sweep.cut;
                    sweep.ruled.values_mut().for_each(|ruled| ruled.settle(cut));
                    (sweep.phase, sweep.cursor) = (Phase::Releasing, Walk::default());
                }
                Ok(true)
            }
            Phase::Releasing => {
                let more = self.release_piece(sweep)?;
                if !more {
                    sweep.phase = Phase::Done;
                    if !sweep.dry && !sweep.counts.swept.is_empty() {
                        self.shared.write_tombstones()?;
                    }
                }
                Ok(more)
            }
            Phase::Done => Ok(false),
        }
    }

    /// Sums up by their use what there is of namespaces that are past their bytes.
    fn count_piece(&self, sweep: &mut Sweep) -> bool {
        let (cut, ruled) = (sweep.cut, &mut sweep.ruled);
        let (index, mut rows) = (self.shared.index(), 0);
        let more = index.walk(&mut sweep.cursor, SWEEP_ROWS, |entry| {
            rows += 1;
            let used = entry.last_used();
            for number in entry.seen_by() {
                let parts = ruled.get_mut(number).and_then(|ruled| ruled.parts.as_deref_mut());
                if let Some(bytes) = parts.and_then(|parts| parts.get_mut(part(used, cut))) {
                    *bytes += entry.place.bytes();
                }
            }
        });
        sweep.counts.rows += rows;
        more
    }

    fn release_piece(&self, sweep: &mut Sweep) -> Result<bool, Error> {
        let mut chosen = Chosen::default();
        let more = {
            let (ruled, counts) = (&mut sweep.ruled, &mut sweep.counts);
            let index = self.shared.index();
            loop {
                let mut rows = 0;
                let more = index.walk(&mut sweep.cursor, SWEEP_LOOK_ROWS, |entry| {
                    rows += 1;
                    chosen.look(&entry, ruled, counts);
                });
                counts.rows += rows;
                chosen.rows += rows;
                if !more || chosen.is_full() {
                    break more;
                }
            }
        };
        if !chosen.held.is_empty() {
            self.let_go(sweep, &chosen)?;
        }
        Ok(more)
    }

    fn let_go(&self, sweep: &mut Sweep, chosen: &Chosen) -> Result<(), Error> {
        if sweep.dry {
            for (held, (why, bytes, alone)) in chosen.held.iter().zip(&chosen.about) {
                sweep.counts.swept.entry((held.namespace.clone(), *why)).or_default().add(*bytes, *alone);
            }
            return Ok(());
        }
        let released = self.release_each(&chosen.held)?;
        sweep.counts.spared.used += (chosen.held.len() - released.len()) as u64;
        let mut tombstones = self.shared.tombstones.lock().unwrap_or_else(PoisonError::into_inner);
        for released in released {
            let (Some(held), Some((why, ..))) = (chosen.held.get(released.nth), chosen.about.get(released.nth)) else {
                continue;
            };
            tombstones.add(&held.namespace, &held.digest, sweep.at, *why);
            let swept = sweep.counts.swept.entry((held.namespace.clone(), *why)).or_default();
            swept.add(released.bytes, released.gone);
        }
        Ok(())
    }
}

/// What is let go next, in one commit.
#[derive(Debug, Default)]
struct Chosen {
    held: Vec<HeldBlob>,
    /// Of each: why, its bytes, and whether nobody else sees it.
    about: Vec<(WhyGone, u64, bool)>,
    large: usize,
    rows: u64,
}

impl Chosen {
    fn is_full(&self) -> bool {
        self.rows >= SWEEP_ROWS as u64 || self.held.len() >= SWEEP_RELEASE_MAX || self.large >= SWEEP_RELEASE_LARGE_MAX
    }

    fn look(&mut self, entry: &Entry<'_>, ruled: &mut HashMap<NamespaceNo, Ruled>, counts: &mut SweepCounts) {
        let used = entry.last_used();
        let seen_by = entry.seen_by();
        let due = |number: &NamespaceNo| ruled.get(number).is_some_and(|ruled| ruled.due(used).is_some());
        let going = seen_by.iter().filter(|number| due(number)).count();
        if going == 0 {
            return;
        }
        if entry.pinned() {
            counts.spared.pinned += 1;
            return;
        }
        let bytes = entry.place.bytes();
        let alone = going == seen_by.len();
        for (nth, number) in seen_by.iter().enumerate() {
            let Some(ruled) = ruled.get_mut(number) else { continue };
            let Some(why) = ruled.due(used) else { continue };
            ruled.excess_bytes = ruled.excess_bytes.saturating_sub(bytes);
            let held = HeldBlob { namespace: ruled.namespace.clone(), digest: entry.digest(), used: used.into() };
            self.held.push(held);
            self.about.push((why, bytes, alone && nth + 1 == seen_by.len()));
        }
        self.large += usize::from(!matches!(entry.place, Place::Small { .. }));
    }
}

/// Why it is not known what live work needs; then nothing may go.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// More than can be remembered.
    #[error("live builds name more than {SWEEP_DIRECTORIES_MAX} directories")]
    TooMany,
    /// A directory cannot be read just now.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Marks what live work needs, so that a sweep that has begun lets it stay.
#[derive(Debug, Default)]
pub struct Roots {
    /// Only what this one sees is marked, and all else is absent; without it whatever is stored is marked.
    seen_by: Option<Namespace>,
    /// Directories that were read, and whether their files were marked too.
    read: HashMap<Digest, bool>,
    /// Blobs that were marked, each as often as it is named.
    marked: u64,
    absent: u64,
}

impl Roots {
    /// Marks what a namespace sees: for who is told what is absent (I12).
    #[must_use]
    pub fn seen_by(namespace: &Namespace) -> Self {
        Self { seen_by: Some(namespace.clone()), ..Self::default() }
    }

    /// Blobs that were marked, each as often as it is named.
    #[must_use]
    pub const fn marked(&self) -> u64 {
        self.marked
    }

    /// Blobs that were named and are not stored.
    #[must_use]
    pub const fn absent(&self) -> u64 {
        self.absent
    }

    /// Marks a blob.
    pub fn blob(&mut self, store: &Store, digest: &Digest) {
        self.note(store, &[*digest]);
    }

    /// Marks a tree, all of it; with `directories_only` without its files.
    ///
    /// # Errors
    /// [`RootsError`].
    pub fn tree(&mut self, store: &Store, root: &Digest, directories_only: bool) -> Result<(), RootsError> {
        let mut left = vec![*root];
        while let Some(digest) = left.pop() {
            if self.read.get(&digest).is_some_and(|whole| *whole || directories_only) {
                continue;
            }
            if self.read.insert(digest, !directories_only).is_none() && self.read.len() > SWEEP_DIRECTORIES_MAX {
                return Err(RootsError::TooMany);
            }
            if self.note(store, &[digest]) == 0 {
                continue;
            }
            let Some(directory) = store.directory(&digest)? else { continue };
            let mut files = Vec::new();
            for entry in directory.entries() {
                match &entry.node {
                    Node::Directory { digest, .. } => left.push(*digest),
                    Node::File { digest, .. } if !directories_only => files.push(*digest),
                    Node::File { .. } | Node::Symlink { .. } => {}
                }
            }
            files.sort_unstable();
            files.dedup();
            self.note(store, &files);
        }
        Ok(())
    }

    fn note(&mut self, store: &Store, digests: &[Digest]) -> usize {
        let there = match &self.seen_by {
            Some(namespace) => digests.len() - store.missing(namespace, digests).len(),
            None => store.promise(digests),
        };
        self.marked += there as u64;
        self.absent += (digests.len() - there) as u64;
        there
    }
}

impl Store {
    /// It is now, for what was used before and will be used after; to be said now and then where little is written.
    pub fn note_epoch(&self) {
        self.shared.note_time();
    }

    /// A blob of at most so many bytes, whoever sees it: for what the store's owner looks after, and for nobody else's eyes.
    ///
    /// # Errors
    /// [`Fault::Io`] where the disk fails.
    pub fn peek(&self, digest: &Digest, max_bytes: u64) -> Result<Option<Vec<u8>>, Fault> {
        let found = {
            let index = self.shared.index();
            index.get(digest).map(|entry| (entry.place, entry.pin()))
        };
        let Some((place, pin)) = found.filter(|(place, _)| place.bytes() <= max_bytes) else { return Ok(None) };
        self.shared.read(digest, place, pin)?.map(|blob| blob.into_vec()).transpose()
    }

    fn directory(&self, digest: &Digest) -> Result<Option<Directory>, Fault> {
        Ok(self.peek(digest, TREE_DIR_MAX_BYTES)?.and_then(|bytes| Directory::decode(&bytes).ok()))
    }
}
