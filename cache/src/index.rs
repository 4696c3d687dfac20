//! What is stored, where, and who may see it; in memory, rebuilt from the segments at open.
//!
//! Only what is durable gets in here (or, in a lazy store, what was written), so that every answer given from it holds
//! after a crash. Digests are chosen by strangers: the table is keyed (std's `RandomState`).

mod copied;
mod epoch;
mod pin;
mod sets;
mod table;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use windlass_protocol::{Digest, Namespace};

use crate::account::Accounts;
use crate::alias::{Aliases, Sha256Digest};
use crate::chunk::FileNo;
use crate::flat;
pub(crate) use crate::flat::Walk;
pub(crate) use copied::{Begun, Known, Loading, Part};
use epoch::Epochs;
pub(crate) use pin::Pin;
use pin::PinTable;
use sets::{SetNo, Sets};
use table::{Noted, Row, Table, Wide};
pub(crate) use table::{ROW_BYTES, WIDE_BYTES};

/// A namespace's number in this process.
pub(crate) type NamespaceNo = u32;

/// Where a blob's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a segment.
    Small { segment: u32, offset: u64, bytes: u32 },
    /// In a file of its own; `segment` holds the record that says so.
    Large { segment: u32, bytes: u64 },
    /// In chunks; its manifest is in a segment.
    Chunked { segment: u32, offset: u64, bytes: u64, manifest_bytes: u32 },
}

impl Place {
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Small { bytes, .. } => u64::from(bytes),
            Self::Large { bytes, .. } | Self::Chunked { bytes, .. } => bytes,
        }
    }

    const fn large_bytes(self) -> u64 {
        match self {
            Self::Small { .. } | Self::Chunked { .. } => 0,
            Self::Large { bytes, .. } => bytes,
        }
    }

    pub(crate) const fn segment(self) -> u32 {
        match self {
            Self::Small { segment, .. } | Self::Large { segment, .. } | Self::Chunked { segment, .. } => segment,
        }
    }
}

/// In a file of its own.
const LARGE: u32 = 1 << 31;
/// In chunks.
const CHUNKED: u32 = 1 << 30;
/// Used since it was written, or since eviction passed by.
const HOT: u32 = 1 << 29;
/// Its own record was written again, and who else sees it is said by older ones alone: a crash came between.
const UNSTATED: u32 = 1 << 28;
/// Somebody was told that it is there.
const PROMISED: u32 = 1 << 27;
/// What is left of a row's word for the number of a set.
const SET: u32 = PROMISED - 1;

/// One stored blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    index: &'a Index,
    row: &'a Row,
    pub(crate) place: Place,
}

impl<'a> Entry<'a> {
    pub(crate) const fn digest(&self) -> Digest {
        self.row.digest
    }

    pub(crate) fn last_used(&self) -> u32 {
        self.row.used.load(Ordering::Relaxed)
    }

    /// Keeps it from being evicted.
    pub(crate) fn pin(&self) -> Pin {
        self.index.pins.pin(&self.row.digest)
    }

    pub(crate) fn pinned(&self) -> bool {
        self.index.pins.pinned(&self.row.digest)
    }

    /// Whether this is its pin: one that was removed and stored again has another.
    pub(crate) fn has_pin(&self, pin: &Pin) -> bool {
        self.index.pins.is(&self.row.digest, pin)
    }

    /// Used since it was written, or since eviction passed by.
    pub(crate) fn hot(&self) -> bool {
        self.row.has(HOT)
    }

    /// Eviction passes by.
    pub(crate) fn cool(&self) -> bool {
        self.row.lower(HOT)
    }

    /// Whether somebody was told that it is there, and it was used since `cut`.
    pub(crate) fn promised(&self, cut: u32) -> bool {
        self.row.has(PROMISED) && self.last_used() >= cut
    }

    /// Nobody counts on it any more because he was told.
    pub(crate) fn lapse(&self) {
        self.row.lower(PROMISED);
    }

    /// Who sees it by itself, sorted.
    pub(crate) fn seen_by(&self) -> &'a [NamespaceNo] {
        self.index.sets.members(self.row.set.load(Ordering::Relaxed) & SET)
    }

    /// The segment that says after the blob's own record who sees it, for good.
    pub(crate) fn noted(&self) -> Option<u32> {
        self.index.noted.get(&self.row.digest).map(|noted| noted.segment)
    }

    /// Whether segments older than the blob's own record say who sees it.
    pub(crate) fn unstated(&self) -> bool {
        self.row.has(UNSTATED)
    }
}

/// Who asks: itself, and what an overlay reads beside what is its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Viewer {
    pub(crate) own: Option<NamespaceNo>,
    pub(crate) trusted: Option<NamespaceNo>,
}

/// What a namespace sees by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes, each blob once.
    pub bytes: u64,
}

/// What a durable record changes.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put { digest: Digest, namespace: NamespaceNo, place: Place },
    Grant { digest: Digest, namespace: NamespaceNo },
    Seen { digest: Digest, seen_by: Box<[NamespaceNo]>, segment: u32 },
    Void { digest: Digest, segment: u32 },
    Release { digest: Digest, namespace: NamespaceNo, segment: u32 },
    Chunks { file: FileNo, segment: u32, listing_bytes: u64 },
    Alias { digest: Digest, alias: Sha256Digest, segment: u32 },
}

impl Change {
    /// Of which blob.
    pub(crate) const fn digest(&self) -> Option<Digest> {
        match self {
            Self::Put { digest, .. }
            | Self::Grant { digest, .. }
            | Self::Seen { digest, .. }
            | Self::Void { digest, .. }
            | Self::Release { digest, .. } => Some(*digest),
            Self::Chunks { .. } | Self::Alias { .. } => None,
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Index {
    table: Table,
    sets: Sets,
    pins: PinTable,
    /// Lengths of the blobs that are not small.
    wide: flat::Table<Wide>,
    /// Blobs of which a segment says, after their own record, who sees them, for good; and how many it names.
    noted: flat::Table<Noted>,
    numbers: HashMap<Namespace, NamespaceNo>,
    names: Vec<Namespace>,
    /// By number.
    usage: Vec<Usage>,
    bytes: u64,
    trusted_bytes: u64,
    large_bytes: u64,
    accounts: Accounts,
    aliases: Aliases,
    /// While segments are read: blobs that nobody sees as far as they were read, and the segment that says so. A grant may have
    /// gone with its segment, and who sees the blob is said again further on.
    unseen: Option<HashMap<Digest, u32>>,
    clock: AtomicU32,
    epochs: Mutex<Epochs>,
}

impl Index {
    /// One that is told what segments say, until [`Self::replayed`].
    pub(crate) fn replaying() -> Self {
        Self { unseen: Some(HashMap::new()), ..Self::default() }
    }

    /// All segments were read: what nobody sees is gone.
    pub(crate) fn replayed(&mut self) {
        for (digest, tomb) in self.unseen.take().unwrap_or_default() {
            self.remove(&digest, Some(tomb));
        }
    }

    /// Whether nobody sees a blob as far as segments were read; if so, it is not so any more.
    fn revive(&mut self, digest: &Digest) -> Option<u32> {
        self.unseen.as_mut()?.remove(digest)
    }

    /// The namespace's number, which it gets here if it had none.
    pub(crate) fn intern(&mut self, namespace: &Namespace) -> NamespaceNo {
        if let Some(number) = self.numbers.get(namespace) {
            return *number;
        }
        let number = NamespaceNo::try_from(self.names.len()).unwrap_or(NamespaceNo::MAX);
        self.numbers.insert(namespace.clone(), number);
        self.names.push(namespace.clone());
        self.usage.push(Usage::default());
        number
    }

    pub(crate) fn number(&self, namespace: &Namespace) -> Option<NamespaceNo> {
        self.numbers.get(namespace).copied()
    }

    pub(crate) fn name(&self, number: NamespaceNo) -> Option<&Namespace> {
        self.names.get(number as usize)
    }

    /// Who asks, for a namespace.
    pub(crate) fn viewer(&self, namespace: &Namespace) -> Viewer {
        let trusted = namespace.overlay.as_ref().and_then(|_| self.number(&Namespace::trusted(&namespace.project)));
        Viewer { own: self.number(namespace), trusted }
    }

    /// The blob, where the namespace may see it: what is its own, and for an overlay what is trusted (I12).
    pub(crate) fn visible(&self, namespace: &Namespace, digest: &Digest) -> Option<Entry<'_>> {
        self.visible_to(self.viewer(namespace), digest)
    }

    /// The same, for who asks for many.
    pub(crate) fn visible_to(&self, viewer: Viewer, digest: &Digest) -> Option<Entry<'_>> {
        let entry = self.get(digest)?;
        let seen_by = entry.seen_by();
        let sees = |number: NamespaceNo| seen_by.binary_search(&number).is_ok();
        (viewer.own.is_some_and(sees) || viewer.trusted.is_some_and(sees)).then_some(entry)
    }

    /// The blob, whoever may see it.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Entry<'_>> {
        Some(self.entry(self.table.get(digest)?))
    }

    fn entry<'a>(&'a self, row: &'a Row) -> Entry<'a> {
        Entry { index: self, row, place: self.place(row) }
    }

    fn place(&self, row: &Row) -> Place {
        let &Row { segment, offset, bytes, ref set, .. } = row;
        let wide = || self.wide.get(&row.digest).map_or(0, |wide| wide.bytes);
        match set.load(Ordering::Relaxed) & (LARGE | CHUNKED) {
            0 => Place::Small { segment, offset: u64::from(offset), bytes },
            LARGE => Place::Large { segment, bytes: wide() },
            _ => Place::Chunked { segment, offset: u64::from(offset), bytes: wide(), manifest_bytes: bytes },
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.table.iter().map(|row| self.entry(row))
    }

    /// Which namespaces have been interned, by number.
    pub(crate) fn names(&self) -> &[Namespace] {
        &self.names
    }

    /// What a namespace sees by itself.
    pub(crate) fn usage(&self, number: NamespaceNo) -> Usage {
        self.usage.get(number as usize).copied().unwrap_or_default()
    }

    /// What all trusted namespaces see, each by itself, and what all overlays do: nothing in it says what several have alike.
    pub(crate) fn usage_by_trust(&self) -> (Usage, Usage) {
        let (mut trusted, mut overlays) = (Usage::default(), Usage::default());
        for (name, usage) in self.names.iter().zip(&self.usage) {
            let sum = if name.overlay.is_none() { &mut trusted } else { &mut overlays };
            sum.blobs = sum.blobs.saturating_add(usage.blobs);
            sum.bytes = sum.bytes.saturating_add(usage.bytes);
        }
        (trusted, overlays)
    }

    /// Shows up to `rows` blobs from where the walk stands, and goes on; `false` where none is left. What is stored
    /// meanwhile may be left out, and what is let go too; all else is shown.
    pub(crate) fn walk(&self, walk: &mut Walk, rows: usize, mut show: impl FnMut(Entry<'_>)) -> bool {
        self.table.walk(walk, rows, &mut |row| show(self.entry(row)))
    }

    fn epochs(&self) -> MutexGuard<'_, Epochs> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is `now_ms`, by a clock that never steps back.
    pub(crate) fn note_time(&self, now_ms: u64) {
        let mut epochs = self.epochs();
        epochs.note(self.clock.load(Ordering::Relaxed), now_ms);
    }

    /// Uses with lower numbers than this came before `at_ms`.
    pub(crate) fn cut(&self, at_ms: u64) -> u32 {
        self.epochs().cut(at_ms)
    }

    /// Marks a use, and that somebody was told that the blob is there.
    pub(crate) fn promise(&self, entry: Entry<'_>) {
        entry.row.raise(PROMISED);
        self.touch(entry);
    }

    /// Marks a use.
    pub(crate) fn touch(&self, entry: Entry<'_>) {
        entry.row.used.store(self.tick(), Ordering::Relaxed);
        entry.row.raise(HOT);
    }

    /// The next moment in the order of uses. The last one stays; [`Self::wind`] before that.
    pub(crate) fn tick(&self) -> u32 {
        let next = |now: u32| now.checked_add(1);
        self.clock.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or(u32::MAX)
    }

    /// Makes room for moments, where they come to an end: all that were are half as far from the first. Who compares one
    /// with what it was before sees that it changed.
    fn wind(&mut self) {
        if *self.clock.get_mut() < u32::MAX - (1 << 24) {
            return;
        }
        *self.clock.get_mut() /= 2;
        self.epochs().halve();
        for row in self.table.iter() {
            let used = row.used.load(Ordering::Relaxed);
            row.used.store(used / 2, Ordering::Relaxed);
        }
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { digest, namespace, place } => self.put(digest, *namespace, *place),
            Change::Grant { digest, namespace } => {
                let seen_by = self.get(digest).map(|entry| entry.seen_by().to_vec()).unwrap_or_default();
                if !seen_by.is_empty() {
                    self.see(digest, with(seen_by, *namespace));
                }
            }
            Change::Seen { digest, seen_by, segment } => self.note(digest, seen_by, *segment),
            Change::Void { digest, segment } => {
                self.remove(digest, Some(*segment));
            }
            Change::Release { digest, namespace, segment } => self.release(digest, *namespace, *segment),
            Change::Chunks { file, segment, listing_bytes } => self.accounts.list(*file, *segment, *listing_bytes),
            Change::Alias { digest, alias, segment } => {
                self.accounts.alias(*segment);
                self.aliases.insert(alias, *digest);
            }
        }
    }

    fn is_trusted(&self, namespaces: &[NamespaceNo]) -> bool {
        let trusted = |number: &NamespaceNo| self.name(*number).is_some_and(|name| name.overlay.is_none());
        namespaces.iter().any(trusted)
    }

    /// A blob is stored, or, where it was, lies elsewhere from now on.
    fn put(&mut self, digest: &Digest, namespace: NamespaceNo, place: Place) {
        self.wind();
        let tomb = self.revive(digest);
        self.accounts.place(place);
        let before = self.get(digest).map(|entry| (entry.place, entry.seen_by().to_vec()));
        let seen_by = with(before.as_ref().map(|(_, seen_by)| seen_by.clone()).unwrap_or_default(), namespace);
        match before {
            Some((before, _)) => {
                self.accounts.displace(digest, before, tomb);
                self.unnote(digest);
                (self.large_bytes, self.bytes) = (self.large_bytes - before.large_bytes(), self.bytes - before.bytes());
            }
            None => {
                let (set, used) = (AtomicU32::new(self.sets.hold(&[])), AtomicU32::new(self.tick()));
                self.table.insert(Row { digest: *digest, segment: 0, offset: 0, bytes: 0, set, used });
            }
        }
        (self.large_bytes, self.bytes) = (self.large_bytes + place.large_bytes(), self.bytes + place.bytes());
        let (offset, bytes, kind) = match place {
            Place::Small { offset, bytes, .. } => (offset, bytes, 0),
            Place::Large { .. } => (0, 0, LARGE),
            Place::Chunked { offset, manifest_bytes, .. } => (offset, manifest_bytes, CHUNKED),
        };
        self.wide.remove(digest);
        if kind != 0 {
            self.wide.insert(Wide { digest: *digest, bytes: place.bytes() });
        }
        let unstated = if seen_by == [namespace] { 0 } else { UNSTATED };
        if let Some(row) = self.table.get_mut(digest) {
            // No segment is that long.
            (row.segment, row.offset, row.bytes) = (place.segment(), u32::try_from(offset).unwrap_or(u32::MAX), bytes);
            let set = row.set.get_mut();
            *set = *set & (SET | HOT | PROMISED) | kind | unstated;
        }
        self.see(digest, seen_by);
    }

    /// These see a blob, and nobody else; and no older segment needs to say so.
    fn note(&mut self, digest: &Digest, seen_by: &[NamespaceNo], segment: u32) {
        self.revive(digest);
        let Some(row) = self.table.get_mut(digest) else { return };
        row.lower(UNSTATED);
        self.unnote(digest);
        let namespaces = u32::try_from(seen_by.len()).unwrap_or(u32::MAX);
        self.accounts.note(segment, namespaces);
        self.noted.insert(Noted { digest: *digest, segment, namespaces });
        self.see(digest, seen_by.to_vec());
    }

    fn unnote(&mut self, digest: &Digest) {
        if let Some(Noted { segment, namespaces, .. }) = self.noted.remove(digest) {
            self.accounts.unnote(segment, namespaces);
        }
    }

    /// These see a blob, sorted.
    fn see(&mut self, digest: &Digest, seen_by: Vec<NamespaceNo>) {
        let Some(row) = self.table.get(digest) else { return };
        let (bytes, before) = (self.place(row).bytes(), row.set.load(Ordering::Relaxed) & SET);
        let set = self.sets.hold(&seen_by);
        if let Some(row) = self.table.get_mut(digest) {
            let word = row.set.get_mut();
            *word = *word & !SET | set & SET;
        }
        self.count(&seen_by, bytes, true);
        self.uncount(before, bytes);
    }

    /// A blob has this set no more.
    fn uncount(&mut self, set: SetNo, bytes: u64) {
        let seen_by = self.sets.members(set).to_vec();
        self.count(&seen_by, bytes, false);
        self.sets.release(set);
    }

    fn count(&mut self, seen_by: &[NamespaceNo], bytes: u64, more: bool) {
        let (blobs, step) = if more { (1, bytes) } else { (u64::MAX, bytes.wrapping_neg()) };
        if self.is_trusted(seen_by) {
            self.trusted_bytes = self.trusted_bytes.wrapping_add(step);
        }
        for number in seen_by {
            if let Some(usage) = self.usage.get_mut(*number as usize) {
                (usage.blobs, usage.bytes) = (usage.blobs.wrapping_add(blobs), usage.bytes.wrapping_add(step));
            }
        }
    }

    /// Takes a blob from a namespace; the last one takes it away.
    fn release(&mut self, digest: &Digest, namespace: NamespaceNo, segment: u32) {
        let Some(entry) = self.get(digest) else { return };
        let mut seen_by = entry.seen_by().to_vec();
        seen_by.retain(|other| *other != namespace);
        if seen_by.is_empty() {
            match &mut self.unseen {
                Some(unseen) => unseen.insert(*digest, segment),
                None => return drop(self.remove(digest, Some(segment))),
            };
        }
        self.see(digest, seen_by);
    }

    /// Takes a blob away; `tomb` is the segment whose record says so, where one does. Answers where it lay, and its pin.
    pub(crate) fn remove(&mut self, digest: &Digest, tomb: Option<u32>) -> Option<(Place, Pin)> {
        self.revive(digest);
        let place = self.place(self.table.get(digest)?);
        let row = self.table.remove(digest)?;
        self.uncount(row.set.into_inner() & SET, place.bytes());
        self.bytes -= place.bytes();
        self.large_bytes -= place.large_bytes();
        self.wide.remove(digest);
        self.accounts.displace(digest, place, tomb);
        self.unnote(digest);
        Some((place, self.pins.take(digest)))
    }

    /// Blobs by their SHA-256, those among them that are gone.
    pub(crate) const fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    pub(crate) const fn aliases_mut(&mut self) -> &mut Aliases {
        &mut self.aliases
    }

    /// What counts of each segment.
    pub(crate) const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    pub(crate) const fn accounts_mut(&mut self) -> &mut Accounts {
        &mut self.accounts
    }

    /// Bytes of blobs that are not small.
    pub(crate) fn wide_bytes(&self) -> u64 {
        self.wide.iter().map(|wide| wide.bytes).sum()
    }

    /// Bytes of blobs that have files of their own.
    pub(crate) const fn large_bytes(&self) -> u64 {
        self.large_bytes
    }

    /// Bytes of blobs that are trusted content.
    pub(crate) const fn trusted_bytes(&self) -> u64 {
        self.trusted_bytes
    }

    /// How many blobs, how many bytes of them, and how many namespaces.
    pub(crate) fn totals(&self) -> (usize, u64, usize) {
        (self.table.len(), self.bytes, self.names.len())
    }
}

/// One more, in its place.
fn with(mut namespaces: Vec<NamespaceNo>, namespace: NamespaceNo) -> Vec<NamespaceNo> {
    if let Err(at) = namespaces.binary_search(&namespace) {
        namespaces.insert(at, namespace);
    }
    namespaces
}
