//! What is stored, where, and who may see it; in memory, rebuilt from the segments at open.
//!
//! Only what is durable gets in here (or, in a lazy store, what was written), so that every answer given from it holds
//! after a crash. Digests are chosen by strangers: the table is keyed (std's `RandomState`).

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::account::Accounts;
use crate::chunk::FileNo;
use windlass_protocol::{Digest, Namespace};

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

/// One stored blob.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    /// Sorted.
    seen_by: Vec<NamespaceNo>,
    /// One of them is a project's trusted content.
    trusted: bool,
    /// The segment that says after the blob's own record who sees it, for good, and how many it names.
    noted: Option<(u32, usize)>,
    /// Its own record was written again, and who else sees it is said by older ones alone: a crash came between.
    unstated: bool,
    used: AtomicU64,
    /// Used since it was written, or since eviction passed by.
    pub(crate) hot: AtomicBool,
    /// Cloned by whoever needs the blob to stay.
    pub(crate) pin: Pin,
}

/// Keeps a blob from being evicted for as long as it lives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pin(Arc<()>);

impl Pin {
    /// Whether both are of the same entry: a blob that was removed and stored again has another.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether somebody else has it too.
    pub(crate) fn shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Entry {
    pub(crate) fn last_used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn pinned(&self) -> bool {
        self.pin.shared()
    }

    pub(crate) fn seen_by(&self) -> &[NamespaceNo] {
        &self.seen_by
    }

    /// The segment that says after the blob's own record who sees it, for good.
    pub(crate) fn noted(&self) -> Option<u32> {
        self.noted.map(|(segment, _)| segment)
    }

    /// Whether segments older than the blob's own record say who sees it.
    pub(crate) const fn unstated(&self) -> bool {
        self.unstated
    }

    /// Says whether it became trusted content by this.
    fn grant(&mut self, namespace: NamespaceNo, trusted: bool) -> bool {
        let fresh = trusted && !self.trusted;
        self.trusted |= trusted;
        if let Err(at) = self.seen_by.binary_search(&namespace) {
            self.seen_by.insert(at, namespace);
        }
        fresh
    }
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
            Self::Chunks { .. } => None,
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: HashMap<Digest, Entry>,
    numbers: HashMap<Namespace, NamespaceNo>,
    names: Vec<Namespace>,
    bytes: u64,
    trusted_bytes: u64,
    large_bytes: u64,
    accounts: Accounts,
    /// While segments are read: blobs that nobody sees as far as they were read, and the segment that says so. A grant may have
    /// gone with its segment, and who sees the blob is said again further on.
    unseen: Option<HashMap<Digest, u32>>,
    clock: AtomicU64,
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
        number
    }

    pub(crate) fn number(&self, namespace: &Namespace) -> Option<NamespaceNo> {
        self.numbers.get(namespace).copied()
    }

    pub(crate) fn name(&self, number: NamespaceNo) -> Option<&Namespace> {
        self.names.get(number as usize)
    }

    /// The blob, where the namespace may see it: what is its own, and for an overlay what is trusted (I12).
    pub(crate) fn visible(&self, namespace: &Namespace, digest: &Digest) -> Option<&Entry> {
        let entry = self.entries.get(digest)?;
        let seen_by = |namespace: &Namespace| {
            self.number(namespace).is_some_and(|number| entry.seen_by.binary_search(&number).is_ok())
        };
        let seen =
            seen_by(namespace) || namespace.overlay.is_some() && seen_by(&Namespace::trusted(&namespace.project));
        seen.then_some(entry)
    }

    /// The blob, whoever may see it.
    pub(crate) fn get(&self, digest: &Digest) -> Option<&Entry> {
        self.entries.get(digest)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Digest, &Entry)> {
        self.entries.iter()
    }

    /// Which namespaces have been interned, by number.
    pub(crate) fn names(&self) -> &[Namespace] {
        &self.names
    }

    /// Marks a use.
    pub(crate) fn touch(&self, entry: &Entry) {
        entry.used.store(self.tick(), Ordering::Relaxed);
        entry.hot.store(true, Ordering::Relaxed);
    }

    /// The next moment in the order of uses.
    pub(crate) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { digest, namespace, place } => self.put(digest, *namespace, *place),
            Change::Grant { digest, namespace } => {
                let trusted = self.is_trusted(*namespace);
                if let Some(entry) = self.entries.get_mut(digest).filter(|entry| !entry.seen_by.is_empty())
                    && entry.grant(*namespace, trusted)
                {
                    self.trusted_bytes += entry.place.bytes();
                }
            }
            Change::Seen { digest, seen_by, segment } => self.see(digest, seen_by, *segment),
            Change::Void { digest, segment } => {
                self.remove(digest, Some(*segment));
            }
            Change::Release { digest, namespace, segment } => self.release(digest, *namespace, *segment),
            Change::Chunks { file, segment, listing_bytes } => self.accounts.list(*file, *segment, *listing_bytes),
        }
    }

    fn is_trusted(&self, namespace: NamespaceNo) -> bool {
        self.name(namespace).is_some_and(|name| name.overlay.is_none())
    }

    /// A blob is stored, or, where it was, lies elsewhere from now on.
    fn put(&mut self, digest: &Digest, namespace: NamespaceNo, place: Place) {
        let trusted = self.is_trusted(namespace);
        let used = AtomicU64::new(self.tick());
        let tomb = self.revive(digest);
        self.accounts.place(place);
        let entry = match self.entries.entry(*digest) {
            Slot::Occupied(occupied) => {
                let entry = occupied.into_mut();
                self.accounts.displace(digest, entry.place, tomb);
                if let Some((segment, namespaces)) = entry.noted.take() {
                    self.accounts.unnote(segment, namespaces);
                }
                entry.place = place;
                entry
            }
            Slot::Vacant(vacant) => {
                self.bytes += place.bytes();
                self.large_bytes += place.large_bytes();
                let (seen_by, hot, pin) = (Vec::new(), AtomicBool::new(false), Pin::default());
                vacant.insert(Entry { place, seen_by, trusted: false, noted: None, unstated: false, used, hot, pin })
            }
        };
        if entry.grant(namespace, trusted) {
            self.trusted_bytes += entry.place.bytes();
        }
        entry.unstated = entry.seen_by != [namespace];
    }

    /// These see a blob, and nobody else.
    fn see(&mut self, digest: &Digest, seen_by: &[NamespaceNo], segment: u32) {
        let trusted = seen_by.iter().any(|number| self.is_trusted(*number));
        self.revive(digest);
        let Some(entry) = self.entries.get_mut(digest) else { return };
        if let Some((segment, namespaces)) = entry.noted.replace((segment, seen_by.len())) {
            self.accounts.unnote(segment, namespaces);
        }
        self.accounts.note(segment, seen_by.len());
        entry.unstated = false;
        entry.seen_by = seen_by.to_vec();
        if entry.trusted {
            self.trusted_bytes -= entry.place.bytes();
        }
        entry.trusted = trusted;
        if trusted {
            self.trusted_bytes += entry.place.bytes();
        }
    }

    /// Takes a blob from a namespace; the last one takes it away.
    fn release(&mut self, digest: &Digest, namespace: NamespaceNo, segment: u32) {
        let Some(entry) = self.entries.get_mut(digest) else { return };
        entry.seen_by.retain(|other| *other != namespace);
        if entry.seen_by.is_empty() && self.unseen.is_none() {
            self.remove(digest, Some(segment));
            return;
        }
        if let Some(unseen) = self.unseen.as_mut().filter(|_| entry.seen_by.is_empty()) {
            unseen.insert(*digest, segment);
        }
        let names = &self.names;
        let is_trusted = |number: &NamespaceNo| names.get(*number as usize).is_some_and(|name| name.overlay.is_none());
        if entry.trusted && !entry.seen_by.iter().any(is_trusted) {
            entry.trusted = false;
            self.trusted_bytes -= entry.place.bytes();
        }
    }

    /// Takes a blob away; `tomb` is the segment whose record says so, where one does.
    pub(crate) fn remove(&mut self, digest: &Digest, tomb: Option<u32>) -> Option<Entry> {
        self.revive(digest);
        let entry = self.entries.remove(digest)?;
        self.bytes -= entry.place.bytes();
        self.large_bytes -= entry.place.large_bytes();
        if entry.trusted {
            self.trusted_bytes -= entry.place.bytes();
        }
        self.accounts.displace(digest, entry.place, tomb);
        if let Some((segment, namespaces)) = entry.noted {
            self.accounts.unnote(segment, namespaces);
        }
        Some(entry)
    }

    /// What counts of each segment.
    pub(crate) const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    pub(crate) const fn accounts_mut(&mut self) -> &mut Accounts {
        &mut self.accounts
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
        (self.entries.len(), self.bytes, self.names.len())
    }
}
